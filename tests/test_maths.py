"""Densities are scipy's, divergences torch's, and bounds what they should be."""

import numpy as np
import pytest
import scipy.stats
import torch

import skvae._training as training
from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._flat import FlatParameters
from skvae._step import closed_step
from skvae.corruptions import make_corruption
from skvae.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Poisson
from skvae.objectives import KLDivergence, NegativeLogLikelihood, Objective
from skvae.priors import MixturePrior, NormalPrior, VampPrior, normal_kl


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.empty(*shape, dtype=torch.float64).normal_(generator=generator(seed))


# -- likelihoods -----------------------------------------------------------------------


def test_gaussian_density_is_scipys():
    x, raw = normal(5, 3), normal(5, 3, seed=1)
    likelihood = Gaussian(3).double()
    variance = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    likelihood.set_noise_variance(variance)
    expected = scipy.stats.norm.logpdf(x, raw, variance.sqrt()).sum(axis=1)
    np.testing.assert_allclose(
        likelihood.log_prob(x, raw).detach(), expected, rtol=1e-6
    )


def test_heteroscedastic_density_is_scipys():
    x, raw = normal(5, 3), normal(5, 6, seed=1)
    likelihood = Gaussian(3, noise="heteroscedastic").double()
    sd = likelihood.noise_variance(raw).sqrt().detach()
    expected = scipy.stats.norm.logpdf(x, raw[:, :3], sd).sum(axis=1)
    np.testing.assert_allclose(
        likelihood.log_prob(x, raw).detach(), expected, rtol=1e-6
    )


def test_bernoulli_density_is_scipys():
    x, raw = (normal(6, 2) > 0).double(), normal(6, 2, seed=1)
    expected = scipy.stats.bernoulli.logpmf(x, torch.sigmoid(raw)).sum(axis=1)
    np.testing.assert_allclose(Bernoulli(2).log_prob(x, raw), expected, rtol=1e-10)


def test_poisson_density_is_scipys():
    raw = normal(6, 2)
    x = torch.tensor([[0.0, 1.0], [2, 3], [0, 5], [1, 1], [4, 0], [2, 2]]).double()
    expected = scipy.stats.poisson.logpmf(x, torch.exp(raw)).sum(axis=1)
    np.testing.assert_allclose(Poisson(2).log_prob(x, raw), expected, rtol=1e-6)


def test_continuous_bernoulli_density_is_torchs_and_integrates_to_one():
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    for logit in (-6.0, -0.5, 0.0, 1e-4, 3.0):
        raw = torch.full_like(x, logit)
        found = ContinuousBernoulli(1).log_prob(x, raw)
        peer = torch.distributions.ContinuousBernoulli(logits=raw)
        np.testing.assert_allclose(found, peer.log_prob(x)[:, 0], atol=1e-5)
        total = np.trapezoid(torch.exp(found), x[:, 0])
        assert abs(total - 1) < 1e-5


@pytest.mark.parametrize("kind", [Gaussian, Bernoulli, ContinuousBernoulli, Poisson])
def test_draws_have_the_mean_of_the_likelihood(kind):
    likelihood = kind(2).double()
    raw = torch.tensor([[0.3, -0.7]], dtype=torch.float64).expand(20_000, 2)
    draws = likelihood.draw(raw, generator()).detach()
    error = draws.std(0) / np.sqrt(len(draws))
    assert ((draws.mean(0) - likelihood.mean(raw)[0]).abs() < 5 * error).all()


def test_masked_cells_are_left_out():
    x, raw = normal(4, 3), normal(4, 3, seed=1)
    likelihood, mask = Gaussian(3).double(), torch.ones(4, 3, dtype=torch.float64)
    mask[:, 2] = 0
    cells = likelihood.log_prob_columns(x, raw)
    torch.testing.assert_close(
        likelihood.log_prob(x, raw, mask), cells[:, :2].sum(dim=1)
    )


def test_gaussian_gradient_is_exact():
    likelihood = Gaussian(3).double()
    raw = normal(4, 3, seed=1).requires_grad_()
    x = normal(4, 3)
    assert torch.autograd.gradcheck(lambda r: likelihood.log_prob(x, r), (raw,))


# -- priors and divergences ------------------------------------------------------------


def test_closed_form_divergence_is_torchs():
    mean, log_var = normal(5, 3), normal(5, 3, seed=1)
    q = torch.distributions.Normal(mean, torch.exp(0.5 * log_var))
    p = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    expected = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(normal_kl(mean, log_var), expected)


