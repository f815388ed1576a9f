"""Metrics read the columns of tables as the estimators do."""

import decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp

from skvae import metrics


def numbers(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"x": rng.normal(size=n), "k": rng.integers(0, 3, n)})


# -- which columns are categories ------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        [False, True],
        np.array([False, True]),
        pd.Series([False, True]),
        [1],
        np.array([1]),
        np.array(["k"]),
        "k",
    ],
)
def test_categories_are_names_positions_or_a_mask(chosen):
    real, fake = numbers(), numbers(seed=1).assign(k=7)
    expected = metrics.shape_errors(real, fake, categorical_features=["k"])
    assert metrics.shape_errors(real, fake, categorical_features=chosen) == expected
    assert expected["x"] == metrics.shape_errors(real, fake)["x"]


def test_declared_numbers_are_categories():
    real, fake = np.array([[1.0], [2.0], [3.0]]), np.array([[3.0], [2.0], [2.0]])
    assert metrics.shape_error(real, fake) == pytest.approx(1 / 3)
    swapped = np.array([[1.0], [3.0], [3.0]])
    # Counts of the levels 1, 2, 3 move from (1, 1, 1) to (1, 0, 2).
    error = metrics.shape_error(real, swapped, categorical_features=[0])
    assert error == pytest.approx(1 / 3)
    labels = pd.DataFrame({"a": [1, 2, 9]}), pd.DataFrame({"a": [1, 2, 4]})
    error = metrics.shape_error(*labels, categorical_features=["a"])
    assert error == pytest.approx(1 / 3)


def test_categories_from_the_dtype_are_the_default():
    real, fake = numbers(), numbers(seed=1)
    default = metrics.shape_errors(real, fake)
    assert default == metrics.shape_errors(
        real, fake, categorical_features="from_dtype"
    )


def test_integers_are_positions_whatever_the_names():
    real, fake = (numbers(seed=s).set_axis([1, 0], axis=1) for s in (0, 1))
    errors = metrics.shape_errors(real, fake, categorical_features=[1])
    assert errors[1] == metrics.shape_errors(real, fake)[1]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([-1], r"unknown columns \[-1\].*positions from 0 to 1"),
        ([2], r"unknown columns \[2\]"),
        (["k", True], r"unknown columns \[True\]"),
        ([True], "1 entries as a mask, but X has 2 columns"),
    ],
)
def test_categories_that_are_no_columns_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        metrics.shape_errors(numbers(), numbers(), categorical_features=chosen)


@pytest.mark.parametrize("target", [True, np.True_, -1])
def test_a_target_that_is_no_column_is_refused(target):
    with pytest.raises(ValueError, match="is not a column"):
        metrics.utility_score(numbers(), numbers(), numbers(), target, random_state=0)


# -- one content, stored in several ways -----------------------------------------------


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "int32"])
def test_numeric_types_do_not_matter(dtype):
    real = pd.DataFrame({"a": [1, 2, 3, 4]})
    fake = pd.DataFrame({"a": [1, 2, 3, 5]}).astype(dtype)
    assert metrics.shape_error(real, fake) == 0.25


def test_dates_are_compared_as_numbers():
    days = pd.date_range("2020-01-01", periods=4)
    real = pd.DataFrame({"day": days})
    fake = pd.DataFrame({"day": days.shift(2)})
    assert metrics.shape_error(real, fake) == 0.5
    fake.loc[0, "day"] = pd.NaT
    # Three of four real days, and no synthetic one, come up to the third.
    assert metrics.shape_error(real, fake) == 0.75


@pytest.mark.parametrize("form", ["text", "date", "period", "decimal", "zone"])
def test_objects_and_text_that_stand_for_numbers_are_compared_as_such(form):
    rng = np.random.default_rng(0)
    days = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(range(400), "D"))
    plain = pd.DataFrame({"day": days[rng.permutation(400)]}, dtype="datetime64[us]")
    if form == "decimal":
        plain = pd.DataFrame({"day": rng.integers(0, 10_000, 400) / 100})
    write = {
        "text": lambda d: d.dt.strftime("%d.%m.%Y"),
        "date": lambda d: d.dt.date,
        "period": lambda d: d.dt.to_period("D"),
        "decimal": lambda d: d.map(lambda v: decimal.Decimal(f"{v:.2f}")),
        "zone": lambda d: d.dt.tz_localize("UTC"),
    }[form]
    written = plain.apply(write)
    for head in (200, 5):
        expected = metrics.shape_error(plain[200:], plain[:head])
        assert metrics.shape_error(written[200:], written[:head]) == expected
        if form != "zone":
            # The first table says how the cells of the second are read.
            assert metrics.shape_error(written[200:], plain[:head]) == expected
    as_levels = metrics.shape_error(
        written[200:], written[:200], categorical_features=["day"]
    )
    assert form == "zone" or as_levels > 0.9


