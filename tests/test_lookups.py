"""Columns that the values of another one tell, where codes are too coarse for it."""

import numpy as np
import pandas as pd
import pytest

from skvae import VAE, AutoencoderTransformer
from skvae._table import TableCodec
from skvae._table._categorical import CategoryColumn

K = 400


def _orders(n=2500, seed=0):
    """Return orders: a zip code tells city and state, a product its price."""
    rng = np.random.default_rng(seed)
    zips = np.array([f"{z:05d}" for z in np.sort(rng.choice(99999, K, False))])
    state = np.arange(K) * 20 // K
    city = np.array([f"City {rng.integers(300)} in {s}" for s in state])
    prices = rng.uniform(1, 900, K).round(2)
    home, product = rng.choice(K, n), rng.choice(K, n)
    return pd.DataFrame(
        {
            "zip": zips[home],
            "city": city[home],
            "state": np.array([f"S{s}" for s in state])[home],
            "product": product + 10_000,
            "price": prices[product],
            "spent": rng.normal(size=n).round(2),
        }
    )


RULES = [("zip", "city"), ("zip", "state"), ("product", "price")]


def _rows(frame, columns):
    return set(frame[list(columns)].itertuples(index=False, name=None))


def _told(frame, like):
    """Tell whether all rules of a table hold."""
    return all(_rows(frame, rule) <= _rows(like, rule) for rule in RULES)


@pytest.fixture(scope="module")
def orders():
    return _orders()


@pytest.fixture(scope="module")
def codec(orders):
    return TableCodec().fit(orders)


@pytest.fixture(scope="module")
def model(orders):
    return VAE(max_iter=2, random_state=0).fit(orders)


def _found(codec):
    return {(codec.names[e.parent], codec.names[e.child]) for e in codec.rules.lookups}


def test_what_values_tell_is_found(codec):
    assert _found(codec) == set(RULES)


def test_draws_keep_to_it(orders, codec):
    codes = codec.encode(orders)
    rng = np.random.default_rng(0)
    drawn = codec.decode(codes, rng)
    assert _told(drawn, orders)
    assert list(drawn.dtypes) == list(orders.dtypes)
    assert (drawn["product"] != orders["product"]).any()
    # Values change within their codes: the codes of the rows are as they were.
    np.testing.assert_array_equal(codec.encode(drawn), codes)


def test_codes_that_do_not_fit_are_made_to(orders, codec):
    codes = codec.encode(orders)
    rng = np.random.default_rng(0)
    for j in range(codes.shape[1]):
        codes[:, j] = rng.permutation(codes[:, j])
    state = orders["state"].iloc[np.argsort(codes[:, 2], kind="stable")]
    drawn = codec.decode(codes, rng)
    assert _told(drawn, orders)
    # The column of the fewest values stays as it was drawn.
    np.testing.assert_array_equal(codec.encode(drawn)[:, 2], codes[:, 2])
    assert state.nunique() == 20


def test_frequent_values_are_drawn_more_often(orders):
    often = pd.concat([orders, *[orders[orders["zip"] == orders["zip"][0]]] * 30])
    often = often.sample(frac=1, random_state=0)
    codec = TableCodec(max_levels=65).fit(often)
    drawn = codec.decode(codec.encode(often), np.random.default_rng(0))
    share = (often["zip"] == orders["zip"][0]).mean()
    assert (drawn["zip"] == orders["zip"][0]).mean() == pytest.approx(share, rel=0.1)


def test_state_and_file_keep_it(orders, codec, model, tmp_path):
    again = TableCodec.from_state(codec.get_state())
    codes = codec.encode(orders.head(50))
    pd.testing.assert_frame_equal(
        again.decode(codes, np.random.default_rng(0)),
        codec.decode(codes, np.random.default_rng(0)),
    )
    pytest.importorskip("safetensors")
    from skvae.persistence import load, save

    save(model, tmp_path / "orders.safetensors")
    pd.testing.assert_frame_equal(
        load(tmp_path / "orders.safetensors").sample(20, random_state=0),
        model.sample(20, random_state=0),
    )


