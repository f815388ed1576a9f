"""Where training begins: with max_iter=0 the model is the classical one."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.preprocessing import StandardScaler

from skvae import VAE, AutoencoderTransformer
from skvae._starts import _same_moments, sample_of_rows


def _pca_rows(X, k):
    pca = PCA(k).fit(X)
    return pca.inverse_transform(pca.transform(X))


def _factor_rows(n=200, d=6, k=2, seed=0):
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(k, d))
    noise = rng.uniform(0.3, 1.0, size=d)
    return rng.normal(size=(n, k)) @ loadings + rng.normal(size=(n, d)) * noise + 3


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("name", ["wine", "breast_cancer", "diabetes"])
def test_unscaled_reconstruction_is_pca(name, k, request):
    X = request.getfixturevalue(name)
    model = AutoencoderTransformer(k, max_iter=0, scale=None, random_state=0).fit(X)
    np.testing.assert_allclose(
        model.reconstruct(X), _pca_rows(X, k), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_scaled_reconstruction_is_pca_of_standardised_columns(name, request):
    X = request.getfixturevalue(name)
    scaler = StandardScaler().fit(X)
    expected = scaler.inverse_transform(_pca_rows(scaler.transform(X), 3))
    model = AutoencoderTransformer(3, max_iter=0, random_state=0).fit(X)
    np.testing.assert_allclose(
        scaler.transform(model.reconstruct(X)),
        scaler.transform(expected),
        rtol=1e-5,
        atol=1e-5,
    )


def test_pixels_share_one_scale_and_keep_their_range(digits):
    expected = 16 * np.clip(_pca_rows(digits / 16, 5), 0, 1)
    model = AutoencoderTransformer(5, max_iter=0, random_state=0).fit(digits)
    np.testing.assert_allclose(model.reconstruct(digits), expected, atol=1e-5)
    assert set(model.scale_) == {16.0}


def test_codes_at_the_start_are_pca_scores(wine):
    model = AutoencoderTransformer(3, max_iter=0, scale=None, random_state=0).fit(wine)
    expected = PCA(3).fit_transform(wine)
    np.testing.assert_allclose(model.transform(wine), expected, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", ["wine", "breast_cancer", "diabetes"])
def test_score_at_the_start_is_that_of_factor_analysis(name, k, request):
    X = request.getfixturevalue(name)
    scaler = StandardScaler().fit(X)
    classical = FactorAnalysis(k, tol=1e-3, max_iter=5000).fit(scaler.transform(X))
    # The density of the columns in their own units needs the scaling's Jacobian.
    expected = classical.score(scaler.transform(X)) - np.log(scaler.scale_).sum()
    score = VAE(k, max_iter=0, random_state=0).fit(X).score(X)
    assert score == pytest.approx(expected, abs=1e-2)


def test_each_row_scores_its_exact_log_density_under_factor_analysis():
    # The posterior of the start is exact, so a single draw gives log p(x) itself.
    X = _factor_rows()
    vae = VAE(2, max_iter=0, scale=None, random_state=0).fit(X)
    mean = vae.inverse_transform(np.zeros((1, 2)))[0]
    loadings = vae.inverse_transform(np.eye(2)) - mean
    covariance = loadings.T @ loadings + np.diag(vae.noise_variance_)
    expected = multivariate_normal(mean, covariance).logpdf(X)
    for draws in (1, 7):
        scores = vae.score_samples(X, n_importance_samples=draws)
        np.testing.assert_allclose(scores, expected, rtol=1e-9)


def test_posterior_at_the_start_is_the_exact_one():
    X = _factor_rows()
    vae = VAE(2, max_iter=0, scale=None, random_state=0).fit(X)
    center = vae.inverse_transform(np.zeros((1, 2)))[0]
    loadings = vae.inverse_transform(np.eye(2)) - center
    precision = np.eye(2) + (loadings / vae.noise_variance_) @ loadings.T
    covariance = np.linalg.inv(precision)
    mean, std = vae.transform(X, return_std=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    np.testing.assert_allclose(std, np.sqrt(np.diag(covariance)) + 0 * mean)
    expected = (X - center) / vae.noise_variance_ @ loadings.T @ covariance
    np.testing.assert_allclose(mean, expected, atol=1e-9)


def test_shared_noise_starts_at_probabilistic_pca():
    X = _factor_rows()
    vae = VAE(2, max_iter=0, scale=None, noise="shared", random_state=0).fit(X)
    assert np.ptp(vae.noise_variance_) < 1e-12
    assert vae.score(X) == pytest.approx(PCA(2).fit(X).score(X), abs=1e-6)


def test_fixed_noise_is_kept(wine):
    vae = VAE(2, max_iter=3, noise=0.5, random_state=0).fit(wine)
    np.testing.assert_allclose(vae.noise_variance_, (0.5 * wine.std(axis=0)) ** 2)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli"])
def test_decoder_starts_at_the_column_means_of_data_in_the_unit_interval(likelihood):
    X = np.random.default_rng(0).beta(2, 3, size=(80, 4))
    if likelihood == "bernoulli":
        X = (X > 0.4).astype(float)
    vae = VAE(2, likelihood=likelihood, max_iter=0, random_state=0).fit(X)
    mean = vae.inverse_transform(np.zeros((1, 2)))[0]
    if likelihood == "bernoulli":
        np.testing.assert_allclose(mean, X.mean(axis=0))
    else:
        # Here the mean of the density is not its parameter; it starts in its place.
        assert np.all((mean > 0) & (mean < 1))


def test_decoder_of_counts_starts_at_the_column_means():
    X = np.random.default_rng(0).poisson([1, 4, 9], size=(80, 3)).astype(float)
    vae = VAE(2, likelihood="poisson", max_iter=0, random_state=0).fit(X)
    mean = vae.inverse_transform(np.zeros((1, 2)))[0]
    np.testing.assert_allclose(mean, X.mean(axis=0))


def test_components_beyond_the_rank_add_nothing_to_the_start():
    X = _factor_rows(d=3)
    model = AutoencoderTransformer(7, max_iter=0, scale=None, random_state=0).fit(X)
    assert model.transform(X).shape == (200, 7)
    np.testing.assert_allclose(model.reconstruct(X), X, atol=1e-6)


def test_tied_weights_start_at_pca_too(wine):
    tied = AutoencoderTransformer(3, max_iter=0, tied_weights=True, random_state=0)
    free = AutoencoderTransformer(3, max_iter=0, random_state=0)
    np.testing.assert_allclose(
        tied.fit(wine).reconstruct(wine), free.fit(wine).reconstruct(wine), rtol=1e-9
    )


@pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])
def test_a_step_size_that_ruins_training_leaves_the_start(kind, wine):
    # Step 0 is among the checkpoints, so bad settings cost the held-out rows only.
    start = kind(2, max_iter=0, random_state=0).fit(wine).score(wine)
    bad = kind(2, max_iter=5, learning_rate_init=3.0, random_state=0).fit(wine)
    assert bad.net_.best_epoch_ == 0
    assert bad.score(wine) > start - 0.3 * abs(start)


def test_random_start_is_not_the_classical_model(wine):
    random = AutoencoderTransformer(3, max_iter=0, init="random", random_state=0)
    classical = AutoencoderTransformer(3, max_iter=0, random_state=0)
    assert random.fit(wine).score(wine) < classical.fit(wine).score(wine) - 0.3


def test_few_rows_stand_in_for_many_in_factor_analysis():
    X = _factor_rows(500)
    few = _same_moments(X, X.mean(axis=0))
    assert len(few) == 12
    np.testing.assert_allclose(few.mean(axis=0), X.mean(axis=0))
    np.testing.assert_allclose(np.cov(few.T, ddof=0), np.cov(X.T, ddof=0))


def test_large_tables_are_sampled_without_repetition():
    rows = sample_of_rows(50_000, 4000, np.random.RandomState(0))
    assert len(np.unique(rows)) == len(rows) == 10_000
    assert sample_of_rows(100, 5, np.random.RandomState(0)) == slice(None)