def test_text_that_is_no_date_among_dates_is_an_error():
    days = pd.Series(pd.date_range("2024-01-01", periods=50)).dt.strftime("%Y-%m-%d")
    with pytest.raises(ValueError, match="held dates like '2024-01-01'"):
        metrics.shape_error(days.to_frame("day"), pd.DataFrame({"day": ["soon"]}))


DAYS = pd.Series(pd.date_range("2024-01-01", periods=10))
ZONED = DAYS.dt.tz_localize("Europe/Berlin")
FLAGS = pd.Series([0, 1, 1, 0])
HALVES = pd.Series([0.5, 1.5, None, 2.5])
WAITS = pd.Series(pd.to_timedelta(range(4), unit="h"))
STORED = {
    "float and object": (HALVES, HALVES.astype(object)),
    "float and None": (HALVES, HALVES.astype(object).where(HALVES.notna(), None)),
    "float and Decimal": (HALVES, HALVES.map(decimal.Decimal, na_action="ignore")),
    "objects of float and Decimal": (
        HALVES.astype(object),
        HALVES.map(decimal.Decimal, na_action="ignore"),
    ),
    "whole and bool": (FLAGS, FLAGS.astype(bool)),
    "whole and boolean": (FLAGS, FLAGS.astype(bool).astype("boolean")),
    "whole and objects of bool": (FLAGS, FLAGS.astype(bool).astype(object)),
    "whole and category": (FLAGS, FLAGS.astype("category")),
    "Timestamp and date": (DAYS, DAYS.dt.date),
    "Timestamp and Period": (DAYS, DAYS.dt.to_period("D")),
    "Timestamp and ISO text": (DAYS, DAYS.dt.strftime("%Y-%m-%d")),
    "Timestamp and times as text": (DAYS, DAYS.dt.strftime("%Y-%m-%dT%H:%M:%S")),
    "zone and text": (ZONED, ZONED.astype(str)),
    "zone and zone": (ZONED, ZONED.dt.tz_convert("UTC")),
    "durations and objects": (WAITS, WAITS.astype(object)),
    "dates and category": (DAYS, DAYS.astype("category")),
}


@pytest.mark.parametrize("stored", STORED)
def test_how_the_other_table_is_stored_does_not_matter(stored):
    one, other = STORED[stored]
    expected = metrics.shape_error(one.to_frame("a"), one[:3].to_frame("a"))
    assert expected > 0
    error = metrics.shape_error(one.to_frame("a"), other[:3].to_frame("a"))
    assert error == expected
    assert metrics.exact_copies(one.to_frame("a"), other.to_frame("a")) == 1.0


def test_polars_dates_and_objects_of_dates_are_one():
    days = DAYS.dt.date.tolist()
    real = pl.DataFrame({"a": [*days, None]})
    fake = pd.DataFrame({"a": [*days, None]})
    assert real["a"].dtype == pl.Date
    assert metrics.shape_error(real, fake) == 0.0
    assert metrics.shape_error(fake, real) == 0.0


def test_levels_that_are_dates_are_the_dates_of_another_table():
    real, fake = DAYS.astype("category").to_frame("a"), DAYS[:5].to_frame("a")
    assert metrics.shape_error(real, fake) == pytest.approx(0.5)


NO_KIN = {
    "numbers and text": (FLAGS, FLAGS.astype(str), "numbers .* and text in"),
    "text and numbers": (FLAGS.astype(str), FLAGS, "text .* and numbers in"),
    "dates and numbers": (DAYS, FLAGS, "dates .* and numbers in"),
    "numbers and dates": (FLAGS, DAYS, "numbers .* and dates without"),
    "dates and zone": (DAYS, ZONED, "dates without .* and dates with a time zone"),
    "zone and dates": (ZONED, DAYS, "dates with a .* and dates without a time zone"),
    "dates and durations": (DAYS, WAITS, "dates .* and durations in"),
    "few texts and dates": (
        DAYS.dt.strftime("%Y-%m-%d"),
        DAYS,
        "text .* and dates without .*to_datetime",
    ),
    # The second of January, or the first of February.
    "dates and doubtful text": (
        DAYS,
        DAYS.dt.strftime("%d/%m/%Y"),
        "dates .* and text in",
    ),
    "dates and mixed zones": (
        DAYS,
        pd.Series(["2024-01-01", "2024-01-01T00:00:00+01:00"]),
        "dates .* and text in",
    ),
}


