"""A prior that follows the codes, and does not learn rows by heart."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from skvae import VAE, ConditionalVAE, _defaults
from skvae._learned_prior import PriorPenalty, refit_prior
from skvae.priors import MixturePrior, NormalPrior


@pytest.fixture
def unrelated():
    """Columns that have nothing to do with each other, and the entropy of a row."""
    p = np.array([0.4, 0.3, 0.2, 0.1])
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{j}": rng.choice(list("abcd"), 3000, p=p) for j in "123"})
    return frame, -3 * float(p @ np.log(p))


def _module(prior, training=True):
    return SimpleNamespace(prior=prior, training=training)


def _codes(n, seed=0):
    """Draw codes of two groups."""
    rng = np.random.default_rng(seed)
    return rng.choice([-2.0, 2.0], (n, 1)) + 0.3 * rng.normal(size=(n, 2))


def _mean_density(prior, codes):
    with torch.no_grad():
        codes = torch.as_tensor(codes, dtype=torch.float32)
        return float(prior.distribution().log_prob(codes).mean())


def test_the_penalty_is_the_density_of_a_normal_hyperprior():
    prior, out = MixturePrior(3, n_mixture=4), SimpleNamespace(z=torch.zeros(5, 3))
    n, weight = 50, 0.2
    paid = weight * n * PriorPenalty()(_module(prior), out)
    hyperprior = torch.distributions.Normal(0.0, (2 * weight * n) ** -0.5)
    density = [hyperprior.log_prob(p).sum() for p in (prior.means, prior.log_vars)]
    constant = 2 * prior.means.numel() * hyperprior.log_prob(torch.tensor(0.0))
    assert paid.shape == (5,)
    torch.testing.assert_close(paid[0], constant - sum(density))


@pytest.mark.parametrize(
    ("prior", "training"),
    [(MixturePrior(2, n_mixture=3), False), (NormalPrior(2), True)],
    ids=["held out", "nothing to learn"],
)
def test_nothing_else_pays_the_penalty(prior, training):
    out = SimpleNamespace(z=torch.ones(4, 2))
    assert not PriorPenalty()(_module(prior, training), out).any()


def test_a_prior_that_drew_together_is_fitted_to_the_codes():
    prior, check = MixturePrior(2, n_mixture=2), _codes(500, seed=1)
    prior.set_from([0.5, 0.5], np.zeros((2, 2)), np.ones((2, 2)))
    before = _mean_density(prior, check)
    fit = (_codes(2000), None)
    assert refit_prior(_module(prior), fit, (check, None), seed=0, again=True)
    assert _mean_density(prior, check) > before + 0.5
    centres = np.sort(prior.means.detach().numpy(), axis=0)
    np.testing.assert_allclose(centres, [[-2, -2], [2, 2]], atol=0.1)


def test_a_fit_that_held_out_codes_refuse_changes_nothing():
    prior = MixturePrior(2, n_mixture=2)
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    check = (_codes(500) + 50, None)
    fit = (_codes(2000) - 50, None)
    assert not refit_prior(_module(prior), fit, check, seed=0, again=True)
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())


@pytest.mark.parametrize("kind", [VAE, ConditionalVAE])
def test_normals_of_a_table_draw_near_the_standard_one(kind, unrelated, monkeypatch):
    frame = unrelated[0][:200]
    args = (frame,) if kind is VAE else (frame, np.arange(200) % 2)

    def size(rows):
        monkeypatch.setattr(_defaults, "_PRIOR_ROWS", rows)
        # Without rows held out the prior stays as it was trained.
        model = kind(max_iter=50, learning_rate_init=0.02, early_stopping=False)
        model.set_params(random_state=0).fit(*args)
        found = model._module.prior.state_dict()
        return float(found["means"].square().sum() + found["log_vars"].square().sum())

    assert size(100) < 0.5 * size(0)


def test_unrelated_columns_are_not_learned_by_heart(unrelated):
    frame, entropy = unrelated
    model = VAE(hidden_layer_sizes=(32,), random_state=0).fit(frame[:500])
    assert model.score(frame[500:]) > -entropy - 0.1


def test_a_normal_prior_stays_what_was_asked_for(unrelated):
    model = VAE(prior="normal", max_iter=5, random_state=0).fit(unrelated[0][:200])
    assert isinstance(model._module.prior, NormalPrior)
    assert model._architecture.table.prior_penalty == 0
