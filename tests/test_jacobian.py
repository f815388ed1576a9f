"""Jacobian norms: every way to compute them against torch.func and each other."""

import numpy as np
import pytest
import torch
from torch import nn

from skvae import VAE
from skvae._build import Architecture, build_module
from skvae._contraction import _outer_gram
from skvae._jacobian import squared_jacobian_norm, subset_of_rows
from skvae._networks import FlatParameters
from skvae._step import closed_step
from skvae.objectives import (
    Contraction,
    KLDivergence,
    NegativeLogLikelihood,
    Objective,
)

ACTIVATIONS = [
    "identity",
    "relu",
    "leaky_relu",
    "tanh",
    "logistic",
    "elu",
    "silu",
    "gelu",
    "softplus",
]
DEPTHS = [(), (7,), (7, 6), (7, 6, 5)]


def _module(hidden=(7,), *, d=5, k=3, own=None, dtype="float64", seed=0, **settings):
    arch = Architecture(d, k, hidden_layer_sizes=hidden, dtype=dtype, **settings)
    generator = torch.Generator().manual_seed(seed)
    module = build_module(arch, generator, encoder=own)
    with torch.no_grad():
        for p in module.parameters():
            # Away from the zeros of the start, which would hide most of the terms.
            noise = torch.empty(p.shape, dtype=p.dtype).normal_(generator=generator)
            p.add_(noise, alpha=0.3)
    module.noise = torch.Generator().manual_seed(seed)
    return module


