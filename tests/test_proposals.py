"""Codes of rows that are known in part: what is filled in is what the model says."""

import numpy as np
import pandas as pd
import pytest
import torch

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._mixture_density import ConditionalMixture, DiagonalMixture
from skvae._proposals import Proposals
from skvae.priors import NormalPrior


def _generator():
    return torch.Generator().manual_seed(0)


def _fit_near(z):
    """Return nats by which two rows know their code, of mean 1 and -1."""
    means = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    return -2.0 * (z - means).square().sum(-1)


PRIORS = {
    "normal": NormalPrior(1).distribution(),
    "mixture": DiagonalMixture(
        torch.log(torch.tensor([0.3, 0.7], dtype=torch.float64)),
        torch.tensor([[-2.0], [1.0]], dtype=torch.float64),
        torch.tensor([[0.0], [-1.0]], dtype=torch.float64),
    ),
}


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("prior", sorted(PRIORS))
@pytest.mark.parametrize("encoded", [True, False])
def test_weights_are_those_of_the_prior(prior, encoded, alike):
    # E_q[p / q] = 1, and E_q[z p / q] is the mean of the prior.
    prior, like = PRIORS[prior], torch.zeros(2, 1, dtype=torch.float64)
    posterior = (like + 1.0, like - 2.0) if encoded else None
    proposals = Proposals(prior, _fit_near, like, posterior)
    z, log_ratio = proposals.draw(20_000, _generator(), alike=alike)
    assert z.shape == (20_000, 2, 1)
    weights = log_ratio.exp()
    mean = prior.draw(20_000, _generator()).double().mean()
    assert (weights.mean(0) - 1).abs().max() < 0.03
    assert ((weights * z[..., 0]).mean(0) - mean).abs().max() < 0.05


def test_each_draw_may_have_a_prior_of_its_own():
    shift = torch.linspace(-1, 1, 20_000, dtype=torch.float64).unsqueeze(1)
    shift = shift[torch.randperm(20_000, generator=_generator())]
    even, flat = torch.zeros(20_000, 1).double(), torch.zeros(1, 1).double()
    prior = ConditionalMixture(even, shift, flat, flat)
    like = torch.zeros(3, 1, dtype=torch.float64)
    z, log_ratio = Proposals(prior, None, like, (like, like)).draw(20_000, _generator())
    assert (log_ratio.exp().mean(0) - 1).abs().max() < 0.03
    assert z.shape == (20_000, 3, 1)


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 5))
    X += 0.5 * rng.normal(size=X.shape)
    return X, rng.random(X.shape) < 0.3


@pytest.fixture(scope="module")
def fitted(linear):
    # Untrained, the model is a factor analysis: what it expects has a closed form.
    params = {"prior": "normal", "noise": "feature", "max_iter": 0, "random_state": 0}
    return VAE(2, **params).fit(linear[0])


def _expected(model, X, gaps):
    """Return the conditional means and variances of the missing cells."""
    k = model.n_components_
    level, *loadings = model.inverse_transform(np.vstack([np.zeros(k), np.eye(k)]))
    slopes = np.stack(loadings) - level
    covariance = slopes.T @ slopes + np.diag(model.noise_variance_)
    mean, variance = X.copy(), np.zeros(X.shape)
    for i, missing in enumerate(gaps):
        m, o = np.flatnonzero(missing), np.flatnonzero(~missing)
        gain = np.linalg.solve(covariance[np.ix_(o, o)], covariance[np.ix_(o, m)]).T
        mean[i, m] = level[m] + gain @ (X[i, o] - level[o])
        left = covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)]
        variance[i, m] = np.diag(left)
    return mean, variance


def test_a_model_that_saw_no_gaps_expects_the_conditional_mean(fitted, linear):
    X, gaps = linear
    filled = fitted.impute(np.where(gaps, np.nan, X))
    mean, variance = _expected(fitted, X, gaps)
    error = (filled - mean)[gaps] / np.sqrt(variance[gaps])
    assert np.sqrt(np.mean(error**2)) < 0.1


@pytest.mark.slow
def test_copies_vary_as_the_conditional_distribution(fitted, linear):
    X, gaps = linear[0][:200], linear[1][:200]
    copies = fitted.impute(np.where(gaps, np.nan, X), n_samples=30, random_state=0)
    mean, variance = _expected(fitted, X, gaps)
    away = (np.stack(copies) - mean)[:, gaps] / np.sqrt(variance[gaps])
    assert abs(np.mean(away**2) - 1) < 0.1


