"""Draws of which scores and samples are made."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy.stats import kstest, multivariate_normal

from skvae import VAE
from skvae._random import even_normals


@pytest.mark.parametrize("d", [1, 10])
def test_even_normals_are_normal(d):
    draws = np.concatenate([even_normals(8, d, seed).numpy() for seed in range(200)])
    assert min(kstest(column, "norm").pvalue for column in draws.T) > 1e-3


def test_the_first_even_normals_do_not_depend_on_how_many_follow():
    assert_array_equal(even_normals(3, 4, 0), even_normals(100, 4, 0)[:3])
    assert not torch.equal(even_normals(3, 4, 0), even_normals(3, 4, 1))


def test_even_normals_have_as_many_columns_as_are_asked_for(monkeypatch):
    monkeypatch.setattr(torch.quasirandom.SobolEngine, "MAXDIM", 3)
    draws = even_normals(64, 7, 0)
    assert draws.shape == (64, 7)
    assert np.abs(np.corrcoef(draws.T) - np.eye(7)).max() < 0.5
    assert kstest(draws[:, 3:].ravel(), "norm").pvalue > 1e-3


def test_even_normals_cover_the_plane_better_than_independent_ones():
    generator = torch.Generator().manual_seed(0)
    shape = (50, 32, 2)
    chance = torch.empty(shape, dtype=torch.float64).normal_(generator=generator)
    even = torch.stack([even_normals(32, 2, seed) for seed in range(50)])
    # Of exp(-|z|^2 / 2) the mean is 1 / 2.
    errors = [torch.exp(-z.square().sum(-1) / 2).mean(1) - 0.5 for z in (even, chance)]
    assert errors[0].square().mean() < 0.2 * errors[1].square().mean()


def test_scores_hardly_depend_on_the_draws():
    # Untrained, the model is a factor analysis, whose density has a closed form.
    rng = np.random.RandomState(0)
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + rng.normal(size=(300, 6))
    vae = VAE(2, max_iter=0, prior="normal", random_state=0).fit(X)
    corners = np.vstack([np.zeros(2), np.eye(2)])
    level, *loadings = vae.inverse_transform(corners)
    slopes = np.stack(loadings) - level
    covariance = slopes.T @ slopes + np.diag(vae.noise_variance_)
    exact = multivariate_normal(level, covariance).logpdf(X).mean()
    scores = []
    for seed in range(10):
        vae.evaluation_seed_ = seed
        scores.append(vae.score_samples(X).mean())
    assert np.abs(np.array(scores) - exact).max() < 0.01