def _rows(n=8, d=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.empty(n, d, dtype=dtype).normal_(generator=generator)


def _by_jacrev(module, x, n_columns=None):
    """Compute the squared norms by torch.func on the ordinary forward pass."""

    def code(columns, rest):
        row = torch.cat([columns, rest]).unsqueeze(0)
        return module.posterior(row)[0].squeeze(0)

    d = x.shape[1] if n_columns is None else n_columns
    columns, rest = x[:, :d], x[:, d:]
    jacobian = torch.func.vmap(torch.func.jacrev(code))(columns, rest)
    return jacobian.square().sum(dim=(1, 2))


@pytest.mark.parametrize("method", ["exact", "product"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
def test_exact_norm_is_that_of_jacrev(hidden, activation, method):
    module = _module(hidden, activation=activation).eval()
    x = _rows()
    found = squared_jacobian_norm(module, x, method)
    torch.testing.assert_close(found, _by_jacrev(module, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
def test_exact_norm_in_single_precision(hidden):
    module = _module(hidden, dtype="float32").eval()
    x = _rows(dtype=torch.float32)
    found = squared_jacobian_norm(module, x, "exact")
    torch.testing.assert_close(found, _by_jacrev(module, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("linear_path", [True, False])
@pytest.mark.parametrize("code", [None, "logistic", "relu"])
@pytest.mark.parametrize("k", [3, 9], ids=["undercomplete", "overcomplete"])
@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
def test_code_activation_width_and_path_take_part(hidden, k, code, linear_path):
    module = _module(hidden, k=k, code_activation=code, linear_path=linear_path).eval()
    x = _rows()
    expected = _by_jacrev(module, x)
    for method in ("exact", "product"):
        found = squared_jacobian_norm(module, x, method)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_gram_short_cut_of_wide_rows_gives_the_same():
    module = _module((4, 3), d=40, k=3).eval()
    x = _rows(20, 40)
    found = squared_jacobian_norm(module, x, "exact")
    torch.testing.assert_close(found, _by_jacrev(module, x), rtol=1e-10, atol=1e-10)


def test_scale_of_the_inputs_takes_part():
    module = _module((7,)).eval()
    module.encoder.in_scale.copy_(torch.linspace(0.5, 2.0, 5))
    x = _rows()
    for method in ("exact", "product"):
        found = squared_jacobian_norm(module, x, method)
        torch.testing.assert_close(found, _by_jacrev(module, x))


@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
def test_posterior_counts_by_its_mean_only(hidden):
    module = _module(hidden, variational=True).eval()
    x = _rows()
    found = squared_jacobian_norm(module, x, "exact")
    torch.testing.assert_close(found, _by_jacrev(module, x), rtol=1e-10, atol=1e-10)


def test_mask_beside_the_columns_is_no_column():
    module = _module((7,), has_mask=True).eval()
    x = torch.cat([_rows(), torch.ones(8, 5, dtype=torch.float64)], dim=1)
    found = squared_jacobian_norm(module, x, "exact")
    torch.testing.assert_close(found, _by_jacrev(module, x, 5))
    assert (found < _by_jacrev(module, x) - 0.1).all()


@pytest.mark.parametrize("code", [None, "logistic"])
@pytest.mark.parametrize("hidden", DEPTHS, ids=len)
def test_gradients_are_those_of_the_jacrev_expression(hidden, code):
    module = _module(hidden, code_activation=code)
    x = _rows()
    parameters = list(module.encoder.parameters())
    found = squared_jacobian_norm(module, x, "exact").sum()
    expected = _by_jacrev(module, x).sum()
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        strict=True,
    ):
        ours = 0.0 if ours is None else ours
        theirs = 0.0 if theirs is None else theirs
        torch.testing.assert_close(
            ours + torch.zeros(1), theirs + torch.zeros(1), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("code", [None, "logistic"])
@pytest.mark.parametrize("k", [3, 9], ids=["undercomplete", "overcomplete"])
@pytest.mark.parametrize("method", ["subset", "hutchinson"])
@pytest.mark.parametrize("hidden", [(), (7,), (7, 6)], ids=len)
def test_estimate_is_unbiased_for_every_row(hidden, method, k, code):
    module = _module(hidden, k=k, code_activation=code).train()
    x = _rows(12)
    exact = squared_jacobian_norm(module, x, "exact").detach()
    with torch.no_grad():
        draws = torch.stack(
            [squared_jacobian_norm(module, x, method) for _ in range(600)]
        )
    error = draws.mean(dim=0) - exact
    spread = draws.std(dim=0) / len(draws) ** 0.5
    assert (error.abs() <= 4 * spread + 1e-12).all()
    assert (draws.std(dim=0) > 0).any()


@pytest.mark.parametrize("method", ["subset", "hutchinson"])
def test_estimate_in_evaluation_is_always_the_same(method):
    module = _module((7, 6)).eval()
    x = _rows(12)
    first = squared_jacobian_norm(module, x, method)
    state = module.noise.get_state()
    assert torch.equal(squared_jacobian_norm(module, x, method), first)
    assert torch.equal(module.noise.get_state(), state)


@pytest.mark.parametrize(
    ("hidden", "as_method"), [((), "exact"), ((7,), "exact"), ((7, 6), "subset")]
)
def test_auto_is_exact_up_to_one_hidden_layer(hidden, as_method):
    module, x = _module(hidden).eval(), _rows()
    found = squared_jacobian_norm(module, x, "auto")
    assert torch.equal(found, squared_jacobian_norm(module, x, as_method))


@pytest.mark.parametrize(
    ("n", "rank", "wanted"), [(100, 10, 10), (3, 50, 1), (9, 1, 9)]
)
def test_subset_shrinks_with_the_rank(n, rank, wanted):
    module = _module().train()
    rows = subset_of_rows(module, _rows(n), rank)
    assert len(rows) == len(set(rows.tolist())) == wanted
    assert min(rows) >= 0
    assert max(rows) < n


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'jacobian' parameter must be a str among"):
        squared_jacobian_norm(_module(), _rows(), "sampled")


@pytest.mark.parametrize("method", ["exact", "subset", "hutchinson", "product"])
@pytest.mark.parametrize("own", [False, True])
def test_norm_works_under_inference_mode(method, own, torch_layers):
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    module = _module((7, 6), own=network if own else None).eval()
    with torch.inference_mode():
        x = _rows()
        values = squared_jacobian_norm(module, x, method)
    assert not values.requires_grad
    if method in ("exact", "product"):
        torch.testing.assert_close(values, _by_jacrev(module, _rows()).detach())


def _own_network():
    return nn.Sequential(
        nn.Linear(5, 7), nn.Tanh(), nn.Dropout(0.5), nn.BatchNorm1d(7), nn.Linear(7, 3)
    ).double()


def test_own_module_goes_through_torch_func(torch_layers):
    module = _module(own=_own_network(), code_activation="logistic")
    x = _rows()
    module.eval()
    expected = _by_jacrev(module, x)
    module.train()
    found = squared_jacobian_norm(module, x, "exact")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    # Dropout is off in the Jacobian alone: the modes of the parts come back.
    assert all(part.training for part in module.encoder.modules())


def test_own_module_gets_the_gradients_of_its_norm(torch_layers):
    module = _module(own=nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)))
    x = _rows()
    parameters = list(module.encoder.parameters())[:3]
    found = squared_jacobian_norm(module, x, "exact").sum()
    expected = _by_jacrev(module, x).sum()
    for ours, theirs in zip(
        torch.autograd.grad(found, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("method", ["subset", "hutchinson"])
def test_estimate_of_an_own_module_is_unbiased(method, torch_layers):
    module = _module(own=nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)))
    module.train()
    x = _rows(6)
    exact = squared_jacobian_norm(module, x, "exact").detach()
    with torch.no_grad():
        draws = torch.stack(
            [squared_jacobian_norm(module, x, method) for _ in range(200)]
        )
    spread = draws.std(dim=0) / len(draws) ** 0.5
    assert ((draws.mean(dim=0) - exact).abs() <= 4 * spread).all()


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("k", [3, 9], ids=["undercomplete", "overcomplete"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", DEPTHS[1:], ids=len)
@pytest.mark.parametrize("method", ["exact", "auto", "hutchinson"])
def test_closed_step_has_the_gradients_of_the_ordinary_one(
    method, hidden, activation, k, variational, step_gradient
):
    module = _module(hidden, k=k, activation=activation, variational=variational)
    terms = [NegativeLogLikelihood(), Contraction(weight=0.3, method=method)]
    if variational:
        terms.append(KLDivergence())
    objective, x = Objective(terms), _rows(12)
    loss, parts, grads = step_gradient(module, objective, x, closed=False)
    loss_2, parts_2, grads_2 = step_gradient(module, objective, x, closed=True)
    torch.testing.assert_close(loss_2, loss)
    torch.testing.assert_close(torch.stack(parts_2), torch.stack(parts))
    for name, expected in grads.items():
        torch.testing.assert_close(grads_2[name], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": ()},
        {"code_activation": "logistic"},
        {"dropout": 0.1},
    ],
    ids=str,
)
def test_other_models_take_the_ordinary_step(change):
    method = change.pop("method", "auto")
    module = _module(**change)
    FlatParameters(module).bind()
    objective = Objective([NegativeLogLikelihood(), Contraction(method=method)])
    assert closed_step(module, objective) is None


def test_gradients_add_to_those_of_the_fused_pass():
    module, x = _module((7, 6)), _rows()
    objective = Objective([NegativeLogLikelihood(), Contraction(0.3, method="exact")])
    parameters = dict(module.named_parameters())
    loss, _ = objective(module.train(), module(x))
    expected = torch.autograd.grad(loss, list(parameters.values()))
    flat = FlatParameters(module)
    flat.bind()
    assert module.encoder.grad_buffers is not None
    objective(module, module(x))[0].backward()
    for p, grad in zip(parameters.values(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)
        assert p.grad.data_ptr() >= flat.grad.data_ptr()


def test_norms_of_many_rows_do_not_depend_on_the_chunks(monkeypatch):
    module, x = _module((7, 6)).eval(), _rows(50)
    whole = squared_jacobian_norm(module, x, "exact").detach()
    monkeypatch.setattr("skvae._jacobian._CHUNK_FLOATS", 100)
    with torch.no_grad():
        parts = squared_jacobian_norm(module, x, "exact")
    torch.testing.assert_close(parts, whole)
    assert np.isfinite(parts.numpy()).all()


@pytest.mark.parametrize("shape", [(512, 512), (520, 600), (700, 701), (512, 40)])
def test_gram_matrix_by_halves_is_that_of_the_whole_product(shape):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(*shape, dtype=torch.float64, generator=generator)
    expected = matrix @ matrix.T
    torch.testing.assert_close(_outer_gram(matrix), expected, rtol=1e-12, atol=1e-10)


def _by_differences(model, X, step=1e-4):
    """Compute the norms by central differences of `transform` in each known cell."""
    squares = np.zeros(len(X))
    for j in range(X.shape[1]):
        ahead, behind = X.copy(), X.copy()
        ahead[:, j] += step
        behind[:, j] -= step
        slope = (model.transform(ahead) - model.transform(behind)) / (2 * step)
        squares += np.square(slope).sum(axis=1)
    return np.sqrt(squares)


@pytest.mark.parametrize("has_gaps", [False, True])
def test_norm_of_counts_is_in_the_counts_themselves(has_gaps):
    X = np.random.default_rng(0).poisson([3.0, 30.0, 300.0], (100, 3)).astype(float)
    if has_gaps:
        X[::5, 1] = np.nan
    model = VAE(2, likelihood="poisson", max_iter=5, random_state=0).fit(X)
    rows = X[:20] + 1.0
    # A difference of 1e-4 in the row is good for seven digits.
    expected = _by_differences(model, rows)
    np.testing.assert_allclose(model.jacobian_norm(rows), expected, rtol=1e-5)


def test_norm_of_counts_with_an_encoder_of_ones_own():
    X = np.random.default_rng(0).poisson(30.0, (100, 3)).astype(float)
    model = VAE(
        2, likelihood="poisson", encoder=nn.Linear, max_iter=5, random_state=0
    ).fit(X)
    expected = _by_differences(model, X[:5])
    np.testing.assert_allclose(model.jacobian_norm(X[:5]), expected, rtol=1e-5)
