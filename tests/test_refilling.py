"""Cells that models without a prior fill: how often, and how far copies spread."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from skvae import AutoencoderTransformer, ContractiveAutoencoder, DenoisingAutoencoder


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)
    code = rng.normal(size=(600, 2))
    return code @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(600, 6))


def _hidden(X, share, seed=1):
    cells = np.random.default_rng(seed).random(X.shape) < share
    cells[cells.all(axis=1), 0] = False
    return np.where(cells, np.nan, X), cells


@pytest.mark.parametrize(
    "kind", [AutoencoderTransformer, DenoisingAutoencoder, ContractiveAutoencoder]
)
def test_fills_of_a_model_with_many_components_stay_near(kind, linear):
    """Repeated without end, what compensates for gaps compensates for its own guess."""
    X = load_diabetes().data[:300] / load_diabetes().data[:300].std(axis=0)
    for rows, k in ((X, 5), (linear, 5)):
        model = kind(k, max_iter=60, random_state=0).fit(rows[:200])
        gaps, cells = _hidden(rows[200:], 0.25)
        means = np.broadcast_to(rows[:200].mean(axis=0), cells.shape)
        errors = model.impute(gaps) - rows[200:]
        floor = means - rows[200:]
        assert np.mean(errors[cells] ** 2) < np.mean(floor[cells] ** 2)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("kind", [AutoencoderTransformer, DenoisingAutoencoder])
def test_copies_vary_as_far_as_guesses_are_off(kind, share, linear):
    train, _ = _hidden(linear[:450], share)
    model = kind(2, max_iter=40, random_state=0).fit(train)
    gaps, cells = _hidden(linear[450:], share or 0.25)
    error = np.mean((model.impute(gaps) - linear[450:])[cells] ** 2)
    copies = np.stack(model.impute(gaps, n_samples=10, random_state=0))
    assert 0.5 < copies.var(axis=0, ddof=1)[cells].mean() / error < 2
    np.testing.assert_array_equal(copies[0][~cells], gaps[~cells])


def test_what_is_filled_does_not_depend_on_the_other_rows(linear):
    model = AutoencoderTransformer(2, max_iter=10, random_state=0).fit(linear)
    gaps, _ = _hidden(linear, 0.3)
    np.testing.assert_allclose(model.impute(gaps[:7]), model.impute(gaps)[:7])


def test_few_rows_and_columns_without_a_hidden_cell_can_be_filled():
    X = np.arange(12.0).reshape(4, 3) % 5
    model = AutoencoderTransformer(1, max_iter=2, random_state=0).fit(X)
    gaps = np.where(np.eye(4, 3) > 0, np.nan, X)
    for filled in model.impute(gaps, n_samples=3, random_state=0):
        assert np.isfinite(filled).all()


def test_pixels_are_filled_from_their_means_within_their_range():
    rng = np.random.default_rng(0)
    X = np.clip(rng.normal([0.9, 0.5, 0.6], 0.1, size=(300, 3)), 0, 1)
    model = AutoencoderTransformer(1, max_iter=20, random_state=0).fit(X)
    gaps, cells = _hidden(X, 0.3)
    filled = model.impute(gaps)
    assert np.abs(filled - X)[cells].mean() < 0.15
    copies = model.impute(gaps, n_samples=3, random_state=0)
    assert all(copy.min() >= 0 and copy.max() <= 1 for copy in copies)
