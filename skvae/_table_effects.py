r"""Where the context weights of a table begin: effects of levels, gaps and spikes.

`start_at_regressions` sets what numbers tell of numbers. The rest is fitted here as a
log-linear model on top of it [1]_: the logits of column j gain, from each column k
before it,

.. math:: f_k(x_k)^\top A_{kj}\, t_j(c),

where the features f are the one-hot levels of a category, or the normal score of a
number and indicators (of a missing cell, of values that often repeat), and the
statistics t of a code c of column j are its one-hot level, or its score, squared score
and indicators. Coefficients A take Newton steps, one pair of columns after the other,
and are shrunk as draws from :math:`N(0, \tau^2)` with :math:`\tau^2` found from their
own size by moments [2]_: a pair that differs no more than by chance has none.

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
from skvae._table_starts import context_numbers, drawn_codes

# Rows that effects are fitted to, at most and, of wide tables, at least; logits that
# are held at once, and looked at for each column.
_ROWS, _FEW_ROWS, _LOGITS, _LOOKS = 8192, 1024, 1 << 23, 1 << 28
# Codes from which on a category has many levels, and takes no part.
_MANY = 100
# Share of the rows from which on a repeated value of a number has an indicator.
_SPIKE = 0.1
# Rounds over all pairs, and the longest step of a coefficient, in nats.
_ROUNDS, _STEP = 2, 1.0
# Standard errors by which squared effects exceed chance, and their highest variance.
_EVIDENCE, _WIDEST = 1.0, 1.0
# Singular values of the effects of a column that are kept, as a share of the largest.
_LEAST = 1e-3


@dataclass(frozen=True)
class _Column:
    """A column as a source of effects, and as their target.

    Parameters
    ----------
    place : slice
        Its codes among all codes.
    frequencies : ndarray of shape (size,)
        Share of each code in the training rows.
    features : ndarray of shape (size, n_features)
        Features of each code as a source; the first of a number is its normal score.
    statistics : ndarray of shape (size, n_statistics)
        What effects on this column multiply; the first two of a number are its score
        and its square.
    unsmoothed : ndarray of shape (size, n_statistics)
        The same before neighbouring bins are smoothed, which the model does by itself.
    groups : list of slice
        Parts of `statistics` whose effects are alike in size.
    is_number, has_gaps : bool
        Whether it has scores, and whether they are missing in some rows.
    """

    place: slice
    frequencies: np.ndarray
    features: np.ndarray
    statistics: np.ndarray
    unsmoothed: np.ndarray
    groups: list[slice]
    is_number: bool
    has_gaps: bool

    def free_effects(self, source: _Column) -> np.ndarray:
        """Return which effects of another column on this one are fitted here."""
        shape = source.features.shape[1], self.statistics.shape[1]
        free = np.ones(shape, dtype=bool)
        if source.has_gaps:
            # That a score is there says how much variance is left, no more.
            free[-1] = False
            free[-1, 1:2] = self.is_number
        if self.is_number and source.is_number:
            # Regressions fitted scores, but for those that are not always there.
            free[0, :2] = source.has_gaps, False
        return free


def start_at_effects(
    module: Any, batch: dict[str, Any], codec: Any, spread: float, rng: Any
) -> None:
    """Set context weights to the effects of levels, gaps and spikes.

    Parameters
    ----------
    module : AutoencoderModule
        A table module at its mixture and regressions, with context weights.
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
    # By source, then by target.
    effects: dict[int, dict[int, np.ndarray]] = {}
    for j in columns:
        for k, found in _effects_on(j, columns, codes, logits).items():
            effects.setdefault(k, {})[j] = found
    weight = likelihood.start.clone()
    for k, of_targets in effects.items():
        _write_effects(likelihood, weight, k, columns, of_targets)
    likelihood.start_at(weight)


