"""Numbers that are the product of others."""

import numpy as np
import pandas as pd
import pytest

from skvae import VAE
from skvae._table import TableCodec

N = 1200


@pytest.fixture(scope="module")
def orders():
    rng = np.random.default_rng(0)
    count = rng.integers(1, 30, N)
    price = rng.lognormal(3, 1, N).round(2)
    total = (count * price).round(2)
    return pd.DataFrame(
        {
            "count": count,
            "price": price,
            "total": total,
            "tax": (0.19 * total).round(2),
            "side": rng.choice(["in", "out"], N),
        }
    )


@pytest.fixture(scope="module")
def model(orders):
    return VAE(max_iter=2, random_state=0).fit(orders)


def _off(rows):
    """Return how far rows are from both rules."""
    total = (rows["count"] * rows["price"]).round(2)
    tax = 0.19 * rows["total"]
    return np.maximum(
        np.abs(total - rows["total"]), (np.abs(tax - rows["tax"]) - 0.0051).clip(0)
    )


def _found(codec):
    return {
        codec.names[p.child]: ([codec.names[j] for j in p.factors], p.rate)
        for p in codec.rules.products
    }


RULES = {"total": (["count", "price"], 1.0), "tax": (["total"], 0.19)}


def test_products_and_their_rates_are_found(orders):
    assert _found(TableCodec().fit(orders)) == RULES


@pytest.mark.parametrize("n", [80, 150])
def test_small_tables_have_products_too(orders, n):
    few = orders.head(n).drop(columns="tax")
    assert _found(TableCodec().fit(few)) == {"total": RULES["total"]}
    gross = (few["total"] + orders["tax"].head(n)).round(2)
    few = few.assign(tax=orders["tax"].head(n), gross=gross)
    codec = TableCodec().fit(few)
    drawn = codec.decode(codec.encode(few), np.random.default_rng(0))
    assert _off(drawn).max() < 1e-6
    np.testing.assert_allclose(drawn["total"] + drawn["tax"], drawn["gross"])


def test_slips_and_gaps_do_not_hide_them(orders):
    frame = orders.copy()
    frame.loc[[5, 80], "total"] += 7
    frame.loc[::9, "price"] = np.nan
    assert _found(TableCodec().fit(frame)) == RULES


def test_drawn_rows_keep_to_them(orders):
    codec = TableCodec.from_state(TableCodec().fit(orders).get_state())
    rng = np.random.default_rng(0)
    codes = codec.encode(orders)
    for j in range(codes.shape[1]):
        codes[:, j] = rng.permutation(codes[:, j])
    drawn = codec.decode(codes, rng)
    assert list(drawn.dtypes) == list(orders.dtypes)
    # What would leave its range on all sides stays as it was drawn.
    assert (_off(drawn) < 1e-6).mean() > 0.97
    numbers = drawn.drop(columns="side")
    assert (numbers.min() >= orders.min(numeric_only=True)).all()
    assert (numbers.max() <= orders.max(numeric_only=True)).all()
    pd.testing.assert_frame_equal(numbers, numbers.round(2))


def test_samples_of_a_model(orders, model):
    assert (_off(model.sample(500, random_state=0)) < 1e-6).mean() > 0.97
    assert model.reconstruct(orders.head(50)).notna().all().all()


@pytest.mark.parametrize("name", ["total", "tax", "count"])
@pytest.mark.parametrize("n_samples", [None, 1])
def test_what_is_open_follows_from_what_is_known(orders, model, name, n_samples):
    open_ = orders.head(60).astype({"count": float})
    open_.loc[:29, name] = np.nan
    filled = model.impute(open_, n_samples=n_samples, random_state=0)
    filled = filled if n_samples is None else filled[0]
    np.testing.assert_allclose(filled[name], orders[name][:60])


