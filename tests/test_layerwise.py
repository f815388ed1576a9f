"""init="layerwise": what is trained, what is copied where, and what is refused."""

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.nn import functional as F

from skvae import (
    VAE,
    AutoencoderTransformer,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
)
from skvae._build import Architecture, build_module
from skvae._layerwise import _corruption, start_layerwise
from skvae._plan import TrainingPlan
from skvae.corruptions import CallableCorruption, GaussianNoise, Masking, SaltAndPepper

VARIANTS = [
    AutoencoderTransformer(init="layerwise", max_iter=5),
    AutoencoderTransformer(init="layerwise", max_iter=5, tied_weights=True),
    AutoencoderTransformer(init="layerwise", max_iter=5, penalty="kl"),
    DenoisingAutoencoder(init="layerwise", max_iter=5, corruption="swap"),
    DenoisingAutoencoder(
        init="layerwise", max_iter=5, corruption="salt_and_pepper", dropout=0.1
    ),
    ContractiveAutoencoder(
        init="layerwise", max_iter=5, hidden_layer_sizes=(), code_activation="logistic"
    ),
]


@pytest.mark.numpy_global_rng
@parametrize_with_checks(VARIANTS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def _rows(n=200, d=6):
    generator = torch.Generator().manual_seed(0)
    codes = torch.empty(n, 2, dtype=torch.float64).normal_(generator=generator)
    mix = torch.empty(2, d, dtype=torch.float64).normal_(generator=generator)
    return torch.tanh(codes @ mix)


def _pretrained(x, hidden=(8, 5), *, epochs=60, corruption=None, mask=None, **settings):
    arch = Architecture(
        x.shape[1], 2, hidden_layer_sizes=hidden, linear_path=False, **settings
    )
    module = build_module(arch, torch.Generator().manual_seed(0))
    module.corruption = corruption
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    plan = TrainingPlan(max_iter=epochs, batch_size=50, learning_rate=1e-2, clip=10.0)
    generator = torch.Generator().manual_seed(0)
    batch = {"x": x} if mask is None else {"x": x, "mask": mask}

    def take(index):
        return {name: values[index] for name, values in batch.items()}

    start_layerwise(module, take, np.arange(len(x)), plan, generator)
    return module, before


def _stage_errors(module, x):
    """Return the error of each layer on its own input, there and back."""
    encoder, decoder = module.encoder, module.decoder
    weights, biases = list(encoder.weights), [*encoder.biases, encoder.bias]
    if module.is_tied:
        homes = [w.t() for w in weights]
    else:
        homes = list(decoder.weights)[::-1]
    home_biases = [*decoder.biases, decoder.bias][::-1]
    errors, hidden = [], x
    for i, (w, b, v, c) in enumerate(
        zip(weights, biases, homes, home_biases, strict=True)
    ):
        out = F.linear(hidden, w, b)
        out = out if i == len(weights) - 1 else encoder.activation(out)
        back = F.linear(out, v, c)
        back = encoder.activation(back) if i else back
        errors.append(float((back - hidden).detach().square().mean() / hidden.var()))
        hidden = out.detach()
    return errors


@pytest.mark.parametrize("tied", [False, True])
def test_every_layer_gives_back_its_input(tied):
    x = _rows()
    trained, _ = _pretrained(x, tied=tied, epochs=900)
    untrained, _ = _pretrained(x, tied=tied, epochs=0)
    for after, before in zip(
        _stage_errors(trained, x), _stage_errors(untrained, x), strict=True
    ):
        assert after < 0.3 * before
        assert after < 0.4


def test_every_parameter_is_trained():
    module, before = _pretrained(_rows(), epochs=5)
    for name, p in module.named_parameters():
        assert not torch.equal(p, before[name]), name
        assert p.is_leaf
        assert p.grad is None


def test_networks_have_no_linear_path(wine):
    model = AutoencoderTransformer(2, init="layerwise", max_iter=1, random_state=0)
    model.fit(wine)
    assert model.net_.module_.encoder.linear_weight is None


def test_start_is_better_than_a_random_one(digits):
    errors = {
        init: AutoencoderTransformer(
            10, hidden_layer_sizes=(64,), init=init, max_iter=20, random_state=0
        )
        .fit(digits)
        .net_.history[0, "train_loss"]
        for init in ("random", "layerwise")
    }
    assert errors["layerwise"] < errors["random"] - 0.2


def test_same_seed_gives_the_same_bits(wine):
    fits = [
        DenoisingAutoencoder(2, init="layerwise", max_iter=3, random_state=0)
        .fit(wine)
        .transform(wine)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*fits)


def test_no_epochs_means_no_pretraining():
    module, before = _pretrained(_rows(), epochs=0)
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name])


@pytest.mark.parametrize(
    ("corruption", "of_hidden"),
    [
        (Masking(0.3), Masking),
        (GaussianNoise(0.3), GaussianNoise),
        (SaltAndPepper(0.3, 0.0, 1.0), SaltAndPepper),
        (CallableCorruption(lambda x, generator: x), None),
    ],
    ids=lambda c: type(c).__name__,
)
def test_corruption_goes_with_the_units_of_the_layer(corruption, of_hidden):
    module, _ = _pretrained(_rows(), epochs=0, corruption=corruption)
    assert _corruption(module, _rows(), 0) is corruption
    hidden = 100 * _rows()
    found = _corruption(module, hidden, 1)
    if of_hidden is None:
        assert found is None
        return
    assert type(found) is of_hidden
    if of_hidden is GaussianNoise:
        assert found.level == pytest.approx(0.3 * float(hidden.std(correction=0)))
    if of_hidden is SaltAndPepper:
        torch.testing.assert_close(found.high, hidden.amax(dim=0))


def test_a_column_without_a_cell_trains_no_way_back():
    x, mask = _rows(), torch.ones_like(_rows())
    x[:, 2] = mask[:, 2] = 0.0
    module, before = _pretrained(x, mask=mask, epochs=5, has_mask=True)
    moved = {
        name: (p != before[name]).reshape(len(p), -1).any(dim=1)
        for name, p in module.decoder.named_parameters(prefix="decoder")
    }
    for name in ("decoder.bias", f"decoder.weights.{len(module.decoder.weights) - 1}"):
        assert moved[name].tolist() == [True, True, False, True, True, True]


def test_missing_cells_are_left_out(wine):
    X = wine.copy()
    X[::3, 0] = np.nan
    model = AutoencoderTransformer(2, init="layerwise", max_iter=10, random_state=0)
    rows = model.fit(X).reconstruct(X)
    assert np.isfinite(rows).all()


def test_own_network_is_refused(wine):
    model = AutoencoderTransformer(init="layerwise", encoder=torch.nn.Identity())
    model.set_params(n_components=13, random_state=0)
    with pytest.raises(ValueError, match="cannot be combined with an 'encoder'"):
        model.fit(wine)


def test_table_is_refused(wine):
    model = AutoencoderTransformer(init="layerwise", categorical_features=[0])
    model.set_params(random_state=0)
    with pytest.raises(ValueError, match="numeric columns"):
        model.fit(wine)


def test_variational_models_do_not_take_it(wine):
    with pytest.raises(ValueError, match="The 'init' parameter of VAE must be a str"):
        VAE(init="layerwise").fit(wine)