@pytest.mark.parametrize("kind", ["normal", "mixture", "vamp"])
def test_prior_integrates_to_one(kind):
    if kind == "normal":
        prior = NormalPrior(2).double()
    elif kind == "mixture":
        prior = MixturePrior(2, n_mixture=3).double()
        prior.set_from([0.5, 0.3, 0.2], [[-1, 0], [1, 1], [0, 2]], np.full((3, 2), 0.3))
    else:
        prior = VampPrior(2, normal(4, 2)).double()
    density = prior.distribution(lambda u: (u, torch.full_like(u, -1.0)))
    axis = torch.linspace(-8, 8, 321, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        p = torch.exp(density.log_prob(grid)).reshape(321, 321).numpy()
    total = np.trapezoid(np.trapezoid(p, axis), axis)
    assert abs(total - 1) < 1e-6


def test_mixture_draws_follow_its_weights():
    prior = MixturePrior(1, n_mixture=2)
    prior.set_from([0.25, 0.75], [[-5.0], [5.0]], [[0.01], [0.01]])
    z = prior.distribution().draw(1000, generator())
    assert abs(int((z > 0).sum()) - 750) <= 1


# -- bounds ----------------------------------------------------------------------------


def test_bound_grows_with_the_importance_samples(wine):
    # Rows share their draws, so the mean over models is what is monotone.
    models = [VAE(3, max_iter=30, random_state=seed).fit(wine) for seed in range(4)]
    bounds = [
        np.mean([m.score_samples(wine, n_importance_samples=k).mean() for m in models])
        for k in (1, 8, 64)
    ]
    assert np.all(np.diff(bounds) > 0)


def test_labelled_rows_give_the_supervised_bound(wine):
    # Shares that are certain of a label leave nothing to marginalise over.
    y = np.arange(len(wine)) % 3
    model = ConditionalVAE(2, max_iter=2, random_state=0).fit(wine, y)
    module = model.net_.module_
    x = torch.as_tensor((wine[:9] - model.center_) / model.scale_)
    condition = torch.eye(3, dtype=torch.float64)[y[:9]]
    known = module(x, condition=condition)
    unknown = module(
        x, condition=torch.full_like(condition, torch.nan), label_prior=condition
    )
    torch.testing.assert_close(
        module.log_likelihood(unknown), module.log_likelihood(known)
    )


@pytest.mark.slow
def test_few_labels_go_a_long_way(digits):
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    y = load_digits().target
    train, test = slice(0, 1200), slice(1200, None)
    some = np.full(1200, -1)
    rng = np.random.RandomState(0)
    for c in range(10):
        some[rng.choice(np.flatnonzero(y[train] == c), 10, replace=False)] = c
    known = some >= 0
    base = LogisticRegression(max_iter=500).fit(digits[train][known] / 16, some[known])
    model = ConditionalVAE(8, max_iter=12, random_state=0).fit(digits[train], some)
    ours = (model.predict(digits[test]) == y[test]).mean()
    assert ours > base.score(digits[test] / 16, y[test]) + 0.03


# -- corruptions -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper", "swap"])
def test_share_of_corrupted_cells_is_the_level(kind):
    x = 10 + normal(2000, 10)
    changed = make_corruption(kind, 0.3, low=0.0, high=1.0)(x, generator()) != x
    rate = changed.double().mean().item()
    assert abs(rate - 0.3) < 4 * np.sqrt(0.3 * 0.7 / x.numel()) + 1e-3


def test_swapped_cells_come_from_their_column():
    x = torch.arange(300.0).reshape(100, 3)
    swapped = make_corruption("swap", 0.5)(x, generator())
    for j in range(3):
        assert set(swapped[:, j].tolist()) <= set(x[:, j].tolist())


@pytest.mark.parametrize("kind", ["gaussian", "masking", "swap"])
def test_level_zero_changes_nothing(kind):
    x = normal(5, 3)
    assert make_corruption(kind, 0.0)(x, generator()) is x


# -- the closed step -------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        AutoencoderTransformer(3, max_iter=3, random_state=0),
        AutoencoderTransformer(3, max_iter=3, penalty="kl", alpha=0.1, random_state=0),
        AutoencoderTransformer(3, max_iter=3, penalty="l1", alpha=0.1, random_state=0),
        AutoencoderTransformer(3, max_iter=3, penalty="l2", alpha=0.1, random_state=0),
        VAE(3, max_iter=3, random_state=0, noise="feature"),
        VAE(3, max_iter=3, random_state=0, noise="feature", prior="normal"),
        VAE(3, max_iter=3, random_state=0, noise="heteroscedastic"),
        VAE(3, max_iter=3, random_state=0, noise="heteroscedastic", prior="normal"),
        VAE(3, max_iter=3, prior="mixture", kl_warmup=0.5, beta=2.0, random_state=0),
        VAE(3, max_iter=3, noise="shared", kl_warmup=0.5, random_state=0),
        VAE(3, max_iter=3, noise=0.5, beta=3.0, random_state=0),
        ConditionalVAE(3, max_iter=3, random_state=0, noise="feature"),
    ],
)
def test_closed_step_equals_autograd(estimator, wine, monkeypatch):
    y = np.arange(len(wine)) % 3
    closed = estimator.fit(wine, y).transform(wine)
    monkeypatch.setattr(training, "closed_step", lambda *args: None)
    np.testing.assert_allclose(
        estimator.fit(wine, y).transform(wine), closed, atol=1e-6
    )


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("noise", ["feature", "heteroscedastic", 0.5])
@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_the_closed_step_of_a_vae_has_the_gradients_of_the_graph(
    prior, noise, weight, wine, step_gradient
):
    rows = (wine - wine.mean(0)) / wine.std(0)
    model = VAE(3, prior=prior, noise=noise, max_iter=2, random_state=0).fit(rows)
    objective = Objective([NegativeLogLikelihood(), KLDivergence(weight)])
    step = (model.net_.module_, objective, torch.as_tensor(rows[:40]))
    found = [step_gradient(*step, closed=closed) for closed in (True, False)]
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "terms",
    [
        (NegativeLogLikelihood(2.0), KLDivergence()),
        (NegativeLogLikelihood(), NegativeLogLikelihood(), KLDivergence()),
        (NegativeLogLikelihood(), KLDivergence(), KLDivergence(warmup=0.5)),
        (KLDivergence(),),
    ],
    ids=len,
)
def test_other_sums_of_terms_take_the_ordinary_step(terms, wine):
    model = VAE(2, noise="feature", max_iter=1, random_state=0).fit(wine)
    module = model.net_.module_
    FlatParameters(module).bind()
    usual = Objective([NegativeLogLikelihood(), KLDivergence(2.0)])
    assert closed_step(module, usual) is not None
    assert closed_step(module, Objective(terms)) is None
