"""Missing cells: what a fitted model expects of them.

Codes are proposed from a distribution q, weighted by p(z) p(x_known | z) / q(z), and
what they decode to is averaged or drawn by these weights. Models without a prior
reconstruct instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from skvae._compat import warn
from skvae._proposals import Proposals
from skvae._random import draw_torch_generator, stratified, torch_generator
from skvae._refilling import reconstructed, refilled
from skvae._table import (
    Container,
    Known,
    dense_columns,
    fill_cells,
    missing_cells,
)

_DRAWS = 1000
_DRAWS_TABLE = 100
# Logit of the code "missing" where a cell is to be filled: below all that may be said.
RULED_OUT = -1e4


def imputed(
    estimator: Any, X: Any, n_samples: int | None, random_state: Any, y: Any = None
) -> Any:
    """Fill the missing cells of rows; see `VAE.impute`.

    Parameters
    ----------
    estimator : BaseAutoencoder
        A fitted autoencoder.
    X : {array-like, DataFrame} of shape (n_samples, n_features)
        Rows with missing cells.
    n_samples : int or None
        Completed copies to draw; None fills in expected values.
    random_state : int, RandomState instance or None
        Seeds the draws.
    y : object, default=None
        Conditions asked for; None averages over those of the training rows.

    Returns
    -------
    filled : array, DataFrame or list of them
        Completed rows.
    """
    if sp.issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but complete rows are dense. Use "
            "'.toarray()' to convert to a dense numpy array."
        )
    X = dense_columns(X)
    rows = estimator._validate(X, reset=False)
    source, cells = _cells_to_fill(estimator._columns, X, rows)
    asked = None if y is None else estimator._condition_or_mean(y, rows.shape[0])
    device = next(estimator._module.parameters()).device
    # Single imputation is deterministic: its draws are fixed with the model.
    seed = estimator.evaluation_seed_ if n_samples is None else random_state
    generator = draw_torch_generator(seed, device)
    fills = [
        (index, condition, _filler(estimator, _take_rows(source, index), condition))
        for index, condition in _alike(cells, asked)
    ]
    copies = []
    for _ in range(n_samples or 1):
        filled = source.clone() if hasattr(source, "clone") else source.copy()
        for index, condition, fill in fills:
            if n_samples is None:  # What rows are filled with is their own.
                generator = draw_torch_generator(seed, device)
            task = _Task(estimator, condition, generator, draw=n_samples is not None)
            filled = _scattered(filled, fill(task), index, cells)
        copies.append(estimator._in_container(filled, X, rows))
    return copies[0] if n_samples is None else copies


@dataclass(frozen=True)
class _Task:
    """How rows are to be completed.

    Parameters
    ----------
    estimator : BaseAutoencoder
        A fitted autoencoder.
    condition : ndarray of shape (n_conditions,) or None
        Condition of the rows; None averages over those of the training rows.
    generator : torch.Generator
        Source of randomness.
    draw : bool
        Whether cells are drawn, or filled with what is expected.
    """

    estimator: Any
    condition: np.ndarray | None
    generator: torch.Generator
    draw: bool

    @property
    def columns(self) -> Any:
        """What the model knows of the columns."""
        return self.estimator._columns

    @property
    def module(self) -> Any:
        """Network of the model."""
        return self.estimator._module


def _cells_to_fill(columns: Any, X: Any, rows: Any) -> tuple[Any, np.ndarray]:
    """Return the rows to complete, and which of their cells are missing."""
    if columns.kind != "table":
        return rows, missing_cells(rows)
    # The codec knows the cells of a frame or an array, of other rows their numbers.
    kept = Container.of(X).is_frame or isinstance(X, np.ndarray)
    source = X if kept else rows
    # What `transform` refuses is refused in complete rows too.
    columns.codec.encode(source)
    cells = missing_cells(source)
    _warn_of_unknown(columns.codec, cells)
    return source, cells


def _alike(
    cells: np.ndarray, asked: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield the incomplete rows that have the same condition, and this condition."""
    incomplete = np.flatnonzero(cells.any(axis=1))
    if not len(incomplete):
        return
    if asked is None:
        yield incomplete, None
        return
    conditions, which = np.unique(asked[incomplete], axis=0, return_inverse=True)
    for i, condition in enumerate(conditions):
        yield incomplete[which.ravel() == i], condition