def _columns(codec: Any, likelihood: Any) -> dict[int, _Column]:
    """Describe the columns that take part."""
    raw = torch.as_tensor(codec.code_values).to(likelihood.entries)
    powers = torch.stack([raw, (raw.square() - 1) / math.sqrt(2)])
    smoothed = likelihood.smoother(powers).double().numpy().T
    unsmoothed = powers.double().numpy().T
    heads = likelihood.heads
    normal = set() if heads is None else {place.start for place in heads.places}
    numbers = set(context_numbers(codec, likelihood))
    columns = {}
    for j, column in enumerate(codec.coded):
        place, _ = codec.places(j)
        if j in likelihood.followers:
            continue
        if j in numbers:
            curved = place.start not in normal
            own = smoothed[place], unsmoothed[place]
            columns[j] = _number(column, place, own, curved)
        elif column.size <= _MANY:
            columns[j] = _category(column, place)
    return columns


def _category(column: Any, place: slice) -> _Column:
    """Describe a category by its one-hot levels."""
    levels = np.eye(column.size)
    whole = slice(0, column.size)
    return _Column(
        place=place,
        frequencies=column.frequencies,
        features=levels,
        statistics=levels,
        unsmoothed=levels,
        groups=[whole],
        is_number=False,
        has_gaps=False,
    )


def _number(
    column: Any, place: slice, powers: tuple[np.ndarray, np.ndarray], curved: bool
) -> _Column:
    """Describe a number by its score and squared score, smoothed and not.

    Of a number that stays normal (not `curved`) only the mean moves, and whether it is
    missing.
    """
    levels, missing = np.eye(column.size), column.missing_code
    marked = (column.frequencies >= _SPIKE) & curved
    marked[column.bins] = False
    has_gaps = missing >= 0
    if has_gaps:
        marked[missing] = True
    indicators = levels[:, marked]
    present = 1 - levels[:, [missing]] if has_gaps else levels[:, :0]
    statistics, unsmoothed = (
        np.column_stack([own * [1, curved], indicators]) for own in powers
    )
    return _Column(
        place=place,
        frequencies=column.frequencies,
        features=np.column_stack([powers[0][:, 0], indicators, present]),
        statistics=statistics,
        unsmoothed=unsmoothed,
        groups=[slice(i, i + 1) for i in range(statistics.shape[1])],
        is_number=True,
        has_gaps=has_gaps,
    )


