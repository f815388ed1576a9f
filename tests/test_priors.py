"""Priors against torch.distributions, scikit-learn, quadrature and autograd."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)

from skvae.priors import (
    PRIORS,
    MixturePrior,
    NormalPrior,
    Prior,
    VampPrior,
    normal_kl,
    normal_log_prob,
)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _normal(*shape, seed=0):
    return torch.empty(shape, dtype=torch.float64).normal_(generator=_generator(seed))


def _encode(rows):
    """Encode rows of three columns by two components, smoothly."""
    weight = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.2, 0.1]], dtype=rows.dtype)
    mean = torch.tanh(rows @ weight)
    return mean, -1.0 + 0.5 * mean


def _prior(name):
    """Make a prior of two components in float64 away from its symmetric start."""
    if name == "normal":
        return NormalPrior(2).double()
    if name == "vamp":
        return VampPrior(2, _normal(4, 3))
    prior = MixturePrior(2, n_mixture=3).double()
    prior.set_from([0.2, 0.5, 0.3], _normal(3, 2), torch.exp(_normal(3, 2, seed=1)))
    return prior


def _same_family(log_weights, means, log_vars):
    components = Independent(Normal(means, torch.exp(0.5 * log_vars)), 1)
    return MixtureSameFamily(Categorical(logits=log_weights), components)


each_prior = pytest.mark.parametrize("name", sorted(PRIORS))


# -- normals -------------------------------------------------------------------------
@given(st.floats(-20, 20), st.floats(-12, 6))
def test_normal_kl_is_that_of_torch_distributions(mean, log_var):
    mean, log_var = torch.tensor([mean, log_var], dtype=torch.float64)
    posterior, prior = Normal(mean, torch.exp(0.5 * log_var)), Normal(0.0, 1.0)
    expected = kl_divergence(posterior, prior)
    torch.testing.assert_close(normal_kl(mean, log_var), expected, atol=1e-9, rtol=1e-9)


def test_normal_kl_keeps_its_digits_near_the_prior():
    log_var = torch.tensor([1e-3], dtype=torch.float32)
    kl = normal_kl(torch.zeros(1), log_var)
    expected = normal_kl(torch.zeros(1).double(), log_var.double())
    # Without expm1 the 1s cancel and leave no digit: the value is 2.5e-7.
    torch.testing.assert_close(kl.double(), expected, rtol=1e-3, atol=0)


def test_normal_kl_passes_gradcheck():
    inputs = [_normal(3, 2, seed=seed).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(normal_kl, inputs)


def test_normal_log_prob_is_that_of_torch_distributions():
    z, mean, log_var = _normal(4, 5, 3), _normal(5, 3, seed=1), _normal(5, 3, seed=2)
    expected = Independent(Normal(mean, torch.exp(0.5 * log_var)), 1).log_prob(z)
    torch.testing.assert_close(normal_log_prob(z, mean, log_var), expected)


# -- what all of them share ----------------------------------------------------------
@each_prior
def test_a_prior_integrates_to_one(name):
    axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = _prior(name).distribution(_encode).log_prob(grid).exp()
    area = float(axis[1] - axis[0]) ** 2
    assert float(density.sum()) * area == pytest.approx(1.0, abs=1e-6)


@each_prior
def test_the_draws_have_the_moments_of_the_density(name):
    n_draws = 20_000
    axis = torch.linspace(-12, 12, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        distribution = _prior(name).distribution(_encode)
        weight = torch.softmax(distribution.log_prob(grid), 0)
    draws = distribution.draw(n_draws, _generator())
    assert draws.shape == (n_draws, 2)
    for power in (1, 2):
        moment = weight @ grid**power
        spread = torch.sqrt(weight @ grid ** (2 * power) - moment**2)
        error = 5 * spread / math.sqrt(n_draws)
        assert (((draws**power).mean(0) - moment).abs() < error).all()


@each_prior
def test_importance_samples_keep_their_axes(name):
    distribution, z = _prior(name).distribution(_encode), _normal(3, 5, 2)
    log_prob = distribution.log_prob(z)
    assert log_prob.shape == (3, 5)
    torch.testing.assert_close(log_prob[1], distribution.log_prob(z[1]))


@each_prior
def test_a_draw_repeats_with_its_generator_and_leaves_the_global_one(name):
    distribution = _prior(name).distribution(_encode)
    before = torch.get_rng_state()
    first = distribution.draw(100, _generator(5))
    assert torch.equal(first, distribution.draw(100, _generator(5)))
    assert not torch.equal(first, distribution.draw(100, _generator(6)))
    assert torch.equal(before, torch.get_rng_state())
    assert not first.requires_grad


@each_prior
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_prior(name, dtype):
    distribution = _prior(name).to(dtype).distribution(_encode)
    draws = distribution.draw(3, _generator())
    assert draws.dtype == distribution.log_prob(draws).dtype == dtype


@each_prior
def test_a_code_far_away_has_a_finite_density_and_gradient(name):
    z = torch.tensor([[1e4, -1e4], [0.0, 0.0]], requires_grad=True)
    log_prob = _prior(name).float().distribution(_encode).log_prob(z)
    (gradient,) = torch.autograd.grad(log_prob.sum(), z)
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()


def test_the_normal_prior_is_that_of_torch_distributions_and_learns_nothing():
    prior, z = NormalPrior(3), _normal(5, 3)
    expected = Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(prior.distribution().log_prob(z), expected)
    assert list(prior.parameters()) == []
    assert prior.state_dict() == {}


# -- mixture -------------------------------------------------------------------------
def test_the_mixture_and_its_gradients_are_those_of_torch_distributions():
    prior, z = MixturePrior(4, n_mixture=6).double(), _normal(9, 4).requires_grad_()
    means, variances = _normal(6, 4, seed=2), torch.exp(_normal(6, 4, seed=3))
    prior.set_from(torch.arange(1.0, 7.0), means, variances)
    inputs = [z, prior.log_weights, prior.means, prior.log_vars]
    ours = prior.distribution().log_prob(z)
    theirs = _same_family(*inputs[1:]).log_prob(z)
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad(v.sum(), inputs) for v in (ours, theirs))
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their)


def test_the_mixture_passes_gradcheck():
    prior = _prior("mixture")
    names = ["log_weights", "means", "log_vars"]
    values = [getattr(prior, name).detach().clone().requires_grad_() for name in names]

    def log_prob(z, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(prior, parameters, (z,))

    prior.forward = lambda z: prior.distribution().log_prob(z)
    for z in (_normal(3, 2), _normal(2, 3, 2)):
        inputs = [z.requires_grad_(), *values]
        assert torch.autograd.gradcheck(log_prob, inputs)
        weight = _normal(*z.shape[:-1], seed=4).requires_grad_()
        assert torch.autograd.gradgradcheck(log_prob, inputs, weight)


def test_codes_out_of_reach_have_no_density_rather_than_none():
    z = torch.full((1, 2), 1e30)
    with torch.no_grad():
        assert MixturePrior(2).distribution().log_prob(z).tolist() == [-torch.inf]


def test_narrow_components_far_from_zero_keep_their_digits_in_float32():
    # Expanding the square in float32 would be wrong by several nats here.
    means = 5.0 + _normal(8, 32)
    log_vars = torch.full((8, 32), -10.0, dtype=torch.float64)
    prior = MixturePrior(32, n_mixture=8)
    prior.set_from(torch.ones(8), means, log_vars.exp())
    noise = torch.exp(torch.tensor(-5.0)) * _normal(8, 32, seed=1)
    z = (prior.means.detach() + noise).float()
    with torch.no_grad():
        ours = prior.distribution().log_prob(z).double()
        own = (prior.log_weights, prior.means, prior.log_vars)
        theirs = _same_family(*(value.double() for value in own)).log_prob(z.double())
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_a_mixture_set_from_scikit_learn_has_its_log_density():
    X = np.random.RandomState(0).randn(200, 3) * [1, 2, 3] + [0, 5, 0]
    fitted = GaussianMixture(4, covariance_type="diag", random_state=0).fit(X)
    prior = MixturePrior(3, n_mixture=4).double()
    prior.set_from(fitted.weights_, fitted.means_, fitted.covariances_)
    log_prob = prior.distribution().log_prob(torch.as_tensor(X)).detach().numpy()
    np.testing.assert_allclose(log_prob, fitted.score_samples(X), rtol=1e-8)


@pytest.mark.parametrize("n_draws", [1, 7, 1000])
def test_each_component_is_drawn_at_its_share_to_within_one(n_draws):
    weights = torch.tensor([0.1, 0.2, 0.7])
    prior = MixturePrior(1, n_mixture=3)
    prior.set_from(weights, [[-100.0], [0.0], [100.0]], [[1.0]] * 3)
    draws = prior.distribution().draw(n_draws, _generator())
    counts = torch.bincount((draws.ravel() / 100).round().long() + 1, minlength=3)
    assert ((counts - n_draws * weights).abs() <= 1 + 1e-3).all()


def test_neighbouring_draws_of_a_mixture_are_unrelated():
    prior = MixturePrior(1, n_mixture=2).double()
    prior.set_from([0.5, 0.5], [[-5.0], [5.0]], [[1.0], [1.0]])
    draws = prior.distribution().draw(4000, _generator()).ravel()
    correlation = torch.corrcoef(torch.stack([draws[:-1], draws[1:]]))[0, 1]
    assert correlation.abs() < 5 / math.sqrt(4000)


def test_a_single_draw_of_a_mixture_takes_every_component_at_its_rate():
    prior = MixturePrior(1, n_mixture=2)
    prior.set_from([0.25, 0.75], [[-50.0], [50.0]], [[1.0], [1.0]])
    distribution, generator = prior.distribution(), _generator()
    n_draws = 1000
    hits = sum(float(distribution.draw(1, generator)) < 0 for _ in range(n_draws))
    assert abs(hits - 0.25 * n_draws) < 5 * math.sqrt(n_draws * 0.25 * 0.75)


def test_the_components_of_a_new_mixture_differ_and_cover_the_unit_variance():
    prior = MixturePrior(2, n_mixture=500)
    assert len(prior.means.detach().unique(dim=0)) == 500
    draws = prior.distribution().draw(5000, _generator())
    assert ((draws.std(0) - 1.0).abs() < 0.1).all()
    again = MixturePrior(2, n_mixture=500)
    assert torch.equal(prior.means, again.means)
    other = MixturePrior(2, n_mixture=500, generator=_generator(7))
    assert not torch.equal(prior.means, other.means)


def test_a_component_cannot_shrink_to_a_point():
    prior = MixturePrior(1, n_mixture=1).double()
    prior.set_from([1.0], [[0.0]], [[1e-30]])
    with torch.no_grad():
        prior.log_vars.fill_(-1e3)
        peak = prior.distribution().log_prob(torch.zeros(1, 1).double())
    assert float(peak) == pytest.approx(6.0 - 0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0]}, r"weights must have shape \(2,\). Got \(1,\)"),
        ({"weights": [1.0, 0.0]}, "weights must be positive"),
        ({"means": [[0.0, 1.0]]}, r"means must have shape \(2, 1\). Got \(1, 2\)"),
        ({"means": [[0.0], [math.nan]]}, "means must be finite"),
        ({"variances": [[1.0], [-1.0]]}, "variances must be positive"),
        ({"variances": [[1.0], [math.inf]]}, "variances must be finite"),
    ],
)
def test_a_wrong_start_is_named_and_changes_nothing(change, message):
    prior = MixturePrior(1, n_mixture=2)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    start = {"weights": [3.0, 1.0], "means": [[9.0], [8.0]], "variances": [[2.0]] * 2}
    with pytest.raises(ValueError, match=message):
        prior.set_from(**(start | change))
    for name, value in prior.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NormalPrior(0), "n_components must be at least 1. Got 0"),
        (lambda: MixturePrior(1, n_mixture=0), "n_mixture must be at least 1. Got 0"),
        (lambda: VampPrior(1, torch.zeros(3)), r"pseudo_inputs must .* shape \(3,\)"),
        (lambda: VampPrior(1, torch.zeros(0, 3)), "pseudo_inputs must"),
        (lambda: VampPrior(1, torch.ones(2, 2).long()), "pseudo_inputs .* torch.int64"),
    ],
)
def test_a_wrong_parameter_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- vamp ----------------------------------------------------------------------------
def test_vamp_is_the_mean_posterior_of_its_pseudo_inputs():
    prior, z = _prior("vamp"), _normal(6, 2, seed=1)
    mean, log_var = _encode(prior.pseudo_inputs)
    posteriors = normal_log_prob(z[:, None], mean, log_var)
    expected = torch.log(posteriors.exp().mean(-1))
    torch.testing.assert_close(prior.distribution(_encode).log_prob(z), expected)


def test_the_gradient_of_vamp_reaches_its_pseudo_inputs():
    prior = _prior("vamp")
    z = _normal(3, 2, seed=1).requires_grad_()

    def log_prob(z, pseudo_inputs):
        parameters = {"pseudo_inputs": pseudo_inputs}
        return torch.func.functional_call(prior, parameters, (z,))

    prior.forward = lambda z: prior.distribution(_encode).log_prob(z)
    pseudo = prior.pseudo_inputs.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(log_prob, (z, pseudo))


def test_vamp_encodes_once_a_step_and_copies_its_start():
    start, calls = _normal(4, 3), []
    prior = VampPrior(2, start)
    start.zero_()
    assert prior.pseudo_inputs.detach().abs().sum() > 0

    def encode(rows):
        calls.append(len(rows))
        return _encode(rows)

    distribution = prior.distribution(encode)
    distribution.log_prob(_normal(5, 2))
    distribution.draw(3, _generator())
    assert calls == [4]


def test_vamp_asks_for_the_encoder():
    with pytest.raises(ValueError, match=r"VampPrior.distribution needs encode"):
        _prior("vamp").distribution()


def test_the_base_has_no_density_of_its_own():
    with pytest.raises(NotImplementedError):
        Prior(2).distribution()
