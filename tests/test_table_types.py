"""Column types of tables: what comes in comes back, whatever unit or library."""

import decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

from skvae import VAE

N = 120


@pytest.fixture(scope="module")
def numbers():
    return np.random.default_rng(0).normal(size=N).round(2)


@pytest.fixture(scope="module")
def moments():
    seconds = np.random.default_rng(0).integers(0, 10**7, N)
    start = pd.Timestamp("2024-01-01")
    return pd.Series(start + pd.to_timedelta(seconds, unit="s")).astype(
        "datetime64[ns]"
    )


@pytest.fixture(scope="module")
def model(moments, numbers):
    frame = pd.DataFrame({"t": moments, "x": numbers})
    return VAE(max_iter=2, random_state=0).fit(frame), frame


def _columns(pa, numbers, moments):
    letters = pd.Series(np.where(numbers > 0, "a", "b"))
    decimals = pd.Series([decimal.Decimal(str(v)) for v in numbers])
    rome = moments.dt.tz_localize("UTC").dt.tz_convert("Europe/Rome")
    return {
        "string": (letters, pa.string()),
        "large string": (letters, pa.large_string()),
        "dictionary": (letters, pa.dictionary(pa.int32(), pa.string())),
        "decimal": (decimals, pa.decimal128(10, 2)),
        "bool": (pd.Series(numbers > 0), pa.bool_()),
        "int8": (pd.Series(numbers * 10).astype("int8"), pa.int8()),
        "timestamp": (moments, pa.timestamp("us")),
        "zone": (rome, pa.timestamp("ns", "Europe/Rome")),
        "date": (moments.dt.normalize(), pa.date32()),
        "duration": (moments - moments[0], pa.duration("ns")),
        "time": (moments.dt.time, pa.time64("us")),
    }


TYPES = "string,large string,dictionary,decimal,bool,int8,timestamp,zone,date,"


