"""AutoencoderTransformer: scores, penalties, tied weights, samples, grid search."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skvae import AutoencoderTransformer


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    t = rng.uniform(-2, 2, size=(200, 1))
    return np.hstack([t, t**2, np.sin(2 * t)]) + 0.1 * rng.normal(size=(200, 3))


def _model(k=1, **params):
    return AutoencoderTransformer(k, **{"max_iter": 5, "random_state": 0, **params})


def test_score_is_r2_of_the_scaled_rows(X):
    model = _model().fit(X)
    scaled = (X - model.center_) / model.scale_
    guess = (model.reconstruct(X) - model.center_) / model.scale_
    expected = r2_score(scaled, guess, multioutput="variance_weighted")
    assert model.score(X) == pytest.approx(expected)


def test_score_measures_new_rows_against_the_training_means(X):
    model = _model(scale=None).fit(X)
    new = X[:20] + 1
    error = np.square(new - model.reconstruct(new)).sum()
    spread = np.square(new - X.mean(axis=0)).sum()
    assert model.score(new) == pytest.approx(1 - error / spread)


def test_scores_of_rows_are_minus_their_mean_squared_error(X):
    model = _model(scale=None).fit(X)
    expected = -np.square(X - model.reconstruct(X)).mean(axis=1)
    np.testing.assert_allclose(model.score_samples(X), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_of_rows_are_means_over_the_observed_cells(X, dtype):
    X = X.astype(dtype)
    gaps = X.copy()
    gaps[::3, 0] = gaps[:2, 1] = gaps[0] = np.nan
    model = _model(scale=None).fit(gaps)
    squares = np.square(gaps - model.reconstruct(gaps))
    scores = model.score_samples(gaps)
    assert scores.dtype == dtype
    assert scores[0] == 0.0
    np.testing.assert_allclose(
        scores[1:], -np.nanmean(squares[1:], axis=1), rtol=1e-3, atol=1e-6
    )
    whole = model.score_samples(sparse.csr_array(X))
    np.testing.assert_array_equal(model.score_samples(X), whole)


def test_score_does_not_depend_on_the_units(X):
    model = _model().fit(X)
    factors = np.array([1e-3, 5.0, 1e4])
    scaled = _model().fit(X * factors)
    assert scaled.score(X * factors) == pytest.approx(model.score(X), abs=1e-6)


def test_residual_variance_comes_in_squared_units_of_the_columns(X):
    model = _model(scale=None).fit(X)
    expected = np.square(X - model.reconstruct(X)).mean(axis=0)
    np.testing.assert_allclose(model.noise_variance_, expected)


def test_training_beats_pca_on_curved_rows(X):
    scaled = StandardScaler().fit_transform(X)
    pca = PCA(1).fit(scaled)
    linear = r2_score(
        scaled,
        pca.inverse_transform(pca.transform(scaled)),
        multioutput="variance_weighted",
    )
    assert _model(max_iter=300).fit(X).score(X) > linear + 0.1


@pytest.mark.parametrize(("d", "k"), [(1, 1), (5, 2), (13, 6), (64, 10)])
def test_auto_components_are_half_the_columns_and_at_most_ten(d, k):
    rows = np.random.default_rng(0).normal(size=(60, d))
    assert _model("auto", max_iter=0).fit(rows).n_components_ == k


# -- penalties -----------------------------------------------------------------------
def test_kl_penalty_draws_mean_activations_to_the_target(X):
    model = _model(
        3,
        penalty="kl",
        alpha=5.0,
        sparsity_target=0.2,
        max_iter=200,
        early_stopping=False,
        input_noise=0.0,
    ).fit(X)
    codes = model.transform(X)
    assert np.all((codes > 0) & (codes < 1))
    np.testing.assert_allclose(codes.mean(axis=0), 0.2, atol=0.05)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_penalties_shrink_codes_with_their_strength(X, penalty):
    sizes = [
        np.abs(
            _model(2, penalty=penalty, alpha=a, max_iter=40).fit(X).transform(X)
        ).mean()
        for a in (0.0, 0.3, 3.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_l1_of_zero_strength_is_no_penalty(X):
    zero = _model(penalty="l1", alpha=0.0).fit(X)
    none = _model(alpha=7.0).fit(X)
    np.testing.assert_allclose(zero.transform(X), none.transform(X), rtol=1e-9)


# -- networks ------------------------------------------------------------------------
def test_tied_weights_are_the_encoders_transposed(X):
    model = _model(2, tied_weights=True, hidden_layer_sizes=(), max_iter=20).fit(X)
    slope = model.inverse_transform(np.eye(2)) - model.inverse_transform(
        np.zeros((2, 2))
    )
    encoder = model.net_.module_.encoder.linear_weight.detach().numpy()
    np.testing.assert_allclose(slope / model.scale_, encoder, atol=1e-10)


def test_tied_weights_halve_the_matrices(X):
    count = [
        sum(
            p.numel()
            for p in _model(tied_weights=t).fit(X).net_.module_.parameters()
            if p.dim() > 1
        )
        for t in (False, True)
    ]
    assert count[0] == 2 * count[1]


def test_tied_weights_take_missing_cells(X):
    gaps = X.copy()
    gaps[::5, 1] = np.nan
    model = _model(2, tied_weights=True, max_iter=40).fit(gaps)
    assert model.reconstruct(gaps).shape == X.shape
    assert model.score(gaps) > 0.5


@pytest.mark.usefixtures("torch_layers")
def test_without_hidden_layers_training_stays_near_pca(X):
    model = _model(2, hidden_layer_sizes=(), max_iter=100, input_noise=0.0).fit(X)
    start = _model(2, max_iter=0).fit(X)
    assert model.score(X) == pytest.approx(start.score(X), abs=0.02)


def test_dropout_acts_in_training_only(X):
    model = _model(2, dropout=0.5, max_iter=10).fit(X)
    np.testing.assert_array_equal(model.transform(X), model.transform(X))


# -- missing cells and samples -------------------------------------------------------
def test_missing_cells_are_filled_from_the_others():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 1)) @ np.ones((1, 6)) + 0.3 * rng.normal(size=(300, 6))
    gaps = np.where(rng.random(rows.shape) < 0.1, np.nan, rows)
    filled = _model(1, max_iter=100).fit(gaps).impute(gaps)
    seen = ~np.isnan(gaps)
    np.testing.assert_array_equal(filled[seen], rows[seen])
    # The column means miss by one standard deviation.
    assert np.sqrt(np.square(filled - rows)[~seen].mean()) < 0.5


def test_samples_have_mean_and_covariance_of_the_rows(X):
    model = _model(2, max_iter=50).fit(X)
    drawn = model.sample(5000, random_state=0)
    np.testing.assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.3)


def test_samples_of_pixels_stay_in_their_range(digits):
    model = _model(4, max_iter=1).fit(digits[:300])
    drawn = model.sample(50, random_state=0)
    assert drawn.min() >= 0
    assert drawn.max() <= 16


# -- in scikit-learn -----------------------------------------------------------------
@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_grid_search_over_the_penalty_runs_in_a_pipeline(wine, n_jobs):
    y = np.repeat([0, 1, 2], [59, 71, 48])
    pipe = Pipeline(
        [
            ("scale", StandardScaler()),
            ("ae", _model(3, penalty="l2")),
            ("classify", LogisticRegression()),
        ]
    )
    grid = {"ae__alpha": [1e-3, 1e-1], "ae__n_components": [2, 5]}
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=n_jobs).fit(wine, y)
    assert search.best_score_ > 0.9
    assert len(set(search.cv_results_["mean_test_score"])) > 1


def test_grid_search_without_labels_uses_the_score(X):
    search = GridSearchCV(_model(), {"n_components": [1, 2]}, cv=3).fit(X)
    assert search.best_params_ == {"n_components": 2}


def test_grid_search_gives_the_same_scores_in_workers(X):
    scores = [
        GridSearchCV(_model(2, dropout=0.1), {"alpha": [0, 1]}, cv=3, n_jobs=n)
        .fit(X)
        .cv_results_["mean_test_score"]
        for n in (1, 2)
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("alpha", [0.0, 10.0])
@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_score_does_not_see_the_penalty(X, alpha, penalty):
    start = _model(2, max_iter=0).fit(X).score(X)
    assert _model(2, max_iter=0, penalty=penalty, alpha=alpha).fit(X).score(X) == start
