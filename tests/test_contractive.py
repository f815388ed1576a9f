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
    ContractiveAutoencoder(max_iter=3, tied_weights=True, dropout=0.1),
    ContractiveAutoencoder(
        max_iter=3, code_activation="logistic", n_components=12, tied_weights=True
    ),
    ContractiveAutoencoder(max_iter=3, jacobian="subset", early_stopping=False),
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


def test_norm_of_principal_components_is_the_root_of_their_number(wine):
    model = AutoencoderTransformer(3, max_iter=0, random_state=0).fit(wine)
    np.testing.assert_allclose(model.jacobian_norm(wine), np.sqrt(3))


def test_norm_follows_the_code_along_a_small_step(wine):
    model = _fitted(ContractiveAutoencoder, wine, (7, 5))
    step = 1e-6
    moves = step * np.vstack([np.eye(13), -np.eye(13)]) * model.scale_
    codes = model.transform(wine[0] + moves)
    slopes = (codes[:13] - codes[13:]) / (2 * step)
    expected = np.sqrt(np.square(slopes).sum())
    np.testing.assert_allclose(model.jacobian_norm(wine[:1]), expected, rtol=1e-6)


def test_norm_works_where_cells_are_missing_and_for_tables(wine):
    X = wine.copy()
    X[::3, 0] = np.nan
    model = _fitted(ContractiveAutoencoder, X, (7,))
    assert (model.jacobian_norm(X) > 0).all()
    table = VAE(2, likelihood="table", max_iter=1, random_state=0).fit(wine)
    assert (table.jacobian_norm(wine) > 0).all()


def test_without_strength_there_is_no_term(wine):
    model = _fitted(ContractiveAutoencoder, wine, (7,), alpha=0.0)
    assert model.net_.criterion_.names == ["nll"]


def test_history_keeps_the_squared_norm(wine):
    model = _fitted(ContractiveAutoencoder, wine, (7,), early_stopping=False)
    assert model.net_.history[-1, "train_contraction"] > 0


def test_loss_is_error_and_penalty_together(wine):
    model = ContractiveAutoencoder(2, alpha=0.7, max_iter=1, random_state=0)
    model.set_params(learning_rate_init=1e-12, early_stopping=False).fit(wine)
    error = 0.5 * np.square(wine - model.reconstruct(wine))
    error = (error / model.scale_**2).sum(axis=1).mean()
    constant = 0.5 * 13 * np.log(2 * np.pi)
    expected = error + constant + 0.7 * 2
    assert model.loss_curve_[0] == pytest.approx(expected, rel=1e-6)


def test_linear_code_keeps_what_varies_more_than_the_penalty():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) * [2.0, 0.5]
    model = ContractiveAutoencoder(
        2,
        alpha=1.0,
        hidden_layer_sizes=(),
        tied_weights=True,
        scale=None,
        max_iter=60,
        learning_rate_init=0.01,
        random_state=0,
    ).fit(X)
    # For one direction of variance v the loss v (1 - a^2)^2 / 2 + alpha a^2 of the
    # tied weight a has its minimum at a^2 = 1 - alpha / v, or at 0.
    expected = 1 - 1.0 / X[:, 0].var()
    assert np.square(model.jacobian_norm(X)).mean() == pytest.approx(expected, abs=0.02)
