"""Terms of the loss against formulas, torch.distributions and second computations."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Normal, kl_divergence

from skvae import VAE, AutoencoderTransformer
from skvae._module import _Draw, _Reparameterise, log_mean_exp
from skvae.objectives import (
    TERMS,
    Contraction,
    KLDivergence,
    NegativeLogLikelihood,
    Objective,
    Sparsity,
    Term,
    kl_bernoulli,
)
from skvae.priors import normal_log_prob


def _normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(*shape, dtype=torch.float64).normal_(generator=generator)


def _out(z, kl=None, n_samples=1):
    return SimpleNamespace(z=z, kl=kl, n_samples=n_samples)


@dataclasses.dataclass(frozen=True)
class Fixed(Term):
    """A term with known values, scored or not."""

    values: torch.Tensor = None
    name = "fixed"
    scored = True

    def __call__(self, model, out, progress=1.0):
        return self.values


@dataclasses.dataclass(frozen=True)
class FixedPenalty(Fixed):
    name = "penalty"
    scored = False


# -- divergences ---------------------------------------------------------------------
@given(
    st.floats(0.01, 0.99),
    st.lists(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=5),
)
def test_kl_bernoulli_is_that_of_torch_distributions(target, means):
    means = torch.tensor(means, dtype=torch.float64)
    expected = kl_divergence(
        Bernoulli(torch.tensor(target, dtype=torch.float64)), Bernoulli(means)
    )
    torch.testing.assert_close(
        kl_bernoulli(target, means), expected, rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_bernoulli_is_finite_at_the_ends(dtype):
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    assert torch.isfinite(kl_bernoulli(0.05, ends)).all()


def test_reparameterisation_gives_draw_and_kl_of_torch_distributions():
    parameters, noise = _normal(7, 6), _normal(7, 3, seed=1)
    z, kl = _Reparameterise.apply(parameters, noise)
    posterior = Normal(parameters[:, :3], torch.exp(0.5 * parameters[:, 3:]))
    torch.testing.assert_close(z, posterior.mean + posterior.stddev * noise)
    torch.testing.assert_close(kl, kl_divergence(posterior, Normal(0.0, 1.0)))


@pytest.mark.parametrize("draws", [1, 4])
def test_reparameterisation_has_the_gradient_of_autograd(draws):
    parameters = _normal(5, 4).requires_grad_()
    noise = _normal(*((draws,) if draws > 1 else ()), 5, 2, seed=1)
    weight_z, weight_kl = _normal(*noise.shape, seed=2), _normal(5, 2, seed=3)

    def by_hand(p):
        mean, log_var = p[:, :2], p[:, 2:].clamp(-12, 6)
        z = mean + torch.exp(0.5 * log_var) * noise
        kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var)
        return (weight_z * z).sum() + (weight_kl * kl).sum()

    z, kl = _Reparameterise.apply(parameters, noise)
    loss = (weight_z * z).sum() + (weight_kl * kl).sum()
    (gradient,) = torch.autograd.grad(loss, parameters)
    (expected,) = torch.autograd.grad(by_hand(parameters), parameters)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("draws", [1, 4])
def test_a_draw_has_the_density_and_gradient_of_autograd(draws):
    parameters = _normal(5, 4)
    with torch.no_grad():
        parameters[0, 2:] = torch.tensor([-13.0, 7.0])  # Beyond the clamp.
    parameters.requires_grad_()
    noise = _normal(*((draws,) if draws > 1 else ()), 5, 2, seed=1)
    weight_z, weight_q = _normal(*noise.shape, seed=2), _normal(*noise.shape[:-1])
    z, log_q = _Draw.apply(parameters, noise)
    mean, log_var = parameters[:, :2], parameters[:, 2:].clamp(-12, 6)
    expected_z = mean + torch.exp(0.5 * log_var) * noise
    expected_q = normal_log_prob(expected_z, mean, log_var)
    torch.testing.assert_close(z, expected_z)
    torch.testing.assert_close(log_q, expected_q)
    gradient, expected = (
        torch.autograd.grad((weight_z * z).sum() + (weight_q * q).sum(), parameters)[0]
        for z, q in ((z, log_q), (expected_z, expected_q))
    )
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("function", [_Draw, _Reparameterise])
def test_draws_can_be_differentiated_twice(function):
    parameters, noise = _normal(3, 4).requires_grad_(), _normal(3, 2, seed=1)
    shapes = [v.shape for v in function.apply(parameters, noise)]
    weights = [
        _normal(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)
    ]
    assert torch.autograd.gradgradcheck(
        lambda p: function.apply(p, noise), (parameters,), weights
    )


def test_kl_sums_over_components():
    kl = _normal(6, 3).abs()
    term = KLDivergence()
    torch.testing.assert_close(term(None, _out(kl, kl=kl)), kl.sum(dim=1))


def test_free_bits_replace_what_is_cheaper_on_average():
    kl = torch.tensor([[0.1, 1.0], [0.3, 3.0]], dtype=torch.float64)
    kl.requires_grad_()
    term = KLDivergence(free_bits=0.5)
    rows = term(None, _out(kl, kl=kl))
    torch.testing.assert_close(rows, torch.tensor([1.5, 3.5], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(rows.sum(), kl)
    # The cheap component does not feel the term, the other one all of it.
    assert gradient.tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_free_bits_keep_components_from_collapsing():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 1)) + 0.5 * rng.normal(size=(200, 4))
    params = {
        "n_components": 3,
        "init": "random",
        "max_iter": 80,
        "beta": 2.0,
        "random_state": 0,
    }
    plain = VAE(**params).fit(X)
    free = VAE(**params, free_bits=0.3).fit(X)
    assert free.kl_per_component_.min() > plain.kl_per_component_.min()


@pytest.mark.parametrize(
    ("progress", "weight"), [(0.0, 0.0), (0.1, 1.0), (0.2, 2.0), (0.7, 2.0), (1.0, 2.0)]
)
def test_warmup_raises_the_weight_linearly(progress, weight):
    term = KLDivergence(weight=2.0, warmup=0.2)
    assert term.weight_at(progress) == pytest.approx(weight)


def test_without_warmup_the_weight_is_constant():
    assert {KLDivergence(weight=3.0).weight_at(p) for p in (0.0, 0.5, 1.0)} == {3.0}
    assert NegativeLogLikelihood().weight_at(0.0) == 1.0


# -- sparsity ------------------------------------------------------------------------
def test_l1_and_l2_penalise_each_row():
    z = _normal(6, 3)
    np.testing.assert_allclose(
        Sparsity(kind="l1")(None, _out(z)), np.abs(z.numpy()).sum(axis=1)
    )
    np.testing.assert_allclose(
        Sparsity(kind="l2")(None, _out(z)), (z.numpy() ** 2).sum(axis=1)
    )


def test_kl_sparsity_compares_mean_activations_of_the_batch():
    z = torch.sigmoid(_normal(6, 3))
    expected = kl_divergence(
        Bernoulli(torch.tensor(0.1, dtype=torch.float64)), Bernoulli(z.mean(dim=0))
    ).sum()
    rows = Sparsity(kind="kl", target=0.1)(None, _out(z))
    torch.testing.assert_close(rows, expected.expand(6))


# -- the sum -------------------------------------------------------------------------
def test_loss_is_the_weighted_sum_of_the_means():
    a, b = _normal(8), _normal(8, seed=1)
    objective = Objective((Fixed(2.0, values=a), FixedPenalty(0.5, values=b)))
    loss, parts = objective(None, _out(a))
    torch.testing.assert_close(loss, 2 * a.mean() + 0.5 * b.mean())
    torch.testing.assert_close(torch.stack(parts), torch.stack([a.mean(), b.mean()]))
    assert objective.names == ["fixed", "penalty"]
    assert set(objective.rows(None, _out(a))) == {"fixed", "penalty"}


def test_importance_samples_combine_to_minus_log_mean_exp():
    values, penalty = _normal(5, 8), _normal(5, 8, seed=1)
    objective = Objective((Fixed(values=values), FixedPenalty(0.3, values=penalty)))
    loss, _ = objective(None, _out(values, n_samples=5))
    bound = -torch.log(torch.exp(-values).mean(dim=0)).mean()
    # Penalties are no part of a density: they are averaged, not exponentiated.
    torch.testing.assert_close(loss, bound + 0.3 * penalty.mean())


@pytest.mark.parametrize("n_samples", [1, 5])
def test_the_loss_is_the_mean_of_those_of_rows(n_samples):
    shape = (n_samples, 8) if n_samples > 1 else (8,)
    values, penalty = _normal(*shape), _normal(*shape, seed=1)
    objective = Objective((Fixed(values=values), FixedPenalty(0.3, values=penalty)))
    losses = objective.row_losses(None, _out(values, n_samples=n_samples))
    assert losses.shape == (8,)
    loss, _ = objective(None, _out(values, n_samples=n_samples))
    torch.testing.assert_close(losses.mean(), loss)


def test_importance_samples_do_not_overflow():
    values = torch.full((3, 2), 1e4, dtype=torch.float64)
    loss, _ = Objective((Fixed(values=values),))(None, _out(values, n_samples=3))
    assert loss.item() == pytest.approx(1e4)


def test_log_mean_exp_is_stable():
    values = torch.tensor([[1000.0], [1000.0], [-1000.0]], dtype=torch.float64)
    assert log_mean_exp(values).item() == pytest.approx(1000 + np.log(2 / 3))


def test_only_the_bound_is_scored():
    scored = {name for name, term in TERMS.items() if term.scored}
    assert scored == {"nll", "kl"}
    assert not Contraction.scored
    assert not Sparsity.scored


@pytest.mark.parametrize("penalty", [None, "l1", "l2"])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 1e3])
def test_no_penalty_leaks_into_a_score(penalty, alpha):
    X = np.random.default_rng(0).normal(size=(60, 4))
    params = {"n_components": 2, "max_iter": 0, "random_state": 0}
    plain = AutoencoderTransformer(**params).fit(X)
    other = AutoencoderTransformer(**params, penalty=penalty, alpha=alpha).fit(X)
    assert other.score(X) == plain.score(X)
    np.testing.assert_array_equal(other.score_samples(X), plain.score_samples(X))


def test_terms_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        KLDivergence().weight = 2.0


def test_a_term_must_say_what_it_computes():
    with pytest.raises(NotImplementedError):
        Term()(None, None)
