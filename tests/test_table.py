"""A table comes back from its codes as it went in, and its samples look like it."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._embedding import Embedding
from skvae._table import (
    Container,
    TableCodec,
    fill_cells,
    fit_mixture,
    has_categories,
    has_missing,
    missing_cells,
    mixture_log_prob,
)

RNG = np.random.default_rng


def mixed_table(n=300, seed=0):
    rng = RNG(seed)
    x = rng.normal(size=n)
    table = pd.DataFrame(
        {
            "income": np.round(1000 * np.exp(x), 2),
            "age": np.clip(40 + 10 * x + rng.normal(0, 3, n), 18, 90).astype("int64"),
            "capital": np.where(rng.random(n) < 0.7, 0.0, rng.gamma(2, 500, n).round()),
            "city": rng.choice(["Oslo", "Rome", "Lima"], n, p=[0.6, 0.3, 0.1]),
            "grade": pd.Categorical(
                np.where(x > 0, "high", "low"), ["low", "mid", "high"], ordered=True
            ),
            "member": rng.random(n) < 0.3,
            "visits": pd.array(rng.poisson(2, n), dtype="Int64"),
            "joined": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
        }
    )
    table.loc[::9, "income"] = np.nan
    table.loc[::11, "city"] = None
    table.loc[::13, "visits"] = pd.NA
    table.loc[::17, "joined"] = pd.NaT
    return table


def test_codes_survive_the_way_through_values():
    table = mixed_table()
    codec = TableCodec().fit(table)
    codes = codec.encode(table)
    back = codec.decode(codes, RNG(0))
    np.testing.assert_array_equal(codec.encode(back), codes)
    assert list(back.columns) == list(table.columns)
    assert (back.dtypes == table.dtypes).all()
    assert (back.isna().to_numpy() == table.isna().to_numpy()).all()
    # Categories and whole columns of few values come back cell by cell.
    for name in ("city", "grade", "member", "visits"):
        pd.testing.assert_series_equal(back[name], table[name])


def test_values_keep_decimals_range_and_levels():
    table = mixed_table()
    codec = TableCodec().fit(table)
    back = codec.decode(np.repeat(codec.encode(table), 5, axis=0), RNG(1))
    income = back["income"].dropna()
    assert np.array_equal(income.round(2), income)
    assert income.between(table["income"].min(), table["income"].max()).all()
    assert back["joined"].dropna().dt.normalize().eq(back["joined"].dropna()).all()
    assert back["grade"].cat.ordered
    assert list(back["grade"].cat.categories) == ["low", "mid", "high"]


@given(
    st.lists(
        st.one_of(
            st.floats(-1e12, 1e12, allow_nan=False),
            st.integers(-5, 5).map(float),
            st.just(float("nan")),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_any_numeric_column_survives(values):
    X = np.array(values, dtype=np.float64)[:, None]
    codec = TableCodec().fit(X)
    codes = codec.encode(X)
    back = codec.decode(codes, RNG(0))
    np.testing.assert_array_equal(codec.encode(back), codes)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(X))
    known = X[~np.isnan(X)]
    if len(known):
        assert np.nanmin(back) >= known.min()
        assert np.nanmax(back) <= known.max()


@given(st.lists(st.one_of(st.text(max_size=3), st.none()), min_size=1, max_size=40))
def test_any_text_column_survives(values):
    table = pd.DataFrame({"text": pd.Series(values, dtype="str")})
    codec = TableCodec().fit(table)
    back = codec.decode(codec.encode(table), RNG(0))
    pd.testing.assert_frame_equal(back, table)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 3] * 10, dtype="int8"),
        pd.Series([1.5, 2.5, None] * 10, dtype="float32"),
        pd.Series([1, None, 3] * 10, dtype="Int32"),
        pd.Series([True, False, None] * 10, dtype="boolean"),
        pd.Series([1.25, None] * 15, dtype="Float64"),
        pd.Series(["a", "b", None] * 10, dtype="string"),
        pd.Series([3, 4] * 15, dtype="int64[pyarrow]"),
        pd.Series(pd.to_datetime(["2020-01-01", "2021-06-01", None] * 10)),
        pd.Series(pd.to_datetime(["2020-01-01"] * 30).tz_localize("Europe/Rome")),
        pd.Series(pd.to_timedelta([1, 2, 5] * 10, unit="h")),
        pd.Series([7] * 30),
        pd.Series([np.nan] * 30),
        pd.Series(["x"] * 30, dtype="category"),
    ],
    ids=lambda c: f"{c.dtype}-{c.nunique()}",
)
def test_column_types_come_back_exactly(column):
    table = pd.DataFrame({"c": column, "other": np.arange(30.0)})
    codec = TableCodec().fit(table)
    back = codec.decode(codec.encode(table), RNG(0))
    pd.testing.assert_series_equal(back["c"], table["c"])


def test_polars_frames_come_back_as_polars():
    table = pl.DataFrame(
        {
            "n": pl.Series([1, 2, None] * 20, dtype=pl.Int32),
            "f": pl.Series([0.5, 1.5, 2.5] * 20, dtype=pl.Float32),
            "s": ["a", "b", None] * 20,
            "b": [True, False, True] * 20,
            "e": pl.Series(["u", "v", "u"] * 20, dtype=pl.Enum(["u", "v", "w"])),
        }
    )
    codec = TableCodec().fit(table)
    back = codec.decode(codec.encode(table), RNG(0))
    assert isinstance(back, pl.DataFrame)
    assert back.schema == table.schema
    assert back.equals(table)


def test_array_and_frame_of_the_same_numbers_give_the_same_codes():
    X = RNG(0).normal(size=(100, 3)).round(1)
    X[::7, 1] = np.nan
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    np.testing.assert_array_equal(
        TableCodec().fit(X).encode(X), TableCodec().fit(frame).encode(frame)
    )


def test_codes_of_numbers_are_ordered_by_value():
    X = np.sort(RNG(0).normal(size=500))[:, None]
    codes = TableCodec().fit(X).encode(X)[:, 0]
    assert (np.diff(codes) >= 0).all()
    assert len(np.unique(codes)) > 20


def test_spike_is_an_atom_and_no_neighbour_of_the_bins():
    x = np.concatenate([np.zeros(500), RNG(0).gamma(2, 100, 500)])
    codec = TableCodec().fit(x[:, None])
    (code,) = np.unique(codec.encode(np.zeros((1, 1))))
    assert codec.code_frequencies[code] == 0.5
    (run,) = codec.bin_runs
    assert code not in run


def test_heavy_tails_have_finer_bins():
    rng = RNG(0)
    normal = rng.normal(size=4000)
    heavy = np.exp(0.9 * normal + 0.4 * rng.normal(size=4000))
    light = normal + rng.normal(size=4000)
    frame = pd.DataFrame({"light": light, "a": np.exp(normal), "b": heavy})
    codec = TableCodec().fit(frame)
    sizes = np.asarray(codec.sizes)
    assert sizes[0] == 64
    assert (sizes[1:] > 64).all()
    assert (sizes[1:] < 80).all()
    codes = codec.encode(frame)
    assert min(np.bincount(codes[:, 1])) >= 5
    # Ranks within a bin are drawn: what bins keep of a correlation is all there is.
    restored = codec.decode(codes, RNG(1))
    change = (restored.corr() - frame.corr()).abs().to_numpy().max()
    assert change < 0.02


def test_columns_that_tell_each_other_are_cut_alike():
    x = np.exp(2 * RNG(0).normal(size=1280))
    frame = pd.DataFrame({"x": x, "log": np.log(x), "inverse": 1 / x})
    codec = TableCodec().fit(frame)
    # The tails of x and of 1 / x are different ends.
    assert len(set(codec.sizes)) == 1
    assert codec.sizes[0] > 66
    assert [entry.direction for entry in codec.derived] == [1, -1]


@pytest.mark.parametrize(("n", "sizes"), [(16_000, [127, 127]), (8000, [64, 64])])
def test_columns_that_tell_each_other_closely_have_finer_bins(n, sizes):
    rng = RNG(0)
    length = np.round(rng.uniform(4, 9, n), 4)
    volume = length**3 * rng.uniform(0.98, 1.02, n)
    # Half of the rows are equal in this column: their order says nothing.
    rest = np.sort(rng.uniform(size=n)).clip(0.5)
    frame = pd.DataFrame({"volume": volume, "length": length, "rest": rest})
    found = np.asarray(TableCodec().fit(frame).sizes)
    np.testing.assert_allclose(found[:2], sizes, atol=1)
    assert found[2] <= 65


def test_repeated_numbers_are_drawn_as_they_were():
    values = RNG(0).choice([1.5, 2, 3, 5, 8, 13, 21, 34, 55, 89] * 10, 800)
    values = values + 100 * RNG(1).integers(0, 20, 800)
    codec = TableCodec().fit(values[:, None])
    drawn = codec.decode(codec.encode(values[:, None]), RNG(2))
    assert codec.columns[0].discrete
    assert set(drawn[:, 0]) <= set(values)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_bins_do_not_depend_on_the_unit(scale):
    values = np.exp(3 * RNG(0).normal(size=500))
    codes = [TableCodec().fit(v[:, None]).columns[0] for v in (values, values * scale)]
    assert codes[0].size == codes[1].size > 25


def test_state_is_plain_and_restores_the_codec():
    table = mixed_table()
    codec = TableCodec().fit(table)
    again = TableCodec.from_state(pickle.loads(pickle.dumps(codec.get_state())))
    codes = codec.encode(table)
    np.testing.assert_array_equal(again.encode(table), codes)
    pd.testing.assert_frame_equal(
        again.decode(codes, RNG(3)), codec.decode(codes, RNG(3))
    )


@pytest.mark.slow
def test_many_levels_cost_codes_not_levels():
    n, levels = 200_000, 50_000
    table = pd.DataFrame({"id": RNG(0).integers(0, levels, n).astype(str)})
    tracemalloc.start()
    codec = TableCodec().fit(table)
    codes = codec.encode(table)
    back = codec.decode(codes, RNG(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert codec.sizes[0] <= 256
    assert set(back["id"]) <= set(table["id"])
    # A dense indicator of one byte a cell would take ten gigabytes.
    assert peak < 300e6


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"a": [1.0], "c": ["z"]}), r"unknown categories in column 'c'"),
        (pd.DataFrame({"a": ["1"], "c": ["x"]}), r"'a' was numeric in training"),
        (pd.DataFrame({"a": [np.inf], "c": ["x"]}), r"'a' contains infinity"),
        (pd.DataFrame({"a": [1.0]}), r"X has 1 features"),
    ],
)
def test_bad_rows_are_named(table, message):
    train = pd.DataFrame({"a": [1.0, 2.0, 3.0] * 10, "c": ["x", "y", "x"] * 10})
    codec = TableCodec().fit(train)
    with pytest.raises(ValueError, match=message):
        codec.encode(table)


def test_mixed_types_are_refused():
    with pytest.raises(TypeError, match="'c' mixes values of types"):
        TableCodec().fit(pd.DataFrame({"c": pd.Series(["a", 1], dtype=object)}))


@pytest.mark.parametrize("wanted", [["nope"], [-1], [-9], [2], ["a", -1], ["a", True]])
def test_unknown_declared_column_is_refused(wanted):
    with pytest.raises(ValueError, match="names unknown columns"):
        TableCodec(wanted).fit(pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]}))


@pytest.mark.parametrize("wanted", [["b", 0], [0, "b"], [True, True], [0, 1]])
def test_declared_columns_go_by_name_position_or_mask(wanted):
    codec = TableCodec(wanted).fit(pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]}))
    assert [column.kind for column in codec.columns] == ["category"] * 2


def test_missing_cells_are_found_and_filled():
    table = mixed_table(50)
    assert has_missing(table)
    assert has_categories(table)
    cells = missing_cells(table)
    other = TableCodec().fit(table.dropna())
    filled = other.decode(other.encode(table.dropna())[[0] * 50], RNG(0))
    done = fill_cells(table, filled, cells)
    assert not has_missing(done)
    assert (done.dtypes == table.dtypes).all()
    pd.testing.assert_series_equal(done["age"], table["age"])


def test_numeric_frames_are_restored_with_their_types():
    frame = pd.DataFrame(
        {"i": np.array([1, 2], "int16"), "f": np.array([0.5, 1], "f4")}
    )
    restored = Container.of(frame).restore(np.array([[1.4, 2.25], [1e9, 0.0]]))
    assert (restored.dtypes == frame.dtypes).all()
    assert restored["i"].tolist() == [1, 32767]


def test_mixture_is_a_distribution_and_fits_better_than_one_component():
    rng = RNG(0)
    group = rng.integers(0, 2, 400)
    codes = np.column_stack([group, np.where(rng.random(400) < 0.9, group, 1 - group)])
    sizes = [2, 2]
    everything = np.array([[i, j] for i in range(2) for j in range(2)])
    scores = []
    for k in (1, 2):
        fitted = fit_mixture(codes, sizes, k, rng=RNG(1), tol=0.0)
        total = logsumexp(mixture_log_prob(everything, sizes, *fitted))
        np.testing.assert_allclose(total, 0.0, atol=1e-6)
        scores.append(mixture_log_prob(codes, sizes, *fitted).mean())
    assert scores[1] > scores[0] + 0.2


def test_smoothing_keeps_the_shares_of_uneven_bins():
    shares = np.array([0.4, 0.3, 0.2, 0.06, 0.03, 0.01])
    codes = np.repeat(np.arange(6), (shares * 1000).round().astype(int))[:, None]
    run = [np.arange(6)]
    _, log_probs = fit_mixture(codes, [6], 1, bin_runs=run, smoothing=1.0, rng=RNG(0))
    np.testing.assert_allclose(np.exp(log_probs[:, 0]), shares, rtol=0.05)


def test_unknown_cells_contribute_nothing_to_a_mixture():
    codes = RNG(0).integers(0, 3, (100, 2))
    fitted = fit_mixture(codes, [3, 3], 2, rng=RNG(0))
    blank = np.full((1, 2), -1)
    np.testing.assert_allclose(mixture_log_prob(blank, [3, 3], *fitted), 0, atol=1e-6)


# -- models of tables ------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return VAE(max_iter=40, random_state=0).fit(mixed_table(600))


def test_sample_is_a_table_like_the_real_one(fitted):
    real, synthetic = mixed_table(600), fitted.sample(2000, random_state=0)
    assert fitted.likelihood_ == "table"
    assert (synthetic.dtypes == real.dtypes).all()
    assert set(synthetic["city"].dropna()) <= {"Oslo", "Rome", "Lima"}
    for name in real:
        assert abs(synthetic[name].isna().mean() - real[name].isna().mean()) < 0.03
    # Rare levels survive: they are drawn, not the most probable one.
    assert (
        abs((synthetic["city"] == "Lima").mean() - (real["city"] == "Lima").mean())
        < 0.03
    )
    grade = synthetic["grade"] == "high"
    assert synthetic["age"][grade].mean() > synthetic["age"][~grade].mean() + 5


def test_sample_repeats_with_a_seed_and_leaves_the_model_alone(fitted):
    before = fitted.score(mixed_table(100, seed=1))
    first = fitted.sample(30, random_state=3)
    pd.testing.assert_frame_equal(first, fitted.sample(30, random_state=3))
    assert not first.equals(fitted.sample(30, random_state=4))
    assert fitted.score(mixed_table(100, seed=1)) == before


def test_given_columns_are_given_and_the_others_follow(fitted):
    low = fitted.sample(400, random_state=0, given={"grade": "low"})
    high = fitted.sample(400, random_state=0, given={"grade": "high", "city": "Rome"})
    assert (low["grade"] == "low").all()
    assert (high["city"] == "Rome").all()
    assert high["age"].mean() > low["age"].mean() + 5


def test_given_rows_are_filled_one_by_one(fitted):
    rows = pd.DataFrame({"city": ["Rome", "Oslo"], "grade": ["low", None]})
    drawn = fitted.sample(3, random_state=0, given=rows)
    assert drawn["city"].tolist() == ["Rome"] * 3 + ["Oslo"] * 3
    assert (drawn["grade"][:3] == "low").all()


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"town": "Rome"}, "unknown column 'town'. Known columns are"),
        ({"city": "Paris"}, "has no level 'Paris'. Known levels are"),
        ({"age": "old"}, "'age' is numeric"),
    ],
)
def test_bad_conditions_list_what_is_known(fitted, given_values, message):
    with pytest.raises(ValueError, match=message):
        fitted.sample(2, given=given_values, random_state=0)


def test_impute_fills_missing_cells_alone(fitted):
    table = mixed_table(80, seed=2)
    filled = fitted.impute(table)
    assert not has_missing(filled)
    assert (filled.dtypes == table.dtypes).all()
    seen = ~missing_cells(table)
    for j, name in enumerate(table):
        assert (filled[name][seen[:, j]] == table[name][seen[:, j]]).all()
    copies = fitted.impute(table, n_samples=2, random_state=0)
    assert len(copies) == 2
    assert not copies[0].equals(copies[1])


def test_table_model_survives_pickling(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    table = mixed_table(50, seed=3)
    np.testing.assert_array_equal(again.transform(table), fitted.transform(table))
    pd.testing.assert_frame_equal(
        again.sample(20, random_state=0), fitted.sample(20, random_state=0)
    )


def test_score_does_not_depend_on_which_rows_are_scored_together(fitted):
    table = mixed_table(60, seed=4)
    together = fitted.score_samples(table)
    alone = np.concatenate(
        [fitted.score_samples(table.iloc[i : i + 1]) for i in range(5)]
    )
    np.testing.assert_allclose(alone, together[:5], rtol=1e-4)


def test_other_estimators_take_the_same_table():
    table = mixed_table(120)
    codes = AutoencoderTransformer(3, max_iter=3, random_state=0).fit_transform(table)
    assert codes.shape == (120, 3)
    model = ConditionalVAE(3, max_iter=3, random_state=0).fit(
        table.drop(columns="grade"), table["grade"].astype(str)
    )
    rows, labels = model.sample(4, y="low", random_state=0)
    assert list(labels) == ["low"] * 4
    assert list(rows.columns) == [c for c in table if c != "grade"]


def test_declared_columns_are_categories():
    table = pd.DataFrame({"class": [1, 2, 3] * 40, "x": RNG(0).normal(size=120)})
    model = VAE(max_iter=3, categorical_features=["class"], random_state=0).fit(table)
    assert model._columns.codec.columns[0].kind == "category"
    assert set(model.sample(50, random_state=0)["class"]) <= {1, 2, 3}


@pytest.mark.parametrize("n", [1, 2, 10])
def test_tiny_tables_fit_and_sample(n):
    table = mixed_table(60).iloc[:n]
    model = VAE(max_iter=3, random_state=0).fit(table)
    assert (model.sample(5, random_state=0).dtypes == table.dtypes).all()


def test_the_gradient_of_an_embedding_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    index = torch.randint(0, 7, (5, 4), generator=generator)
    weight = torch.randn(5, 4, 3, generator=generator, dtype=torch.float64)
    grads = []
    for function in (
        Embedding.apply,
        lambda t, i: torch.nn.functional.embedding(i, t),
    ):
        leaf = table.clone().requires_grad_()
        (function(leaf, index) * weight).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads)


def test_integers_in_a_frame_come_back_as_integers():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, 200),
            "owner": rng.integers(0, 2, 200),
            "income": rng.gamma(2.0, 900.0, 200),
        }
    )
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = model.sample(300, random_state=0)
    assert model.likelihood_ == "table"
    assert (rows.dtypes == frame.dtypes).all()
    assert (rows.min() >= frame.min()).all()
    assert (rows.max() <= frame.max()).all()
    # Images, few rows, decimal numbers and arrays are numbers.
    wide = pd.DataFrame(rng.integers(0, 9, (60, 65)))
    for numbers in (wide, frame[:40], frame[["income"]], frame.to_numpy()):
        other = VAE(max_iter=1, random_state=0).fit(numbers)
        assert other.likelihood_ == "gaussian"
    again = VAE(max_iter=1, random_state=0).fit(pl.DataFrame(frame.to_dict("list")))
    assert again.likelihood_ == "table"
