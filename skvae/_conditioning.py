"""Rows of a table in which some cells are given: importance sampling of the code.

Codes are proposed from a distribution q near what is given, weighted by
p(z) p(x_given | z) / q(z), drawn by these weights, and the open cells given those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvae._compat import warn
from skvae._imputing import RULED_OUT, known_nats, missing_places
from skvae._proposals import Proposals
from skvae._table import codes_given, missing_cells

_PROPOSALS = 4096
_MOVES = 3
# Cells this many times rarer together than they would be unrelated get a warning.
_AT_ODDS = 300


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
        ruled_out = missing_places(codec, [j for j in asked if j not in known])
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
        row = {
            name: given[name].iloc[i] if hasattr(given, "iloc") else given[name][i]
            for j, name in enumerate(given.columns)
            if not missing[i, j]
        }
        yield {k: v.item() if isinstance(v, np.generic) else v for k, v in row.items()}


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
    like = next(module.parameters()).new_empty(1, module.prior.n_components)
    proposals = Proposals(prior, partial(known_nats, module, x, None), like)
    z, log_ratio = (a.squeeze(1) for a in proposals.draw(_PROPOSALS, generator))
    codes, fit = _completed(module, x, z, ruled_out, generator)
    log_weight = log_ratio + fit
    share = torch.softmax(log_weight, dim=0)
    _warn_of_odd_cells(codec, known, log_weight)
    effective = float(1.0 / share.square().sum())
    if effective < min(n, 100):
        warn(
            f"The given cells are rare in the model: {effective:.0f} of "
            f"{len(share)} proposals carry the weight, so the rows drawn resemble each "
            "other.",
            UserWarning,
        )
    which = torch.multinomial(share, n, replacement=True, generator=generator)
    chosen, codes, fit = z[which], codes[which], fit[which]
    # Rows chosen twice part again: moves that leave the distribution as it is.
    for _ in range(_MOVES):
        others, their_fit = _completed(module, x, chosen, ruled_out, generator)
        chance = torch.rand(n, generator=generator, device=device)
        moves = chance.log() < their_fit - fit
        codes = torch.where(moves.unsqueeze(1), others, codes)
        fit = torch.where(moves, their_fit, fit)
    return codes.cpu().numpy()


def _warn_of_odd_cells(
    codec: Any, known: dict[int, np.ndarray], log_weight: Tensor
) -> None:
    """Warn of given cells that hardly ever meet, such as a city and a wrong state."""
    together = float(torch.logsumexp(log_weight, dim=0)) - np.log(len(log_weight))
    shares = [codec.columns[j].frequencies[int(c[0])] for j, c in known.items()]
    alone = float(np.log(np.maximum(shares, 1e-12)).sum())
    if together < alone - np.log(_AT_ODDS):
        warn(
            "The given cells contradict each other in the model: they meet in "
            f"{np.exp(together):.1e} of its rows, in {np.exp(alone):.1e} if the "
            "columns were unrelated. The rows drawn hold them all the same.",
            UserWarning,
        )


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
        raw[..., ruled_out] = RULED_OUT
        found = module.likelihood.complete(x.expand(len(part), -1), raw, rank)
        codes.append(found[0])
        fits.append(found[1])
    return torch.cat(codes), torch.cat(fits)
