"""Dates that a table holds as text."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skvae import VAE
from skvae._table import TableCodec
from skvae._table._written_dates import WrittenDates

_FORMS = ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%b %d, %Y", "%Y-%m-%dT%H:%M:%SZ"]


def _stays(form, n=600, seed=0):
    """Return arrivals and departures as text, and what follows from them."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2020-07-01") + pd.to_timedelta(rng.integers(0, 300, n), "D")
    end = start + pd.to_timedelta(rng.integers(0, 9, n), "D")
    return pd.DataFrame(
        {
            "start": start.strftime(form),
            "end": end.strftime(form),
            "year": start.year,
            "price": rng.normal(size=n).round(2),
        }
    )


def _drawn(codec, frame):
    return codec.decode(codec.encode(frame), np.random.default_rng(1))


@pytest.mark.parametrize("form", _FORMS)
def test_text_keeps_its_form_its_order_and_its_year(form):
    frame = _stays(form)
    codec = TableCodec().fit(frame)
    drawn = _drawn(TableCodec.from_state(codec.get_state()), frame)
    pd.testing.assert_frame_equal(drawn, _drawn(codec, frame))
    assert list(drawn.dtypes) == list(frame.dtypes)
    assert set(drawn["start"]) <= set(frame["start"])
    assert set(drawn["end"]) <= set(frame["end"])
    start, end = (pd.to_datetime(drawn[name], format=form) for name in ("start", "end"))
    assert (end >= start).all()
    assert (start.dt.year == drawn["year"]).all()
    assert (drawn["start"] != frame["start"]).mean() > 0.5


def test_missing_text_stays_missing():
    frame = _stays("%Y-%m-%d")
    frame.loc[::10, "end"] = None
    drawn = _drawn(TableCodec().fit(frame), frame)
    np.testing.assert_array_equal(drawn["end"].isna(), frame["end"].isna())


def test_codes_follow_time_and_not_frequency():
    frame = _stays("%d.%m.%Y")
    codec = TableCodec().fit(frame)
    codes = codec.encode(frame)[:, 0]
    moments = pd.to_datetime(frame["start"], format="%d.%m.%Y")
    assert (np.diff(codes[np.argsort(moments, kind="stable")]) >= 0).all()


@pytest.mark.parametrize(
    "texts",
    [
        [f"A-{i}" for i in range(100)],
        [f"{i % 24:02d}:{i % 60:02d}:{i % 59:02d}" for i in range(100)],
        [str(1900 + i) for i in range(100)],
        [f"2020-01-{1 + i % 28:02d}" for i in range(100)],
        ["2020-01-01", *(f"day {i}" for i in range(99))],
        # Two texts of the same date.
        [f"2020-{1 + i // 28:02d}-{1 + i % 28}" for i in range(100)] + ["2020-01-01"],
    ],
    ids=["codes", "clock", "years", "few", "mixed", "twice"],
)
def test_other_text_is_a_category(texts):
    assert WrittenDates.found(pd.Series(texts)) is None


def test_dates_of_many_rows_each_are_categories():
    texts = pd.date_range("2020-01-01", periods=40).strftime("%Y-%m-%d").tolist()
    assert WrittenDates.found(pd.Series(texts * 30)) is None
    assert WrittenDates.found(pd.Series(texts * 3)) is not None


def test_declared_categories_stay_categories():
    frame = _stays("%Y-%m-%d")
    codec = TableCodec(categorical_features=["start"]).fit(frame)
    assert [column.kind for column in codec.columns[:2]] == ["category", "time"]


def test_fractions_of_a_second_may_come_and_go():
    start = pd.date_range("2020-01-01", periods=100, freq="7h")
    texts = [t.isoformat() + (".5" if i % 3 else "") for i, t in enumerate(start)]
    dates = WrittenDates.found(pd.Series(texts))
    assert dates is not None
    assert dates.texts == texts


@settings(max_examples=50)
@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=20))
def test_nearest_dates(stamps):
    dates = WrittenDates("ISO8601", False, list("abcd"), np.array([-5, 0, 7, 8]))
    stamps = np.array(stamps)
    away = np.abs(stamps[:, None] - dates.stamps)
    own = dates.nearest(stamps)
    np.testing.assert_array_equal(away[np.arange(len(own)), own], away.min(axis=1))
    later = dates.stamps[dates.nearest(stamps, 1)]
    assert ((later >= stamps) | (later == 8)).all()
    earlier = dates.stamps[dates.nearest(stamps, -1)]
    assert ((earlier <= stamps) | (earlier == -5)).all()


def test_a_model_of_written_dates():
    frame = _stays("%Y-%m-%d", n=300)
    model = VAE(max_iter=3, random_state=0).fit(frame)
    day = frame["start"][7]
    rows = model.sample(20, given={"start": day}, random_state=0)
    assert set(rows["start"]) == {day}
    assert set(rows["end"]) <= set(frame["end"])
    open_ = frame.head(30).copy()
    open_.loc[:20, "end"] = None
    filled = model.impute(open_, random_state=0)
    assert filled["end"].notna().all()
    pd.testing.assert_frame_equal(filled[["start", "price"]], open_[["start", "price"]])
    later = frame.head(5).assign(start="2025-01-01")
    assert np.isfinite(model.score_samples(later)).all()


@pytest.mark.parametrize(
    ("day", "message"),
    [
        ("2020-07", "held dates like '2020-07-01' in training; got '2020-07'"),
        ("1999-01-01", "has no date '1999-01-01'"),
        ("2020-07-01T12", "held dates like"),
    ],
)
def test_dates_that_cannot_be_asked_for(day, message):
    model = VAE(max_iter=1, random_state=0).fit(_stays("%Y-%m-%d", n=200))
    with pytest.raises(ValueError, match=message):
        model.sample(2, given={"start": day}, random_state=0)


def test_text_that_is_no_date_is_refused():
    frame = _stays("%Y-%m-%d", n=200)
    codec = TableCodec().fit(frame)
    with pytest.raises(ValueError, match=r"'end' held dates like .* got 'soon'"):
        codec.encode(frame.assign(end="soon"))


def test_polars_text():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(_stays("%Y-%m-%d", n=200).to_dict("list"))
    drawn = _drawn(TableCodec().fit(frame), frame)
    assert drawn.schema == frame.schema
    assert set(drawn["end"]) <= set(frame["end"])
