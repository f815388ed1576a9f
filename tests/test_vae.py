"""VAE: the bound, its units, the posterior, samples, and what it warns of."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.distributions import Normal, kl_divergence

from skvae import VAE
from skvae.outliers import AutoencoderOutlierDetector
from skvae.priors import PRIORS


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    t = rng.uniform(-2, 2, size=(150, 1))
    return np.hstack([t, t**2, np.sin(2 * t)]) + 0.1 * rng.normal(size=(150, 3))


@pytest.fixture(scope="module")
def vae(X):
    params = {"hidden_layer_sizes": (16,), "prior": "normal", "random_state": 0}
    return VAE(2, **params).fit(X)


@pytest.mark.slow
def test_score_is_the_mean_of_score_samples(vae, X):
    assert vae.score(X) == pytest.approx(vae.score_samples(X).mean())


def test_bound_equals_one_computed_by_hand(vae, X):
    # log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), from the public methods alone.
    mean, std = vae.transform(X, return_std=True)
    noise = vae._shared_noise(8).numpy()
    log_weights = []
    for eps in noise:
        z = mean + std * eps
        log_p = norm.logpdf(
            X, vae.inverse_transform(z), np.sqrt(vae.noise_variance_)
        ).sum(axis=1)
        log_w = log_p + norm.logpdf(z).sum(axis=1) - norm.logpdf(z, mean, std).sum(1)
        log_weights.append(log_w)
    expected = logsumexp(log_weights, axis=0) - np.log(8)
    scores = vae.score_samples(X, n_importance_samples=8)
    np.testing.assert_allclose(scores, expected, rtol=1e-8)


def test_more_draws_tighten_the_bound(vae, X):
    model, bounds = copy.deepcopy(vae), {1: [], 10: [], 100: []}
    # It is the mean over the draws that rises.
    for model.evaluation_seed_ in range(50):
        for k, found in bounds.items():
            found.append(model.score_samples(X, n_importance_samples=k).mean())
    assert np.mean(bounds[1]) < np.mean(bounds[10]) < np.mean(bounds[100])


def test_score_does_not_depend_on_the_other_rows(vae, X):
    np.testing.assert_allclose(vae.score_samples(X[:7]), vae.score_samples(X)[:7])


@pytest.mark.parametrize("max_iter", [0, 10])
def test_scaling_the_columns_moves_the_score_by_the_log_of_the_factors(X, max_iter):
    factors = np.array([1e-3, 7.0, 1e4])
    plain = VAE(1, max_iter=max_iter, random_state=0).fit(X)
    scaled = VAE(1, max_iter=max_iter, random_state=0).fit(X * factors)
    expected = plain.score_samples(X) - np.log(factors).sum()
    np.testing.assert_allclose(scaled.score_samples(X * factors), expected, atol=1e-5)
    np.testing.assert_allclose(
        scaled.noise_variance_, plain.noise_variance_ * factors**2, rtol=1e-5
    )


def test_shifting_the_columns_leaves_the_score(X):
    plain = VAE(1, max_iter=5, random_state=0).fit(X)
    moved = VAE(1, max_iter=5, random_state=0).fit(X + 100)
    np.testing.assert_allclose(
        moved.score_samples(X + 100), plain.score_samples(X), atol=1e-5
    )


def test_common_constant_of_counts_enters_the_score():
    X = np.random.default_rng(0).integers(0, 11, size=(80, 4)).astype(float)
    vae = VAE(1, max_iter=0, random_state=0).fit(X)
    assert set(vae.scale_) == {10.0}
    unscaled = VAE(1, max_iter=0, scale=None, random_state=0).fit(X)
    assert vae.score(X) == pytest.approx(unscaled.score(X), abs=1e-2)


@pytest.mark.parametrize("beta", [0.0, 0.3, 10.0])
def test_score_takes_beta_one_whatever_beta_was(X, beta):
    start = VAE(1, max_iter=0, random_state=0).fit(X)
    other = VAE(1, max_iter=0, beta=beta, free_bits=1.0, random_state=0).fit(X)
    np.testing.assert_array_equal(other.score_samples(X), start.score_samples(X))


def test_kl_per_component_is_that_of_torch_distributions(vae, X):
    mean, std = (torch.as_tensor(a) for a in vae.transform(X, return_std=True))
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).mean(dim=0)
    np.testing.assert_allclose(vae.kl_per_component_, expected, rtol=1e-6)


def test_kl_of_the_forward_pass_is_that_of_torch_distributions(vae, X):
    module = vae.net_.module_
    with torch.no_grad():
        out = module(torch.as_tensor(X))
    expected = kl_divergence(
        Normal(out.mean, torch.exp(0.5 * out.log_var)), Normal(0.0, 1.0)
    )
    torch.testing.assert_close(out.kl, expected)


def test_loss_is_the_exact_negative_elbo_in_nats(vae, X):
    # Sums over columns and components, mean over rows: nothing else divides.
    module, objective = vae.net_.module_, vae.net_.criterion_
    x = torch.as_tensor((X - vae.center_) / vae.scale_)
    with torch.no_grad():
        out = module(x)
        loss, _ = objective(module, out)
    sd = np.sqrt(vae.noise_variance_) / vae.scale_
    mean = module.likelihood.mean(out.raw).numpy()
    nll = -norm.logpdf(x.numpy(), mean, sd).sum(axis=1)
    kl = kl_divergence(
        Normal(out.mean, torch.exp(0.5 * out.log_var)), Normal(0.0, 1.0)
    ).sum(dim=1)
    assert loss.item() == pytest.approx((nll + kl.numpy()).mean())


def test_active_components_are_those_whose_mean_moves(X):
    vae = VAE(3, max_iter=0, random_state=0).fit(X[:, :2])
    active = (vae.transform(X[:, :2]).var(axis=0) > 0.01).sum()
    assert vae.n_active_components_ == active < 3


def test_collapse_is_told_with_what_to_change():
    X = np.random.default_rng(0).normal(size=(200, 4))
    with pytest.warns(ConvergenceWarning, match="Posterior collapse.*beta=100"):
        VAE(2, beta=100.0, init="random", max_iter=60, random_state=0).fit(X)


@pytest.mark.parametrize(
    "fit",
    [
        lambda model, X: model.fit(X),
        lambda model, X: model.fit_transform(X),
        lambda model, X: make_pipeline(StandardScaler(), model).fit(X),
        lambda model, X: AutoencoderOutlierDetector(model).fit(X),
        lambda model, X: clone(model).set_params(warm_start=True).fit(X).fit(X),
    ],
)
def test_warnings_point_to_the_line_of_the_user(fit):
    X = np.random.default_rng(0).normal(size=(200, 4))
    model = VAE(2, beta=100.0, init="random", max_iter=60, random_state=0)
    with pytest.warns(ConvergenceWarning, match="Posterior collapse") as caught:
        fit(model, X)
    assert {str(w.filename) for w in caught} == {__file__}


@pytest.mark.parametrize(
    ("likelihood", "beta"), [("gaussian", "beta=1,"), ("table", "beta=0.85,")]
)
def test_collapse_tells_the_number_of_beta_auto(monkeypatch, likelihood, beta):
    monkeypatch.setattr("skvae._vae._COLLAPSED", math.inf)
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = VAE(1, likelihood=likelihood, max_iter=1, random_state=0)
    with pytest.warns(ConvergenceWarning, match=f"Posterior collapse.*{beta}"):
        model.fit(X)


def test_training_beats_factor_analysis_on_curved_rows(X):
    vae = VAE(2, max_iter=300, random_state=0).fit(X)
    start = VAE(2, max_iter=0, random_state=0).fit(X)
    assert vae.score(X) > start.score(X) + 0.2


def test_samples_have_the_moments_of_the_rows(vae, X):
    drawn = vae.sample(4000, random_state=0)
    np.testing.assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.35)


def test_samples_of_factor_analysis_have_its_covariance(X):
    vae = VAE(1, max_iter=0, scale=None, random_state=0).fit(X)
    loadings = vae.inverse_transform([[1.0]]) - vae.inverse_transform([[0.0]])
    expected = loadings.T @ loadings + np.diag(vae.noise_variance_)
    drawn = vae.sample(50_000, random_state=1)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.05)


def test_samples_of_counts_are_counts():
    X = np.random.default_rng(0).poisson([1, 6], size=(80, 2)).astype(float)
    vae = VAE(1, likelihood="poisson", max_iter=50, random_state=0).fit(X)
    drawn = vae.sample(500, random_state=0)
    assert np.all(drawn == np.round(drawn))
    assert drawn.min() >= 0
    assert drawn.mean(axis=0) == pytest.approx([1, 6], abs=0.5)


def test_binary_data_get_a_bernoulli_likelihood():
    X = (np.random.default_rng(0).random((60, 5)) < 0.4).astype(float)
    vae = VAE(1, max_iter=2, random_state=0).fit(X)
    assert vae.likelihood_ == "bernoulli"
    assert set(np.unique(vae.sample(50, random_state=0))) == {0.0, 1.0}
    assert VAE(1, max_iter=0, random_state=0).fit(X + 1).likelihood_ == "gaussian"


@pytest.mark.slow
def test_heteroscedastic_noise_follows_the_code():
    rng = np.random.default_rng(0)
    z = rng.uniform(-1, 1, size=(600, 1))
    sd = np.exp(1.5 * z)
    X = np.hstack([3 * z, 3 * z]) + 0.1 * rng.normal(size=(600, 2))
    X = np.hstack([X, sd * rng.normal(size=(600, 2))])
    params = {"n_components": 1, "max_iter": 60, "random_state": 0}
    shared = VAE(**params, noise="feature").fit(X).score(X)
    assert VAE(**params, noise="heteroscedastic").fit(X).score(X) > shared + 0.3


def _bounds(vae, X, log_prior):
    """Return the bounds of 32 draws, cell by cell, without those that are missing."""
    mean, std = vae.transform(X, return_std=True)
    sd, weights = np.sqrt(vae.noise_variance_), []
    for noise in vae._shared_noise(32).numpy():
        z = mean + std * noise
        cells = np.nansum(norm.logpdf(X, vae.inverse_transform(z), sd), axis=1)
        weights.append(cells + log_prior(z) - norm.logpdf(z, mean, std).sum(axis=1))
    return logsumexp(weights, axis=0) - np.log(32)


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_learned_priors_train_score_and_sample(prior, X):
    vae = VAE(2, prior=prior, max_iter=5, random_state=0).fit(X)
    module = vae.net_.module_
    assert type(module.prior) is PRIORS[prior]

    def log_prior(z):
        with torch.no_grad():
            return module.prior_distribution().log_prob(torch.as_tensor(z)).numpy()

    np.testing.assert_allclose(vae.score_samples(X), _bounds(vae, X, log_prior))
    assert vae.sample(20, random_state=0).shape == (20, 3)
    assert vae.score(X) > VAE(2, max_iter=0, random_state=0).fit(X).score(X) - 0.5


def test_importance_weighted_training_runs_the_bound_it_names(X):
    vae = VAE(2, n_importance_samples=5, prior="normal", max_iter=10, random_state=0)
    module, objective = vae.fit(X).net_.module_, vae.net_.criterion_
    x = torch.as_tensor((X - vae.center_) / vae.scale_)
    with torch.no_grad():
        out = module(x)
        loss, _ = objective(module, out)
    assert out.z.shape == (5, *out.mean.shape)
    z, mean, sd = out.z, out.mean, torch.exp(0.5 * out.log_var)
    noise = torch.as_tensor(np.sqrt(vae.noise_variance_) / vae.scale_)
    weights = Normal(module.likelihood.mean(out.raw), noise).log_prob(x).sum(-1)
    weights += (Normal(0.0, 1.0).log_prob(z) - Normal(mean, sd).log_prob(z)).sum(-1)
    bounds = logsumexp(weights.numpy(), axis=0) - np.log(5)
    assert loss.item() == pytest.approx(-bounds.mean())
    assert vae.score(X) > VAE(2, max_iter=0, random_state=0).fit(X).score(X) - 0.1


def test_standard_deviations_come_in_the_dtype_of_the_rows(X):
    vae = VAE(2, max_iter=2, random_state=0).fit(X.astype(np.float32))
    mean, std = vae.transform(X.astype(np.float32), return_std=True)
    assert mean.dtype == std.dtype == np.float32
    assert np.all(std > 0)


def test_missing_cells_leave_the_sum_of_a_gaussian_score(X):
    gaps = X.copy()
    gaps[::3, 1] = np.nan
    vae = VAE(1, likelihood="gaussian", prior="normal", max_iter=5, random_state=0)
    vae.fit(gaps)
    gaps[:3] = np.nan
    gaps[:3, 2] = 0.1
    expected = _bounds(vae, gaps, lambda z: norm.logpdf(z).sum(axis=1))
    np.testing.assert_allclose(vae.score_samples(gaps), expected)
    assert np.all(np.isfinite(vae.reconstruct(gaps)))
