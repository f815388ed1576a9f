"""An accelerator of `accelerate`, given by `net_params`, trains every estimator."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from skvae import (
    VAE,
    ConditionalVAE,
)

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
# Devices and precision are state of the process in accelerate; it seeds nothing.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
X = (load_digits().data[:600] / 16).astype(np.float32)


@pytest.fixture
def bf16():
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def _model(kind, **params):
    return kind(5, max_iter=4, random_state=0, **params)


@pytest.mark.slow
def test_mixed_precision_comes_near_full_precision(kind, bf16):
    y = load_digits().target[:600] if kind is ConditionalVAE else None
    full = _model(kind).fit(X, y)
    model = _model(kind, net_params={"accelerator": bf16}).fit(X, y)
    assert model.device_ == "cpu"
    assert model.transform(X).dtype == np.float32
    # The same course, rounded to eight bits on the way.
    scale = np.abs(full.loss_curve_).max()
    np.testing.assert_allclose(model.loss_curve_, full.loss_curve_, atol=0.02 * scale)
    assert not np.array_equal(model.loss_curve_, full.loss_curve_)
    assert model.best_loss_ < model.baseline_loss_


def test_an_accelerated_model_trains_on_and_is_pickled_without_it(bf16):
    model = _model(VAE, net_params={"accelerator": bf16}).fit(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    model.partial_fit(X)
    again.partial_fit(X)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))


@pytest.mark.parametrize(
    "n", [120, pytest.param(1000, marks=pytest.mark.slow)]
)  # Many rows: columns hear each other.
def test_tables_are_trained_by_an_accelerator(bf16, n):
    rng = np.random.default_rng(0)
    level = rng.integers(0, 2, n)
    table = pd.DataFrame({"level": np.where(level, "a", "b"), "value": level + 0.5})
    model = VAE(2, max_iter=40, random_state=0, net_params={"accelerator": bf16})
    drawn = model.fit(table).sample(50, random_state=0)
    assert ((drawn["level"] == "a") == (drawn["value"] == 1.5)).mean() > 0.8
    assert model.best_loss_ < model.baseline_loss_ + 1e-6
