"""Missing cells: what a fitted model expects where it was not told.

Codes are proposed from the posterior q of what is known, weighted by
p(z) p(x_known | z) / q(z), and what they decode to is averaged or drawn by these
weights. Models without a prior, or without gaps in training, reconstruct instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from skvae._random import draw_torch_generator, stratified
from skvae._table import Container, Known, fill_cells, missing_cells

_DRAWS = 1000
_DRAWS_TABLE = 100
_REFINEMENTS = 20
# Logit of the code "missing" where a cell is to be filled: below all that may be said.
RULED_OUT = -1e4


def imputed(estimator: Any, X: Any, n_samples: int | None, random_state: Any) -> Any:
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
    rows = estimator._validate(X, reset=False)
    cells = missing_cells(X if estimator._columns.kind == "table" else rows)
    source = X if estimator._columns.kind == "table" else rows
    device = next(estimator._module.parameters()).device
    # Single imputation is deterministic: its draws are fixed with the model.
    seed = estimator.evaluation_seed_ if n_samples is None else random_state
    generator = draw_torch_generator(seed, device)
    incomplete = np.flatnonzero(cells.any(axis=1))
    copies = []
    for _ in range(n_samples or 1):
        filled = source
        if len(incomplete):
            some = _take_rows(source, incomplete)
            guess = _guesses(estimator, some, generator, draw=n_samples is not None)
            filled = _scattered(source, guess, incomplete, cells)
        if estimator._columns.kind != "table":
            filled = Container.of(X).restore(np.asarray(filled))
            if hasattr(X, "iloc"):
                filled.index = X.index
        copies.append(filled)
    return copies[0] if n_samples is None else copies


def _take_rows(X: Any, index: np.ndarray) -> Any:
    if hasattr(X, "iloc"):
        return X.iloc[index]
    return X[index]


def _scattered(X: Any, guess: Any, index: np.ndarray, cells: np.ndarray) -> Any:
    """Return X with the missing cells of the rows `index` taken from `guess`."""
    place = np.zeros(len(cells), dtype=np.int64)
    place[index] = np.arange(len(index))
    return fill_cells(X, _take_rows(guess, place), cells)


def _guesses(estimator: Any, X: Any, generator: torch.Generator, *, draw: bool) -> Any:
    """Return complete rows, of which only the missing cells matter."""
    columns, module = estimator._columns, estimator._module
    if columns.kind == "table":
        fill = _decoded if module.prior is None else _weighed_rows
    else:
        knows_gaps = module.prior is not None and columns.has_missing
        fill = _weighed_numbers if knows_gaps else _refined
    return fill(estimator, X, generator, draw=draw)


def _weighed_numbers(
    estimator: Any, X: Any, generator: torch.Generator, *, draw: bool
) -> Any:
    """Fill cells of numbers by weighted draws of the code."""
    # Draws all rows share: what is filled does not depend on the other rows.
    noise = _standard_normal(estimator._module, _DRAWS, generator)
    dataset, parts = estimator._dataset(X), []
    with estimator._inference():
        for _, batch, raw, log_ratio in _proposed(estimator, dataset, noise):
            parts.append(_read(estimator, batch, raw, log_ratio, generator, draw=draw))
    return estimator._columns.joined(parts)


def _weighed_rows(
    estimator: Any, X: Any, generator: torch.Generator, *, draw: bool
) -> Any:
    """Fill cells of a table by weighted draws of the code."""
    columns, module = estimator._columns, estimator._module
    rows, known = _table_rows(estimator, X)
    noise = _standard_normal(module, _DRAWS_TABLE, generator)
    even = stratified(_DRAWS_TABLE, len(columns.codec.sizes), generator).unsqueeze(1)
    dataset, parts = estimator._dataset(X, rows), []
    with estimator._inference():
        for place, batch, raw, log_ratio in _proposed(estimator, dataset, noise):
            read = partial(_read_table, ranks=even, known=known.rows(place))
            parts.append(read(estimator, batch, raw, log_ratio, generator, draw=draw))
    return columns.joined(parts)


def _proposed(
    estimator: Any, dataset: Any, noise: Tensor
) -> Iterator[tuple[slice, dict[str, Tensor], Tensor, Tensor]]:
    """Yield slices of rows, their batches, decoded draws of codes and log p(z)/q(z)."""
    module = estimator._module
    for place, batch in estimator._chunks(dataset, repeats=len(noise)):
        batch = {**batch, **_told(estimator, batch)}
        z, log_ratio = module.proposals(noise, **batch)
        yield place, batch, module.decode(z, batch.get("condition")), log_ratio


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


def _standard_normal(module: Any, n: int, generator: torch.Generator) -> Tensor:
    like = next(module.parameters())
    noise = like.new_empty(n, module.prior.n_components)
    return noise.normal_(generator=generator)


def _read(
    estimator: Any,
    batch: dict[str, Tensor],
    raw: Tensor,
    log_ratio: Tensor,
    generator: torch.Generator,
    *,
    draw: bool,
) -> np.ndarray:
    """Return expected or drawn rows of numbers, in the units of the data."""
    columns, likelihood = estimator._columns, estimator._module.likelihood
    fit = likelihood.log_prob(batch["x"], raw, batch.get("mask"))
    share = torch.softmax(log_ratio + fit, dim=0)
    if draw:
        return columns.draw(likelihood, _chosen(raw, share, generator), generator)
    expected = torch.einsum("kb,kbl->bl", share, likelihood.mean(raw))
    return columns.from_scaled(expected.cpu().numpy())


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


def _refined(
    estimator: Any, X: Any, generator: torch.Generator, *, draw: bool
) -> np.ndarray:
    """Fill by repeated reconstruction, from the column means [1]_.

    References
    ----------
    .. [1] Rezende, Mohamed, Wierstra (2014). Stochastic Backpropagation, appendix F.
       arXiv:1401.4082
    """
    cells = np.isnan(X)
    columns = estimator._columns
    filled = np.where(cells, columns.center, X)
    # A model that knows gaps needs one pass; another takes a guess for a cell.
    for _ in range(1 if columns.has_missing else _REFINEMENTS):
        dataset = estimator._dataset(X if columns.has_missing else filled)
        with estimator._inference():
            parts = [
                _rebuilt(estimator, batch, generator, draw=draw)
                for _, batch in estimator._chunks(dataset)
            ]
        filled = np.where(cells, np.concatenate(parts), X)
    return filled


def _rebuilt(
    estimator: Any, batch: dict[str, Tensor], generator: torch.Generator, *, draw: bool
) -> np.ndarray:
    """Return rows as the model expects or draws them, in the units of the data."""
    columns, module = estimator._columns, estimator._module
    out = module(**{**batch, **_told(estimator, batch)})
    rebuilt = module.likelihood.mean(out.raw)
    if draw and module.prior is not None:
        noise = torch.empty_like(out.mean).normal_(generator=generator)
        z = torch.addcmul(out.mean, noise, torch.exp(0.5 * out.log_var))
        raw = module.decode(z, out.condition)
        return columns.draw(module.likelihood, raw, generator)
    if draw:
        sd = estimator._to_device(np.sqrt(estimator._residual_variance))
        noise = torch.empty_like(rebuilt).normal_(generator=generator)
        rebuilt = torch.addcmul(rebuilt, noise, sd)
    return columns.from_scaled(rebuilt.cpu().numpy())


def _told(estimator: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    condition = estimator._usual_condition(len(batch["x"]))
    return {} if condition is None else {"condition": condition}
