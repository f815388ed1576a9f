"""Weights go on where the parameters still describe their network."""

import pickle
import re

import numpy as np
import pytest

from skvae import VAE, AutoencoderTransformer, DenoisingAutoencoder


@pytest.fixture(scope="module")
def X():
    X = np.random.default_rng(0).normal(size=(120, 4))
    X[:, 1] += X[:, 0]
    return X


def _quick(kind, **parameters):
    return kind(2, max_iter=2, random_state=0, **parameters)


def _linear(n_in, n_out):
    from torch import nn

    return nn.Linear(n_in, n_out)


CHANGES = [
    (AutoencoderTransformer, {}, {"n_components": 3}),
    (AutoencoderTransformer, {}, {"hidden_layer_sizes": (8,)}),
    (AutoencoderTransformer, {}, {"activation": "relu"}),
    (AutoencoderTransformer, {}, {"dropout": 0.2}),
    (AutoencoderTransformer, {}, {"init": "random"}),
    (AutoencoderTransformer, {}, {"penalty": "kl"}),
    (AutoencoderTransformer, {}, {"tied_weights": True}),
    (AutoencoderTransformer, {}, {"scale": None}),
    (AutoencoderTransformer, {}, {"encoder": _linear}),
    (AutoencoderTransformer, {"encoder": _linear}, {"encoder": None}),
    (DenoisingAutoencoder, {}, {"code_activation": "relu"}),
    (VAE, {}, {"likelihood": "table"}),
    (VAE, {"likelihood": "table"}, {"likelihood": {0: "gaussian"}}),
    (VAE, {}, {"categorical_features": [0]}),
    (VAE, {}, {"noise": "shared"}),
    (VAE, {}, {"prior": "normal"}),
    (VAE, {}, {"n_importance_samples": 3}),
]


@pytest.mark.parametrize(("kind", "before", "after"), CHANGES)
def test_weights_do_not_go_on_in_another_network(X, kind, before, after):
    model = _quick(kind, warm_start=True, **before).fit(X)
    codes, ((name, value),) = model.transform(X), after.items()
    old = model.get_params()[name]
    shown = ("<function>" if callable(v) else repr(v) for v in (old, value))
    said = (re.escape(f"{name}={v}") for v in shown)
    message = "was fitted with {}, .* do not fit {}. Use warm_start=False".format(*said)
    model.set_params(**after)
    for go_on in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=message):
            go_on(X)
    np.testing.assert_array_equal(model.transform(X), codes)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(again.transform(X), codes)
    with pytest.raises(ValueError, match=message):
        again.fit(X)
    model.set_params(warm_start=False, early_stopping=False).fit(X)


def test_what_follows_from_the_rows_never_stands_in_the_way(X):
    model = VAE(max_iter=1, warm_start=True, random_state=0).fit(X)
    model.set_params(
        n_components=model.n_components_,
        hidden_layer_sizes=[128, 64],
        likelihood="gaussian",
        noise=model.noise_,
        prior="mixture",
        beta=0.5,
        batch_size=30,
    )
    assert model.fit(X).n_iter_ == 2
    auto = ("n_components", "hidden_layer_sizes", "likelihood", "noise", "prior")
    model.set_params(**dict.fromkeys(auto, "auto"))
    assert model.partial_fit(X).n_iter_ == 3
    unscaled = _quick(VAE, warm_start=True, scale=None).fit(X)
    assert unscaled.set_params(scale="auto").fit(X).n_iter_ == 4
