"""Totals and their parts: found, and kept in samples, fills and rows on request."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skvae import VAE, AutoencoderTransformer
from skvae._table import TableCodec
from skvae._table._draft import Draft
from skvae._table._sums import Sum, _around, add_up
from skvae.metrics import shape_errors

N = 500


@pytest.fixture(scope="module")
def bills():
    """Bills with a fee of 0, 2.5 or 4 beside three amounts, one mostly 0."""
    rng = np.random.default_rng(0)
    meal = rng.gamma(3.0, 8.0, N).round(2)
    tip = (meal * rng.choice([0, 0.1, 0.2], N)).round(2)
    taxi = np.where(rng.random(N) < 0.05, rng.gamma(4.0, 5.0, N), 0).round(1)
    fee = rng.choice([0, 2.5, 4], N)
    return pd.DataFrame(
        {
            "total": (meal + tip + taxi + fee).round(2),
            "day": rng.choice(["mon", "tue"], N),
            "tip": tip,
            "meal": meal,
            "guests": rng.integers(1, 9, N),
            "taxi": taxi,
        }
    )


@pytest.fixture(scope="module", params=[VAE, AutoencoderTransformer])
def model(request, bills):
    return request.param(3, max_iter=10, random_state=0).fit(bills)


@pytest.fixture(scope="module")
def workers():
    """Ages of schooling and experience, whose squares and logarithms stand beside."""
    rng = np.random.default_rng(1)
    educ = rng.integers(8, 18, N)
    exper = rng.gamma(3.0, 4.0, N).astype(int)
    frame = {"educ": educ, "exper": exper, "expersq": exper**2}
    pay = rng.gamma(3.0, 8.0, N).round(2)
    rest = rng.gamma(2.0, 5.0, N).round(2)
    frame |= {"pay": pay, "rest": rest, "income": (pay + rest).round(2)}
    frame |= {
        "lincome": np.log(frame["income"]),
        "married": rng.choice(["no", "yes"], N),
    }
    return pd.DataFrame(frame).assign(age=educ + exper + 6)


def _sums(frame):
    codec = TableCodec().fit(frame)
    return {
        codec.names[e.total]: [codec.names[j] for j in e.parts]
        for e in codec.rules.sums
    }


def _rest(rows):
    return (rows["total"] - rows["meal"] - rows["tip"] - rows["taxi"]).round(6)


# -- which columns ---------------------------------------------------------------------
def test_a_total_is_found_with_the_parts_that_vary_most_first(bills):
    assert _sums(bills) == {"total": ["meal", "tip", "taxi"]}
    codec = TableCodec().fit(bills[["total", "tip", "meal", "taxi"]].to_numpy())
    assert [(e.total, e.parts) for e in codec.rules.sums] == [(0, [2, 1, 3])]
    np.testing.assert_allclose(codec.rules.sums[0].rests, [0, 2.5, 4])


def test_whole_numbers_add_up_too():
    rng = np.random.default_rng(0)
    votes = pd.DataFrame(rng.poisson([40, 25, 4], (N, 3)), columns=list("abc"))
    assert _sums(votes.assign(all=votes.sum(axis=1))) == {"all": ["a", "b", "c"]}


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(total=f["total"] + np.random.default_rng(0).normal(size=N)),
        lambda f: f.assign(total=f["meal"] + 2 * f["tip"]),
        lambda f: f[["total", "day", "meal"]],
        lambda f: f[:40],
        lambda f: f.assign(tip=f["tip"].astype(str)),
        # A level cannot follow a number that gives way.
        lambda f: f.assign(by=np.where(f["taxi"] > 0, "taxi", "foot")),
    ],
    ids=["noisy", "slope", "one part", "few", "text", "derived"],
)
def test_other_tables_have_no_sums(bills, change):
    assert _sums(change(bills)) == {}


def test_chance_is_not_taken_for_a_sum():
    rng = np.random.default_rng(0)
    likert = pd.DataFrame(rng.integers(1, 6, (300, 40))).add_prefix("q")
    coins = pd.DataFrame(rng.integers(0, 2, (300, 40))).add_prefix("c")
    assert _sums(likert) == _sums(coins) == {}


def test_gaps_hide_no_sum(bills):
    rng = np.random.default_rng(1)
    gaps = bills.mask((rng.random(bills.shape) < 0.1) & (bills.columns != "day"))
    assert _sums(gaps) == {"total": ["meal", "tip", "taxi"]}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e308, 1e200, 1e9, 1.0, 1e-9, 1e-310])
def test_numbers_of_any_size_are_compared(scale):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.uniform(-0.5, 0.5, (300, 3)) * scale).add_prefix("c")
    frame["sum"] = frame["c0"] + frame["c1"]
    frame["near"] = frame["c2"] * (1 + 1e-9)
    codec = TableCodec().fit(frame)
    assert [gap.child for gap in codec.gaps] == [4]
    assert len(codec.rules.sums) == (1e-10 < scale < 1e10)
    rows = codec.decode(codec.encode(frame), rng)
    assert (rows >= frame.min()).all().all()
    assert (rows <= frame.max()).all().all()


# -- arithmetic ------------------------------------------------------------------------
@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=9, unique=True),
    st.lists(st.floats(-200, 200), min_size=1, max_size=9),
)
def test_the_rests_around_a_value_are_its_neighbours(candidates, values):
    rests = np.sort(candidates)
    near, beyond = _around(rests, np.array(values))
    for value, first, second in zip(values, near, beyond, strict=True):
        assert abs(value - first) == np.abs(rests - value).min()
        others = rests[rests <= value] if first >= value else rests[rests >= value]
        if first != value:
            # Of values as near as each other any will do.
            distance = np.abs(others - value).min(initial=np.inf)
            assert abs(second - value) == distance
            assert (second <= value) == (first >= value)


def test_who_gives_way(bills):
    codec = TableCodec().fit(bills)
    entry = Sum(0, [3, 2], [1, 1], np.array([0.0]), np.array([1.0]))
    rows = {
        # total, tip, meal as drawn; what is known of them; what they become
        "nothing": ([50.0, 5.0, 40.0], [None] * 3, [45.0, 5.0, 40.0]),
        "parts": ([50.0, 5.0, 40.0], [None, 5.0, 40.0], [45.0, 5.0, 40.0]),
        "total": ([50.0, 5.0, 40.0], [50.0, None, None], [50.0, 5.0, 45.0]),
        "total and meal": ([50.0, 5.0, 40.0], [50.0, None, 40.0], [50.0, 10.0, 40.0]),
        "all": ([50.0, 5.0, 40.0], [50.0, 5.0, 40.0], [50.0, 5.0, 40.0]),
        "out of range": ([90.0, 5.0, 1e4], [None, None, 1e4], [90.0, 5.0, 1e4]),
        "missing": ([50.0, np.nan, 40.0], [None] * 3, [50.0, np.nan, 40.0]),
    }
    rng = np.random.default_rng(0)
    for drawn, known, wanted in rows.values():
        values = [None] * 6
        for j, value in zip((0, 2, 3), drawn, strict=True):
            values[j] = np.array([value])
        told = {
            j: pd.Series([np.nan if v is None else v])
            for j, v in zip((0, 2, 3), known, strict=True)
        }
        add_up([entry], [], Draft(values, codec.column_as_it_came, told, rng))
        np.testing.assert_allclose([values[j][0] for j in (0, 2, 3)], wanted)


def test_medians_add_up_only_where_they_have_to(bills):
    codec = TableCodec().fit(bills)
    entry = Sum(0, [3, 2], [1, 1], np.array([0.0]), np.array([1.0]))
    open_, closed = (
        [np.array([50.0]), None, np.array([5.0]), np.array([40.0])] for _ in range(2)
    )
    add_up([entry], [], Draft(open_, codec.column_as_it_came, {}, None))
    assert open_[0] == 50
    told = {2: pd.Series([5.0]), 3: pd.Series([40.0])}
    add_up([entry], [], Draft(closed, codec.column_as_it_came, told, None))
    assert closed[0] == 45


# -- models ----------------------------------------------------------------------------
def test_sampled_totals_add_up(bills, model):
    rows = model.sample(1000, random_state=0)
    assert rows.dtypes.equals(bills.dtypes)
    assert _rest(rows).isin([0, 2.5, 4]).mean() > 0.99
    for name in ("total", "meal", "tip", "taxi"):
        assert rows[name].between(bills[name].min(), bills[name].max()).all()
    shape = np.sort(rows["total"])[::50] - np.quantile(
        bills["total"], np.arange(20) / 20
    )
    assert np.abs(shape[1:-1]).max() < 6


@pytest.mark.parametrize("copies", [None, 2])
@pytest.mark.parametrize("name", ["total", "meal", "tip"])
def test_the_one_that_is_missing_follows_from_the_others(bills, model, name, copies):
    gaps = bills.head(100).assign(**{name: np.nan})
    filled = model.impute(gaps, n_samples=copies, random_state=0)
    for rows in [filled] if copies is None else filled:
        assert _rest(rows).isin([0, 2.5, 4]).mean() > 0.95
        pd.testing.assert_frame_equal(rows.drop(columns=name), gaps.drop(columns=name))


def test_drawn_fills_add_up_whatever_is_missing(bills, model):
    gaps = bills.mask(np.random.default_rng(2).random(bills.shape) < 0.3)
    (rows,) = model.impute(gaps, n_samples=1, random_state=0)
    assert rows[gaps.notna()].equals(gaps)
    assert _rest(rows).isin([0, 2.5, 4]).mean() > 0.9


def test_parts_give_way_together_where_one_cannot(bills):
    # The taxi has one decimal, and two amounts are open.
    rng = np.random.default_rng(0)
    frame = bills.drop(columns="day").astype(float)
    codec = TableCodec().fit(frame)
    open_ = frame.mask(rng.random(frame.shape) < 0.5)
    known = codec.known(open_, codec.encode(frame))
    codes = codec.encode(frame)
    for j in range(codes.shape[1]):
        codes[:, j] = rng.permutation(codes[:, j])
    drawn = codec.decode(codes, rng, known=known)
    filled = open_.fillna(drawn)
    some = open_[["total", "tip", "meal", "taxi"]].isna().any(axis=1)
    assert _rest(filled)[some].isin([0, 2.5, 4]).mean() > 0.98


def test_a_total_follows_its_parts_out_of_its_range(bills, model):
    rows = bills.head(20).assign(meal=900.0, total=np.nan)
    filled = model.impute(rows, random_state=0)
    assert _rest(filled).isin([0, 2.5, 4]).all()


def test_rows_on_request_add_up(bills):
    model = VAE(3, max_iter=10, random_state=0).fit(bills)
    for asked in ({"total": 40.0}, {"meal": 20.0, "tip": 2.0}, {"day": "mon"}):
        rows = model.sample(50, given=asked, random_state=0)
        for name, value in asked.items():
            assert (rows[name] == value).all()
        assert _rest(rows).isin([0, 2.5, 4]).mean() > 0.9
    asked = {"total": 34.0, "meal": 20.0, "tip": 0.0, "taxi": 10.0}
    rows = model.sample(5, given=asked, random_state=0)
    assert (rows[list(asked)] == pd.Series(asked)).all().all()


def test_copies_of_a_model_add_up(bills):
    model = VAE(2, max_iter=2, random_state=0).fit(bills)
    copy = pickle.loads(pickle.dumps(model))
    restored = TableCodec.from_state(model._columns.codec.get_state())
    assert [e.parts for e in restored.rules.sums] == [[3, 2, 5]]
    pd.testing.assert_frame_equal(
        copy.sample(20, random_state=0), model.sample(20, random_state=0)
    )


@pytest.mark.slow
def test_rare_rests_stay_rare(workers):
    aged = workers["age"] - (np.arange(N) % 50 == 0)
    model = VAE(3, max_iter=10, random_state=0).fit(workers.assign(age=aged))
    rows = model.sample(1000, random_state=0)
    rests = rows["age"] - rows["educ"] - rows["exper"]
    assert set(rests) <= {5, 6}
    assert (rests == 5).mean() < 0.05


def test_sums_in_single_precision_with_a_few_exceptions_are_found(bills):
    rng = np.random.default_rng(3)
    frame = bills[["tip", "meal"]].astype(np.float32) / np.float32(7)
    frame["all"] = (frame["tip"] + frame["meal"]).astype(np.float32)
    frame.loc[[3, 77], "all"] += rng.uniform(1, 5, 2).astype(np.float32)
    frame["day"] = bills["day"]
    assert _sums(frame) == {"all": ["meal", "tip"]}


# -- columns that follow from a total or a part ----------------------------------------
def _keeps_to_rules(rows):
    """Tell which rows keep to the rules of `workers`."""
    whole = rows["age"] == rows["educ"] + rows["exper"] + 6
    whole &= rows["expersq"] == rows["exper"] ** 2
    whole &= (rows["income"] - rows["pay"] - rows["rest"]).abs() < 1e-6
    return whole & ((rows["lincome"] - np.log(rows["income"])).abs() < 0.05)


def test_what_others_follow_from_adds_up_too(workers):
    assert _keeps_to_rules(workers).all()
    assert _sums(workers) == {"age": ["exper", "educ"], "income": ["pay", "rest"]}
    named = workers.assign(old=np.where(workers["age"] > 30, "old", "young"))
    assert _sums(named) == {"income": ["pay", "rest"]}


def test_followers_go_with_what_gives_way(workers):
    model = VAE(3, max_iter=10, random_state=0).fit(workers)
    assert _keeps_to_rules(model.sample(500, random_state=0)).mean() > 0.97
    older = model.sample(50, given={"age": 40, "educ": 12}, random_state=0)
    assert (older["exper"] == 22).all()
    assert (older["expersq"] == 22**2).all()
    squares = model.sample(50, given={"expersq": 100}, random_state=0)
    assert (squares["exper"] == 10).all()
    assert _keeps_to_rules(squares).mean() > 0.97


@pytest.mark.parametrize(
    "name", ["educ", "exper", "expersq", "age", "income", "lincome"]
)
def test_what_a_follower_tells_is_kept_in_fills(workers, name):
    model = VAE(3, max_iter=5, random_state=0).fit(workers)
    gaps = workers.head(60).assign(**{name: np.nan})
    filled = model.impute(gaps, random_state=0)
    assert _keeps_to_rules(filled).mean() > 0.95
    pd.testing.assert_frame_equal(filled.drop(columns=name), gaps.drop(columns=name))


# -- differences and constant totals ---------------------------------------------------
def _signed(name, n=1200):
    """Return columns with a rule, and how far rows are from it."""
    rng = np.random.default_rng(0)
    price = rng.lognormal(4, 0.5, n).round(2)
    off = (price * rng.choice([0, 0.05, 0.2], n) + rng.uniform(0, 2, n)).round(2)
    tax = rng.gamma(2, 4, n).round(2)
    born = rng.integers(1940, 2010, n)
    used = (100 * rng.beta(2, 3, n)).round(1)
    votes = dict(zip("abc", rng.multinomial(100, [0.5, 0.3, 0.2], n).T, strict=True))
    bill = {"price": price, "off": off, "tax": tax, "net": price - off + tax}
    return {
        "bill": (bill, lambda f: f["price"] - f["off"] + f["tax"] - f["net"]),
        "votes": (
            votes,
            lambda f: 100 - f.sum(axis=1),
        ),
        "shares": ({"used": used, "free": 100 - used}, lambda f: 100 - f.sum(axis=1)),
        "people": (
            {"born": born, "age": 2020 - born - rng.integers(0, 2, n)},
            lambda f: (2019.5 - f.sum(axis=1)).abs() - 0.5,
        ),
    }[name]


@pytest.mark.parametrize("name", ["bill", "votes", "shares", "people"])
def test_differences_and_constant_totals(name):
    columns, off = _signed(name)
    frame = pd.DataFrame(columns).round(2)
    frame["side"] = np.where(np.arange(len(frame)) % 3, "x", "y")
    assert np.abs(off(frame.drop(columns="side"))).max() < 1e-6
    codec = TableCodec.from_state(TableCodec().fit(frame).get_state())
    assert len(codec.rules.sums) == 1
    rng = np.random.default_rng(0)
    codes = codec.encode(frame)
    for j in range(codes.shape[1]):
        codes[:, j] = rng.permutation(codes[:, j])
    drawn = codec.decode(codes, rng)
    assert list(drawn.dtypes) == list(frame.dtypes)
    assert (np.abs(off(drawn.drop(columns="side"))) < 1e-6).mean() > 0.99
    numbers = drawn.drop(columns="side")
    assert (numbers.min() >= frame.min(numeric_only=True)).all()
    assert (numbers.max() <= frame.max(numeric_only=True)).all()
    model = VAE(max_iter=1, random_state=0).fit(frame)
    open_ = frame.head(60).copy()
    first, last = numbers.columns[0], numbers.columns[-1]
    open_[last] = open_[last].astype(float)
    open_.loc[:29, last] = np.nan
    filled = model.impute(open_, random_state=0)
    assert np.abs(off(filled.drop(columns="side").astype(float))).max() < 1e-6
    asked = frame[first][5].item()
    rows = model.sample(20, given={first: asked}, random_state=0)
    assert (rows[first] == asked).all()
    assert (np.abs(off(rows.drop(columns="side"))) < 1e-6).mean() > 0.9


def test_totals_are_looked_for_before_differences(bills):
    codec = TableCodec().fit(bills)
    assert all(sign == 1 for entry in codec.rules.sums for sign in entry.signs)
    assert codec.rules.sums


def test_a_year_is_no_sum_of_a_date_in_years():
    rng = np.random.default_rng(0)
    date = (2000 + rng.integers(0, 240, 800) / 12).round(6)
    frame = pd.DataFrame(
        {"date": date, "year": np.floor(date), "x": rng.choice(5, 800)}
    )
    codec = TableCodec().fit(frame.astype({"x": str}))
    assert not codec.rules.sums


def test_repeated_amounts_stay_and_columns_without_them_give_way():
    rng = np.random.default_rng(0)
    amount = rng.choice([5000.0, 10_000, 12_500, 20_000], 500)
    paid = (amount * rng.uniform(0, 1, 500)).round(2)
    frame = pd.DataFrame({"paid": paid, "left": (amount - paid).round(2)})
    frame.insert(0, "amount", amount)
    frame["kind"] = np.where(paid > 5000, "x", "y")
    sample = VAE(2, max_iter=5, random_state=0).fit(frame).sample(500, random_state=0)
    rest = sample["amount"] - sample["paid"] - sample["left"]
    assert rest.abs().max() <= 0.5  # to the unit of the total
    assert sample["amount"].isin(amount).mean() > 0.98


def test_shares_of_a_whole_keep_their_distributions():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([0.3, 0.3, 0.3, 0.3], 800).round(6)
    shares[:, 0] = (1 - shares[:, 1:].sum(axis=1)).round(6)
    frame = pd.DataFrame(shares, columns=list("abcd"))
    frame["kind"] = np.where(shares[:, 0] > 0.5, "x", "y")
    sample = VAE(2, max_iter=5, random_state=0).fit(frame).sample(800, random_state=0)
    assert np.abs(sample[list("abcd")].sum(axis=1) - 1).max() < 1e-5
    assert max(shape_errors(frame, sample).values()) < 0.12


def test_a_column_without_a_part_in_a_total_is_left_out():
    """In the rows without a gap, which are few, it seemed to have one."""
    rng = np.random.default_rng(0)
    n = 1000
    age = np.clip(rng.gamma(9, 5, n), 30, 90).round()
    late, claims = rng.poisson(3, n), rng.poisson(1, n)
    years = age - 18 - late
    known = (late + claims == 3) & (claims > 0)
    frame = {
        "age": age,
        "years": years,
        "claims": claims,
        "amount": np.where(known, rng.gamma(2, 500, n).round(2), np.nan),
        "bonus": np.clip(100 - 5 * years, 50, None),
    }
    assert _sums(pd.DataFrame(frame)) == {}
    lookups = TableCodec().fit(pd.DataFrame(frame)).rules.lookups
    assert [(e.child, e.parent) for e in lookups] == [(4, 1)]
