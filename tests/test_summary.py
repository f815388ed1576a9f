"""The summary: what it says of the epochs of a fit, and its hints."""

import numpy as np
import pytest

from skvae import VAE, DenoisingAutoencoder
from skvae._summary import summarize


@pytest.mark.parametrize("activation", ["relu", "logistic", None])
def test_components_that_are_constant_are_counted(digits, activation):
    model = DenoisingAutoencoder(
        20, code_activation=activation, max_iter=20, random_state=0
    ).fit(digits[:900])
    constant = int((model.transform(digits[:900]).std(axis=0) == 0).sum())
    assert (constant > 0) == (activation == "relu")
    said = f"{constant} of 20 components are the same for all rows"
    assert (said in summarize(model)) == (constant > 0)


@pytest.mark.parametrize(
    ("curve", "kept", "fell"),
    [([3.0, 2.0, 1.0], 1.0, True), ([3.0, 1.0, 1.5], 1.5, False)],
    ids=["lowest last", "a later one kept, as of a table"],
)
def test_more_epochs_are_advised_where_the_loss_still_fell(wine, curve, kept, fell):
    model = VAE(2, max_iter=3, random_state=0).fit(wine)
    model.validation_loss_curve_, model.best_loss_ = curve, kept
    model.baseline_loss_ = 4.0
    text = summarize(model)
    assert ("raise max_iter=3" in text) == fell
    assert "epoch kept" in text


@pytest.mark.parametrize("likelihood", ["poisson", "bernoulli", "table"])
def test_noise_is_told_of_gaussian_columns_only(likelihood):
    X = (np.random.default_rng(0).normal(size=(60, 4)) > 0).astype(float)
    model = VAE(2, likelihood="gaussian", max_iter=1, random_state=0).fit(X)
    assert model.noise_ == "feature"
    assert "\n  noise " in summarize(model)
    assert "noise sd" in summarize(model)
    model.set_params(likelihood=likelihood).fit(X)
    assert not hasattr(model, "noise_")
    assert not hasattr(model, "noise_variance_")
    assert "\n  noise " not in summarize(model)
    assert "noise sd" not in summarize(model)