def test_samples_and_reconstructions(orders, model):
    assert _told(model.sample(300, random_state=0), orders)
    assert _told(model.reconstruct(orders.head(100)), orders)
    code = AutoencoderTransformer(2, max_iter=1, random_state=0).fit(orders)
    assert _told(code.sample(100, random_state=0), orders)


def test_gaps_are_filled_by_what_is_known(orders, model):
    open_ = orders.head(90).copy()
    open_.loc[:29, ["city", "price"]] = None
    open_.loc[30:59, ["zip", "state"]] = None
    open_.loc[60:, ["zip", "city", "state"]] = None
    for filled in (
        model.impute(open_, random_state=0),
        *model.impute(open_, n_samples=2, random_state=0),
    ):
        assert _told(filled, orders)
        pd.testing.assert_frame_equal(
            filled.loc[:29, ["city", "price"]], orders.loc[:29, ["city", "price"]]
        )
        assert (filled.loc[30:59, "city"] == orders.loc[30:59, "city"]).all()


@pytest.mark.parametrize("given", [["zip"], ["city"], ["price", "state"], ["product"]])
def test_rows_on_request(orders, model, given):
    asked = orders.loc[7, given].to_dict()
    rows = model.sample(20, given=asked, random_state=0)
    assert (rows[given] == pd.Series(asked)).all().all()
    assert _told(rows, orders)


def test_requests_that_contradict_each_other_are_kept(orders, model):
    asked = {"zip": orders["zip"][0], "state": "S19"}
    assert orders["state"][0] != "S19"
    rows = model.sample(5, given=asked, random_state=0)
    assert (rows["zip"] == asked["zip"]).all()
    assert (rows["state"] == "S19").all()


def test_a_value_may_tell_that_a_cell_is_missing(orders):
    silent = orders["zip"].isin(orders["zip"].unique()[:20])
    frame = orders.assign(city=orders["city"].mask(silent))
    codec = TableCodec().fit(frame)
    assert ("zip", "city") in _found(codec)
    drawn = codec.decode(codec.encode(frame), np.random.default_rng(0))
    missing = frame.loc[silent, "zip"].unique()
    np.testing.assert_array_equal(drawn["city"].isna(), drawn["zip"].isin(missing))
    model = VAE(max_iter=1, random_state=0).fit(frame)
    assert model.impute(frame.head(50), random_state=0)["city"].notna().all()


def test_dates_tell_too():
    rng = np.random.default_rng(0)
    day = pd.date_range("2020-01-01", periods=300)
    rate = rng.normal(size=300).round(3)
    which = rng.choice(300, 1500)
    for days in (day, day.strftime("%Y-%m-%d")):
        frame = pd.DataFrame({"day": days[which], "rate": rate[which]})
        codec = TableCodec().fit(frame)
        assert _found(codec) == {("day", "rate")}
        drawn = codec.decode(codec.encode(frame), rng)
        assert _rows(drawn, frame.columns) <= _rows(frame, frame.columns)


