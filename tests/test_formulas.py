"""Numbers that are part of several rules: an invoice, subtotals, an area."""

import numpy as np
import pandas as pd
import pytest

from skvae import VAE
from skvae._table import TableCodec

N = 800


@pytest.fixture(scope="module")
def invoices():
    """A price times a quantity, its tax and their sum; other names for some."""
    rng = np.random.default_rng(0)
    price = (rng.gamma(3, 10, N) + 1).round(2)
    q = rng.integers(1, 12, N)
    net = (price * q).round(2)
    tax = (0.19 * net).round(2)
    frame = {"price": price, "q": q, "net": net, "tax": tax}
    frame |= {"gross": (net + tax).round(2), "price_usd": (1.1 * price).round(2)}
    frame |= {"log": np.log(net), "cents": (100 * net).round().astype(int)}
    frame |= {"total": (net + rng.choice([0, 4.99, 9.99], N)).round(2)}
    return pd.DataFrame(frame)


@pytest.fixture(scope="module")
def bills():
    """Two amounts, their sum, its tax, and a total with a third one."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.gamma(k, 8, N).round(2) for k in (3, 2, 1.5))
    sub = (a + b).round(2)
    frame = {"a": a, "b": b, "sub": sub, "vat": (0.19 * sub).round(2), "c": c}
    return pd.DataFrame(frame | {"total": (sub + c).round(2), "n": rng.poisson(3, N)})


@pytest.fixture(scope="module")
def fields():
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(1, 20, N).round(1) for _ in range(2))
    frame = {"l": a, "w": b, "area": (a * b).round(2), "n": rng.poisson(3, N)}
    return pd.DataFrame(frame | {"around": (2 * (a + b)).round(1)})


# How far rows are from each rule; rates of money are rounded to cents.
RULES = {
    "net": lambda f: f["price"] * f["q"] - f["net"],
    "tax": lambda f: (0.19 * f["net"] - f["tax"]) * (1 - 1e-9),
    "gross": lambda f: f["net"] + f["tax"] - f["gross"],
    "price_usd": lambda f: (1.1 * f["price"] - f["price_usd"]) * (1 - 1e-9),
    "cents": lambda f: 100 * f["net"] - f["cents"],
    "log": lambda f: 0.2 * (np.log(f["net"]) - f["log"]),
    "total": lambda f: f["total"] - f["net"] - _fee(f["total"] - f["net"]),
    "sub": lambda f: f["a"] + f["b"] - f["sub"],
    "vat": lambda f: (0.19 * f["sub"] - f["vat"]) * (1 - 1e-9),
    "sum": lambda f: f["sub"] + f["c"] - f["total"],
    "area": lambda f: f["l"] * f["w"] - f["area"],
    "around": lambda f: 2 * (f["l"] + f["w"]) - f["around"],
}


def _fee(rest):
    return rest.apply(lambda x: min((0, 4.99, 9.99), key=lambda fee: abs(x - fee)))


def _kept(frame, *rules):
    """Return the share of rows that keep to each of some rules."""
    return {rule: (RULES[rule](frame).abs() <= 0.005).mean() for rule in rules}


def _assert_kept(frame, *rules, least=1.0):
    assert all(share >= least for share in _kept(frame, *rules).values())


def _shuffled(frame):
    """Return rows of which the codes of each column were drawn alone."""
    codec = TableCodec.from_state(TableCodec().fit(frame).get_state())
    rng = np.random.default_rng(0)
    codes = codec.encode(frame)
    for j in range(frame.shape[1]):
        codes[:, j] = rng.permutation(codes[:, j])
    return codec.decode(codes, rng)


CHAINS = [
    ["price", "q", "net", "gross"],
    ["gross", "net", "q", "price"],
    ["price", "q", "net", "log", "cents"],
    ["log", "cents", "net", "q", "price"],
    ["price", "q", "net", "total"],
    ["price", "q", "net", "price_usd"],
    ["price_usd", "net", "price", "q"],
    ["price", "q", "net", "tax", "gross"],
    ["gross", "tax", "net", "q", "price"],
    ["tax", "price", "gross", "q", "net"],
    ["price", "q", "net", "tax", "gross", "price_usd", "log", "cents", "total"],
]


@pytest.mark.parametrize("names", CHAINS, ids="-".join)
def test_no_rule_hides_another_one(invoices, names):
    frame = invoices[names]
    rules = [name for name in names if name in RULES and name != "gross"]
    if {"tax", "gross"} <= {*names}:
        rules.append("gross")
    _assert_kept(frame, *rules)
    drawn = _shuffled(frame)
    _assert_kept(drawn, *rules, least=0.99)
    assert list(drawn.dtypes) == list(frame.dtypes)
    written = drawn.drop(columns="log", errors="ignore")
    pd.testing.assert_frame_equal(written, written.round(2))


@pytest.mark.parametrize("n", [500, N])
def test_subtotals_and_taxes_of_sums_are_kept(bills, n):
    rules = ["sub", "vat", "sum"]
    _assert_kept(_shuffled(bills.head(n)), *rules, least=0.99)
    parts = bills[["total", "c", "sub", "b", "n", "a"]].head(n)
    _assert_kept(_shuffled(parts), "sub", "sum", least=0.99)


def test_sums_and_products_of_the_same_columns_are_kept(fields):
    _assert_kept(_shuffled(fields), "area", "around", least=0.99)


def test_single_rules_stay_what_they_are(invoices):
    for names in (["price", "q", "net"], ["net", "total"], ["net", "gross", "log"]):
        assert not TableCodec().fit(invoices[names]).rules.formulas


def test_slips_hide_no_chain(invoices):
    frame = invoices[["price", "q", "net", "tax", "gross"]].copy()
    frame.loc[[5, 80], "net"] += 7
    frame.loc[::9, "price"] = np.nan
    told = {frame.columns[f.child] for f in TableCodec().fit(frame).rules.formulas}
    assert told == {"net", "tax", "gross"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e200, 1e9, 1e-9, 1e-310])
def test_chains_of_any_size_are_drawn(scale):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.uniform(-1, 1, (300, 3)) * scale, columns=list("abc"))
    frame["sub"] = frame["a"] + frame["b"]
    frame["all"] = frame["sub"] + frame["c"]
    assert np.isfinite(_shuffled(frame)).all().all()


@pytest.fixture(scope="module")
def model(invoices):
    names = ["price", "q", "net", "tax", "gross"]
    return VAE(max_iter=2, random_state=0).fit(invoices[names])


INVOICE = ["net", "tax", "gross"]


@pytest.mark.parametrize("name", ["price", "q", "net", "tax", "gross"])
def test_rows_on_request_keep_all_rules(invoices, model, name):
    asked = {name: invoices[name][11]}
    rows = model.sample(60, given=asked, random_state=0)
    assert (rows[name] == asked[name]).all()
    _assert_kept(rows, *INVOICE)


def test_drawn_fills_keep_all_rules(invoices, model):
    rng = np.random.default_rng(0)
    frame = invoices[["price", "q", "net", "tax", "gross"]].head(200).astype(float)
    open_ = frame.mask(rng.random(frame.shape) < 0.4)
    filled = model.impute(open_, n_samples=1, random_state=0)[0]
    assert ((filled == open_) | open_.isna()).all().all()
    _assert_kept(filled, *INVOICE, least=0.97)


def test_single_fills_follow_what_is_known(invoices, model):
    frame = invoices[["price", "q", "net", "tax", "gross"]].head(60).astype(float)
    for name in frame:
        filled = model.impute(frame.assign(**{name: np.nan}), random_state=0)
        np.testing.assert_allclose(filled[name], frame[name])
    # Medians of what follows from one column follow too.
    open_ = frame.assign(net=np.nan, tax=np.nan, gross=np.nan, price=np.nan)
    _assert_kept(model.impute(open_, random_state=0), "tax", "gross")


def test_numbers_on_request_enter_formulas_by_value():
    rng = np.random.default_rng(0)
    price, q = rng.choice([4.5, 9.99, 19.99, 100.0], N), rng.integers(1, 9, N)
    frame = pd.DataFrame({"price": price, "q": q, "net": (price * q).round(2)})
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = model.sample(50, given={"price": 5.0}, random_state=0)
    np.testing.assert_allclose(rows["net"], 5 * rows["q"])


def test_a_price_that_is_looked_up_is_a_factor_and_stays():
    rng = np.random.default_rng(0)
    prices = (rng.gamma(3, 10, 400) + 1).round(2)
    item, q = rng.integers(0, 400, 3000), rng.integers(1, 12, 3000)
    frame = pd.DataFrame({"item": 1000 + 7 * item, "price": prices[item], "q": q})
    frame["net"] = (frame["price"] * q).round(2)
    frame["price_usd"] = (1.1 * frame["price"]).round(2)
    frame["cents"] = (100 * frame["net"]).round().astype(int)
    drawn = _shuffled(frame)
    _assert_kept(drawn, "net", "cents", "price_usd")
    assert (prices[(drawn["item"] - 1000) // 7] == drawn["price"]).all()


def _discounted(rates):
    """Return invoices of 30 items, whose number tells a price and a rate."""
    rng = np.random.default_rng(0)
    item, q = rng.integers(0, 30, N), rng.geometric(0.4, N)
    frame = pd.DataFrame({"price": rng.lognormal(2.5, 0.8, 30).round(2)[item], "q": q})
    frame["net"] = (frame["price"] * q).round(2)
    if rates:
        frame["rate"] = np.where(item % 3, 0.19, 0.07)
        frame["tax"] = (frame["net"] * frame["rate"]).round(2)
        return frame.assign(gross=(frame["net"] + frame["tax"]).round(2))
    off = (frame["net"] * rng.choice([0.1, 0.25, 0.5], N)).round(2)
    frame["discount"] = off.where(rng.random(N) < 0.4, 0.0)
    frame["to_pay"] = (frame["net"] - frame["discount"]).round(2)
    return frame.assign(item=[f"i{i:02d}" for i in item])


def test_the_larger_of_what_a_total_leaves_is_told():
    frame = _discounted(rates=False).drop(columns="item")
    assert [f.child for f in TableCodec().fit(frame).rules.formulas] == [2, 4]
    drawn = _shuffled(frame)
    _assert_kept(drawn, "net")
    assert ((drawn["net"] - drawn["discount"] - drawn["to_pay"]).abs() < 0.005).all()
    for name in ("discount", "to_pay"):
        assert drawn[name].between(frame[name].min(), frame[name].max()).all()
    zero = [(own["discount"] == 0).mean() for own in (drawn, frame)]
    assert abs(zero[0] - zero[1]) < 0.1


def _asked(frame, name, place):
    """Return sampled rows of which one cell, that of a training row, was given."""
    model = VAE(max_iter=5, random_state=0).fit(frame)
    rows = model.sample(80, given={name: frame[name][place]}, random_state=0)
    assert (rows[name] == frame[name][place]).all()
    return rows


@pytest.mark.parametrize("name", ["tax", "gross"])
def test_a_known_cell_is_met_through_several_formulas(name):
    frame = _discounted(rates=True)
    rows = _asked(frame, name, 9)
    _assert_kept(rows, "net", "gross")
    assert ((rows["net"] * rows["rate"] - rows["tax"]).abs() < 0.0051).all()


@pytest.mark.parametrize("name", ["discount", "to_pay"])
def test_a_looked_up_price_stays_where_what_follows_from_it_is_known(name):
    frame = _discounted(rates=False)
    rows = _asked(frame, name, 3)
    _assert_kept(rows, "net")
    assert ((rows["net"] - rows["discount"] - rows["to_pay"]).abs() < 0.005).all()
    prices = frame.drop_duplicates("item").set_index("item")["price"]
    assert (prices[rows["item"]].to_numpy() == rows["price"]).all()


def test_a_price_that_stays_close_to_another_one_is_a_factor():
    rng = np.random.default_rng(0)
    before = rng.lognormal(4, 1, N).round(2)
    frame = pd.DataFrame({"open": before, "price": before + rng.normal(size=N)})
    frame = frame.round(2).assign(q=rng.integers(1, 50, N))
    frame["net"] = (frame["price"] * frame["q"]).round(2)
    rows = VAE(max_iter=2, random_state=0).fit(frame).sample(300, random_state=0)
    _assert_kept(rows, "net")
    assert 0.8 < (rows["price"] - rows["open"]).std() < 1.3


def test_round_amounts_tell_what_is_left_of_them():
    rng = np.random.default_rng(0)
    amount = rng.choice([5000.0, 10_000, 12_500, 20_000, 24_000, 30_000], 800)
    amount = np.where(rng.random(800) < 0.4, (rng.random(800) * 3e4).round(2), amount)
    total = (amount * rng.uniform(0.1, 0.9, 800)).round(2)
    interest = (total * rng.uniform(0.05, 0.3, 800)).round(2)
    frame = pd.DataFrame({"amount": amount, "total": total, "interest": interest})
    frame["paid"] = (total - interest).round(2)
    frame["left"] = (amount - frame["paid"]).round(2)
    frame["kind"] = np.where(total > 5000, "x", "y")
    sample = VAE(2, max_iter=5, random_state=0).fit(frame).sample(500, random_state=0)
    for rest in ("amount - paid - left", "total - interest - paid"):
        assert sample.eval(rest).abs().max() < 0.006
    repeated = [5000.0, 10_000, 12_500, 20_000, 24_000, 30_000]
    assert abs(sample["amount"].isin(repeated).mean() - 0.6) < 0.1
