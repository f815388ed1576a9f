"""Columns of objects that stand for numbers or dates."""

import datetime
import decimal
import pickle
from inspect import signature
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from skvae import VAE
from skvae._table import TableCodec
from skvae._table._objects import ObjectForm

N = 300


@pytest.fixture(scope="module")
def visits():
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2023-01-01") + pd.to_timedelta(rng.integers(0, 700, N), "D")
    end = start + pd.to_timedelta(rng.integers(1, 20, N), "D")
    net = np.exp(rng.normal(3, 1, N)).round(2)
    return pd.DataFrame(
        {
            "start": start.date,
            "end": end.date,
            "month": start.to_period("M"),
            "net": [decimal.Decimal(f"{value:.2f}") for value in net],
            "gross": [decimal.Decimal(f"{1.1 * value:.2f}") for value in net],
            "ward": rng.choice(["a", "b"], N),
        }
    )


@pytest.fixture(scope="module")
def model(visits):
    return VAE(max_iter=2, random_state=0).fit(visits)


def test_objects_come_back_as_they_were(visits, model):
    rows = model.sample(200, random_state=0)
    assert list(rows.dtypes) == list(visits.dtypes)
    assert {type(v) for v in rows["start"]} == {datetime.date}
    assert {type(v) for v in rows["net"]} == {decimal.Decimal}
    assert {v.as_tuple().exponent for v in rows["net"]} == {-2}
    assert (rows["end"] >= rows["start"]).all()


def test_objects_are_numbers_and_dates_to_the_model(visits, model):
    rows = model.sample(200, random_state=0)
    both = rows[["net", "gross"]].astype(float)
    assert both.corr(method="spearman").iloc[0, 1] > 0.9
    kinds = [column.kind for column in model._columns.codec.columns]
    assert kinds == ["time", "time", "time", "numeric", "numeric", "category"]


def test_missing_objects(visits):
    frame = visits.copy()
    frame.loc[::9, ["end", "month", "net"]] = None
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = model.sample(200, random_state=0)
    assert 0 < rows["net"].isna().mean() < 0.4
    filled = model.impute(frame, random_state=0)
    assert filled.notna().all().all()
    assert {type(v) for v in filled["end"]} == {datetime.date}
    pd.testing.assert_frame_equal(filled[1:9], visits[1:9])


@pytest.mark.parametrize("name", ["start", "month", "net"])
def test_objects_may_be_asked_for(visits, model, name):
    value = visits[name][7]
    rows = model.sample(5, given={name: value}, random_state=0)
    assert (rows[name] == value).all()


def test_state_keeps_the_form(visits):
    codec = TableCodec().fit(visits)
    again = TableCodec.from_state(codec.get_state())
    codes = codec.encode(visits)
    pd.testing.assert_frame_equal(
        *(c.decode(codes, np.random.default_rng(0)) for c in (codec, again))
    )


def test_declared_objects_are_categories(visits):
    codec = TableCodec(categorical_features=["net", "month"]).fit(visits)
    assert [codec.columns[j].kind for j in (2, 3)] == ["category", "category"]


@pytest.mark.parametrize(
    ("name", "value"), [("start", "soon"), ("net", "much"), ("month", "soon")]
)
def test_other_objects_are_refused(visits, model, name, value):
    with pytest.raises(ValueError, match=f"'{name}' held objects of the kind"):
        model.transform(visits.assign(**{name: value}))


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, True],
        ["a", "b"],
        [decimal.Decimal("1"), 2.0],
        [datetime.date(2020, 1, 1), "later"],
        [datetime.datetime(2020, 1, 1), datetime.date(2020, 1, 1)],
        [None, None],
    ],
)
def test_other_columns_have_no_form(values):
    assert ObjectForm.of(pd.Series(values, dtype=object)) is None


def test_infinite_objects_are_refused(visits):
    frame = visits.assign(net=[decimal.Decimal("Infinity"), *visits["net"][1:]])
    with pytest.raises(ValueError, match="'net' contains infinity"):
        VAE(max_iter=1, random_state=0).fit(frame)


@pytest.mark.parametrize("storage", ["python", "pyarrow"])
@pytest.mark.parametrize("kind", ["str", "string"])
def test_text_comes_back_as_it_was_stored(kind, storage):
    if kind == "str" and "na_value" not in signature(pd.StringDtype).parameters:
        pytest.skip("text with NaN came with pandas 2.3")
    missing = {"na_value": np.nan} if kind == "str" else {}
    dtype = pd.StringDtype(storage, **missing)
    text = pd.Series(["a", "b", None, "a"] * 20, dtype=dtype)
    frame = pd.DataFrame({"text": text, "level": text.astype("category")})
    model = VAE(1, max_iter=1, random_state=0).fit(frame)
    for made in (model, pickle.loads(pickle.dumps(model))):
        rows = made.sample(5, random_state=0)
        assert rows["text"].dtype == dtype
        assert rows["text"].dtype.storage == storage
        assert rows["level"].cat.categories.dtype.storage == storage