@pytest.mark.parametrize(
    "change",
    [
        # Many exceptions; values that are never repeated; too few rows.
        lambda f: f.assign(city=f["city"].where(f.index % 20 > 0, "Else"), state="S"),
        lambda f: f.drop_duplicates("zip"),
        lambda f: f.head(60),
        # People of a row or two each: what one of them does is no rule.
        lambda f: f.assign(
            zip=[f"p{i}" for i in np.arange(len(f)) * 2 // 3],
            city="City",
            state=np.where(np.arange(len(f)) * 2 // 3 % 2, "a", "b"),
        ),
        # A number that is hardly ever repeated is not drawn again.
        lambda f: f.assign(zip=np.arange(len(f)) * 0.1, city="City"),
    ],
    ids=["exceptions", "unique", "few", "people", "measured"],
)
def test_other_columns_are_not_looked_up(orders, change):
    frame = change(orders[["zip", "city", "state"]].assign(spent=orders["spent"]))
    assert _found(TableCodec().fit(frame)) == set()


def _broken(rows, told):
    """Return the share of rows with a city that is not that of the zip code."""
    city = told.drop_duplicates("zip").set_index("zip")["city"]
    both = rows[["zip", "city"]].notna().all(axis=1)
    return (rows.loc[both, "city"] != rows.loc[both, "zip"].map(city)).mean()


@pytest.mark.parametrize("n_zips", [60, K])
def test_slips_and_gaps_do_not_hide_a_rule(n_zips):
    rng = np.random.default_rng(0)
    which = rng.choice(n_zips, 2500)
    clean = pd.DataFrame(
        {
            "zip": np.array([f"{z:05d}" for z in range(n_zips)])[which],
            "city": np.array([f"City {z // 3}" for z in range(n_zips)])[which],
            "spent": rng.normal(size=2500).round(2),
        }
    )
    frame = clean.copy()
    frame.loc[[7, 99], "city"] = "City 0"
    frame.loc[rng.choice(2500, 100, False), "city"] = None
    frame.loc[rng.choice(2500, 100, False), "zip"] = None
    codec = TableCodec().fit(frame)
    assert _found(codec) == {("zip", "city")}
    codes = codec.encode(frame)
    for j in range(codes.shape[1]):
        codes[:, j] = rng.permutation(codes[:, j])
    drawn = codec.decode(codes, rng)
    assert _broken(drawn, clean) == 0
    for name in ("zip", "city"):
        assert drawn[name].isna().sum() == frame[name].isna().sum()
    # A column that is missing says nothing of the other one.
    alone = drawn["city"].isna()
    np.testing.assert_array_equal(codec.encode(drawn)[alone, 0], codes[alone, 0])
    model = VAE(max_iter=1, random_state=0).fit(frame)
    filled = model.impute(frame.head(300), random_state=0)
    assert filled.notna().all().all()
    assert _broken(filled.drop(index=[7, 99]), clean) == 0


def test_what_follows_from_a_told_column_goes_with_it(orders):
    frame = orders.assign(land=orders["state"].str[1:].astype(int) // 7)
    frame.loc[3, "state"] = "S0" if frame["state"][3] != "S0" else "S1"
    codec = TableCodec().fit(frame)
    rng = np.random.default_rng(0)
    codes = codec.encode(frame)
    for j in range(codes.shape[1]):
        codes[:, j] = rng.permutation(codes[:, j])
    drawn = codec.decode(codes, rng)
    assert _rows(drawn, ("zip", "state")) <= _rows(orders, ("zip", "state"))
    assert _rows(drawn, ("zip", "land")) <= _rows(frame, ("zip", "land"))


def _firms(n=2500):
    """Return firms in years: each has a region, in five columns, and a size."""
    rng = np.random.default_rng(0)
    region, size = rng.choice(5, K), rng.uniform(1, 900, K).round(1)
    # Which firm has which number says nothing of either.
    firm = rng.choice(K, n)
    codes = {f"r{k}": (region[firm] == k).astype(int) for k in range(5)}
    years = rng.integers(2000, 2010, n)
    return pd.DataFrame(
        {"firm": firm + 1000, "year": years, **codes, "size": size[firm]}
    )


def test_a_key_tells_one_hot_codes():
    firms = _firms()
    columns = [f"r{k}" for k in range(5)]
    codec = TableCodec().fit(firms)
    assert len(codec.joint) == 1
    assert _found(codec) == {("firm", column) for column in [*columns, "size"]}
    codes = codec.encode(firms)
    rng = np.random.default_rng(0)
    # What is drawn of the firm and of its region need not go together.
    codes[:, 0] = rng.permutation(codes[:, 0])
    drawn = codec.decode(codes, rng)
    assert _rows(drawn, ["firm", *columns]) <= _rows(firms, ["firm", *columns])
    # The region stays as it was drawn.
    np.testing.assert_array_equal(drawn[columns], firms[columns])
    again = TableCodec.from_state(codec.get_state())
    assert _found(again) == _found(codec)


def test_a_key_of_some_of_the_codes_is_none():
    firms = _firms()
    others = np.random.default_rng(1).random(len(firms)) < 0.5
    firms["r4"] += (firms["r3"] == 1) & others
    firms["r3"] *= ~others
    assert _found(TableCodec().fit(firms)) == {("firm", "size")}


def test_keys_are_near_in_what_the_rest_depends_on():
    rng = np.random.default_rng(0)
    firms = _firms()[["firm", "size"]]
    # A second running number, and what a firm spends by its size.
    firms["member"] = rng.permutation(9000)[firms["firm"]]
    firms["land"] = np.array(list("abcdefghij"))[firms["member"] % 10]
    firms["spent"] = (firms["size"] * rng.lognormal(sigma=0.1, size=len(firms))).round()
    codec = TableCodec().fit(firms)
    assert _found(codec) == {("firm", name) for name in ("size", "member", "land")}
    codes = codec.encode(firms)
    for j in (0, 2):
        codes[:, j] = rng.permutation(codes[:, j])
    drawn = codec.decode(codes, rng)
    assert _rows(drawn, ["firm", "size"]) <= _rows(firms, ["firm", "size"])
    # .98 in the table.
    assert np.corrcoef(drawn["size"], firms["spent"])[0, 1] > 0.95


def test_levels_with_codes_of_their_own_tell_numbers():
    rng = np.random.default_rng(0)
    # Some products cost the same, so that no price tells its product.
    price = rng.choice(rng.lognormal(3, 1, 160).round(2), 200)
    which = rng.choice(200, 3000)
    frame = pd.DataFrame(
        {
            "product": np.array([f"P{k}" for k in range(200)])[which],
            "price": price[which],
            "spent": rng.normal(size=3000).round(3),
        }
    )
    codec = TableCodec().fit(frame)
    assert _found(codec) == {("product", "price")}
    drawn = codec.decode(codec.encode(frame), rng)
    both = ["product", "price"]
    pd.testing.assert_frame_equal(drawn[both], frame[both])


def test_keys_that_lie_close_are_no_difference():
    rng = np.random.default_rng(0)
    number = np.sort(rng.choice(950, 200, False))
    other = number + (rng.random(200) < 0.03)
    start = np.datetime64("2024-01-01") + rng.integers(0, 300, 200)
    which = rng.choice(200, 1500)
    frame = pd.DataFrame(
        {
            "country": np.array([f"Land {k * 7 % 200:03d}" for k in range(200)]),
            "number": number,
            "other": other.astype(float),
            "start": start.astype("M8[s]"),
            "end": (start + rng.integers(1, 9, 200)).astype("M8[s]"),
        }
    ).iloc[which]
    frame = frame.assign(x=rng.normal(size=1500)).reset_index(drop=True)
    codec = TableCodec().fit(frame)
    assert codec.gaps == []
    names = ["number", "other", "start", "end"]
    assert _found(codec) == {("country", name) for name in names}
    drawn = codec.decode(codec.encode(frame), rng)
    assert _rows(drawn, ["country", *names]) <= _rows(frame, ["country", *names])


def test_chance_is_no_rule():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "name": [f"n{i}" for i in rng.choice(900, 1000)],
            "rare": np.where(np.arange(1000) == 3, "yes", "no"),
            "coin": rng.choice(["a", "b"], 1000),
        }
    )
    assert _found(TableCodec().fit(frame)) == set()


def test_rare_levels_share_codes_with_their_neighbours():
    levels = [f"item {i}" for i in range(1000)]
    rng = np.random.default_rng(0)
    column = CategoryColumn.fit(pd.Series(rng.permutation(levels * 3)), "item", 256)
    assert column.size == 64
    codes = column.encode(pd.Series(levels))
    assert (np.diff(codes) >= 0).all()
    counts = np.bincount(codes)
    assert counts.max() <= counts.min() + 1


def test_frequent_levels_have_codes_of_their_own():
    counts = np.r_[np.full(300, 10), np.full(500, 2)]
    levels = np.repeat([f"level {i}" for i in range(800)], counts)
    column = CategoryColumn.fit(pd.Series(levels), "level", 256)
    shares = np.bincount(column.code_of_level)
    assert (shares[:192] == 1).all()
    assert len(shares) <= 256
    assert column.frequencies.sum() == pytest.approx(1)
