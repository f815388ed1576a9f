"""The stored form: plain, small, and checked for its version and device."""

import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import skvae
from skvae import (
    VAE,
    AutoencoderTransformer,
    ConditionalVAE,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
)

Y = np.arange(60) % 2


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(60, 4))


@pytest.fixture
def fitted(kind, X):
    return kind(2, max_iter=3, random_state=0).fit(X, Y)


def _leaves(value, path=""):
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item, path)
    else:
        yield path, value


def test_the_state_holds_no_torch_object(fitted):
    plain = (np.ndarray, np.generic, str, int, float, bool, type(None), type)
    for path, value in _leaves(fitted.__getstate__()):
        assert isinstance(value, plain), (path, type(value))


def test_a_pickle_is_about_as_large_as_the_weights(fitted):
    weights = sum(p.numel() for p in fitted.net_.module_.parameters()) * 8
    assert len(pickle.dumps(fitted)) < 1.2 * weights + 50_000


def test_a_pickle_keeps_no_training_rows():
    X = np.random.default_rng(0).normal(size=(20_000, 4))
    model = VAE(1, hidden_layer_sizes=(4,), max_iter=1, random_state=0).fit(X)
    assert len(pickle.dumps(model)) < X.nbytes / 10


def test_a_loaded_model_has_its_history_and_attributes(fitted, X):
    loaded = pickle.loads(pickle.dumps(fitted))
    assert loaded.net_.history[:, "train_loss"] == fitted.loss_curve_
    assert vars(loaded).keys() == vars(fitted).keys()
    assert loaded.get_params().keys() == fitted.get_params().keys()
    loaded.partial_fit(X, Y)
    assert loaded.n_iter_ == fitted.n_iter_ + 1


def test_an_unfitted_model_pickles():
    model = pickle.loads(pickle.dumps(VAE(3, beta=2.0)))
    assert model.get_params() == VAE(3, beta=2.0).get_params()
    assert not hasattr(model, "net_")


def test_another_version_warns(fitted):
    state = fitted.__getstate__()
    assert state["_skvae_version"] == skvae.__version__
    other = object.__new__(type(fitted))
    with pytest.warns(UserWarning, match="stored by skvae 0.0.1 and is loaded by"):
        other.__setstate__({**state, "_skvae_version": "0.0.1"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_model_of_a_device_that_is_not_there_comes_to_the_cpu(fitted, X):
    state = fitted.__getstate__()
    state = {**state, "_net": {**state["_net"], "device": "cuda:1"}}
    other = object.__new__(type(fitted))
    with pytest.warns(UserWarning, match="device='cuda:1'.*loaded on the CPU"):
        other.__setstate__(state)
    np.testing.assert_array_equal(other.transform(X), fitted.transform(X))


def _answers(model, X):
    drawn = model.sample(5, random_state=0)
    rows = drawn[0] if isinstance(drawn, tuple) else drawn
    return model.transform(X), rows, model.score_samples(X)


def test_another_process_gives_the_same_bits(X, tmp_path):
    models = [
        kind(2, max_iter=3, random_state=0).fit(X, Y)
        for kind in (
            AutoencoderTransformer,
            DenoisingAutoencoder,
            ContractiveAutoencoder,
            VAE,
            ConditionalVAE,
        )
    ]
    (tmp_path / "models").write_bytes(pickle.dumps(models))
    np.save(tmp_path / "X.npy", X)
    code = (
        "import pickle, sys, numpy as np\n"
        f"{inspect.getsource(_answers)}\n"
        "d = sys.argv[1]\n"
        "models = pickle.load(open(d + '/models', 'rb'))\n"
        "X = np.load(d + '/X.npy')\n"
        "np.savez(d + '/found', *[a for m in models for a in _answers(m, X)])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    found = np.load(tmp_path / "found.npz")
    expected = [a for m in models for a in _answers(m, X)]
    for a, name in zip(expected, found.files, strict=True):
        np.testing.assert_array_equal(found[name], a)
