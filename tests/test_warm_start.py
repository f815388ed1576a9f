"""Weights go on where the parameters still describe their network."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from skvae import (
    VAE,
    AutoencoderTransformer,
    ConditionalVAE,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
)
from skvae.persistence import load, save


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


PARTIAL = (AutoencoderTransformer, DenoisingAutoencoder, ContractiveAutoencoder)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("kind", PARTIAL)
def test_statistics_stand_for_the_rows_of_all_chunks(X, kind, gaps):
    X = X.copy()
    X[60:] += 5.0
    X[0, 0] = np.nan if gaps else X[0, 0]
    model = kind(2, max_iter=5, scale=None, random_state=0).fit(X)
    ratio = model.explained_variance_ratio_.sum()
    model.partial_fit(X[-1:])
    assert model.explained_variance_ratio_.sum() == pytest.approx(ratio, abs=0.02)
    whole = np.vstack([X, X[-1:]])
    mean = np.nanmean(whole, axis=0)
    seen = ~np.isnan(whole)
    error = np.square(whole - model.reconstruct(whole))[seen].sum()
    assert model.noise_variance_.mean() == pytest.approx(error / seen.sum(), rel=0.1)
    spread = np.square(whole - mean)[seen].sum()
    assert model.score(whole) == pytest.approx(1 - error / spread, abs=1e-4)


@pytest.mark.parametrize("kind", PARTIAL)
def test_samples_stand_for_the_rows_of_all_chunks(kind):
    X = np.random.default_rng(0).normal(size=(3000, 4))
    X[:1500] += 6.0
    model = kind(2, scale=None, random_state=0)
    for _ in range(3):
        model.partial_fit(X[:1500]).partial_fit(sparse.csr_array(X[1500:]))
    drawn = model.sample(1000, random_state=0)
    assert (drawn.mean(axis=1) > 3).mean() == pytest.approx(0.5, abs=0.06)
    assert len(model._kept["x"]) == 1000
    residuals = np.square(X - model.reconstruct(X)).mean(axis=0)
    np.testing.assert_allclose(model.noise_variance_, residuals, rtol=0.1)


def test_samples_of_a_table_stand_for_the_rows_of_all_chunks():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"c": ["a", "b"] * 60, "x": rng.normal(size=120)})
    frame.loc[::7, "x"] = np.nan
    model = AutoencoderTransformer(2, max_iter=60, random_state=0).fit(frame)
    model.set_params(learning_rate_init=1e-6)  # What is measured here is no training.
    for _ in range(2):
        model.partial_fit(frame[frame["c"] == "b"][:10])
    assert (model.sample(300, random_state=0)["c"] == "a").mean() > 0.3


@pytest.mark.slow
def test_a_stored_model_goes_on_with_partial_fit_as_if_it_had_not_been(X, tmp_path):
    model = AutoencoderTransformer(2, random_state=0).partial_fit(X[:50])
    again = pickle.loads(pickle.dumps(model))
    save(model, tmp_path / "model.safetensors")
    for other in (again, load(tmp_path / "model.safetensors")):
        expected = pickle.loads(pickle.dumps(model)).partial_fit(X[50:])
        other.partial_fit(X[50:])
        np.testing.assert_array_equal(other._codes, expected._codes)
        np.testing.assert_array_equal(other.noise_variance_, expected.noise_variance_)
    assert model.fit(X)._kept is None


@pytest.mark.parametrize("later", ["f4", "f8", "i8"])
@pytest.mark.parametrize("first", ["f4", "f8"])
@pytest.mark.parametrize("kind", [*PARTIAL, VAE, ConditionalVAE])
def test_training_goes_on_in_the_dtype_it_began_in(X, kind, first, later):
    y = np.arange(len(X)) % 2 if kind is ConditionalVAE else None
    model = _quick(kind, warm_start=True, scale=None).fit(X.astype(first), y)
    for go_on in (model.partial_fit, model.fit):
        weights = go_on(X.astype(later), y)._module.parameters()
        assert {str(w.dtype) for w in weights} == {f"torch.float{8 * int(first[1])}"}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("decays", [(0.0, 1e-12), (1e-12, 0.0)])
def test_moments_stay_with_their_parameters_where_weight_decay_changes(
    X, decays, stored
):
    model = AutoencoderTransformer(2, weight_decay=decays[0], random_state=0)
    same = pickle.loads(pickle.dumps(model.partial_fit(X))).partial_fit(X)
    model.set_params(weight_decay=decays[1])
    model = pickle.loads(pickle.dumps(model)) if stored else model
    model.partial_fit(X)
    for p, state in model.net_.optimizer_.state.items():
        assert p.shape == state["exp_avg"].shape == state["exp_avg_sq"].shape
    np.testing.assert_allclose(model.transform(X), same.transform(X), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_another_optimiser_begins_anew(X, stored):
    params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}
    model = AutoencoderTransformer(2, net_params=params, random_state=0).partial_fit(X)
    for other, key in ((None, "exp_avg"), (params, "momentum_buffer")):
        model.set_params(net_params=other)
        model = pickle.loads(pickle.dumps(model)) if stored else model
        model.partial_fit(X)
        (state,) = model.net_.optimizer_.state.values()
        assert key in state
    assert model.n_iter_ == 3
