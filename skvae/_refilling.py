"""Missing cells of models without a prior: what they make of the rest of the row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvae._random import torch_generator

_ROUNDS = 20
# Rows, and cells of wide ones, to learn how to fill, little beside a fit, and how many
# times that if one round will do; the share hidden, less of columns that have gaps.
_ROWS, _CELLS, _MORE = 128, 1 << 15, 4
_HIDDEN, _HIDDEN_MORE = 0.25, 0.1
# The fewest rounds come within this factor of the smallest error; no more are tried
# once a round gains less than this.
_NEAR, _GAIN = 1.02, 0.005
# What the error of all columns says of one counts as so many cells of it.
_PRIOR_CELLS, _TINY = 8, 1e-12


def refilled(
    estimator: Any, X: np.ndarray, asked: np.ndarray | None = None
) -> np.ndarray:
    """Fill cells by repeated reconstruction, from the column means [1]_.

    References
    ----------
    .. [1] Rezende, Mohamed, Wierstra (2014). Stochastic Backpropagation, appendix F.
       arXiv:1401.4082
    """
    columns, cells = estimator._columns, np.isnan(X)
    filled = np.where(cells, columns.center, X)
    if asked is None:
        condition = estimator._likely_condition(filled)
    else:
        condition = np.repeat(asked[None], len(X), axis=0)
    for _ in range(_ROUNDS):
        points = estimator._beside(estimator._encode(filled), condition)
        filled = np.where(cells, estimator._decode_points(points), X)
    return filled


def reconstructed(
    estimator: Any, X: np.ndarray, generator: torch.Generator, *, draw: bool
) -> np.ndarray:
    """Fill cells of numbers by what a deterministic model makes of the row.

    Drawn ones vary as hidden cells of training rows did around their guess, each for
    itself.
    """
    columns, cells, parts = estimator._columns, np.isnan(X), []
    start = columns.from_scaled(estimator._row_mean[None])
    dataset = estimator._dataset(
        X if columns.has_missing else np.where(cells, start, X)
    )
    with estimator._inference():
        for place, batch in estimator._chunks(dataset):
            seen = estimator._to_device(~cells[place]) > 0
            *_, guess = _guesses(estimator, batch["x"], seen, estimator._fill_rounds)
            if draw:
                sd = estimator._to_device(np.sqrt(estimator._fill_variance))
                noise = torch.empty_like(guess).normal_(generator=generator)
                guess = torch.addcmul(guess, noise, sd)
            parts.append(columns.from_scaled(guess.cpu().numpy()))
    return columns.joined(parts)


def learn_to_fill(estimator: Any, batch: dict[str, Tensor]) -> None:
    """Hide cells of some rows; keep how often to fill them and how far guesses are off.

    Rounds of an autoencoder go to what rows have in common; those of a denoising one,
    which makes up for what it is not shown, may go beyond.
    """
    has_gaps = estimator._columns.has_missing
    more = _MORE if has_gaps else 1
    size = batch["x"].numel()
    step = max(-(-len(batch["x"]) // (more * _ROWS)), -(-size // (more * _CELLS)))
    x, known = batch["x"][::step], batch.get("mask")
    known = torch.ones_like(x) if known is None else known[::step]
    # A model has not learned to do without columns that had no gaps.
    share = _HIDDEN_MORE * (known.mean(0) < 1) if has_gaps else _HIDDEN
    generator = torch_generator(estimator.evaluation_seed_, x.device)
    chance = torch.rand(x.shape, generator=generator, device=x.device)
    known = known > 0
    hidden = known & (chance < share)
    errors: list[Tensor] = []
    for guess in _guesses(estimator, x, known & ~hidden, _ROUNDS):
        errors.append(estimator._squares(x, guess, hidden, step=step).sum(0))
        if len(errors) > 1 and not errors[-1].sum() < (1 - _GAIN) * errors[-2].sum():
            break
    sums = torch.stack(errors).sum(1).nan_to_num(torch.inf)
    best = int((sums <= _NEAR * sums.min()).int().argmax())
    estimator._fill_rounds = best + 1
    count = hidden.sum(0)
    # As much larger than the error of cells that are seen as it is for all columns.
    usual = estimator._to_device(estimator._residual_variance)
    usual = usual * (sums[best] / (usual @ count.to(usual.dtype)).clamp(min=_TINY))
    variance = (errors[best] + _PRIOR_CELLS * usual) / (count + _PRIOR_CELLS)
    estimator._fill_variance = variance.cpu().numpy()


def _guesses(estimator: Any, x: Tensor, seen: Tensor, rounds: int) -> Iterator[Tensor]:
    """Yield reconstructions of scaled rows in which cells are not seen."""
    module = estimator._module
    if estimator._columns.has_missing:
        mask = seen.to(x.dtype)
        yield module.likelihood.mean(module(x=x * mask, mask=mask).raw)
        return
    filled = torch.where(seen, x, estimator._to_device(estimator._row_mean))
    for _ in range(rounds):
        guess = estimator._within_bounds(module.likelihood.mean(module(filled).raw))
        yield guess
        filled = torch.where(seen, x, guess)