@pytest.mark.slow
def test_rows_are_filled_without_regard_to_the_others(fitted, linear):
    X, gaps = linear
    holes = np.where(gaps, np.nan, X)
    filled = fitted.impute(holes)
    np.testing.assert_allclose(fitted.impute(holes[::-1])[::-1], filled, atol=1e-12)
    np.testing.assert_allclose(fitted.impute(holes[:3]), filled[:3], atol=1e-12)


def test_one_half_of_a_curve_is_not_its_middle():
    # Of the square the sign is not known: both branches have to be drawn.
    rng = np.random.default_rng(0)
    t = rng.uniform(-2, 2, size=(800, 1))
    X = np.hstack([t, t**2, np.abs(t)]) + 0.05 * rng.normal(size=(800, 3))
    model = VAE(2, max_iter=60, random_state=0).fit(X)
    row = np.array([[np.nan, 2.25, 1.5]])
    drawn = np.array(model.impute(row, n_samples=100, random_state=0))[:, 0, 0]
    assert 0.25 < np.mean(drawn > 0) < 0.75
    assert np.mean(np.abs(np.abs(drawn) - 1.5) < 0.5) > 0.8


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    kind = rng.choice(list("abc"), size=800, p=[0.6, 0.3, 0.1])
    side = np.where(rng.random(800) < 0.9, kind == "a", kind != "a")
    size = np.round(rng.normal(np.where(side, 3.0, -3.0)), 1)
    return pd.DataFrame({"kind": kind, "side": np.where(side, "l", "r"), "size": size})


@pytest.mark.slow
def test_rows_of_which_little_is_known_are_drawn_as_others(table):
    model = VAE(3, max_iter=20, random_state=0).fit(table)
    holes = table.head(300).copy()
    holes[["kind", "side"]] = None
    holes["size"] = np.nan
    for filled in model.impute(holes, n_samples=2, random_state=0):
        for name in ("kind", "side"):
            found = filled[name].value_counts(normalize=True)
            real = table[name].value_counts(normalize=True)
            assert (found - real).abs().max() < 0.1
        np.testing.assert_allclose(filled["size"].std(), table["size"].std(), rtol=0.1)


@pytest.mark.parametrize("gaps_in_training", [True, False])
def test_conditions_that_are_not_known_are_summed_over(gaps_in_training):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    X = np.where(y[:, None] == 1, 4.0, -4.0) + rng.normal(size=(400, 1))
    X = X + 0.5 * rng.normal(size=(400, 3))
    seen = np.where(rng.random(X.shape) < 0.1, np.nan, X) if gaps_in_training else X
    model = ConditionalVAE(1, likelihood="gaussian", max_iter=20, random_state=0)
    model.fit(seen, y)
    holes = X.copy()
    holes[:, 0] = np.nan
    filled = model.impute(holes)[:, 0]
    # Half way between the classes, where the average condition is, there is nothing.
    assert np.mean(np.sign(filled) == np.sign(X[:, 0])) > 0.99
    assert np.sqrt(np.mean((filled - X[:, 0]) ** 2)) < 1.3


def test_cells_are_judged_under_the_condition_of_the_row():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=300)
    X = np.where(y[:, None] == 1, 4.0, -4.0) + rng.normal(size=(300, 3))
    model = ConditionalVAE(1, max_iter=20, random_state=0).fit(X, y)
    told = model.cell_losses(X, y)
    np.testing.assert_allclose(model.cell_losses(X), told, rtol=1e-6)
    assert told.mean() + 1 < model.cell_losses(X, 1 - y).mean()


def test_a_deterministic_model_goes_on_from_its_guess(linear):
    X, gaps = linear
    model = AutoencoderTransformer(2, max_iter=0, random_state=0).fit(X)
    holes = np.where(gaps, np.nan, X)
    filled = end = model.impute(holes)
    for _ in range(20):
        end = np.where(gaps, model.reconstruct(end), X)
    # It stops where more rounds hardly help.
    error, least = (np.mean((rows - X)[gaps] ** 2) for rows in (filled, end))
    assert error < 1.1 * least
    first, second = model.impute(holes, n_samples=2, random_state=0)
    assert (first != second)[gaps].all()
    np.testing.assert_array_equal(first[~gaps], X[~gaps])
