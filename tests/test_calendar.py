"""Columns that a date tells: found, and kept in samples, fills and rows on request."""

import pickle

import numpy as np
import pandas as pd
import pytest

from skvae import VAE, AutoencoderTransformer
from skvae._table import TableCodec

N = 900
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def _sales(n=N, zone=None, hours=False):
    """Sales of two years, high at weekends; the columns beside repeat the date."""
    rng = np.random.default_rng(0)
    date = pd.Series(
        pd.Timestamp("2017-01-01", tz=zone)
        + pd.to_timedelta(rng.integers(0, 730, n), unit="D")
    )
    if hours:
        date += pd.to_timedelta(rng.integers(7 * 3600, 22 * 3600, n), unit="s")
    weekend = date.dt.day_of_week >= 5
    frame = pd.DataFrame(
        {
            "weekday": pd.Categorical.from_codes(
                date.dt.day_of_week, DAYS, ordered=True
            ),
            "date": date,
            "month": date.dt.month,
            "weekend": weekend,
            "year": date.dt.year,
            "units": rng.poisson(np.where(weekend, 60, 20)),
        }
    )
    return frame.assign(hour=date.dt.hour) if hours else frame


def _agrees(rows):
    """Tell which rows keep to the calendar."""
    date = rows["date"]
    same = rows["weekday"].astype(str) == date.dt.day_of_week.map(dict(enumerate(DAYS)))
    same &= (rows["month"] == date.dt.month) & (rows["year"] == date.dt.year)
    same &= rows["weekend"].astype(bool) == (date.dt.day_of_week >= 5)
    return same & (rows["hour"] == date.dt.hour) if "hour" in rows else same


def _parts(frame):
    codec = TableCodec().fit(frame)
    return {codec.names[e.child]: e.part for e in codec.rules.date_parts}


@pytest.fixture(
    scope="module", params=[{}, {"zone": "America/Sao_Paulo", "hours": True}]
)
def sales(request):
    return _sales(**request.param)


@pytest.fixture(scope="module")
def model(sales):
    return VAE(3, max_iter=15, random_state=0).fit(sales)


def test_the_coarsest_part_that_tells_a_column_is_found(sales):
    found = _parts(sales)
    hour = {"hour": "hour"} if "hour" in sales else {}
    assert found == hour | {
        "weekday": "day_of_week",
        "month": "month",
        "weekend": "day_of_week",
        "year": "year",
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f[["date", "units"]],
        lambda f: f[["month", "weekend", "year"]],
        lambda f: f.assign(weekday=np.roll(f["weekday"], 1))[["date", "weekday"]],
        lambda f: f[["date", "weekday"]].head(20),
        lambda f: f.assign(date=f["date"] - f["date"].min())[["date", "weekday"]],
    ],
    ids=["nothing", "no date", "otherwise", "few", "duration"],
)
def test_other_columns_follow_no_date(change):
    assert _parts(change(_sales())) == {}


def test_samples_keep_to_the_calendar_and_what_goes_with_it(sales, model):
    rows = model.sample(600, random_state=0)
    assert rows.dtypes.equals(sales.dtypes)
    # A time of day that training never had tells no hour.
    assert _agrees(rows).mean() > (0.98 if "hour" in rows else 0.999)
    assert rows["date"].between(sales["date"].min(), sales["date"].max()).all()
    # Dates have moved to the weekday that was drawn with the units, not the other way.
    units = rows.groupby(rows["date"].dt.day_of_week >= 5)["units"].mean()
    assert units[True] > 45
    assert units[False] < 30
    assert abs((rows["date"].dt.day_of_week >= 5).mean() - 2 / 7) < 0.06


@pytest.mark.parametrize("copies", [None, 2])
@pytest.mark.parametrize("name", ["weekday", "month", "weekend", "year"])
def test_what_a_date_tells_is_filled_exactly(sales, model, name, copies):
    gaps = sales.head(50).copy()
    gaps[name] = gaps[name].astype(object).where(np.arange(50) % 2 == 0)
    if name == "weekday":
        gaps[name] = gaps[name].astype(sales[name].dtype)
    elif name != "weekend":
        gaps[name] = gaps[name].astype(float)
    filled = model.impute(gaps, n_samples=copies, random_state=0)
    for rows in [filled] if copies is None else filled:
        assert _agrees(rows).all()


def test_a_missing_date_is_filled_by_one_that_agrees(sales, model):
    gaps = sales.head(40).copy()
    gaps["date"] = gaps["date"].where(np.arange(40) % 2 == 0)
    filled = model.impute(gaps, random_state=0)
    pd.testing.assert_frame_equal(
        filled.drop(columns="date"), gaps.drop(columns="date")
    )
    assert filled["date"][::2].equals(gaps["date"][::2])
    tells = filled["date"].dt.day_of_week.map(dict(enumerate(DAYS)))
    assert (tells == filled["weekday"].astype(str)).all()