def test_rows_on_request(orders, model):
    asked = {"count": 3, "price": float(orders["price"][11])}
    rows = model.sample(30, given=asked, random_state=0)
    assert (rows[list(asked)] == pd.Series(asked)).all().all()
    assert (_off(rows) < 1e-6).all()
    asked = {"total": float(orders["total"][4])}
    rows = model.sample(30, given=asked, random_state=0)
    assert (rows["total"] == asked["total"]).all()
    # Counts give way to those of which a price in cents makes the total.
    assert (_off(rows) < 1e-6).all()


@pytest.mark.parametrize("decimals", [None, 1, 6])
def test_products_of_any_precision(decimals):
    rng = np.random.default_rng(0)
    sides = pd.DataFrame(rng.uniform(1, 9, (400, 2)), columns=["width", "height"])
    sides = sides if decimals is None else sides.round(1)
    frame = sides.assign(area=sides["width"] * sides["height"], kind="a")
    frame = frame if decimals is None else frame.round(decimals)
    codec = TableCodec().fit(frame)
    assert _found(codec) == {"area": (["width", "height"], 1.0)}


@pytest.mark.parametrize(
    "change",
    [
        lambda f, r: f.assign(total=f["total"] * r.uniform(0.9, 1.1, N)),
        lambda f, r: f.assign(total=f["total"].where(f.index % 20 > 0, 5.0)),
        lambda f, r: f.head(40),
        lambda f, r: f.assign(total=f["count"] + f["price"]),
    ],
    ids=["noise", "exceptions", "few", "sum"],
)
def test_other_columns_are_no_products(orders, change):
    rng = np.random.default_rng(0)
    frame = change(orders.drop(columns="tax"), rng)
    assert _found(TableCodec().fit(frame)) == {}


# -- rates of columns that rise together -----------------------------------------------
@pytest.fixture(scope="module")
def prices():
    price = np.random.default_rng(0).gamma(2, 50, 1000).round(2)
    group = np.resize(["a", "b"], len(price))
    gross = (1.19 * price).round(2)
    return pd.DataFrame({"price": price, "group": group, "gross": gross})


def _is_gross(rows):
    return ((1.19 * rows["price"] - rows["gross"]).abs() < 0.0051).all()


@pytest.mark.parametrize("names", [["price", "gross"], ["gross", "price", "group"]])
def test_a_tax_is_exact_to_the_last_decimal(prices, names):
    codec = TableCodec().fit(prices[names])
    assert len(codec.derived) == 1
    assert [entry.rate for entry in codec.rules.products] == [1.19]
    drawn = codec.decode(codec.encode(prices[names]), np.random.default_rng(0))
    assert _is_gross(drawn)
    assert not drawn["price"].equals(prices["price"])


def test_a_tax_is_exact_beside_what_is_known(prices):
    model = VAE(2, max_iter=0, random_state=0).fit(prices)
    open_ = prices.head(40).copy()
    open_.loc[:19, "price"] = np.nan
    open_.loc[20:, "gross"] = np.nan
    drawn = model.impute(open_, n_samples=2, random_state=0)
    for rows in (model.impute(open_), *drawn):
        pd.testing.assert_frame_equal(rows, prices.head(40))
    for given in ({"price": 84.03}, {"gross": 100.0}):
        rows = model.sample(5, given=given, random_state=0)
        assert (rows[["price", "gross"]] == [84.03, 100.0]).all(axis=None)


def test_two_rates_of_a_price_agree_with_it(prices):
    dollars = (1.0827 * prices["price"]).round(2)
    frame = prices.assign(dollars=dollars)
    codec = TableCodec().fit(frame)
    drawn = codec.decode(codec.encode(frame), np.random.default_rng(0))
    assert _is_gross(drawn)
    assert ((1.0827 * drawn["price"] - drawn["dollars"]).abs() < 0.0051).all()


def test_what_one_row_contradicts_is_no_rate(prices):
    gross = prices["gross"] + 0.01 * (prices.index == 7)
    codec = TableCodec().fit(prices.assign(gross=gross))
    assert len(codec.derived) == 1
    assert codec.rules.products == []