def _logits_of_rows(
    module: Any, batch: dict[str, Any], spread: float, rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of some rows, and the logits that predict them."""
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


def _effects_on(
    j: int, columns: dict[int, _Column], codes: np.ndarray, logits: np.ndarray
) -> dict[int, np.ndarray]:
    """Fit the effects of the columns before j on its logits, by source.

    Parameters
    ----------
    j : int
        The target.
    columns : dict of int to _Column
        The columns that take part.
    codes : ndarray of shape (n_rows, n_columns)
        Codes of rows.
    logits : ndarray of shape (n_rows, n_codes)
        Logits of all columns of these rows, without the effects.
    """
    target = columns[j]
    fit = _Fit(logits[:, target.place], codes[:, j], target.statistics)
    pairs = {
        k: _Pair(source, target, codes[:, k]) for k, source in columns.items() if k < j
    }
    for again in range(_ROUNDS):
        for pair in pairs.values():
            # What had no effect in the first round has none.
            if not again or pair.effects.any():
                pair.improve(fit)
    return {k: pair.effects for k, pair in pairs.items() if pair.effects.any()}


class _Pair:
    """The effects of one column on another one.

    Parameters
    ----------
    source, target : _Column
        The columns.
    codes : ndarray of shape (n_rows,)
        Codes of the source.
    """

    def __init__(self, source: _Column, target: _Column, codes: np.ndarray):
        self.source, self.target, self.codes = source, target, codes
        self.free = target.free_effects(source)
        self.effects = np.zeros(self.free.shape)
        self._sum_by_code = _members(codes, len(source.features))

    def improve(self, fit: _Fit) -> None:
        """Take a Newton step in each group of effects."""
        for group in self.target.groups:
            if self.free[:, group].any():
                self._step(fit, group)

    def _step(self, fit: _Fit, group: slice) -> None:
        """Move effects, and the logits of a fit, as far as these gain by it."""
        features = self.source.features
        slope = features.T @ (self._sum_by_code @ fit.residual[:, group])
        curvature = (features**2).T @ (self._sum_by_code @ fit.variance[:, group])
        old = self.effects[:, group]
        new, variance = _shrunk(old, slope, curvature, self.free[:, group])
        if np.array_equal(old, new):
            return
        terms = (features @ (new - old)) @ self.target.statistics[:, group].T
        cost = (np.sum(new**2) - np.sum(old**2)) / (2 * variance)
        share = fit.move(terms[self.codes], cost)
        self.effects[:, group] = old + share * (new - old)


class _Fit:
    """Logits of a column, and how well they predict its codes.

    Parameters
    ----------
    logits : ndarray of shape (n_rows, size)
        Logits of the codes.
    codes : ndarray of shape (n_rows,)
        Codes of the rows.
    statistics : ndarray of shape (size, n_statistics)
        Statistics of each code.

    Attributes
    ----------
    nats : float
        Log-likelihood of all rows.
    residual, variance : ndarray of shape (n_rows, n_statistics)
        Statistics of the code of each row minus those expected, and their variance.
    """

    def __init__(self, logits: np.ndarray, codes: np.ndarray, statistics: np.ndarray):
        self.logits, self.codes, self.statistics = logits, codes, statistics
        self._own = np.arange(len(codes)), codes
        self._update(*self._shares(logits))

    def _shares(self, logits: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the probabilities of codes, and the log-likelihood of all rows."""
        highest = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - highest)
        sums = powers.sum(axis=1, keepdims=True)
        nats = logits[self._own] - highest[:, 0] - np.log(sums[:, 0])
        return powers / sums, float(nats.sum())

    def _update(self, shares: np.ndarray, nats: float) -> None:
        mean = shares @ self.statistics
        self.nats, self.residual = nats, self.statistics[self.codes] - mean
        self.variance = shares @ self.statistics**2 - mean**2

    def move(self, terms: np.ndarray, cost: float) -> float:
        """Add terms as far as they gain more than they cost; return how far."""
        for share in (1.0, 0.5, 0.25):
            moved = self.logits + share * terms
            shares, nats = self._shares(moved)
            if nats - self.nats > share * cost:
                self.logits = moved
                self._update(shares, nats)
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


def _write_effects(
    likelihood: Any,
    weight: torch.Tensor,
    k: int,
    columns: dict[int, _Column],
    effects: dict[int, np.ndarray],
) -> None:
    """Write the effects of column k into its embedding and its context weights.

    The matrix of effects, of each code on all logits, is factored by a weighted
    singular value decomposition into as many entries as the embedding has. The first
    entry of a number is its score, set by the regressions before.

    Parameters
    ----------
    likelihood : AutoregressiveLikelihood
        Its embedding is changed in place.
    weight : Tensor of shape (n_columns * width, n_codes)
        Context weights, changed in place.
    k : int
        The source.
    columns : dict of int to _Column
        The columns that take part.
    effects : dict of int to ndarray
        Effects by target.
    """
    source = columns[k]
    own_weight = weight[k * likelihood.width : (k + 1) * likelihood.width]
    n_used = int(source.is_number)
    rest = np.zeros((len(source.features), likelihood.n_outputs))
    for j, found in effects.items():
        place, terms = columns[j].place, found @ columns[j].unsmoothed.T
        rest[:, place] = source.features[:, n_used:] @ terms[n_used:]
        if n_used:
            own_weight[0, place] += torch.as_tensor(terms[0]).to(weight)
    root = np.sqrt(np.maximum(source.frequencies, 1e-6))[:, None]
    left, sizes, right = np.linalg.svd(root * rest, full_matrices=False)
    rank = min(likelihood.width - n_used, int((sizes > _LEAST * sizes[0]).sum()))
    free = slice(n_used, n_used + rank)
    entries = torch.as_tensor((left[:, :rank] / root).T * SPREAD)
    with torch.no_grad():
        likelihood.entries[free, source.place] = entries.to(weight)
    more = torch.as_tensor(sizes[:rank, None] * right[:rank] / SPREAD)
    own_weight[free] += more.to(weight)