def _warn_of_unknown(codec: Any, cells: np.ndarray) -> None:
    """Warn of columns of a table that nothing but "missing" is known of."""
    unknown = (codec.sizes == 1) & (np.asarray(codec.missing_code) >= 0)
    unknown = unknown[: cells.shape[1]]  # Behind them are those of joint columns.
    left = [codec.names[j] for j in np.flatnonzero(unknown & cells.any(axis=0))]
    if left:
        warn(
            f"Features without any observed values in fit: {left}. Their missing cells "
            "stay missing."
        )


def _take_rows(X: Any, index: np.ndarray) -> Any:
    if hasattr(X, "iloc"):
        return X.iloc[index]
    return X[index]


def _scattered(X: Any, guess: Any, index: np.ndarray, cells: np.ndarray) -> Any:
    """Return X with the missing cells of the rows `index` taken from `guess`."""
    place = np.zeros(len(cells), dtype=np.int64)
    place[index] = np.arange(len(index))
    own = np.zeros_like(cells)
    own[index] = cells[index]
    return fill_cells(X, _take_rows(guess, place), own)


def _filler(
    estimator: Any, X: Any, condition: np.ndarray | None
) -> Callable[[_Task], Any]:
    """Return what makes rows complete; only their missing cells matter."""
    columns, has_prior = estimator._columns, estimator._module.prior is not None
    if columns.kind == "table":
        rows, known = _table_rows(estimator, X)
        fill = _weighed_rows if has_prior else _decoded
        return partial(fill, dataset=estimator._dataset(X, rows), known=known)
    if not has_prior:
        return partial(_reconstructed, X=X)
    # An encoder that knows no gaps sees a guess for a cell.
    guessed = X if columns.has_missing else refilled(estimator, X, condition)
    dataset = estimator._dataset(guessed)
    return partial(_weighed_numbers, dataset=dataset, known=~np.isnan(X))


def _reconstructed(task: _Task, X: np.ndarray) -> np.ndarray:
    """Fill cells of numbers by a deterministic model."""
    return reconstructed(task.estimator, X, task.generator, draw=task.draw)


def _weighed_numbers(task: _Task, dataset: Any, known: np.ndarray) -> np.ndarray:
    """Fill cells of numbers by weighted draws of the code."""
    estimator, module, parts = task.estimator, task.module, []
    with estimator._inference():
        for place, batch in estimator._chunks(dataset, repeats=_DRAWS):
            x, mask = batch["x"], estimator._to_device(known[place])
            fit = partial(known_nats, module, x, mask)
            raw, log_ratio = _proposed(task, _DRAWS, batch, fit)
            nats = module.likelihood.log_prob(x, raw, mask)
            parts.append(_read(task, raw, log_ratio + nats))
    return task.columns.joined(parts)


def _weighed_rows(task: _Task, dataset: Any, known: Known) -> Any:
    """Fill cells of a table by weighted draws of the code."""
    estimator, columns, parts = task.estimator, task.columns, []
    even = stratified(_DRAWS_TABLE, len(columns.codec.sizes), task.generator)
    even = even.unsqueeze(1)
    with estimator._inference():
        for place, batch in estimator._chunks(dataset, repeats=_DRAWS_TABLE):
            fit = partial(known_nats, task.module, batch["x"], None)
            raw, log_ratio = _proposed(task, _DRAWS_TABLE, batch, fit)
            own = known.rows(place)
            parts.append(_read_table(task, batch["x"], raw, log_ratio, even, own))
    return columns.joined(parts)