@pytest.mark.parametrize("stored", NO_KIN)
def test_cells_that_have_no_place_beside_each_other_are_refused(stored):
    one, other, message = NO_KIN[stored]
    with pytest.raises(ValueError, match=f"Column 'a' holds {message}"):
        metrics.shape_error(one.to_frame("a"), other.to_frame("a"))


def test_declared_categories_that_could_never_be_equal_are_refused():
    real, fake = FLAGS.to_frame("a"), FLAGS.astype(str).to_frame("a")
    with pytest.raises(ValueError, match="numbers in the first table and text in"):
        metrics.shape_error(real, fake, categorical_features=["a"])


def test_columns_without_a_known_cell_fit_every_other():
    gaps = [None] * 4
    for known in (FLAGS, FLAGS.astype(str), DAYS[:4], ZONED[:4]):
        real = known.to_frame("a")
        for fake in ({"a": gaps}, {"a": [np.nan] * 4}):
            assert metrics.shape_error(real, pd.DataFrame(fake)) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["date32", "timestamp", "zone", "duration", "decimal"])
def test_arrow_columns_with_a_missing_cell_are_read(kind):
    pa = pytest.importorskip("pyarrow")
    types = {
        "date32": (pa.date32(), DAYS.dt.date),
        "timestamp": (pa.timestamp("us"), DAYS),
        "zone": (pa.timestamp("us", "Europe/Berlin"), ZONED),
        "duration": (pa.duration("us"), WAITS),
        "decimal": (pa.decimal128(5, 2), HALVES[:2].map(decimal.Decimal)),
    }
    arrow, cells = types[kind]
    cells = [*cells, None]
    real = pd.DataFrame({"a": pd.array(cells, dtype=pd.ArrowDtype(arrow))})
    fake = pd.DataFrame({"a": pd.Series(cells, dtype=object)})
    assert metrics.shape_error(real, fake[:1]) == metrics.shape_error(fake, fake[:1])
    assert metrics.exact_copies(real, fake) == 1.0


def test_long_whole_numbers_are_told_apart():
    keys = 2**60 + np.arange(100)
    for real, fake in (
        (keys[:, None], keys[:, None] + 100),
        *(
            (pd.DataFrame({"k": keys}), pd.DataFrame({"k": keys + 100}).astype(dtype))
            for dtype in ("int64", "Int64", object)
        ),
    ):
        assert metrics.exact_copies(real, fake) == 0.0
        assert metrics.exact_copies(real, real) == 1.0


def test_lists_of_mixed_cells_keep_their_types():
    real = [[1, "a"], [2, "b"], [None, "b"]]
    fake = [[1.0, "a"], [2.5, "b"], [None, "b"]]
    expected = metrics.shape_errors(*(pd.DataFrame(rows) for rows in (real, fake)))
    assert list(metrics.shape_errors(real, fake).values()) == list(expected.values())
    assert metrics.shape_errors([(1.0, 2)], ((1.0, 2),)) == {"x0": 0.0, "x1": 0.0}


def test_arrays_of_dates_are_dates():
    days = DAYS.to_numpy()[:, None]
    expected = metrics.shape_error(DAYS.to_frame(), DAYS[:3].to_frame())
    assert metrics.shape_error(days, days[:3]) == expected


@pytest.mark.parametrize("declared", [None, ["x"]])
def test_infinity_is_refused_by_the_name_of_its_column(declared):
    real, fake = numbers(), numbers(seed=1)
    fake.loc[3, "x"] = -np.inf
    for tables in ((real, fake), (fake, real)):
        with pytest.raises(ValueError, match="Column 'x' contains infinity"):
            metrics.shape_error(*tables, categorical_features=declared)


def test_cells_that_cannot_be_levels_are_refused_by_the_name_of_their_column():
    real = pd.DataFrame({"tags": [["a"], ["b"]]})
    with pytest.raises(TypeError, match="Column 'tags' holds list objects"):
        metrics.shape_error(real, real)


def test_sparse_rows_are_refused():
    with pytest.raises(TypeError, match="Sparse data was passed"):
        metrics.shape_error(sp.csr_array(np.eye(3)), np.eye(3))
