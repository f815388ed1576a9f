"""The norm equals autodiff's, its estimates are unbiased, the penalty works."""

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from skvae import (
    VAE,
    AutoencoderTransformer,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
)
from skvae._jacobian import squared_jacobian_norm

VARIANTS = [
    ContractiveAutoencoder(max_iter=3),
    ContractiveAutoencoder(max_iter=3, hidden_layer_sizes=(8,), alpha=1.0),
    ContractiveAutoencoder(max_iter=3, hidden_layer_sizes=(), init="random"),
    ContractiveAutoencoder(max_iter=3, jacobian="hutchinson", activation="tanh"),
    ContractiveAutoencoder(max_iter=3, jacobian="exact", missing_values="error"),
    ContractiveAutoencoder(max_iter=3, alpha=0.0),
    DenoisingAutoencoder(max_iter=3),
    DenoisingAutoencoder(max_iter=3, corruption="masking"),
    DenoisingAutoencoder(max_iter=3, corruption="salt_and_pepper", init="random"),
    DenoisingAutoencoder(max_iter=3, corruption="swap", hidden_layer_sizes=()),
    DenoisingAutoencoder(max_iter=3, corruption_level=0.0),
    DenoisingAutoencoder(max_iter=3, missing_values="error", dropout=0.1),
]


@pytest.mark.numpy_global_rng
@parametrize_with_checks(VARIANTS)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def _fitted(kind, X, hidden, **settings):
    model = kind(
        3, hidden_layer_sizes=hidden, max_iter=3, random_state=0, init="random"
    )
    return model.set_params(**settings).fit(X)


def _reference(model, X):
    module = model.net_.module_
    x = torch.as_tensor((X - model.center_) / model.scale_)

    def code(row):
        return module.posterior(row.unsqueeze(0))[0].squeeze(0)

    jacobian = torch.func.vmap(torch.func.jacrev(code))(x)
    return jacobian.square().sum(dim=(1, 2)).sqrt().detach().numpy()


@pytest.mark.filterwarnings("ignore:Posterior collapse")
@pytest.mark.parametrize("hidden", [(), (7,), (7, 5), (7, 6, 5)])
@pytest.mark.parametrize("activation", ["silu", "tanh", "relu", "softplus"])
def test_norm_equals_autodiff(hidden, activation, wine):
    X = wine[:20]
    for kind in (AutoencoderTransformer, VAE):
        model = _fitted(kind, X, hidden, activation=activation)
        np.testing.assert_allclose(
            model.jacobian_norm(X), _reference(model, X), rtol=1e-10
        )


@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)])
def test_norm_counts_the_activation_of_the_code(hidden, wine):
    model = _fitted(AutoencoderTransformer, wine[:20], hidden, penalty="kl")
    np.testing.assert_allclose(
        model.jacobian_norm(wine[:20]), _reference(model, wine[:20]), rtol=1e-10
    )


def test_norm_of_an_own_encoder_is_exact(wine):
    def encoder(n_in, n_out):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, n_in, n_out)
        with torch.no_grad():
            layer.weight.fill_(0.5)
            layer.bias.zero_()
        return layer

    model = ContractiveAutoencoder(2, encoder=encoder, max_iter=0, random_state=0).fit(
        wine
    )
    expected = np.sqrt(2 * wine.shape[1]) * 0.5
    np.testing.assert_allclose(model.jacobian_norm(wine[:3]), expected)


@pytest.mark.parametrize("method", ["subset", "hutchinson"])
def test_estimates_are_unbiased(method, wine):
    model = _fitted(ContractiveAutoencoder, wine, (7, 5))
    module = model.net_.module_
    x = torch.as_tensor((wine[:32] - model.center_) / model.scale_)
    exact = squared_jacobian_norm(module, x, "exact").mean().item()
    module.train()
    module.noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = np.array(
            [squared_jacobian_norm(module, x, method).mean().item() for _ in range(400)]
        )
    module.eval()
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert error > 0
    assert abs(draws.mean() - exact) < 4 * error


@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_gradient_equals_autodiff(hidden, wine):
    model = _fitted(ContractiveAutoencoder, wine, hidden, activation="tanh")
    module = model.net_.module_
    x = torch.as_tensor((wine[:8] - model.center_) / model.scale_)
    parameters = [p for p in module.encoder.parameters() if p.requires_grad]

    def code(row):
        return module.posterior(row.unsqueeze(0))[0].squeeze(0)

    jacobian = torch.func.vmap(torch.func.jacrev(code))(x)
    expected = torch.autograd.grad(
        jacobian.square().sum(), parameters, allow_unused=True
    )
    found = torch.autograd.grad(
        squared_jacobian_norm(module, x, "exact").sum(), parameters, allow_unused=True
    )
    for a, b in zip(found, expected, strict=True):
        if b is None or a is None:
            continue
        torch.testing.assert_close(a, b)


def test_penalty_makes_codes_less_sensitive(digits):
    norms = [
        ContractiveAutoencoder(
            4, alpha=alpha, hidden_layer_sizes=(32,), max_iter=10, random_state=0
        )
        .fit(digits)
        .jacobian_norm(digits)
        .mean()
        for alpha in (0.0, 0.3, 3.0)
    ]
    assert norms[0] > norms[1] > norms[2]


def test_penalty_stays_out_of_the_score(wine):
    scores = [
        ContractiveAutoencoder(2, alpha=a, max_iter=0, random_state=0)
        .fit(wine)
        .score(wine)
        for a in (0.0, 5.0)
    ]
    assert scores[0] == scores[1]


def test_corruption_never_reaches_transform(wine):
    model = DenoisingAutoencoder(
        2, corruption="masking", corruption_level=0.9, max_iter=3, random_state=0
    ).fit(wine)
    np.testing.assert_array_equal(model.transform(wine), model.transform(wine))


def test_own_corruption_sees_scaled_rows_and_a_generator(wine):
    seen = []

    def corruption(x, generator):
        seen.append((x.mean().abs().item() < 1, isinstance(generator, torch.Generator)))
        return x

    DenoisingAutoencoder(2, corruption=corruption, max_iter=1, random_state=0).fit(wine)
    assert seen
    assert all(scaled and generated for scaled, generated in seen)


def test_denoising_removes_noise_better_than_plain_training(digits):
    rng = np.random.RandomState(0)
    train, test = digits[:1400], digits[1400:]
    noisy = np.clip(test + rng.normal(0, 6, test.shape), 0, 16)
    errors = []
    for level in (0.0, 0.4):
        model = DenoisingAutoencoder(
            24,
            corruption="gaussian",
            corruption_level=level,
            max_iter=20,
            random_state=0,
        ).fit(train)
        errors.append(((model.reconstruct(noisy) - test) ** 2).mean())
    assert errors[1] < 0.9 * errors[0]