def _proposed(
    task: _Task, n: int, batch: dict[str, Tensor], fit: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what n codes of each row are decoded to, and their log p(z) / q(z).

    Expected cells do not depend on the other rows: the noise is the same for all.
    """
    estimator, module, generator = task.estimator, task.module, task.generator
    if not task.draw:
        generator = torch_generator(estimator.evaluation_seed_, generator.device)
    if task.condition is None:
        condition = estimator._drawn_conditions(n, generator)
    else:
        condition = estimator._to_device(task.condition).expand(n, -1)
    mean, log_var = module.posterior(module.encoder_input(**batch))
    proposals = Proposals(
        module.prior_distribution(condition),
        None if condition is not None else fit,
        mean,
        (mean, log_var),
    )
    z, log_ratio = proposals.draw(n, generator, alike=not task.draw)
    condition = None if condition is None else condition.unsqueeze(1)
    return module.decode(z, condition), log_ratio


def known_nats(module: Any, x: Tensor, mask: Tensor | None, z: Tensor) -> Tensor:
    """Return the log-likelihood of known cells under each of a few codes."""
    raw = module.decode(z).expand(*z.shape[:-2], len(x), -1)
    return module.likelihood.log_prob(x, raw, mask)


def _read(task: _Task, raw: Tensor, log_weights: Tensor) -> np.ndarray:
    """Return expected or drawn rows of numbers, in the units of the data."""
    columns, likelihood = task.columns, task.module.likelihood
    share = torch.softmax(log_weights, dim=0)
    if task.draw:
        chosen = _chosen(raw, share, task.generator)
        return columns.draw(likelihood, chosen, task.generator)
    expected = torch.einsum("kb,kbl->bl", share, likelihood.mean(raw))
    return columns.from_scaled(expected.cpu().numpy())


def _table_rows(estimator: Any, X: Any) -> tuple[dict[str, np.ndarray], Known]:
    """Return rows of a table, missing cells as unknown, and what else they tell.

    A cell encoded as missing, and not as unknown, would be decoded as missing.
    """
    columns = estimator._columns
    started = columns.codec.with_starts(X)
    rows = columns.coded(started, estimator._dtype, unknown_missing=True)
    return rows, columns.codec.known(X, rows["x"])


def _decoded(task: _Task, dataset: Any, known: Known) -> Any:
    """Fill cells of a table by what a deterministic model decodes its codes to."""
    estimator, parts = task.estimator, []
    with estimator._inference():
        for place, batch in estimator._chunks(dataset):
            x, raw = batch["x"], task.module(**batch).raw.unsqueeze(0)
            middle = raw.new_full((1, 1, x.shape[1]), 0.5, dtype=torch.float64)
            alike = raw.new_zeros(raw.shape[:2])
            own = known.rows(place)
            parts.append(_read_table(task, x, raw, alike, middle, own))
    return task.columns.joined(parts)


def _read_table(
    task: _Task, x: Tensor, raw: Tensor, log_ratio: Tensor, ranks: Tensor, known: Known
) -> Any:
    """Return expected or drawn rows of a table.

    Parameters
    ----------
    task : _Task
        How rows are to be completed.
    x : Tensor of shape (n_rows, n_columns)
        Codes; -1 is a cell to fill.
    raw : Tensor of shape (n_draws, n_rows, n_outputs)
        Logits.
    log_ratio : Tensor of shape (n_draws, n_rows)
        Log-weights of the draws, without the fit to the known cells.
    ranks : Tensor of shape (n_draws, 1, n_columns)
        Uniform numbers to complete rows by, where cells are expected.
    known : Known
        What the rows tell beyond their codes.
    """
    columns, likelihood = task.columns, task.module.likelihood
    raw = _without_missing(columns, raw)
    if task.draw:
        ranks = ranks.expand(-1, raw.shape[1], -1).clone()
        ranks.uniform_(generator=task.generator)
    codes, fit, logits = likelihood.complete(x, raw, ranks)
    share = torch.softmax(log_ratio + fit, dim=0)
    if task.draw:
        drawn = _chosen(codes, share, task.generator)
        return columns.drawn(drawn.cpu().numpy(), task.generator, known=known)
    expected = likelihood.expected(codes, logits, share)
    return columns.codec.decode_point(expected.double().cpu().numpy(), known)


def _chosen(values: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Return one of the draws of each row, by their shares."""
    which = torch.multinomial(share.T, 1, generator=generator).squeeze(1)
    return values[which, torch.arange(values.shape[1], device=values.device)]


def _without_missing(columns: Any, logits: Tensor) -> Tensor:
    """Rule the code "missing" out of every column that has other codes."""
    codec = columns.codec
    logits = logits.clone()
    logits[..., missing_places(codec, np.flatnonzero(codec.sizes > 1))] = RULED_OUT
    return logits


def missing_places(codec: Any, columns: Any) -> list[int]:
    """Return the positions of the code "missing" in those columns that have it."""
    codes = codec.missing_code
    return [int(codec.offsets[j] + codes[j]) for j in columns if codes[j] >= 0]