def test_rows_on_request_keep_to_the_calendar(sales, model):
    rows = model.sample(40, given={"weekday": "Sat"}, random_state=0)
    assert (rows["weekday"] == "Sat").all()
    assert (rows["date"].dt.day_of_week == 5).all()
    date = sales["date"][7]
    rows = model.sample(5, given={"date": date}, random_state=0)
    assert (rows["date"] == date).all()
    assert _agrees(rows).all()


@pytest.mark.parametrize("kind", ["days", "times", "zone", "text", "seconds"])
def test_no_date_of_another_month_comes_with_one_that_is_asked_for(kind):
    rng = np.random.default_rng(0)
    stamps = rng.integers(0, 730, 600) * 86400
    stamps += rng.integers(0, 86400, 600) * (kind not in ("days", "text"))
    year = 3022 if kind == "seconds" else 2022
    first = np.datetime64(f"{year}-01-01", "s")
    date = pd.Series(first + stamps.astype("m8[s]"))
    if kind != "seconds":
        date = date.dt.as_unit("ns")
    if kind == "zone":
        date = date.dt.tz_localize("UTC").dt.tz_convert("America/New_York")
    frame = pd.DataFrame({"date": date, "month": date.dt.month})
    frame["weekday"] = date.dt.day_name()
    if kind == "text":
        frame["date"] = date.dt.strftime("%Y-%m-%d")
    model = VAE(2, max_iter=2, random_state=0).fit(frame)
    for asked in ({"month": 2}, {"weekday": "Sunday", "month": 7}):
        rows = model.sample(100, given=asked, random_state=0)
        found = rows.assign(date=pd.to_datetime(rows["date"]))
        assert found["date"].between(date.min(), date.max()).all()
        assert (found["date"].dt.month == found["month"]).all()
        assert (found["date"].dt.day_name() == found["weekday"]).all()
        assert all((rows[name] == value).all() for name, value in asked.items())


def test_dates_of_a_monthly_series_stay_on_its_days():
    months = pd.date_range("1990-01-01", periods=240, freq="MS")
    rng = np.random.default_rng(0)
    date = pd.Series(months[rng.integers(0, 240, 2400)])
    frame = pd.DataFrame({"date": date, "month": date.dt.month_name()})
    frame["x"] = rng.normal(size=2400) + date.dt.month
    rows = VAE(2, max_iter=5, random_state=0).fit(frame).sample(300, random_state=0)
    assert set(rows["date"]) <= set(months)
    assert (rows["date"].dt.month_name() == rows["month"]).all()


def test_deterministic_models_keep_to_the_calendar(sales):
    model = AutoencoderTransformer(3, max_iter=5, random_state=0).fit(sales)
    assert _agrees(model.sample(100, random_state=0)).mean() > 0.98
    assert _agrees(model.reconstruct(sales.head(50))).mean() > 0.98


def test_copies_of_a_model_keep_to_the_calendar(sales, model):
    codec = model._columns.codec
    again = TableCodec.from_state(pickle.loads(pickle.dumps(codec.get_state())))
    assert again.rules.date_parts == codec.rules.date_parts
    copy = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(
        copy.sample(20, random_state=1), model.sample(20, random_state=1)
    )


PERIODS = {
    "day": lambda t: t.dt.normalize(),
    "date": lambda t: t.dt.date,
    "month": lambda t: t.dt.to_period("M"),
    "first of month": lambda t: t.dt.to_period("M").dt.to_timestamp(),
    "text of month": lambda t: t.dt.strftime("%Y-%m"),
}


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PERIODS)
def test_a_moment_lies_in_its_own_day_or_month(name, first):
    rng = np.random.default_rng(0)
    start, minutes = pd.Timestamp("2023-01-01"), rng.integers(0, 700 * 1440, 700)
    moment = pd.Series(start + pd.to_timedelta(minutes, unit="min")).dt.as_unit("us")
    of = PERIODS[name]
    frame = pd.DataFrame({"at": moment, "of": of(moment), "x": rng.normal(size=700)})
    frame = frame[["at", "of", "x"] if first else ["of", "x", "at"]]
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = [model.sample(150, random_state=0)]
    for asked in ("at", "of"):
        given_ = {asked: frame[asked][7]}
        rows.append(model.sample(20, given=given_, random_state=0))
        assert (rows[-1][asked] == frame[asked][7]).all()
        open_ = frame.head(60).assign(**{asked: None})
        rows += [model.impute(open_), *model.impute(open_, 1, random_state=0)]
    for own in rows:
        told = of(pd.to_datetime(own["at"]))
        assert (told.astype(str) == own["of"].astype(str)).all()


def test_a_month_that_a_moment_tells_does_not_tell_the_year():
    moment = pd.Series(pd.date_range("2023-01-01", periods=600, freq="26h"))
    month = moment.dt.to_period("M").dt.to_timestamp()
    frame = pd.DataFrame({"month": month, "year": moment.dt.year, "at": moment})
    codec = TableCodec().fit(frame)
    found = {(e.parent, e.child, e.part) for e in codec.rules.date_parts}
    assert found == {(2, 0, "year_month"), (2, 1, "year")}
