"""Columns that stay close to another one: found, coded, drawn, filled, asked for."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._table import TableCodec
from skvae.persistence import load, save

N = 600


def _trips(n=N, zone=None):
    """Trips of minutes within two months; the rare night trips have no end."""
    rng = np.random.default_rng(0)
    far = rng.random(n) < 0.3
    start = pd.Timestamp("2024-03-01", tz=zone) + pd.to_timedelta(
        rng.integers(0, 60 * 86400, n), unit="s"
    )
    minutes = rng.gamma(4.0, 2 + 6 * far)
    end = pd.Series(start + pd.to_timedelta((60 * minutes).astype(int), unit="s"))
    return pd.DataFrame(
        {
            "start": start,
            "far": np.where(far, "far", "near"),
            "end": end.mask(rng.random(n) < 0.1),
            "rate": 3 + 0.01 * rng.normal(size=n).cumsum().round(4),
        }
    )


def _quotes(n=N):
    """Three prices that rise together, with 2, 2 and 3 decimals."""
    rng = np.random.default_rng(1)
    bid = (100 + rng.normal(size=n).cumsum()).round(2)
    ask = (bid + 0.01 * rng.integers(1, 5, n)).round(2)
    last = (ask + 0.005 * rng.integers(0, 2, n)).round(3)
    return pd.DataFrame({"bid": bid, "ask": ask, "last": last, "x": rng.normal(size=n)})


def _gaps(frame):
    codec = TableCodec().fit(frame)
    return {codec.names[g.child]: codec.names[g.parent] for g in codec.gaps}


@pytest.fixture(scope="module")
def trips():
    return _trips()


@pytest.fixture(scope="module", params=[VAE, AutoencoderTransformer])
def model(request, trips):
    return request.param(3, max_iter=15, random_state=0).fit(trips)


# -- which columns ---------------------------------------------------------------------
@pytest.mark.parametrize("zone", [None, "Europe/Rome"])
def test_an_end_soon_after_a_start_is_found(zone):
    assert _gaps(_trips(zone=zone)) == {"end": "start"}


def test_a_number_is_counted_from_the_closest_before_it():
    assert _gaps(_quotes()) == {"ask": "bid", "last": "ask"}
    assert _gaps(_quotes()[["x", "last", "bid", "ask"]]) == {
        "bid": "last",
        "ask": "last",
    }


@pytest.mark.parametrize(("n", "gaps"), [(3000, {"close": "open"}), (500, {})])
def test_many_rows_let_a_wider_difference_be_a_gap(n, gaps):
    rng = np.random.default_rng(0)
    first = rng.uniform(20, 90, n)
    last = first + rng.normal(scale=0.7, size=n)
    frame = pd.DataFrame(
        {"open": first, "close": last, "day": rng.choice(list("mt"), n)}
    )
    assert _gaps(frame) == gaps


@pytest.mark.parametrize(("before", "after"), [("s", "ns"), ("ns", "s"), ("us", "ms")])
def test_moments_of_two_units_have_a_gap(before, after):
    trips = _trips()
    trips["start"] = trips["start"].astype(f"datetime64[{before}]")
    trips["end"] = trips["end"].astype(f"datetime64[{after}]")
    codec = TableCodec().fit(trips)
    like = TableCodec().fit(_trips())
    assert [(gap.child, gap.parent, gap.side) for gap in codec.gaps] == [(2, 0, 1)]
    codes = codec.encode(trips)
    np.testing.assert_array_equal(codes, like.encode(_trips()))
    drawn = codec.decode(codes, np.random.default_rng(0))
    assert (drawn.dtypes == trips.dtypes).all()
    same = like.decode(codes, np.random.default_rng(0))
    assert (drawn["end"] == same["end"])[trips["end"].notna()].all()
    # A moment beyond the range is the nearest one within it.
    far = trips.copy()
    coarse = "start" if before == "s" else "end"
    far.loc[0, coarse] = pd.Timestamp("9999-12-31" if before == "s" else "2100-01-01")
    assert (codec.encode(far)[1:] == codes[1:]).all()


def test_durations_and_arrays_have_gaps_too():
    quotes = _quotes()
    assert len(TableCodec().fit(quotes.to_numpy()).gaps) == 2
    waits = quotes[["bid", "ask"]].apply(pd.to_timedelta, unit="h")
    assert _gaps(waits) == {"ask": "bid"}


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(end=f["end"].dt.tz_localize("UTC")),
        # Moments that nanoseconds cannot tell, beside nanoseconds.
        lambda f: f.assign(
            start=f["start"].astype("datetime64[ns]"),
            end=f["end"].astype("datetime64[s]").fillna(pd.Timestamp("9999-12-31")),
        ),
        # Ends that lie apart, few rows, ends without a start, a constant gap.
        lambda f: f.assign(end=f["start"] + pd.to_timedelta(np.arange(N), unit="D")),
        lambda f: f[:15],
        lambda f: f.assign(start=f["start"].mask(np.arange(N) % 7 == 0)),
        lambda f: f.assign(end=f["start"] + pd.Timedelta("1h")),
        lambda f: f.assign(end=f["end"].dt.strftime("%d %H:%M")),
    ],
    ids=["zone", "never", "far", "few", "no start", "constant", "text"],
)
def test_other_columns_stay_as_they_are(trips, change):
    assert _gaps(change(trips)) == {}


@pytest.mark.parametrize("n_ends", [25, 45, 70])
def test_ends_in_few_rows_follow_their_starts(n_ends):
    trips = _trips(3 * N)
    known = np.flatnonzero(trips["end"].notna())[:n_ends]
    rare = trips.assign(end=trips["end"].where(trips.index.isin(known)))
    codec = TableCodec().fit(rare)
    assert [(gap.child, gap.parent, gap.side) for gap in codec.gaps] == [(2, 0, 1)]
    drawn = codec.decode(codec.encode(rare), np.random.default_rng(0))
    waits = (drawn["end"] - drawn["start"]).dropna()
    assert len(waits) == n_ends
    assert (waits >= pd.Timedelta(0)).all()
    # But for a few, since ends stay within the range that they had.
    seen = (rare["end"] - rare["start"]).agg(["min", "max"])
    assert waits.between(*seen).mean() > 0.8
    # Those of other rows are no starts.
    assert _gaps(rare.assign(start=rare["start"].to_numpy()[::-1])) == {}


def test_ends_between_evenly_spaced_rows_are_seen(trips):
    first = np.linspace(0, N - 1, 512).astype(int)
    assert _gaps(trips.assign(end=trips["end"].drop(first))) == {"end": "start"}


def test_numbers_that_are_mostly_zero_are_not_close():
    rng = np.random.default_rng(0)
    gain, loss = (
        np.where(rng.random(N) < 0.1, rng.gamma(2, 1000, N), 0) for _ in range(2)
    )
    assert _gaps(pd.DataFrame({"gain": gain, "loss": loss})) == {}


# -- there and back --------------------------------------------------------------------
@pytest.mark.parametrize("make", [_trips, _quotes])
def test_codes_of_differences_lead_back(make):
    frame = make()
    codec = TableCodec().fit(frame)
    rows = codec.decode(codec.encode(frame), np.random.default_rng(0))
    assert rows.dtypes.equals(frame.dtypes)
    assert rows.isna().equals(frame.isna())
    for gap in codec.gaps:
        start, end = codec.names[gap.parent], codec.names[gap.child]
        there, back = (f[end] - f[start] for f in (frame, rows))
        if there.dtype.kind == "f":
            there, back = there.round(6), back.round(6)
        assert back.min() >= there.min() - (there.max() - there.min()) / 20
        assert rows[end].min() >= frame[end].min()
        assert rows[end].max() <= frame[end].max()
        np.testing.assert_allclose(back.dropna().rank().corr(there.rank()), 1, 0.01)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.sampled_from([None, "Asia/Tokyo", "America/New_York"]),
    st.booleans(),
)
def test_ends_stay_after_starts_in_any_form(seed, unit, zone, gaps):
    rng = np.random.default_rng(seed)
    n = 200
    start = pd.Series(
        pd.Timestamp("1999-12-01")
        + pd.to_timedelta(rng.integers(0, 10**8, n), unit="s")
    )
    end = start + pd.to_timedelta(rng.integers(1, 5000, n), unit="s")
    frame = pd.DataFrame({"start": start, "end": end}).astype(f"datetime64[{unit}]")
    if zone:
        frame = frame.apply(lambda t: t.dt.tz_localize("UTC").dt.tz_convert(zone))
    if gaps:
        frame["end"] = frame["end"].mask(rng.random(n) < 0.2)
    codec = TableCodec().fit(frame)
    assert len(codec.gaps) == 1
    copy = TableCodec.from_state(codec.get_state())
    codes = np.column_stack([rng.integers(0, size, 300) for size in codec.sizes])
    rows = copy.decode(codes, rng)
    assert rows.dtypes.equals(frame.dtypes)
    assert (rows["end"].dropna() >= rows["start"][rows["end"].notna()]).all()
    last = frame.max().max()
    for name in frame:
        assert rows[name].dropna().between(frame[name].min(), last).all()


def test_ends_of_either_side_keep_to_their_range():
    """Its highest start has a lower end: a rise from there is cut."""
    rng = np.random.default_rng(0)
    first = (100 + rng.normal(size=N).cumsum()).round(2)
    second = (first + 0.01 * rng.integers(-3, 4, N)).round(2)
    second[first.argmax()] = first.max() - 0.05
    frame = pd.DataFrame({"first": first, "second": second})
    codec = TableCodec().fit(frame)
    assert [gap.side for gap in codec.gaps] == [0]
    highest = codec.encode(frame)[[first.argmax()] * codec.sizes[1]]
    highest[:, 1] = np.arange(codec.sizes[1])
    rows = codec.decode(highest, rng)
    assert rows["second"].max() <= second.max()


# -- models ----------------------------------------------------------------------------
def test_no_sampled_trip_ends_before_it_starts(trips, model):
    rows = model.sample(1000, random_state=0)
    assert rows.dtypes.equals(trips.dtypes)
    took, real = (f["end"] - f["start"] for f in (rows, trips))
    assert took.min() >= pd.Timedelta(0)
    assert took.max() <= real.max()
    assert abs(took.median() / real.median() - 1) < 0.15
    assert abs(rows["end"].isna().mean() - trips["end"].isna().mean()) < 0.05


def test_what_a_difference_depends_on_is_learned(trips):
    rows = VAE(3, max_iter=15, random_state=0).fit(trips).sample(2000, random_state=0)

    def by_kind(frame):
        minutes = (frame["end"] - frame["start"]).dt.total_seconds() / 60
        return minutes.groupby(frame["far"]).median()

    np.testing.assert_allclose(by_kind(rows), by_kind(trips), rtol=0.25)


@pytest.mark.parametrize("copies", [None, 2])
def test_a_missing_start_is_filled_a_little_before_the_end(trips, model, copies):
    gaps = trips[trips["end"].notna()].head(200).copy()
    gaps.iloc[:100, 0] = pd.NaT
    gaps.iloc[100:150, 2] = pd.NaT
    filled = model.impute(gaps, n_samples=copies, random_state=0)
    for rows in [filled] if copies is None else filled:
        assert rows["start"].dtype == trips["start"].dtype
        took = rows["end"] - rows["start"]
        assert took.min() >= pd.Timedelta(0)
        assert took.max() <= pd.Timedelta("2h")
        known = gaps.notna()
        assert rows[known].equals(gaps)


def test_zoned_starts_are_filled_and_asked_for():
    trips = _trips(zone="Europe/Rome")
    model = VAE(2, max_iter=5, random_state=0).fit(trips)
    gaps = trips[trips["end"].notna()].head(50).assign(start=pd.NaT)
    filled = model.impute(gaps, random_state=0)
    assert filled["start"].dtype == trips["start"].dtype
    assert (filled["end"] - filled["start"]).between("0s", "2h").all()
    noon = pd.Timestamp("2024-03-20 12:00", tz="UTC")
    rows = model.sample(20, given={"end": noon}, random_state=0)
    assert (rows["end"] == noon).all()
    assert rows["end"].dtype == trips["end"].dtype
    assert (noon - rows["start"]).between("0s", "2h").all()


def test_starts_missing_without_an_end_are_filled_too(trips, model):
    gaps = trips.head(50).assign(start=pd.NaT, end=pd.NaT)
    rows = model.impute(gaps, random_state=0)
    assert (rows["end"] >= rows["start"]).all()


def test_transform_refuses_a_start_it_never_missed(trips, model):
    gaps = trips.copy()
    gaps.loc[3, "start"] = pd.NaT
    with pytest.raises(ValueError, match="'start' has missing cells"):
        model.transform(gaps)
    # An end is missing in training.
    assert np.isfinite(model.transform(trips)).all()


def test_given_ends_and_starts_come_back_exactly(trips):
    model = VAE(3, max_iter=15, random_state=0).fit(trips)
    noon, later = pd.Timestamp("2024-03-20 12:00:00"), pd.Timestamp("2024-03-20 12:40")
    rows = model.sample(50, given={"end": noon}, random_state=0)
    assert (rows["end"] == noon).all()
    assert (noon - rows["start"]).between("0s", "2h").all()
    assert rows["start"].nunique() > 10
    rows = model.sample(50, given={"start": noon}, random_state=0)
    assert (rows["start"] == noon).all()
    assert ((rows["end"] - noon).dropna()).between("0s", "2h").all()
    rows = model.sample(200, given={"start": noon, "end": later}, random_state=0)
    assert (rows["end"] - rows["start"] == later - noon).all()
    assert (rows["far"] == "far").mean() > 0.8  # It takes long.
    rows = model.sample(20, given={"end": None}, random_state=0)
    assert rows["end"].isna().all()
    rows = model.sample(20, given={"start": noon, "end": None}, random_state=0)
    assert rows["end"].isna().all()
    assert (rows["start"] == noon).all()


def test_partly_filled_rows_may_give_any_side(trips):
    model = VAE(3, max_iter=10, random_state=0).fit(trips)
    asked = pd.DataFrame(
        {
            "far": ["far", None, "near", None],
            "start": pd.to_datetime(["2024-03-20", None, None, None]),
            "end": pd.to_datetime([None, "2024-04-01", None, None]),
        }
    )
    rows = model.sample(5, given=asked, random_state=0)
    assert (rows["start"][:5] == asked["start"][0]).all()
    assert (rows["end"][5:10] == asked["end"][1]).all()
    assert rows["start"][5:10].between("2024-03-31 22:00", "2024-04-01").all()
    assert (rows["far"][10:15] == "near").all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1990-01-01", "'end' lies in"),
        ("soon", "'end' holds dates"),
        ("2024-03-20T12:00Z", "'end' holds dates without a time zone"),
    ],
)
def test_ends_that_cannot_be_are_refused(trips, value, message):
    model = VAE(2, max_iter=1, random_state=0).fit(trips)
    with pytest.raises(ValueError, match=message):
        model.sample(5, given={"end": value}, random_state=0)


def test_chains_of_numbers_are_drawn_filled_and_asked_for():
    quotes = _quotes()
    model = VAE(2, likelihood="table", max_iter=10, random_state=0).fit(quotes)
    rows = model.sample(500, random_state=0)
    for name, decimals in {"bid": 2, "ask": 2, "last": 3}.items():
        np.testing.assert_array_equal(rows[name], rows[name].round(decimals))
        assert rows[name].between(quotes[name].min(), quotes[name].max()).all()
    inner = rows["ask"].between(quotes["ask"].min() + 1, quotes["ask"].max() - 1)
    assert (rows["ask"] - rows["bid"])[inner].between(0.0099, 0.0401).all()
    gaps = quotes.head(90).copy()
    gaps.loc[:29, ["bid", "ask"]] = np.nan
    gaps.loc[30:59, "bid"] = np.nan
    gaps.loc[60:, "ask"] = np.nan
    filled = model.impute(gaps, random_state=0)
    assert (filled - quotes.head(90))[["bid", "ask", "last"]].abs().max().max() < 0.06
    asked = model.sample(20, given={"last": 100.0}, random_state=0)
    assert (asked["last"] == 100.0).all()
    assert asked["bid"].between(99.94, 100.0).all()


def test_a_duration_beside_start_and_end_agrees_with_both(trips):
    whole = trips[trips["end"].notna()].reset_index(drop=True)
    frame = whole.assign(
        minutes=(whole["end"] - whole["start"]).dt.total_seconds() / 60
    )
    model = VAE(3, max_iter=10, random_state=0).fit(frame)
    rows = model.sample(300, random_state=0)
    took = (rows["end"] - rows["start"]).dt.total_seconds() / 60
    np.testing.assert_allclose(took, rows["minutes"], rtol=0.1, atol=0.3)
    start, end = pd.to_datetime(["2024-03-20 12:00", "2024-03-20 12:20"])
    rows = model.sample(10, given={"start": start, "end": end}, random_state=0)
    np.testing.assert_allclose(rows["minutes"], 20, rtol=0.1)


def test_models_with_gaps_are_saved_and_conditioned(trips, tmp_path):
    whole = trips.drop(columns="far")
    model = ConditionalVAE(2, max_iter=5, random_state=0).fit(whole, trips["far"])
    rows, _ = model.sample(200, random_state=0)
    assert (rows["end"].dropna() >= rows["start"][rows["end"].notna()]).all()
    plain = VAE(2, max_iter=5, random_state=0).fit(trips)
    save(plain, tmp_path / "model.skvae")
    for copy in (pickle.loads(pickle.dumps(plain)), load(tmp_path / "model.skvae")):
        pd.testing.assert_frame_equal(
            copy.sample(20, random_state=0), plain.sample(20, random_state=0)
        )


def test_polars_frames_have_gaps(trips):
    pl = pytest.importorskip("polars")
    frame = pl.from_pandas(trips)
    model = VAE(2, max_iter=5, random_state=0).fit(frame)
    rows = model.sample(100, random_state=0)
    assert rows.schema == frame.schema
    took = (rows["end"] - rows["start"]).drop_nulls()
    assert took.min().total_seconds() >= 0
    some = frame.head(20).with_columns(start=pl.lit(None))
    filled = model.impute(some, random_state=0)
    assert filled["start"].null_count() == 0


@pytest.mark.parametrize("name", ["open", "close"])
def test_numbers_of_any_decimals_are_given(name):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"open": rng.lognormal(4, 1, N)})
    frame["close"] = frame["open"] + rng.normal(0, 0.5, N)
    codec = TableCodec().fit(frame)
    assert _gaps(frame) == {"close": "open"}
    value = float(frame[name][0])
    j = codec.names.index(name)
    rows = codec.decode(
        codec.encode(frame[:9]), np.random.default_rng(0), [(slice(0, 9), j, value)]
    )
    assert (rows[name] == value).all()
    assert (rows["close"] - rows["open"]).between(-3, 3).all()
