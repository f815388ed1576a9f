"""Missing cells and conditions: what a fitted model expects where it was not told.

Both are importance sampling. Codes are proposed from a distribution q that can be
drawn from, weighted by p(z) p(x_known | z) / q(z), and what they decode to is
averaged or drawn by these weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from skvae._random import draw_torch_generator, stratified
from skvae._table import Container, Known, codes_given, fill_cells, missing_cells

_DRAWS = 1000
_DRAWS_TABLE = 100
_REFINEMENTS = 20
_PROPOSALS = 4096
_WIDENED = 1.5
# Share of proposals that ignores the condition, so that no weight is without bound.
_DEFENSIVE = 0.1
_MOVES = 3
# Logit of the code "missing" where a cell is to be filled: below all that may be said.
_RULED_OUT = -1e4


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
    if module.prior is None and columns.kind == "table":
        return _decoded(estimator, X, generator, draw=draw)
    if module.prior is None or not (columns.kind == "table" or columns.has_missing):
        return _refined(estimator, X, generator, draw=draw)
    rows: Any = None
    n_draws = _DRAWS
    if columns.kind == "table":
        rows, known = _table_rows(estimator, X)
        n_draws = _DRAWS_TABLE
    dataset = estimator._dataset(X, rows)
    # Draws all rows share: what is filled does not depend on the other rows.
    noise = _standard_normal(module, n_draws, generator)
    read = _read
    if columns.kind == "table":
        even = stratified(n_draws, len(columns.codec.sizes), generator)
    parts = []
    with estimator._inference():
        for place, batch in estimator._chunks(dataset, repeats=n_draws):
            if columns.kind == "table":
                told = known.rows(place)
                read = partial(_read_table, ranks=even.unsqueeze(1), known=told)
            batch = {**batch, **_told(estimator, batch)}
            z, log_ratio = module.proposals(noise, **batch)
            raw = module.decode(z, batch.get("condition"))
            parts.append(read(estimator, batch, raw, log_ratio, generator, draw=draw))
    return columns.joined(parts)


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
    logits[..., _missing_places(codec, np.flatnonzero(codec.sizes > 1))] = _RULED_OUT
    return logits


def _missing_places(codec: Any, columns: Any) -> list[int]:
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


# -- conditions on any columns ---------------------------------------------------------


def drawn_given(
    estimator: Any, n: int, given: Any, generator: torch.Generator
) -> tuple[np.ndarray, list[tuple[slice, int, Any]]]:
    """Draw rows of a table in which some cells are given; see `VAE.sample`.

    Parameters
    ----------
    estimator : VAE
        A fitted table model.
    n : int
        Rows to draw, for each partly filled row of a frame.
    given : dict or DataFrame
        Values of columns, or partly filled rows.
    generator : torch.Generator
        Seeds the draw.

    Returns
    -------
    codes : ndarray of shape (n_rows, n_columns)
        Codes; the given cells have theirs.
    fixed : list of (slice, int, object)
        The given cells: rows, column and value.
    """
    codec = estimator._columns.codec
    codes, fixed = [], []
    for i, row in enumerate(_conditions(given)):
        known = codes_given(codec, row)
        asked = {codec.names.index(name): value for name, value in row.items()}
        # What is known is not missing, even if its code is still open.
        ruled_out = _missing_places(codec, [j for j in asked if j not in known])
        codes.append(_drawn_given_one(estimator, n, known, ruled_out, generator))
        block = slice(i * n, (i + 1) * n)
        fixed += [(block, j, value) for j, value in asked.items()]
    return np.concatenate(codes), fixed


def _conditions(given: Any) -> Iterator[dict[str, Any]]:
    """Yield the given cells of each row that is asked for."""
    if isinstance(given, Mapping):
        yield dict(given)
        return
    if not hasattr(given, "columns"):
        raise TypeError(
            "given must be a dict of column names and values, or a DataFrame of partly "
            f"filled rows. Got {type(given).__name__}."
        )
    if not len(given):
        raise ValueError("given has 0 rows; one is needed at least.")
    missing = missing_cells(given)
    for i in range(len(missing)):
        yield {
            name: given[name].iloc[i] if hasattr(given, "iloc") else given[name][i]
            for j, name in enumerate(given.columns)
            if not missing[i, j]
        }


def _drawn_given_one(
    estimator: Any,
    n: int,
    known: dict[int, np.ndarray],
    ruled_out: list[int],
    generator: torch.Generator,
) -> np.ndarray:
    module, codec = estimator._module, estimator._columns.codec
    prior = module.prior_distribution()
    device = generator.device
    x = torch.full((1, len(codec.sizes)), -1, dtype=torch.int64, device=device)
    for j, admitted in known.items():
        x[0, j] = int(admitted[0])
    proposals = _proposals(module, prior, x, generator)
    codes, fit = _completed(module, x, proposals, ruled_out, generator)
    log_weights = prior.log_prob(proposals) + fit
    log_weights = log_weights - _proposal_density(module, prior, x, proposals)
    share = torch.softmax(log_weights, dim=0)
    effective = float(1.0 / share.square().sum())
    if effective < min(n, 100):
        warnings.warn(
            f"The given cells are rare in the model: {effective:.0f} of "
            f"{len(share)} proposals carry the weight, so the rows drawn resemble each "
            "other.",
            UserWarning,
            stacklevel=5,
        )
    which = torch.multinomial(share, n, replacement=True, generator=generator)
    chosen, codes, fit = proposals[which], codes[which], fit[which]
    # Rows chosen twice part again: moves that leave the distribution as it is.
    for _ in range(_MOVES):
        others, their_fit = _completed(module, x, chosen, ruled_out, generator)
        chance = torch.rand(n, generator=generator, device=device)
        moves = chance.log() < their_fit - fit
        codes = torch.where(moves.unsqueeze(1), others, codes)
        fit = torch.where(moves, their_fit, fit)
    return codes.cpu().numpy()


def _completed(
    module: Any,
    x: Tensor,
    z: Tensor,
    ruled_out: list[int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return rows drawn given z with the known cells of x, and the nats of those."""
    step = max(1, (1 << 22) // module.likelihood.n_outputs)
    like = torch.empty(len(z), x.shape[1], dtype=torch.float64, device=z.device)
    codes, fits = [], []
    for part, rank in zip(
        z.split(step), like.uniform_(generator=generator).split(step), strict=True
    ):
        raw = module.decode(part)
        raw[..., ruled_out] = _RULED_OUT
        found = module.likelihood.complete(x.expand(len(part), -1), raw, rank)
        codes.append(found[0])
        fits.append(found[1])
    return torch.cat(codes), torch.cat(fits)


def _guide(module: Any, prior: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-weights, means and log-variances of a mixture near the condition."""
    if not hasattr(prior, "means"):
        k = module.prior.n_components
        zero = torch.zeros(1, k, device=x.device)
        return torch.zeros(1, device=x.device), zero, zero
    fit = module.likelihood.log_prob(
        x.expand(len(prior.means), -1), module.decode(prior.means)
    )
    wide = prior.log_vars + 2 * float(np.log(_WIDENED))
    return torch.log_softmax(prior.log_weights + fit, dim=0), prior.means, wide


def _proposals(
    module: Any, prior: Any, x: Tensor, generator: torch.Generator
) -> Tensor:
    log_weights, means, log_vars = _guide(module, prior, x)
    guided = int(_PROPOSALS * (1 - _DEFENSIVE))
    which = torch.multinomial(
        log_weights.exp(), guided, replacement=True, generator=generator
    )
    noise = torch.empty(guided, means.shape[1], dtype=means.dtype, device=means.device)
    noise.normal_(generator=generator)
    near = means[which] + torch.exp(0.5 * log_vars[which]) * noise
    return torch.cat([near, prior.draw(_PROPOSALS - guided, generator).to(near)])


def _proposal_density(module: Any, prior: Any, x: Tensor, z: Tensor) -> Tensor:
    """Return log q of the proposals: the guided mixture and the prior, mixed."""
    log_weights, means, log_vars = _guide(module, prior, x)
    squared = (z.unsqueeze(1) - means).square() * torch.exp(-log_vars)
    normal = -0.5 * (squared + log_vars + float(np.log(2 * np.pi))).sum(-1)
    near = torch.logsumexp(normal + log_weights, dim=1) + float(np.log1p(-_DEFENSIVE))
    anywhere = prior.log_prob(z) + float(np.log(_DEFENSIVE))
    return torch.logaddexp(near, anywhere)