def _of_driver():
    """Return columns as database drivers give them: plain objects, and None."""
    rng = np.random.default_rng(0)
    minutes = rng.integers(0, 500_000, N)
    first, rome = datetime.datetime(2024, 1, 1), ZoneInfo("Europe/Rome")
    moments = [first + datetime.timedelta(minutes=int(m)) for m in minutes]
    return {
        "float": np.exp(rng.normal(3, 1, N)).round(2).tolist(),
        "int": rng.integers(0, 1000, N).tolist(),
        "datetime": moments,
        "Timestamp": [pd.Timestamp(moment) for moment in moments],
        "zoned": [moment.replace(tzinfo=rome) for moment in moments],
        "timedelta": [datetime.timedelta(minutes=int(m)) for m in minutes],
        "Timedelta": [pd.Timedelta(minutes=int(m)) for m in minutes],
        "time": [moment.time() for moment in moments],
    }


@pytest.mark.parametrize("name", list(_of_driver()))
@pytest.mark.parametrize("gaps", [False, True])
def test_columns_of_a_database_driver(name, gaps):
    column = pd.Series(_of_driver()[name], dtype=object)
    kind, asked = type(column[0]), column[3]
    if gaps:
        column = column.where(np.arange(N) % 7 > 0, None)
    frame = pd.DataFrame({"x": column, "g": ["u", "v"] * (N // 2)})
    model = VAE(max_iter=2, random_state=0).fit(frame[:200])
    rows = model.sample(100, random_state=0)
    assert rows["x"].dtype == object
    assert {type(value) for value in rows["x"].dropna()} == {kind}
    assert rows["x"].isna().any() == gaps
    assert len(model.transform(frame[200:])) == 100
    cell = model.sample(1, given={"x": asked}, random_state=0)["x"][0]
    assert cell == asked
    batch = frame[:50].assign(x=frame["x"].where(np.arange(N) % 3 > 0, None))
    filled = model.impute(batch)["x"]
    assert {type(value) for value in filled} == {kind}


def test_polars_times_are_durations():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"x": _of_driver()["time"], "g": ["u", "v"] * (N // 2)})
    model = VAE(max_iter=2, random_state=0).fit(frame[:200])
    assert len(model.transform(frame[200:])) == 100
    assert model.sample(20, random_state=0).schema == frame.schema


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("float", "1.5"),
        ("int", datetime.datetime(2024, 1, 1)),
        ("datetime", 5),
        ("timedelta", datetime.time(1)),
        ("time", datetime.timedelta(hours=1)),
    ],
)
def test_objects_of_another_kind_than_in_training_are_refused(name, other):
    column = pd.Series(_of_driver()[name], dtype=object)
    codec = TableCodec().fit(pd.DataFrame({"x": column}))
    with pytest.raises(ValueError, match="held objects of the kind"):
        codec.encode(pd.DataFrame({"x": pd.Series([other], dtype=object)}))


def test_naive_moments_are_no_zoned_ones():
    moments = _of_driver()
    codec = TableCodec().fit(pd.DataFrame({"x": moments["zoned"]}, dtype=object))
    late = pd.DataFrame({"x": moments["datetime"]}, dtype=object)
    with pytest.raises(ValueError, match="held dates with a time zone"):
        codec.encode(late)


@pytest.mark.parametrize("cell", [[1], {"a": 1}, {1}, np.arange(2)])
def test_cells_that_hold_several_values_are_refused_by_name(cell):
    nested = pd.Series([cell] * 40, dtype=object)
    message = f"Column 'x' holds {type(cell).__name__} objects"
    with pytest.raises(TypeError, match=message):
        TableCodec().fit(pd.DataFrame({"x": nested}))
    codec = TableCodec().fit(pd.DataFrame({"x": ["u", "v"] * 20}))
    with pytest.raises(TypeError, match=message):
        codec.encode(pd.DataFrame({"x": nested}))


def test_lists_of_pyarrow_are_refused_by_name():
    pa = pytest.importorskip("pyarrow")
    kind = pd.ArrowDtype(pa.list_(pa.int64()))
    with pytest.raises(TypeError, match="Column 'x' holds list objects"):
        TableCodec().fit(pd.DataFrame({"x": pd.Series([[1]] * 40, dtype=kind)}))
