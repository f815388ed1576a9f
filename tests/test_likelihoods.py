"""Likelihoods against scipy.stats, torch.distributions, quadrature and autograd."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import nn

from skvae.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    ContinuousBernoulli,
    Gaussian,
    Likelihood,
    Poisson,
)

NOISES = ["feature", "shared", "heteroscedastic", 0.25]
SLOPES = [0.0, 1e-12, -1e-6, 1e-3, 0.0999, 0.1001, -0.5, 3.0, -30.0, 500.0]


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _normal(*shape, seed=0, dtype=torch.float64):
    return torch.empty(shape, dtype=dtype).normal_(generator=_generator(seed))


def _rows(name, *shape, seed=1):
    """Rows within the support of a likelihood."""
    x = _normal(*shape, seed=seed)
    if name == "gaussian":
        return x
    if name == "poisson":
        return (3 * x).abs().floor()
    return (x > 0).double() if name == "bernoulli" else torch.sigmoid(x)


def _gaussian(n_features, noise="feature", seed=2):
    likelihood = Gaussian(n_features, noise).double()
    if isinstance(noise, str):
        variance = torch.exp(_normal(n_features, seed=seed))
        likelihood.set_noise_variance(variance)
    return likelihood


each_likelihood = pytest.mark.parametrize("name", sorted(LIKELIHOODS))


# -- what all of them share ----------------------------------------------------------
@each_likelihood
def test_importance_samples_broadcast_against_the_rows(name):
    likelihood = LIKELIHOODS[name](4).double()
    x, raw = _rows(name, 5, 4), _normal(3, 5, 4)
    together = likelihood.log_prob(x, raw)
    assert together.shape == (3, 5)
    for k in range(3):
        torch.testing.assert_close(together[k], likelihood.log_prob(x, raw[k]))


@each_likelihood
def test_a_row_has_the_sum_of_its_columns(name):
    likelihood = LIKELIHOODS[name](4).double()
    x, raw = _rows(name, 5, 4), _normal(2, 5, 4)
    columns = likelihood.log_prob_columns(x, raw)
    assert columns.shape == (2, 5, 4)
    torch.testing.assert_close(likelihood.log_prob(x, raw), columns.sum(-1))


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "poisson"])
def test_raw_outputs_at_means_have_these_means(name):
    mean = np.array([0.02, 0.5, 0.98])
    likelihood = LIKELIHOODS[name](3).double()
    raw = torch.as_tensor(likelihood.raw_at_mean(mean))
    np.testing.assert_allclose(likelihood.mean(raw).numpy(), mean, rtol=1e-12)


@each_likelihood
def test_raw_outputs_are_finite_where_columns_are_constant(name):
    raw = LIKELIHOODS[name](2).raw_at_mean(np.array([0.0, 1.0]))
    assert np.isfinite(raw).all()
    assert raw[0] < raw[1]


@each_likelihood
def test_a_masked_cell_counts_neither_in_the_value_nor_in_the_gradient(name):
    likelihood = LIKELIHOODS[name](3).double()
    x, raw = _rows(name, 2, 3), _normal(2, 3).requires_grad_()
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    log_prob = likelihood.log_prob(x * mask, raw, mask)
    columns = likelihood.log_prob_columns(x, raw)
    torch.testing.assert_close(log_prob[0], columns[0, 0] + columns[0, 2])
    assert log_prob[1] == 0.0
    (gradient,) = torch.autograd.grad(log_prob.sum(), raw)
    assert torch.equal(gradient != 0, mask != 0)


@each_likelihood
def test_a_mask_of_ones_changes_nothing(name):
    likelihood = LIKELIHOODS[name](3).double()
    x, raw = _rows(name, 4, 3), _normal(4, 3)
    masked = likelihood.log_prob(x, raw, torch.ones_like(x))
    torch.testing.assert_close(masked, likelihood.log_prob(x, raw))


@each_likelihood
def test_the_mode_has_the_highest_density(name):
    likelihood = LIKELIHOODS[name](1).double()
    raw = torch.tensor([[-1.3], [-0.2], [0.4], [1.9]], dtype=torch.float64)
    mode = likelihood.log_prob(likelihood.mode(raw), raw)
    grid = {
        "gaussian": torch.linspace(-4, 4, 81),
        "bernoulli": torch.arange(2.0),
        "continuous_bernoulli": torch.linspace(0, 1, 51),
        "poisson": torch.arange(20.0),
    }[name]
    for value in grid.double():
        others = likelihood.log_prob(value.expand(4, 1), raw)
        assert (others <= mode + 1e-12).all()


@each_likelihood
def test_a_draw_repeats_with_its_generator_and_leaves_the_global_one(name):
    likelihood, raw = LIKELIHOODS[name](3), _normal(2, 50, 3).float()
    before = torch.get_rng_state()
    first = likelihood.draw(raw, _generator(5))
    assert torch.equal(first, likelihood.draw(raw, _generator(5)))
    assert not torch.equal(first, likelihood.draw(raw, _generator(6)))
    assert torch.equal(before, torch.get_rng_state())
    assert first.shape == (2, 50, 3)
    low, high = likelihood.support
    assert ((first >= low) & (first <= high)).all()


@each_likelihood
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_rows(name, dtype):
    likelihood = LIKELIHOODS[name](3).to(dtype)
    x, raw = _rows(name, 4, 3).to(dtype), _normal(4, 3, dtype=dtype)
    draw = likelihood.draw(raw.requires_grad_(), _generator())
    assert not draw.requires_grad
    results = [draw, likelihood.log_prob(x, raw), likelihood.mean(raw)]
    results += [likelihood.mode(raw), likelihood.log_prob_columns(x, raw)]
    assert {result.dtype for result in results} == {dtype}


@each_likelihood
def test_extreme_outputs_give_finite_values_and_gradients(name):
    likelihood = LIKELIHOODS[name](1)
    raw = torch.tensor([[-1e4], [-90.0], [0.0], [90.0], [1e4]], requires_grad=True)
    log_prob = likelihood.log_prob(torch.ones(5, 1), raw)
    (gradient,) = torch.autograd.grad(log_prob.sum(), raw)
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()
    assert likelihood.mean(raw).isfinite().all()
    assert likelihood.draw(raw, _generator()).isfinite().all()


@each_likelihood
def test_the_draws_have_the_mean_of_the_likelihood(name):
    n_draws = 40_000
    likelihood = LIKELIHOODS[name](4).double()
    raw = torch.tensor([[-2.0, -0.01, 0.7, 2.5]], dtype=torch.float64)
    draws = likelihood.draw(raw.expand(n_draws, 4), _generator())
    error = 5 * draws.std(0) / math.sqrt(n_draws)
    assert ((draws.mean(0) - likelihood.mean(raw)[0]).abs() < error).all()


@each_likelihood
def test_a_row_needs_a_column(name):
    with pytest.raises(ValueError, match=r"n_features must be at least 1. Got 0"):
        LIKELIHOODS[name](0)


@pytest.mark.parametrize("method", ["mean", "mode"])
def test_the_base_has_no_density_of_its_own(method):
    with pytest.raises(NotImplementedError):
        getattr(Likelihood(2), method)(torch.zeros(1, 2))


# -- gaussian ------------------------------------------------------------------------
@pytest.mark.parametrize("noise", NOISES)
def test_gaussian_is_the_normal_of_scipy(noise):
    likelihood = _gaussian(3, noise)
    x, raw = _normal(6, 3, seed=3), _normal(2, 6, likelihood.n_outputs)
    scale = likelihood.noise_variance(raw).detach().sqrt().numpy()
    expected = stats.norm.logpdf(x.numpy(), raw[..., :3].numpy(), scale)
    columns = likelihood.log_prob_columns(x, raw).detach().numpy()
    np.testing.assert_allclose(columns, expected, rtol=1e-10)
    row = likelihood.log_prob(x, raw).detach().numpy()
    np.testing.assert_allclose(row, expected.sum(-1), rtol=1e-10)


@pytest.mark.parametrize("noise", ["feature", "shared", 0.25])
@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 4, 5, 3)])
def test_the_fused_gaussian_passes_gradcheck(noise, shape):
    likelihood = _gaussian(3, noise)
    x = _normal(5, 3, seed=3)
    inputs = [_normal(*shape).requires_grad_()]
    if isinstance(noise, str):
        inputs.append(likelihood.log_scale.detach().clone().requires_grad_())

    def log_prob(raw, log_scale=likelihood.log_scale):
        parameters = {"log_scale": log_scale}
        return torch.func.functional_call(likelihood, parameters, (x, raw))

    likelihood.forward = likelihood.log_prob
    assert torch.autograd.gradcheck(log_prob, inputs)


@pytest.mark.parametrize("noise", ["feature", "shared"])
def test_the_fused_gaussian_equals_the_plain_formula(noise):
    x, raw = _normal(7, 3, seed=3), _normal(2, 7, 3).requires_grad_()
    weight = _normal(2, 7, seed=4)
    results = []
    for log_prob in (Gaussian.log_prob, Likelihood.log_prob):
        likelihood = _gaussian(3, noise)
        value = log_prob(likelihood, x, raw)
        inputs = [raw, likelihood.log_scale]
        results.append((value, *torch.autograd.grad((weight * value).sum(), inputs)))
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize("noise", ["feature", "shared", 0.25])
def test_the_fused_gaussian_has_the_second_derivatives_of_the_formula(noise):
    x, raw = _normal(5, 3, seed=3), _normal(2, 5, 3).requires_grad_()
    weight = _normal(2, 5, seed=4)
    results = []
    for log_prob in (Gaussian.log_prob, Likelihood.log_prob):
        likelihood = _gaussian(3, noise)
        inputs = [raw, *likelihood.parameters()]
        value = (weight * log_prob(likelihood, x, raw)).sum()
        first = torch.autograd.grad(value, inputs, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in first)
        results.append(torch.autograd.grad(penalty, inputs))
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain)


def test_gaussian_has_a_gradient_in_the_rows_where_asked():
    likelihood, raw = _gaussian(2), _normal(3, 2)
    x = _normal(3, 2, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(likelihood.log_prob(x, raw).sum(), x)
    expected = (raw - x) / likelihood.noise_variance()
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("noise", ["feature", "heteroscedastic"])
@given(st.lists(st.floats(1.02e-4, 1e6), min_size=3, max_size=3))
def test_the_noise_variance_is_the_one_that_was_set(noise, variance):
    likelihood = Gaussian(3, noise).double()
    variance = torch.tensor(variance, dtype=torch.float64)
    likelihood.set_noise_variance(variance)
    torch.testing.assert_close(likelihood.noise_variance(), variance, rtol=1e-9, atol=0)


def test_a_variance_below_the_floor_is_raised_to_just_above_it():
    likelihood = Gaussian(3, noise_floor=0.1).double()
    likelihood.set_noise_variance(torch.tensor([0.0, 1e-9, 0.01]))
    variance = likelihood.noise_variance()
    assert ((variance > 0.01) & (variance < 0.0105)).all()
    raw = torch.zeros(1, 3, dtype=torch.float64)
    likelihood.log_prob(raw + 1.0, raw).sum().backward()
    assert (likelihood.log_scale.grad > 0).all()


def test_a_shared_noise_takes_the_mean_of_the_variances():
    likelihood = Gaussian(3, "shared").double()
    likelihood.set_noise_variance(torch.tensor([1.0, 2.0, 6.0]))
    expected = torch.full((3,), 3.0, dtype=torch.float64)
    torch.testing.assert_close(likelihood.noise_variance(), expected)


@pytest.mark.parametrize("noise", ["feature", "shared", "heteroscedastic"])
def test_the_noise_cannot_be_learned_below_its_floor(noise):
    likelihood = Gaussian(2, noise, noise_floor=0.05).double()
    nn.init.constant_(likelihood.log_scale, -1e3)
    expected = torch.full((2,), 0.0025, dtype=torch.float64)
    torch.testing.assert_close(likelihood.noise_variance(), expected)


def test_heteroscedastic_noise_starts_at_its_level():
    likelihood = _gaussian(2, "heteroscedastic")
    raw = torch.cat([_normal(4, 2), torch.zeros(4, 2, dtype=torch.float64)], dim=-1)
    level = likelihood.noise_variance()
    assert level.shape == (2,)
    torch.testing.assert_close(likelihood.noise_variance(raw), level.expand(4, 2))
    assert likelihood.n_outputs == 4


@pytest.mark.parametrize("noise", NOISES)
def test_gaussian_draws_have_the_noise_variance(noise):
    n_draws = 20_000
    likelihood = _gaussian(2, noise)
    raw = _normal(1, likelihood.n_outputs).expand(n_draws, -1)
    variance = likelihood.noise_variance(raw[:1]).detach().reshape(2)
    draws = likelihood.draw(raw, _generator())
    error = 5 * variance * math.sqrt(2 / n_draws)
    assert ((draws.var(0) - variance).abs() < error).all()


def test_fixed_noise_is_no_parameter_and_moves_with_the_module():
    likelihood = Gaussian(2, noise=0.3)
    assert list(likelihood.parameters()) == []
    variance = likelihood.double().noise_variance()
    assert variance.dtype == torch.float64
    torch.testing.assert_close(variance.sqrt(), torch.full_like(variance, 0.3))
    with pytest.raises(ValueError, match=r"noise=0\.3 fixes the noise"):
        likelihood.set_noise_variance(torch.ones(2))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"noise": "column"}, "noise must be 'feature', .* Got 'column'"),
        ({"noise": 0.0}, "noise must be positive and finite. Got 0.0"),
        ({"noise": math.nan}, "noise must be positive and finite. Got nan"),
        ({"noise_floor": 0.0}, "noise_floor must be positive. Got 0.0"),
        ({"noise_floor": math.inf}, "noise_floor must be positive. Got inf"),
    ],
)
def test_gaussian_names_a_wrong_parameter(params, message):
    with pytest.raises(ValueError, match=message):
        Gaussian(2, **params)


@pytest.mark.parametrize(
    ("variance", "message"),
    [
        ([1.0], r"variance must have shape \(2,\). Got \(1,\)"),
        ([1.0, -1.0], "variance must be finite and non-negative"),
        ([1.0, math.nan], "variance must be finite and non-negative"),
        ([1.0, math.inf], "variance must be finite and non-negative"),
    ],
)
def test_a_wrong_variance_changes_nothing(variance, message):
    likelihood = _gaussian(2)
    before = likelihood.noise_variance()
    with pytest.raises(ValueError, match=message):
        likelihood.set_noise_variance(torch.tensor(variance))
    assert torch.equal(likelihood.noise_variance(), before)


# -- zeros and ones, counts ----------------------------------------------------------
def test_bernoulli_is_that_of_scipy():
    x, raw = _rows("bernoulli", 6, 3), 3 * _normal(2, 6, 3)
    columns = Bernoulli(3).log_prob_columns(x, raw).numpy()
    p = 1 / (1 + np.exp(-raw.numpy()))
    expected = stats.bernoulli.logpmf(np.broadcast_to(x, p.shape), p)
    np.testing.assert_allclose(columns, expected, rtol=1e-9)


def test_bernoulli_takes_a_value_between_0_and_1_as_a_probability():
    raw = _normal(4, 2)
    ones = Bernoulli(2).log_prob(torch.ones_like(raw), raw)
    zeros = Bernoulli(2).log_prob(torch.zeros_like(raw), raw)
    between = Bernoulli(2).log_prob(torch.full_like(raw, 0.3), raw)
    torch.testing.assert_close(between, 0.3 * ones + 0.7 * zeros)


def test_poisson_is_that_of_scipy():
    x = torch.tensor([[0.0, 1.0, 7.0, 400.0]], dtype=torch.float64)
    raw = torch.tensor([[-3.0, 0.0, 1.5, 6.0], [2.0, -8.0, 3.0, 5.5]]).double()
    columns = Poisson(4).log_prob_columns(x, raw[:, None]).numpy()[:, 0]
    rate = Poisson(4).mean(raw).numpy()
    np.testing.assert_allclose(columns, stats.poisson.logpmf(x, rate), rtol=1e-9)
    np.testing.assert_allclose(rate, np.exp(raw.numpy()), rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 20, 1e3, 1e5, 3e6, 1e8])
def test_poisson_is_that_of_scipy_in_single_precision(count):
    # Around the count, where the terms cancel the most.
    spread = torch.linspace(-3, 3, 7)[:, None] / max(count, 1) ** 0.5
    raw = torch.log(torch.tensor(max(count, 1.0))) + spread
    found = Poisson(1).log_prob_columns(torch.full((7, 1), float(count)), raw)
    assert found.dtype == torch.float32
    # Log rates this far below 20 are not clipped in single precision.
    expected = stats.poisson.logpmf(count, np.exp(raw.double().numpy()))
    np.testing.assert_allclose(found.numpy(), expected, rtol=3e-7)


def test_poisson_gradients_are_those_of_its_formula():
    x = torch.tensor([[0.5, 3.0, 40.0]], dtype=torch.float64, requires_grad=True)
    raw = torch.randn(2, 1, 3, generator=_generator(), dtype=torch.float64)
    raw.requires_grad_()
    log_prob = Poisson(3).log_prob_columns
    assert torch.autograd.gradcheck(log_prob, (x, raw))
    grad = torch.ones(2, 1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(log_prob, (x, raw), (grad,))


def test_poisson_draws_have_the_variance_of_their_mean():
    n_draws = 40_000
    raw = torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64)
    draws = Poisson(3).draw(raw.expand(n_draws, 3), _generator())
    rate = raw.exp()[0]
    error = 5 * torch.sqrt((rate + 2 * rate.square()) / n_draws)
    assert torch.equal(draws, draws.floor())
    assert ((draws.var(0) - rate).abs() < error).all()


@pytest.mark.parametrize("likelihood", [Bernoulli(3), Poisson(3)])
def test_the_gradients_in_the_logits_pass_gradcheck(likelihood):
    name = "poisson" if isinstance(likelihood, Poisson) else "bernoulli"
    x, raw = _rows(name, 4, 3), _normal(2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: likelihood.log_prob(x, a), raw)


# -- continuous Bernoulli ------------------------------------------------------------
@pytest.mark.parametrize("slope", SLOPES)
def test_continuous_bernoulli_integrates_to_one_with_its_mean(slope):
    likelihood = ContinuousBernoulli(1)
    raw = torch.tensor([[slope]], dtype=torch.float64)

    def density(x):
        x = torch.tensor([[x]], dtype=torch.float64)
        return math.exp(float(likelihood.log_prob(x, raw)))

    near = 1 - 20 / max(abs(slope), 21) if slope > 0 else 20 / max(abs(slope), 21)
    total = integrate.quad(density, 0, 1, points=[near])[0]
    mean = integrate.quad(lambda x: x * density(x), 0, 1, points=[near])[0]
    assert total == pytest.approx(1.0, abs=1e-9)
    assert float(likelihood.mean(raw)) == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("slope", [-0.0999, 0.03, 0.0999])
def test_the_series_of_the_continuous_bernoulli_mean_joins_its_closed_form(slope):
    raw = torch.tensor([[slope]], dtype=torch.float64)
    expected = 1 / -math.expm1(-slope) - 1 / slope
    mean = float(ContinuousBernoulli(1).mean(raw))
    assert mean == pytest.approx(expected, abs=2e-14, rel=0)


def test_continuous_bernoulli_is_that_of_torch_distributions():
    # torch's own series near 0 is short, so the comparison stays outside of it.
    raw = torch.tensor([[-12.0, -2.0, -0.3, 0.2, 1.0, 9.0]], dtype=torch.float64)
    x = _rows("continuous_bernoulli", 5, 6)
    other = torch.distributions.ContinuousBernoulli(logits=raw)
    likelihood = ContinuousBernoulli(6)
    columns = likelihood.log_prob_columns(x, raw.expand(5, 6))
    torch.testing.assert_close(columns, other.log_prob(x))
    torch.testing.assert_close(likelihood.mean(raw), other.mean)


def test_continuous_bernoulli_passes_gradcheck_twice():
    raw = torch.tensor(SLOPES[:-1], dtype=torch.float64).repeat(2, 1).requires_grad_()
    x = _rows("continuous_bernoulli", 2, raw.shape[1]).requires_grad_()
    log_prob = ContinuousBernoulli(raw.shape[1]).log_prob
    assert torch.autograd.gradcheck(log_prob, (x, raw))
    # Given here, as gradgradcheck draws them from the global generator.
    weight = _normal(2, seed=4).requires_grad_()
    assert torch.autograd.gradgradcheck(log_prob, (x, raw), weight)


def test_continuous_bernoulli_has_gradients_for_rows_shared_by_draws():
    raw, x = _normal(3, 4, 2).requires_grad_(), _rows("continuous_bernoulli", 4, 2)
    log_prob = ContinuousBernoulli(2).log_prob
    assert torch.autograd.gradcheck(log_prob, (x.requires_grad_(), raw))


@given(st.floats(-200, 200))
def test_continuous_bernoulli_in_float32_follows_float64(slope):
    likelihood = ContinuousBernoulli(3)
    x = torch.tensor([[0.0, 0.3, 1.0]])
    raw = torch.full((1, 3), slope, dtype=torch.float32)
    for method in (
        lambda x, a: likelihood.log_prob(x, a),
        lambda _, a: likelihood.mean(a),
    ):
        single, double = method(x, raw), method(x.double(), raw.double())
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("slope", [-40.0, -1.0, 0.0, 1e-6, 2.0, 60.0])
def test_continuous_bernoulli_draws_follow_its_distribution_function(slope):
    raw = torch.full((5000, 1), slope, dtype=torch.float64)
    draws = ContinuousBernoulli(1).draw(raw, _generator(1)).numpy().ravel()
    if abs(slope) < 1e-3:
        law = stats.uniform()
    else:
        law = stats.truncexpon(abs(slope), scale=1 / abs(slope))
    draws = 1 - draws if slope > 0 else draws
    assert stats.kstest(draws, law.cdf).pvalue > 1e-3
