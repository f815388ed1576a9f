"""Columns that are nowhere below another one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skvae import VAE
from skvae._table import TableCodec
from skvae._table._numeric import NumericColumn
from skvae._table._orders import _beyond

N = 800


@pytest.fixture(scope="module")
def prices():
    """Prices that open and close days, between the lowest and the highest."""
    rng = np.random.default_rng(0)
    first = 100 + 20 * rng.normal(size=N)
    last = first + 5 * rng.normal(size=N)
    prices = {
        "first": first,
        "high": np.maximum(first, last) + rng.exponential(3, N),
        "low": np.minimum(first, last) - rng.exponential(3, N),
        "last": last,
        "side": rng.choice(["buy", "sell"], N),
    }
    return pd.DataFrame(prices).round(2)


@pytest.fixture(scope="module")
def jobs():
    """People who were hired, and some of whom left."""
    rng = np.random.default_rng(1)
    start = pd.Timestamp("2010-01-01") + pd.to_timedelta(rng.integers(0, 5000, N), "D")
    end = start + pd.to_timedelta(rng.integers(1, 3000, N), "D")
    left = rng.random(N) < 0.5
    return pd.DataFrame(
        {
            "start": start,
            "status": np.where(left, "left", "works"),
            "end": pd.Series(end).where(left),
        }
    )


def _orders(codec):
    return {(codec.names[o.below], codec.names[o.above]) for o in codec.rules.orders}


def _shuffled(codec, frame):
    """Decode codes that have been drawn column by column."""
    rng = np.random.default_rng(0)
    codes = codec.encode(frame)
    for j in range(codes.shape[1]):
        codes[:, j] = rng.permutation(codes[:, j])
    return codec.decode(codes, rng)


PRICES = {("low", "first"), ("low", "last"), ("first", "high"), ("last", "high")}


def test_orders_are_found_and_those_that_follow_are_left_out(prices):
    assert _orders(TableCodec().fit(prices)) == PRICES


@pytest.mark.parametrize("changed", ["start", "end", "both"])
def test_orders_of_dates_in_any_unit(jobs, changed):
    units = {"start": "datetime64[s]", "end": "datetime64[ns]"}
    names = ["start", "end"] if changed == "both" else [changed]
    frame = jobs.astype({name: units[name] for name in names})
    codec = TableCodec().fit(frame)
    assert _orders(codec) == {("start", "end")}
    drawn = _shuffled(codec, frame)
    assert list(drawn.dtypes) == list(frame.dtypes)
    assert not (drawn["end"] < drawn["start"]).any()
    assert drawn["end"].isna().sum() == frame["end"].isna().sum()


def test_dates_that_are_mostly_missing_keep_their_order(jobs):
    few = jobs["end"].notna().cumsum() <= 40
    rare = jobs.assign(end=jobs["end"].where(few))
    codec = TableCodec().fit(rare)
    assert ("start", "end") in _orders(codec)
    drawn = codec.decode(codec.encode(rare), np.random.default_rng(0))
    assert drawn["end"].notna().sum() == 40
    assert not (drawn["end"] < drawn["start"]).any()


def test_dates_as_text_keep_their_order(jobs):
    frame = jobs.assign(
        **{name: jobs[name].dt.strftime("%d.%m.%Y") for name in ("start", "end")}
    )
    codec = TableCodec().fit(frame)
    assert _orders(codec) == {("start", "end")}
    drawn = _shuffled(codec, frame)
    start, end = (
        pd.to_datetime(drawn[name], format="%d.%m.%Y") for name in ("start", "end")
    )
    assert not (end < start).any()
    assert set(drawn["end"].dropna()) <= set(frame["end"].dropna())


def test_drawn_rows_keep_orders_decimals_and_ranges(prices):
    codec = TableCodec.from_state(TableCodec().fit(prices).get_state())
    drawn = _shuffled(codec, prices)
    for below, above in PRICES:
        assert (drawn[above] >= drawn[below]).all()
    numbers = drawn.drop(columns="side")
    pd.testing.assert_frame_equal(numbers, numbers.round(2))
    assert (numbers.min() >= prices.min(numeric_only=True)).all()
    assert (numbers.max() <= prices.max(numeric_only=True)).all()


def test_values_in_order_stay_as_they_are(prices):
    codec = TableCodec().fit(prices)
    codes = codec.encode(prices)
    ordered = codec.decode(codes, np.random.default_rng(0))
    codec.rules.orders = []
    drawn = codec.decode(codes, np.random.default_rng(0))
    kept = np.logical_and.reduce([drawn[a] >= drawn[b] for b, a in PRICES])
    assert 0.3 < kept.mean() < 1
    pd.testing.assert_frame_equal(ordered[kept], drawn[kept])


def test_codes_that_cross_are_excluded(prices):
    codec = TableCodec().fit(prices)
    offsets, low, high = codec.offsets, codec.columns[2].low, codec.columns[0].high
    excluded = {(a, b): nats for a, b, nats in codec.exclusions}
    last = int(offsets[0]), int(offsets[2]) + len(low) - 1
    assert low[-1] > high[0]
    assert excluded[last] == pytest.approx(np.log(N))
    assert all(a < b for a, b in excluded)
    # Codes that overlap may come together.
    together = offsets[[0, 2]] + codec.encode(prices)[:, [0, 2]]
    assert not {tuple(pair) for pair in together.tolist()} & excluded.keys()


def test_a_model_keeps_orders(prices, jobs):
    model = VAE(max_iter=2, random_state=0).fit(prices)
    open_ = prices.head(40).copy()
    open_.loc[:9, "high"] = np.nan
    open_.loc[10:19, "low"] = np.nan
    open_.loc[20:29, ["first", "high"]] = np.nan
    for rows in (
        model.sample(300, random_state=0),
        model.reconstruct(prices),
        model.impute(open_),
        *model.impute(open_, n_samples=2, random_state=0),
        model.sample(50, given={"high": float(prices["high"][3])}, random_state=0),
        model.sample(50, given={"low": float(prices["low"][3])}, random_state=0),
    ):
        for below, above in PRICES:
            assert (rows[above] >= rows[below]).all()
    assert (rows["low"] == prices["low"][3]).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(high=f["high"].where(f.index != 5, 0.0), low=f["side"]),
        lambda f: f[["first", "last"]].assign(last=f["last"] + 1000),
        lambda f: f.head(40),
        lambda f: f[["first"]].assign(again=f["first"]),
        lambda f: f[["high"]].assign(day=pd.Timestamp("2020-01-01")),
    ],
    ids=["exception", "apart", "few", "equal", "kinds"],
)
def test_other_columns_have_no_order(prices, change):
    codec = TableCodec().fit(change(prices))
    assert not _orders(codec) & (PRICES | {("first", "again"), ("again", "first")})
    assert {("high", "day"), ("day", "high")}.isdisjoint(_orders(codec))


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=60, max_size=120),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, -1]),
)
def test_moved_values_are_beyond_the_limit(values, seed, side):
    column = NumericColumn.fit(np.array(values), "x", 8)
    rng = np.random.default_rng(seed)
    low, high = column.extent
    limit = np.r_[rng.uniform(low, high, 20).clip(low, high), low, high]
    moved = _beyond(column, limit, side, rng.random(len(limit)))
    assert (side * moved >= side * limit).all()
    assert (moved >= low).all()
    assert (moved <= high).all()