@pytest.mark.parametrize("name", (TYPES + "duration,time").split(","))
@pytest.mark.parametrize("gaps", [False, True])
def test_pyarrow_types_come_back(name, gaps, numbers, moments):
    pa = pytest.importorskip("pyarrow")
    values, kind = _columns(pa, numbers, moments)[name]
    column = pd.Series(pa.array(values, from_pandas=True).cast(kind)).astype(
        pd.ArrowDtype(kind)
    )
    if gaps:
        column[:30] = None
    frame = pd.DataFrame({"kind": ["u", "v"] * (N // 2), "c": column})
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = model.sample(200, random_state=0)
    assert rows["c"].dtype == frame["c"].dtype
    assert rows["c"].isna().any() == gaps
    known = column.dropna().astype(object)
    drawn = rows["c"].dropna().astype(object)
    assert min(known) <= min(drawn) <= max(drawn) <= max(known)
    filled = model.impute(frame, random_state=0)
    assert filled["c"].dtype == frame["c"].dtype
    assert filled["c"].notna().all()


def test_polars_types_come_back(numbers, moments):
    pl = pytest.importorskip("polars")
    zoned = pl.Series(moments.to_list()).dt.replace_time_zone("UTC")
    frame = pl.DataFrame(
        {
            "date": pl.Series(moments.dt.date.to_list()),
            "zoned": zoned.dt.convert_time_zone("Europe/Rome"),
            "duration": pl.Series((moments - moments[0]).to_list()),
            "decimal": [decimal.Decimal(str(v)) for v in numbers],
            "small": pl.Series((numbers * 10).astype(np.int8)),
        }
    )
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = model.sample(50, random_state=0)
    assert rows.schema == frame.schema
    for name in frame.columns:
        assert rows[name].is_between(frame[name].min(), frame[name].max()).all()
    assert model.reconstruct(frame).schema == frame.schema


@pytest.mark.parametrize(
    "kind", ["datetime64[s]", "datetime64[us]", "timestamp[ms][pyarrow]"]
)
def test_dates_mean_the_same_in_every_unit(kind, model):
    if "pyarrow" in kind:
        pytest.importorskip("pyarrow")
    vae, frame = model
    other = frame.astype({"t": kind})
    np.testing.assert_array_equal(vae.transform(other), vae.transform(frame))
    assert vae.score(other) == vae.score(frame)


@pytest.mark.parametrize(
    ("change", "held"),
    [
        (lambda t: t.dt.tz_localize("UTC"), "held dates without a time zone in"),
        (lambda t: t - t[0], "held dates in"),
        (lambda t: t.astype(str), "held dates in"),
    ],
)
def test_other_kinds_of_time_are_refused(change, held, model):
    vae, frame = model
    with pytest.raises(ValueError, match=f"'t' {held} training, and has type"):
        vae.transform(frame.assign(t=change(frame["t"])))


def test_zoned_dates_want_a_zone_of_any_name(moments, numbers):
    zoned = moments.dt.tz_localize("UTC")
    frame = pd.DataFrame({"t": zoned, "x": numbers})
    vae = VAE(max_iter=2, random_state=0).fit(frame)
    there = frame.assign(t=zoned.dt.tz_convert("Asia/Tokyo"))
    np.testing.assert_array_equal(vae.transform(there), vae.transform(frame))
    with pytest.raises(ValueError, match="held dates with a time zone in training"):
        vae.transform(frame.assign(t=moments))


@pytest.mark.parametrize("gap", [None, np.nan, pd.NaT])
def test_a_column_of_dates_may_be_missing_altogether(gap, model):
    vae, frame = model
    some = frame[:20].assign(t=gap)
    filled = vae.impute(some, random_state=0)
    assert filled["t"].dtype == frame["t"].dtype
    assert filled["t"].between(frame["t"].min(), frame["t"].max()).all()


def test_a_polars_column_may_be_missing_altogether(model):
    pl = pytest.importorskip("polars")
    frame = pl.from_pandas(model[1])
    vae = VAE(max_iter=2, random_state=0).fit(frame)
    some = frame.head(20).with_columns(t=pl.lit(None), x=pl.lit(None))
    assert vae.impute(some, random_state=0).schema == frame.schema


BATCHES = {
    "fewer levels": (
        "level",
        lambda c: c.where(c == "a").cat.remove_unused_categories(),
    ),
    "ordered": ("level", lambda c: c.astype("category").cat.as_ordered()),
    "nullable integers": ("rate", lambda c: c.round().astype("Int64")),
    "floats": ("count", lambda c: c.astype(float)),
    "small integers": ("count", lambda c: (c % 100).astype("Int8")),
    "booleans": ("flag", lambda c: c.astype("boolean")),
    "floats for decimals": ("price", lambda c: c.astype(float)),
    "dates for days": ("day", pd.to_datetime),
}


@pytest.fixture(scope="module")
def filler(numbers, moments):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "level": pd.Categorical(rng.choice(["a", "b", "c"], N, p=[0.1, 0.3, 0.6])),
            "rate": numbers,
            "count": rng.integers(0, 1000, N),
            "flag": rng.integers(0, 2, N),
            "price": [decimal.Decimal(f"{v:.2f}") for v in numbers],
            "day": moments.dt.date,
        }
    )
    return VAE(max_iter=2, random_state=0).fit(frame), frame


@pytest.mark.parametrize("kind", BATCHES)
def test_gaps_of_a_batch_of_another_type_are_filled(kind, filler):
    model, frame = filler
    name, change = BATCHES[kind]
    gaps = np.arange(N) % 5 == 0
    batch = frame.assign(**{name: change(frame[name])})
    batch[name] = batch[name].mask(gaps)
    filled = model.impute(batch)[name]
    assert not filled.isna().any()
    assert len({type(value) for value in filled.tolist()}) == 1
    known = batch[name].notna()
    assert filled[known].tolist() == batch[name][known].tolist()


def test_gaps_of_a_polars_batch_of_another_type_are_filled(filler):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(filler[1][["rate", "count"]].to_dict("list"))
    frame = frame.with_columns(level=pl.Series(filler[1]["level"].tolist()))
    kind = pl.Enum(["a", "b", "c"])
    model = VAE(max_iter=2, random_state=0).fit(
        frame.with_columns(pl.col("level").cast(kind))
    )
    batch = frame.with_columns(
        pl.col("rate").round().cast(pl.Int64),
        (pl.col("count") % 100).cast(pl.Int8),
        pl.when(pl.col("level") == "a")
        .then(pl.lit("a"))
        .cast(pl.Enum(["a"]))
        .alias("level"),
    )
    gaps = pl.int_range(pl.len()) % 5 == 0
    batch = batch.with_columns(pl.when(~gaps).then(pl.all()))
    filled = model.impute(batch)
    assert filled.null_count().sum_horizontal().item() == 0
    assert filled.schema["rate"] == pl.Float64
    assert filled.schema["level"] == kind
    for name in batch.columns:
        known = batch[name].is_not_null()
        assert (
            filled[name].filter(known).to_list() == batch[name].drop_nulls().to_list()
        )


def test_complete_rows_to_impute_are_checked_too(model):
    fitted, frame = model
    late = frame.assign(t=frame["t"].astype(str).mask(np.arange(N) % 5 == 0))
    with pytest.raises(ValueError, match="held dates in training"):
        fitted.impute(late)


def test_polars_dates_keep_their_time_zone():
    pl = pytest.importorskip("polars")
    hours = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(
        np.random.default_rng(0).integers(0, 6000, 300), unit="h"
    )
    frame = pl.DataFrame({"t": hours.to_list()}).with_columns(
        pl.col("t").dt.convert_time_zone("America/New_York")
    )
    frame = frame.with_columns(hour=pl.col("t").dt.hour())
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = model.sample(100, random_state=0)
    assert (rows["t"].dt.hour() == rows["hour"]).all()
    aware = frame["t"][0]
    for asked in ("2024-03-05 10:00", aware, aware.replace(tzinfo=None)):
        cell = model.sample(1, given={"t": asked}, random_state=0)["t"][0]
        assert cell.replace(tzinfo=None) == pd.Timestamp(asked).tz_localize(None)
    gaps = pl.int_range(pl.len()) % 3 == 0
    filled = model.impute(frame.with_columns(pl.when(~gaps).then("t").alias("t")))
    assert filled.schema == frame.schema
    assert (filled["t"].dt.hour() == frame["hour"]).all()
    with pytest.raises(ValueError, match="with a time zone"):
        model.transform(frame.with_columns(pl.col("t").dt.replace_time_zone(None)))


LONG = 1_700_000_000_000_000_001
KEYS = {
    "int64": lambda keys: pd.Series(keys),
    "uint64": lambda keys: pd.Series(keys.astype("uint64") + np.uint64(2**62)),
    "Int64": lambda keys: pd.Series(keys).astype("Int64").mask(np.arange(N) % 9 == 0),
    "object": lambda keys: pd.Series(keys.tolist(), dtype=object),
    "neighbours": lambda keys: pd.Series(2**53 + keys % 6),
    "decimal": lambda keys: pd.Series([decimal.Decimal(k) for k in keys.tolist()]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_long_keys_stay_what_they_are(kind, numbers):
    some = LONG + np.random.default_rng(0).integers(0, 10**12, 20)
    keys = KEYS[kind](some[np.arange(N) % 20])
    frame = pd.DataFrame({"key": keys, "x": numbers})
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = model.sample(100, random_state=0)
    assert rows["key"].dtype == frame["key"].dtype
    seen = set(keys.dropna())
    assert set(rows["key"].dropna()) <= seen
    assert model.sample(1, given={"key": keys[1]}, random_state=0)["key"][0] == keys[1]
    with pytest.raises(ValueError, match="Found unknown categories in column 'key'"):
        model.transform(frame[1:4].assign(key=keys[1:4] + 10**13))


def test_long_keys_are_filled_exactly(numbers):
    keys = pd.Series(LONG + np.arange(N) // 10)
    frame = pd.DataFrame({"key": keys, "x": numbers})
    model = VAE(max_iter=2, random_state=0).fit(frame)
    gaps = np.arange(N) % 4 == 0
    filled = model.impute(frame.assign(key=keys.astype("Int64").mask(gaps)))["key"]
    assert filled[~gaps].tolist() == keys[~gaps].tolist()
    assert set(filled) <= set(keys)
    with pytest.raises(ValueError, match="Found unknown categories in column 'key'"):
        model.impute(frame.assign(key=keys.mask(gaps)))  # Floats, and other keys.


def test_long_keys_of_polars(numbers):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"key": (LONG + np.arange(N) // 10).tolist(), "x": numbers})
    model = VAE(max_iter=2, random_state=0).fit(frame)
    gaps = pl.int_range(pl.len()) % 4 == 0
    batch = frame.with_columns(pl.when(~gaps).then("key").alias("key"))
    for rows in (model.sample(100, random_state=0), model.impute(batch)):
        assert rows.schema == frame.schema
        assert set(rows["key"]) <= set(frame["key"])


def test_large_numbers_that_floats_hold_are_numbers(numbers):
    nanoseconds = (1_700_000_000 + np.arange(N)) * 10**9
    model = VAE(max_iter=2, random_state=0).fit(
        pd.DataFrame({"t": nanoseconds, "x": numbers})
    )
    assert model._columns.codec.columns[0].kind == "numeric"


@pytest.mark.parametrize("what", ["zeros", "gaps", "text beside"])
def test_sparse_columns_of_pandas_come_back_dense(kind, what):
    rng = np.random.default_rng(0)
    whole = pd.DataFrame(rng.poisson(0.5, size=(60, 3)) * 0.5, columns=list("abc"))
    if what == "gaps":
        whole = whole.mask(rng.random(whole.shape) < 0.1)
    sparse = whole.astype({"a": pd.SparseDtype(float, 0.0)})
    sparse = sparse.astype({"b": pd.SparseDtype(float, whole.iloc[0, 1])})
    sparse = sparse.astype({"c": pd.SparseDtype(float, 0.0)})
    if what == "text beside":
        whole["d"] = sparse["d"] = rng.choice(["u", "v"], 60)
    labels = rng.integers(0, 2, 60)
    model = kind(2, max_iter=1, random_state=0).fit(sparse, labels)
    twin = kind(2, max_iter=1, random_state=0).fit(whole, labels)
    np.testing.assert_array_equal(model.transform(sparse), twin.transform(whole))
    drawn = [m.sample(3, random_state=0) for m in (model, twin)]
    if isinstance(drawn[0], tuple):
        drawn = [rows for rows, _ in drawn]
    pd.testing.assert_frame_equal(*drawn)
    pd.testing.assert_frame_equal(model.impute(sparse), twin.impute(whole))
    pd.testing.assert_frame_equal(model.reconstruct(sparse), twin.reconstruct(whole))


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson"])
@pytest.mark.parametrize("cells", [["u", "v"], pd.to_datetime(["2024", "2025"])])
def test_a_likelihood_of_numbers_names_columns_of_something_else(likelihood, cells):
    frame = pd.DataFrame({"a": [0.0, 1.0] * 30, "b": list(cells) * 30})
    model = VAE(2, likelihood=likelihood, max_iter=1, random_state=0)
    message = rf"likelihood='{likelihood}' needs columns of numbers.*: 'b'. Use likelih"
    with pytest.raises(ValueError, match=message):
        model.fit(frame)
    model.fit(frame.assign(b=1.0 - frame["a"]))
    with pytest.raises(ValueError, match=r"was fitted on columns of numbers.*: 'b'"):
        model.transform(frame)


def test_lazy_frames_are_refused_with_the_remedy(kind):
    X = np.random.default_rng(0).normal(size=(60, 1)) * [1.0, 2.0, -1.0]
    lazy = pl.LazyFrame(X, schema=["a", "b", "c"])
    model = kind(2, max_iter=1, random_state=0)
    with pytest.raises(TypeError, match=r"polars LazyFrame.*'\.collect\(\)'"):
        model.fit(lazy, [0, 1] * 30)
    model.fit(lazy.collect(), [0, 1] * 30)
    with pytest.raises(TypeError, match=r"polars LazyFrame.*'\.collect\(\)'"):
        model.score(lazy)
