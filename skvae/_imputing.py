"""Missing cells: what a fitted model expects of them.

Codes are proposed from a distribution q, weighted by p(z) p(x_known | z) / q(z), and
what they decode to is averaged or drawn by these weights. Models without a prior
reconstruct instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        (index, _filler(estimator, _take_rows(source, index), condition))
        for index, condition in _alike(cells, asked)
    ]
    copies = []
    for _ in range(n_samples or 1):
        filled = source.clone() if hasattr(source, "clone") else source.copy()
        for index, fill in fills:
            if n_samples is None:  # What rows are filled with is their own.
                generator = draw_torch_generator(seed, device)
            guess = fill(generator, draw=n_samples is not None)
            filled = _scattered(filled, guess, index, cells)
        copies.append(estimator._in_container(filled, X, rows))
    return copies[0] if n_samples is None else copies


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
    estimator: Any, X: Any, condition: np.ndarray | None = None
) -> Callable[..., Any]:
    """Return what makes rows complete; only their missing cells matter."""
    columns = estimator._columns
    table = columns.kind == "table"
    if estimator._module.prior is None:
        return partial(_decoded if table else reconstructed, estimator, X)
    if table:
        rows, known = _table_rows(estimator, X)
        dataset = estimator._dataset(X, rows)
        return partial(_weighed_rows, estimator, dataset, known, condition)
    # An encoder that knows no gaps sees a guess for a cell.
    seen = X if columns.has_missing else refilled(estimator, X, condition)
    return partial(
        _weighed_numbers, estimator, estimator._dataset(seen), ~np.isnan(X), condition
    )


def _weighed_numbers(
    estimator: Any,
    dataset: Any,
    seen: np.ndarray,
    condition: np.ndarray | None,
    generator: torch.Generator,
    *,
    draw: bool,
) -> np.ndarray:
    """Fill cells of numbers by weighted draws of the code."""
    module, parts = estimator._module, []
    propose = partial(
        _proposed, estimator, _DRAWS, condition, generator=generator, draw=draw
    )
    with estimator._inference():
        for place, batch in estimator._chunks(dataset, repeats=_DRAWS):
            mask = estimator._to_device(seen[place])
            raw, log_ratio = propose(
                batch, partial(known_nats, module, batch["x"], mask)
            )
            fit = module.likelihood.log_prob(batch["x"], raw, mask)
            parts.append(_read(estimator, raw, log_ratio + fit, generator, draw=draw))
    return estimator._columns.joined(parts)


def _weighed_rows(
    estimator: Any,
    dataset: Any,
    known: Known,
    condition: np.ndarray | None,
    generator: torch.Generator,
    *,
    draw: bool,
) -> Any:
    """Fill cells of a table by weighted draws of the code."""
    columns, module, parts = estimator._columns, estimator._module, []
    even = stratified(_DRAWS_TABLE, len(columns.codec.sizes), generator).unsqueeze(1)
    propose = partial(
        _proposed, estimator, _DRAWS_TABLE, condition, generator=generator, draw=draw
    )
    with estimator._inference():
        for place, batch in estimator._chunks(dataset, repeats=_DRAWS_TABLE):
            raw, log_ratio = propose(
                batch, partial(known_nats, module, batch["x"], None)
            )
            read = partial(_read_table, ranks=even, known=known.rows(place))
            parts.append(read(estimator, batch, raw, log_ratio, generator, draw=draw))
    return columns.joined(parts)


def _proposed(
    estimator: Any,
    n: int,
    asked: np.ndarray | None,
    batch: dict[str, Tensor],
    fit: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator,
    draw: bool,
) -> tuple[Tensor, Tensor]:
    """Return what n codes of each row are decoded to, and their log p(z) / q(z).

    Expected cells do not depend on the other rows: the noise is the same for all.
    """
    module = estimator._module
    if not draw:
        generator = torch_generator(estimator.evaluation_seed_, generator.device)
    if asked is None:
        condition = estimator._drawn_conditions(n, generator)
    else:
        condition = estimator._to_device(asked).expand(n, -1)
    mean, log_var = module.posterior(module.encoder_input(**batch))
    proposals = Proposals(
        module.prior_distribution(condition),
        None if condition is not None else fit,
        mean,
        (mean, log_var),
    )
    z, log_ratio = proposals.draw(n, generator, alike=not draw)
    return module.decode(
        z, None if condition is None else condition.unsqueeze(1)
    ), log_ratio


def known_nats(module: Any, x: Tensor, mask: Tensor | None, z: Tensor) -> Tensor:
    """Return the log-likelihood of known cells under each of a few codes."""
    raw = module.decode(z).expand(*z.shape[:-2], len(x), -1)
    return module.likelihood.log_prob(x, raw, mask)


def _read(
    estimator: Any,
    raw: Tensor,
    log_weights: Tensor,
    generator: torch.Generator,
    *,
    draw: bool,
) -> np.ndarray:
    """Return expected or drawn rows of numbers, in the units of the data."""
    columns, likelihood = estimator._columns, estimator._module.likelihood
    share = torch.softmax(log_weights, dim=0)
    if draw:
        return columns.draw(likelihood, _chosen(raw, share, generator), generator)
    expected = torch.einsum("kb,kbl->bl", share, likelihood.mean(raw))
    return columns.from_scaled(expected.cpu().numpy())


def _table_rows(estimator: Any, X: Any) -> tuple[dict[str, np.ndarray], Known]:
    """Return rows of a table, missing cells as unknown, and what else they tell."""
    columns = estimator._columns
    started = columns.codec.with_starts(X)
    rows = columns.coded(started, estimator._dtype, unknown_missing=True)
    return rows, columns.codec.known(X, rows["x"])


def _decoded(estimator: Any, X: Any, generator: torch.Generator, *, draw: bool) -> Any:
    """Return what a deterministic model decodes from the codes of rows of a table."""
    columns, module = estimator._columns, estimator._module
    # Told that cells are missing, and not that they are unknown, it decodes them so.
    rows, known = _table_rows(estimator, X)
    dataset, codes = estimator._dataset(X, rows), rows["x"]
    parts = []
    with estimator._inference():
        for place, batch in estimator._chunks(dataset):
            raw = module(**batch).raw.unsqueeze(0)
            to_fill = {"x": torch.as_tensor(codes[place], device=raw.device)}
            middle = raw.new_full((1, 1, codes.shape[1]), 0.5, dtype=torch.float64)
            alike = raw.new_zeros(raw.shape[:2])
            read = partial(_read_table, ranks=middle, known=known.rows(place))
            parts.append(read(estimator, to_fill, raw, alike, generator, draw=draw))
    return columns.joined(parts)


def _read_table(
    estimator: Any,
    batch: dict[str, Tensor],
    raw: Tensor,
    log_ratio: Tensor,
    generator: torch.Generator,
    *,
    draw: bool,
    ranks: Tensor,
    known: Known,
) -> Any:
    """Return expected or drawn rows of a table."""
    columns, likelihood = estimator._columns, estimator._module.likelihood
    raw = _without_missing(columns, raw)
    if draw:
        ranks = ranks.expand(-1, raw.shape[1], -1).clone().uniform_(generator=generator)
    codes, fit, logits = likelihood.complete(batch["x"], raw, ranks)
    share = torch.softmax(log_ratio + fit, dim=0)
    if draw:
        drawn = _chosen(codes, share, generator)
        return columns.drawn(drawn.cpu().numpy(), generator, known=known)
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
