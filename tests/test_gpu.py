"""On a CUDA device: every estimator fits there, repeats itself, and comes back."""

import pickle

import numpy as np
import pandas as pd
import pytest

from skvae import (
    VAE,
    ConditionalVAE,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(400, 3)) @ rng.normal(size=(3, 8))).astype(np.float32)


def _fitted(kind, X, device="cuda"):
    y = np.arange(len(X)) % 2 if kind is ConditionalVAE else None
    return kind(3, max_iter=5, random_state=0, device=device).fit(X, y)


def test_a_fit_stays_on_the_device_and_repeats_itself(kind, rows):
    model = _fitted(kind, rows)
    assert model.device_.startswith("cuda")
    assert next(model.net_.module_.parameters()).device.type == "cuda"
    again = _fitted(kind, rows)
    np.testing.assert_array_equal(model.transform(rows), again.transform(rows))


def test_the_start_is_that_of_the_cpu(kind, rows):
    y = np.arange(len(rows)) % 2 if kind is ConditionalVAE else None
    codes = [
        kind(3, max_iter=0, random_state=0, device=device).fit(rows, y).transform(rows)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*codes, atol=1e-3)


def test_samples_and_pickles_come_back_to_the_host(kind, rows):
    model = _fitted(kind, rows)
    drawn = model.sample(5, random_state=0)
    drawn = drawn[0] if kind is ConditionalVAE else drawn
    assert isinstance(drawn, np.ndarray)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.transform(rows), model.transform(rows))


@pytest.mark.parametrize("copies", [1, 3])  # Many rows: columns hear each other.
def test_a_table_is_fitted_sampled_and_filled(rows, copies):
    frame = pd.DataFrame(rows[:, :3], columns=list("abc"))
    frame["kind"] = np.where(frame["a"] > 0, "high", "low")
    frame = pd.concat([frame] * copies, ignore_index=True)
    model = _fitted(VAE, frame)
    for drawn in (
        model.sample(20, random_state=0),
        model.sample(20, random_state=0, given={"kind": "low"}),
        model.impute(frame[:20].assign(b=np.nan)),
    ):
        assert list(drawn.columns) == list(frame.columns)
        assert set(drawn["kind"]) <= {"high", "low"}
        assert drawn.notna().all(axis=None)
