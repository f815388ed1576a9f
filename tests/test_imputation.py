"""AutoencoderImputer: scikit-learn's contract, only gaps, better than means."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.frozen import FrozenEstimator
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skvae import VAE, AutoencoderTransformer
from skvae.imputation import AutoencoderImputer

VARIANTS = [
    AutoencoderImputer(VAE(max_iter=5, likelihood="gaussian")),
    AutoencoderImputer(AutoencoderTransformer(max_iter=5)),
    AutoencoderImputer(VAE(max_iter=3, prior="normal", init="random")),
]


@pytest.mark.numpy_global_rng
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(VARIANTS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("missing_values", ["mask", "error"])
def test_tag_of_missing_cells_is_that_of_the_estimator(missing_values):
    imputer = AutoencoderImputer(VAE(missing_values=missing_values))
    tags = imputer.__sklearn_tags__()
    assert tags.input_tags.allow_nan == (missing_values == "mask")


def test_a_frozen_estimator_is_not_fitted_again():
    X = np.random.default_rng(0).normal(size=(40, 3)) @ np.ones((3, 3))
    model = AutoencoderTransformer(1, max_iter=3, random_state=0).fit(X)
    gaps = np.where(np.eye(40, 3) == 1, np.nan, X)
    filled = AutoencoderImputer(FrozenEstimator(model)).fit_transform(gaps)
    np.testing.assert_array_equal(filled, model.impute(gaps))


def with_gaps(X, share, seed=0):
    X = np.array(X, dtype=float)
    gaps = np.random.default_rng(seed).random(X.shape) < share
    gaps[gaps.all(axis=1), 0] = False
    return np.where(gaps, np.nan, X), gaps


@pytest.fixture(scope="module")
def wine():
    return StandardScaler().fit_transform(load_wine().data)


@pytest.fixture(scope="module")
def imputer(wine):
    model = VAE(3, likelihood="gaussian", max_iter=50, random_state=0)
    return AutoencoderImputer(model).fit(with_gaps(wine, 0.2)[0])


def test_observed_cells_come_back_as_they_were(imputer, wine):
    X, gaps = with_gaps(wine, 0.3, seed=1)
    filled = imputer.transform(X)
    np.testing.assert_array_equal(filled[~gaps], wine[~gaps])
    assert np.isfinite(filled).all()


def test_rows_without_gaps_are_left_alone(imputer, wine):
    np.testing.assert_array_equal(imputer.transform(wine), wine)


def test_a_row_of_gaps_alone_is_filled(imputer):
    filled = imputer.transform(np.full((1, 13), np.nan))
    assert np.isfinite(filled).all()
    assert np.abs(filled).max() < 3


def test_what_is_filled_does_not_depend_on_the_other_rows(imputer, wine):
    X, _ = with_gaps(wine, 0.3, seed=1)
    np.testing.assert_allclose(imputer.transform(X[:5]), imputer.transform(X)[:5])


@pytest.mark.slow
@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
def test_default_beats_column_means_and_neighbours(load):
    X = StandardScaler().fit_transform(load().data)
    X_gaps, gaps = with_gaps(X, 0.3)

    def error(model):
        return np.square(model.fit_transform(X_gaps) - X)[gaps].mean()

    ours = error(AutoencoderImputer(random_state=0))
    assert ours < error(SimpleImputer())
    assert ours < error(KNNImputer())


def test_categories_are_filled_with_levels_that_fit():
    rng = np.random.default_rng(0)
    size = rng.integers(0, 3, 200)
    X = pd.DataFrame({"size": pd.Categorical.from_codes(size, ["s", "m", "l"])})
    X["price"] = size * 10 + rng.normal(size=200)
    full = X.copy()
    X.loc[:30, "size"] = np.nan
    filled = AutoencoderImputer(VAE(2, max_iter=60, random_state=0)).fit_transform(X)
    assert filled["size"].dtype == full["size"].dtype
    assert (filled["size"] == full["size"])[:31].mean() > 0.9
    pd.testing.assert_series_equal(filled["price"], full["price"])


def test_frames_come_back_as_they_came(wine):
    X, _ = with_gaps(wine, 0.2)
    names = [f"c{j}" for j in range(13)]
    imputer = AutoencoderImputer(
        VAE(2, likelihood="gaussian", max_iter=5, random_state=0)
    )
    index = np.arange(len(X)) + 7
    frame = pd.DataFrame(X, columns=names, index=index)
    filled = imputer.fit_transform(frame)
    assert list(filled.columns) == names
    np.testing.assert_array_equal(filled.index, index)
    assert isinstance(imputer.fit_transform(pl.DataFrame(frame)), pl.DataFrame)
    assert list(imputer.get_feature_names_out()) == names


@pytest.mark.slow
def test_drops_into_a_pipeline_and_a_grid_search(wine):
    X, _ = with_gaps(wine, 0.2)
    y = load_wine().target
    pipe = make_pipeline(
        AutoencoderImputer(VAE(likelihood="gaussian", max_iter=5, random_state=0)),
        LogisticRegression(),
    )
    grid = {"autoencoderimputer__estimator__n_components": [2, 3]}
    search = GridSearchCV(pipe, grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.85


def test_same_seed_same_cells(wine):
    X, _ = with_gaps(wine, 0.2)
    model = VAE(2, likelihood="gaussian", max_iter=5)
    first = AutoencoderImputer(model, random_state=1).fit_transform(X)
    second = AutoencoderImputer(model, random_state=1).fit_transform(X)
    np.testing.assert_array_equal(first, second)


def test_sparse_rows_are_refused(wine):
    from scipy.sparse import csr_array

    with pytest.raises(TypeError, match="dense data is required"):
        AutoencoderImputer().fit(csr_array(wine))


def test_infinite_cells_are_refused(imputer, wine):
    X = wine.copy()
    X[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        imputer.transform(X)


def _forms(rows):
    """Return numbers as arrays and frames."""
    frame = pd.DataFrame(rows, columns=list("abcd"))
    return {
        "array": rows,
        "float32": rows.astype(np.float32),
        "pandas": frame,
        "polars": pl.DataFrame(frame.to_dict("list")),
        "mixed": frame.assign(d=np.where(rows[:, 3] > 0, "x", "y")),
    }


@pytest.mark.parametrize("form", ["array", "float32", "pandas", "polars", "mixed"])
@pytest.mark.parametrize("likelihood", ["gaussian", "table"])
def test_complete_rows_come_back_as_copies(form, likelihood):
    X = _forms(np.random.default_rng(0).normal(size=(60, 4)))[form]
    likelihood = "table" if form == "mixed" else likelihood
    model = VAE(2, likelihood=likelihood, max_iter=1, random_state=0).fit(X)
    copies = [model.impute(X), *model.impute(X, n_samples=2, random_state=0)]
    copies.append(AutoencoderImputer(model).fit(X).transform(X))
    for i, filled in enumerate(copies):
        assert type(filled) is type(X)
        np.testing.assert_array_equal(np.asarray(filled), np.asarray(X))
        for other in (X, *copies[:i]):
            assert filled is not other
            if isinstance(X, np.ndarray):
                assert not np.shares_memory(filled, other)
    if form == "pandas":
        copies[0].iloc[0, 0] = 99.0
        assert X.iloc[0, 0] != 99.0


@pytest.mark.parametrize("likelihood", ["gaussian", "table"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_type_of_filled_rows_is_that_of_the_rows(dtype, likelihood):
    X = np.random.default_rng(0).normal(size=(60, 4))
    model = VAE(2, likelihood=likelihood, max_iter=1, random_state=0).fit(
        np.where(X > 2, np.nan, X)
    )
    rows = X.astype(dtype)
    for gap in (0.0, np.nan):
        rows[0, 0] = gap
        for filled in (model.impute(rows), *model.impute(rows, 1, random_state=0)):
            assert filled.dtype == dtype
            assert not np.isnan(filled).any()


@pytest.mark.parametrize("n_samples", [None, 2])
def test_lists_are_filled_by_models_of_tables(n_samples):
    X = np.random.default_rng(0).normal(size=(60, 4))
    X[::7, 1] = np.nan
    model = VAE(2, max_iter=1, random_state=0).fit(X.tolist())
    assert model.likelihood_ == "table"
    for rows in (X.tolist(), [[None if np.isnan(v) else v for v in r] for r in X]):
        filled = model.impute(rows, n_samples, random_state=0)
        expected = model.impute(X, n_samples, random_state=0)
        np.testing.assert_array_equal(filled, expected)
    imputer = AutoencoderImputer(model).fit(X.tolist())
    assert imputer.transform(X.tolist()).shape == X.shape


@pytest.mark.parametrize("likelihood", ["gaussian", "table"])
@pytest.mark.parametrize("form", ["array", "pandas", "polars", "list"])
def test_columns_without_observed_cells_are_told_of(form, likelihood):
    rows = np.random.default_rng(0).normal(size=(60, 4))
    rows[:, 2] = np.nan
    X = rows.tolist() if form == "list" else _forms(rows)[form]
    model = VAE(2, likelihood=likelihood, max_iter=1, random_state=0)
    name = 2 if form in ("array", "list") else "'c'"
    match = rf"Features without any observed values: \[{name}\]"
    with pytest.warns(UserWarning, match=match):
        imputer = AutoencoderImputer(model).fit(X)
    if likelihood == "gaussian":
        filled = imputer.transform(X)
    else:
        with pytest.warns(UserWarning, match="observed values in fit.*stay missing"):
            filled = imputer.transform(X)
    gaps = np.asarray(filled, dtype=float)
    assert np.isnan(gaps[:, 2]).all() == (likelihood == "table")
    assert not np.isnan(gaps[:, [0, 1, 3]]).any()
