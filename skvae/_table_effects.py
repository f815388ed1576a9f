r"""What levels, gaps and spikes of a table tell other columns at the start of training.

`start_at_regressions` begins where numbers tell numbers. The rest is fitted here as a
log-linear model on top of it [1]_: the logits of column j gain, of each column k before
it,

.. math:: f_k(x_k)^\top A_{kj}\, t_j(c),

where f are the levels of a category, or the normal score and the marks of a number (its
gap and values that often repeat), and t is what moves column j: its levels, or score,
squared score and marks. Coefficients take Newton steps, one pair of columns after the
other, and are shrunk as draws from :math:`N(0, \tau^2)` with :math:`\tau^2` found from
their own size by moments [2]_: a pair that says no more than chance says nothing.

References
----------
.. [1] Agresti (2013). Categorical Data Analysis. Wiley.
.. [2] Efron & Morris (1973). Stein's estimation rule and its competitors. JASA 68.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from skvae._autoregressive import SPREAD
from skvae._table_starts import drawn_codes, heard_numbers

# Rows that effects are fitted to, at most and, of wide tables, at least; logits that
# are held at once, and looked at for each column.
_ROWS, _FEW_ROWS, _LOGITS, _LOOKS = 8192, 1024, 1 << 23, 1 << 28
# Codes from which on a category has many levels, and takes no part.
_MANY = 100
# Share of the rows from which on a repeated value of a number is a mark.
_SPIKE = 0.1
# Rounds over all pairs, and the longest step of a coefficient, in nats.
_ROUNDS, _STEP = 2, 1.0
# Standard errors by which squared effects exceed chance, and their highest variance.
_EVIDENCE, _WIDEST = 1.0, 1.0
# Share of what a column says most from which on it is said.
_LEAST = 1e-3


@dataclass(frozen=True)
class _Column:
    """What a column says, and what of it others move.

    Parameters
    ----------
    place : slice
        Its codes among all codes.
    says : ndarray of shape (size, n_says)
        What each code says; the first of a number is its normal score.
    moved : ndarray of shape (size, n_moved)
        What effects multiply; the first two of a number are its score and its square.
    as_told : ndarray of shape (size, n_moved)
        The same before bins share strength, which the model does by itself.
    groups : list of slice
        Parts of `moved` whose effects are alike in size.
    is_number, has_gaps : bool
        Whether it has scores, and whether they are missing in some rows.
    """

    place: slice
    says: np.ndarray
    moved: np.ndarray
    as_told: np.ndarray
    groups: list[slice]
    is_number: bool
    has_gaps: bool

    def free(self, speaker: _Column) -> np.ndarray:
        """Tell which effects of another column are fitted here."""
        free = np.ones((speaker.says.shape[1], self.moved.shape[1]), dtype=bool)
        if speaker.has_gaps:
            # That a score is there says how much variance is left, no more.
            free[-1] = False
            free[-1, 1:2] = self.is_number
        if self.is_number and speaker.is_number:
            # Regressions fitted scores, but for those that are not always there.
            free[0, :2] = speaker.has_gaps, False
        return free


def start_at_effects(
    module: Any, batch: dict[str, Any], codec: Any, spread: float, rng: Any
) -> None:
    """Let columns hear levels, gaps and spikes of those before them.

    Parameters
    ----------
    module : AutoencoderModule
        A table module at its mixture and regressions, whose columns hear each other.
    batch : dict of Tensor
        Training rows.
    codec : TableCodec
        Fitted codec.
    spread : float
        Standard deviation of a row's posterior.
    rng : Generator
        Chooses rows, and draws their codes.
    """
    likelihood = module.likelihood
    columns = _columns(codec, likelihood)
    codes, logits = _logits_of_rows(module, batch, spread, rng)
    start = likelihood.start.clone()
    told: dict[int, list[tuple[int, np.ndarray]]] = {}
    for j, column in columns.items():
        before = {k: c for k, c in columns.items() if k < j}
        for k, effects in _heard(logits, codes, column, j, before).items():
            told.setdefault(k, []).append((j, effects))
    for k, own in told.items():
        _tell(likelihood, start, k, columns, own, codec)
    likelihood.start_at(start)


def _columns(codec: Any, likelihood: Any) -> dict[int, _Column]:
    """Describe the columns that take part."""
    raw = torch.as_tensor(codec.code_values).to(likelihood.entries)
    told = torch.stack([raw, (raw.square() - 1) / math.sqrt(2)])
    moved = likelihood.smoother(told).double().numpy().T
    as_told = told.double().numpy().T
    heads = likelihood.heads
    normal = set() if heads is None else {place.start for place in heads.places}
    numbers = set(heard_numbers(codec, likelihood))
    columns = {}
    for j, column in enumerate(codec.coded):
        place, _ = codec.places(j)
        if j in likelihood.followers:
            continue
        if j in numbers:
            curved = place.start not in normal
            own = moved[place], as_told[place]
            columns[j] = _number(column, place, own, curved)
        elif column.size <= _MANY:
            levels = np.eye(column.size)
            parts = [slice(0, column.size)]
            columns[j] = _Column(place, levels, levels, levels, parts, False, False)
    return columns


def _number(
    column: Any, place: slice, scores: tuple[np.ndarray, np.ndarray], curved: bool
) -> _Column:
    """Describe a number by scores and squares, as bins share strength and as they are.

    Of a number that stays normal others move the mean, and whether it is missing.
    """
    each, missing = np.eye(column.size), column.missing_code
    marked = (column.frequencies >= _SPIKE) & curved
    marked[column.bins] = False
    has_gaps = missing >= 0
    if has_gaps:
        marked[missing] = True
    marks = each[:, marked]
    there = 1 - each[:, [missing]] if has_gaps else each[:, :0]
    moved, as_told = (np.column_stack([u * [1, curved], marks]) for u in scores)
    says = np.column_stack([scores[0][:, 0], marks, there])
    groups = [slice(i, i + 1) for i in range(moved.shape[1])]
    return _Column(place, says, moved, as_told, groups, True, has_gaps)


def _logits_of_rows(
    module: Any, batch: dict[str, Any], spread: float, rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of some rows, and the logits they are predicted by."""
    likelihood = module.likelihood
    n_logits = likelihood.n_outputs
    n = max(_LOOKS // (n_logits * likelihood.n_features), _FEW_ROWS)
    n = min(_ROWS, n, max(_LOGITS // n_logits, 1))
    some = rng.permutation(len(batch["x"]))[:n]
    x = batch["x"].cpu()[some]
    with torch.no_grad():
        drawn = drawn_codes(module.features, x.numpy(), spread, rng)
        z = torch.as_tensor(drawn).to(likelihood.entries)
        condition = batch.get("condition")
        if condition is not None:
            condition = condition.cpu()[some].nan_to_num().to(z)
        module.eval()  # Without dropout.
        logits = likelihood._given(x, module.decode(z, condition), True)
        module.train()
    return x.numpy(), logits.double().numpy()


def _heard(
    logits: np.ndarray,
    codes: np.ndarray,
    column: _Column,
    j: int,
    before: dict[int, _Column],
) -> dict[int, np.ndarray]:
    """Fit what a column hears of each column before it."""
    own = codes[:, j]
    fit = _Fit(logits[:, column.place], own, column.moved)
    members = {k: _members(codes[:, k], len(c.says)) for k, c in before.items()}
    effects = {
        k: np.zeros((c.says.shape[1], column.moved.shape[1])) for k, c in before.items()
    }
    for again in range(_ROUNDS):
        for k, speaker in before.items():
            if again and not effects[k].any():
                continue
            free = column.free(speaker)
            for group in column.groups:
                if not free[:, group].any():
                    continue
                slope = speaker.says.T @ (members[k] @ fit.missed[:, group])
                curvature = (speaker.says**2).T @ (members[k] @ fit.variance[:, group])
                old = effects[k][:, group]
                new, variance = _shrunk(old, slope, curvature, free[:, group])
                if np.array_equal(old, new):
                    continue
                terms = (speaker.says @ (new - old)) @ column.moved[:, group].T
                cost = (np.sum(new**2) - np.sum(old**2)) / (2 * variance)
                share = fit.move(terms[codes[:, k]], cost)
                effects[k][:, group] = old + share * (new - old)
    return {k: found for k, found in effects.items() if found.any()}


class _Fit:
    """How well logits foretell the codes of rows."""

    def __init__(self, logits: np.ndarray, codes: np.ndarray, moved: np.ndarray):
        self.logits, self.codes, self.moved = logits, codes, moved
        self.told = np.arange(len(codes)), codes
        self._look(*self._shares(logits))

    def _shares(self, logits: np.ndarray) -> tuple[np.ndarray, float]:
        highest = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - highest)
        sums = powers.sum(axis=1, keepdims=True)
        nats = logits[self.told] - highest[:, 0] - np.log(sums[:, 0])
        return powers / sums, float(nats.sum())

    def _look(self, shares: np.ndarray, nats: float) -> None:
        mean = shares @ self.moved
        self.nats, self.missed = nats, self.moved[self.codes] - mean
        self.variance = shares @ self.moved**2 - mean**2

    def move(self, terms: np.ndarray, cost: float) -> float:
        """Add terms as far as they gain more than they cost; return how far."""
        for share in (1.0, 0.5, 0.25):
            moved = self.logits + share * terms
            shares, nats = self._shares(moved)
            if nats - self.nats > share * cost:
                self.logits = moved
                self._look(shares, nats)
                return share
        return 0.0


def _members(codes: np.ndarray, size: int) -> sp.csr_array:
    """Return the matrix that sums rows by their code."""
    n = len(codes)
    return sp.csr_array((np.ones(n), (codes, np.arange(n))), shape=(size, n))


def _shrunk(
    old: np.ndarray, slope: np.ndarray, curvature: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return effects after a Newton step, and the variance they are shrunk by."""
    weight = (np.maximum(curvature, 0) + 1.0) * free  # Cells foreseen well have none.
    count = free.sum()
    alone = old + np.divide(slope, weight, out=np.zeros_like(old), where=free)
    excess = (weight * alone**2 - 1) * free
    variance = (excess * weight).sum() / (weight**2).sum()
    if variance <= 0 or excess.sum() < _EVIDENCE * np.sqrt(2 * count):
        return np.zeros_like(old), 1e-9
    variance = min(variance, _WIDEST)
    new = alone * weight / (weight + 1 / variance)
    return old + np.clip(new - old, -_STEP, _STEP), variance


def _tell(
    likelihood: Any,
    start: torch.Tensor,
    k: int,
    columns: dict[int, _Column],
    effects: list[tuple[int, np.ndarray]],
    codec: Any,
) -> None:
    """Write the effects of one column into what its codes say and how it is heard."""
    speaker, first = columns[k], k * likelihood.width
    used = int(speaker.is_number)
    rest = np.zeros((len(speaker.says), likelihood.n_outputs))
    for j, found in effects:
        terms = found @ columns[j].as_told.T
        rest[:, columns[j].place] = speaker.says[:, used:] @ terms[used:]
        if used:
            # Scores are said already: regressions are heard by them.
            start[first, columns[j].place] += torch.as_tensor(terms[0]).to(start)
    root = np.sqrt(np.maximum(codec.coded[k].frequencies, 1e-6))[:, None]
    left, sizes, right = np.linalg.svd(root * rest, full_matrices=False)
    rank = min(likelihood.width - used, int((sizes > _LEAST * sizes[0]).sum()))
    with torch.no_grad():
        entries = torch.as_tensor((left[:, :rank] / root).T * SPREAD)
        likelihood.entries[used : used + rank, speaker.place] = entries.to(start)
    heard = torch.as_tensor(sizes[:rank, None] * right[:rank] / SPREAD)
    start[first + used : first + used + rank] += heard.to(start)
