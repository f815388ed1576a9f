"""Where the training of a table begins: a mixture with regressions between columns."""

import numpy as np
import pandas as pd
import pytest
import torch

from skvae import VAE, ConditionalVAE
from skvae._autoregressive import AutoregressiveLikelihood
from skvae._table_starts import _least_variance, _Regression


@pytest.fixture(scope="module")
def frame():
    """Return amounts of six months, each close to the one before, and a group."""
    rng = np.random.default_rng(0)
    amount = rng.normal(size=900)
    months = {}
    for t in range(6):
        amount = 0.9 * amount + np.sqrt(1 - 0.81) * rng.normal(size=900)
        months[f"month {t}"] = np.exp(0.5 * amount)
    group = np.where(rng.random(900) < 0.5, "a", "b")
    return pd.DataFrame(months | {"group": group})


def _ranks(frame):
    return frame.drop(columns="group").corr(method="spearman").to_numpy()


def _fitted(frame, max_iter, monkeypatch, *, plain):
    with monkeypatch.context() as patch:
        if plain:
            start = "skvae._table_fitting.start_at_regressions"
            patch.setattr(start, lambda *args: None)
        return VAE(max_iter=max_iter, random_state=0).fit(frame)


@pytest.mark.slow
def test_neighbours_go_together_before_any_training(frame, monkeypatch):
    def error(plain):
        model = _fitted(frame, 0, monkeypatch, plain=plain)
        found = _ranks(model.sample(4000, random_state=0))
        return np.abs(np.diag(found - _ranks(frame), 1)).mean()

    started, plain = error(False), error(True)
    assert started < 0.5 * plain, (started, plain)


def test_training_begins_better(frame, monkeypatch):
    started, plain = (
        _fitted(frame, 1, monkeypatch, plain=plain).baseline_loss_
        for plain in (False, True)
    )
    assert started < plain - 0.2


def test_the_penalty_draws_back_to_the_start(frame):
    model = VAE(max_iter=0, random_state=0).fit(frame)
    likelihood = model._module.likelihood
    assert likelihood.start.any()
    assert likelihood.squared_norm() == 0
    # Nobody hears a column to the right, or itself.
    assert not likelihood.start[likelihood.mask == 0].any()


def test_a_log_ratio_of_normal_densities_turns_one_into_the_other(frame):
    """On a fine grid, N(m0, w2) times the start's ratio is N(m, s2)."""
    u = np.linspace(-6, 6, 4001)
    m0, w2, m, s2 = 0.3, 0.8, -0.7, 0.2
    base = -((u - m0) ** 2) / (2 * w2)
    ratio = u * (m / s2 - m0 / w2) - u**2 / 2 * (1 / s2 - 1 / w2)
    p = np.exp(base + ratio)
    p /= p.sum()
    assert (p * u).sum() == pytest.approx(m, abs=1e-6)
    assert (p * (u - m) ** 2).sum() == pytest.approx(s2, abs=1e-6)


def test_many_columns_start_less_sharply():
    assert _least_variance([0.5] * 50) == 0.1
    assert _least_variance([0.01] * 11) == 0.1
    least = _least_variance([0.01] * 60 + [0.9] * 10)
    gained = 60 * (1 / least - 1)
    assert 80 < gained < 100


def test_regressions_are_least_squares_but_for_the_ridge():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 3))
    y = x @ [1.0, -2.0, 0.0] + 3 + rng.normal(size=5000)
    fit = _Regression.fit(x, y)
    np.testing.assert_allclose(fit.slopes, [1, -2, 0], atol=0.06)
    assert fit.level == pytest.approx(3.0, abs=0.06)
    assert fit.variance == pytest.approx(1.0, abs=0.06)
    # A column that says it all leaves nothing, but for the ridge.
    assert _Regression.fit(y[:, None], y).variance < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"init": "random"},
        {"decoder": torch.nn.LazyLinear(1)},
    ],
    ids=["random", "own"],
)
def test_where_there_is_no_such_start(frame, options):
    if "decoder" in options:
        n = VAE(max_iter=0, random_state=0).fit(frame)._module.likelihood.n_outputs
        options = {"decoder": torch.nn.LazyLinear(n)}
    model = VAE(max_iter=0, random_state=0, **options).fit(frame)
    likelihood = model._module.likelihood
    if "decoder" in options:
        assert not isinstance(likelihood, AutoregressiveLikelihood)
    else:
        assert not likelihood.start.any()


def test_normal_heads_go_together_before_any_training(frame):
    heads = {f"month {t}": "gaussian" for t in range(3)}
    model = VAE(max_iter=0, random_state=0, likelihood=heads).fit(frame)
    found = _ranks(model.sample(4000, random_state=0))
    assert np.abs(np.diag(found - _ranks(frame), 1)[:2]).max() < 0.1


@pytest.mark.slow
def test_gaps_and_conditions_do_not_disturb_the_start(frame):
    gaps = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.2)
    model = ConditionalVAE(max_iter=0, random_state=0)
    model.fit(gaps.drop(columns="group"), frame["group"])
    rows, _ = model.sample(3000, random_state=0)
    found = rows.corr(method="spearman").to_numpy()
    assert np.abs(found - _ranks(frame)).max() < 0.2
    assert (
        np.abs(rows.isna().mean() - gaps.drop(columns="group").isna().mean()).max()
        < 0.05
    )
