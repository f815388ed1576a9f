"""Numbers that are the sum of others, or their difference: a total and its parts.

Each column is drawn within its bin whatever the others hold, so parts do not add up.
Of a row that has a total, what is left beside its parts becomes one of the rests that
training rows have, a near and a frequent one; columns that follow from one that gives
way (a square) go with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from skvae._table._dependence import Derived, follow
from skvae._table._digits import rounded
from skvae._table._draft import Draft
from skvae._table._gaps import spread_of
from skvae._table._numeric import NumericColumn

# Rows a sum is fitted to, at most and at least; those a column beside others needs.
_ROWS, _MIN_ROWS, _ROWS_PER_COLUMN = 8192, 50, 3
# How far from 1 the slope of a part may be, and the ridge that keeps sums of columns
# that repeat each other out.
_OFF, _RIDGE = 0.25, 1e-8
# Digits that sums of numbers without a fixed number of decimals agree in; with more
# decimals than amounts have, rests that are equal in single precision are one.
_DIGITS, _AMOUNT, _DIGITS_SINGLE = 9, 4, 6
# The rest varies this much beside the total at most, and has this share of its values;
# those of one row alone are left out if they are this rare.
_MAX_SHARE, _MAX_VALUES, _EXCEPTIONS = 0.5, 0.25, 0.01
# Rests that two columns alone may leave.
_FEW_RESTS = 3


@dataclass
class Sum:
    """A column that is the sum of others, up to a rest that has few values.

    Parameters
    ----------
    total : int
        The column.
    parts : list of int
        The columns that add up to it, those that vary most first.
    signs : list of int
        1 for a part that is added, -1 for one that is taken off.
    rests : ndarray of shape (n_rests,)
        What is left of the total in training rows, in rising order.
    shares : ndarray of shape (n_rests,)
        Share of the training rows that have each.
    """

    total: int
    parts: list[int]
    signs: list[int]
    rests: np.ndarray
    shares: np.ndarray

    def rest(self, cells: Any) -> np.ndarray:
        """Return what the parts leave of the total, of cells by column."""
        signed = zip(self.signs, self.parts, strict=True)
        return cells[self.total] - sum(sign * cells[j] for sign, j in signed)

    @property
    def effects(self) -> list[tuple[int, int]]:
        """Columns in the order in which they give way, and how each moves the rest."""
        signed = zip(self.parts, self.signs, strict=True)
        return [(self.total, 1), *((j, -sign) for j, sign in signed)]

    @property
    def columns(self) -> list[int]:
        """The total and its parts, in the order in which they give way."""
        return [self.total, *self.parts]


def find_sums(columns: list[Any], cells: list[Any], bound: set[int]) -> list[Sum]:
    """Find the columns that are sums of others in the training rows.

    Parameters
    ----------
    columns : list
        The fitted columns.
    cells : list of array-like
        Their training cells; those of numbers are arrays of floats.
    bound : set of int
        Columns whose values already follow from others.

    Returns
    -------
    sums : list of Sum
        No column is part of two.
    """
    free = [
        j
        for j, column in enumerate(columns)
        if isinstance(column, NumericColumn) and j not in bound and _varies(column)
    ]
    if len(free) < 2:
        return []
    whole = whole_rows(cells, free)
    if whole is None:
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        slopes, spread = slopes_of(whole), spread_of(whole)
        sums: list[Sum] = []
        # Totals come first; then the column that varies most is made of the others.
        trials = [(k, slopes[k] - 1) for k in range(len(free))]
        order = np.argsort(-spread, kind="stable").tolist()
        trials += [(k, np.abs(slopes[k]) - 1) for k in order]
        for k, off in trials:
            near = np.flatnonzero(np.abs(off) < _OFF)
            near = near[np.argsort(-spread[near], kind="stable")]
            parts = [free[i] for i in near]
            used = {j for entry in sums for j in entry.columns}
            if not parts or used & {free[k], *parts}:
                continue
            signs = np.sign(slopes[k][near]).astype(int).tolist()
            found = _sum_of(columns, cells, free[k], parts, signs)
            sums += [] if found is None else [found]
    return sums


def _sum_of(
    columns: list[Any], cells: list[Any], total: int, parts: list[int], signs: list[int]
) -> Sum | None:
    """Return a sum of columns, None if what they leave of the total is no rule."""
    entry = Sum(total, parts, signs, np.empty(0), np.empty(0))
    rests = _rests(columns[total], cells[total], entry.rest(cells))
    if rests is None:
        return None
    parts = _narrowing(columns[total], entry, cells)
    if parts != entry.parts:
        signs = [entry.signs[entry.parts.index(j)] for j in parts]
        return _sum_of(columns, cells, total, parts, signs) if parts else None
    # Two columns: a share and the rest of it, a year of birth and an age.
    alike = columns[total].decimals == columns[parts[0]].decimals
    if len(parts) == 1 and not (alike and len(rests[0]) <= _FEW_RESTS):
        return None
    return replace(entry, rests=rests[0], shares=rests[1])


def _narrowing(column: Any, entry: Sum, cells: list[Any]) -> list[int]:
    """Return the parts without which more values would be left of the total."""
    rest = entry.rest(cells)
    known = ~np.isnan(rest)
    rest, digits = rest[known], _digits_of_rests(column)
    parts = dict(zip(entry.parts, entry.signs, strict=True))
    # Those that vary least are more likely to be there by chance.
    for j in reversed(entry.parts):
        without = rest + parts[j] * cells[j][known]
        few, more = (len(np.unique(rounded(r, digits))) for r in (rest, without))
        if more <= few:
            del parts[j]
            rest = without
    return list(parts)


def _varies(column: NumericColumn) -> bool:
    low, high = column.extent
    return bool(low < high)


def whole_rows(cells: list[Any], columns: list[int]) -> np.ndarray | None:
    """Return some rows without gaps in columns of numbers, None if they are too few."""
    n = len(cells[0])
    rows = np.linspace(0, n - 1, min(n, _ROWS)).astype(np.int64)
    some = np.column_stack([cells[j][rows] for j in columns])
    whole = some[~np.isnan(some).any(axis=1)]
    enough = len(whole) >= max(_MIN_ROWS, _ROWS_PER_COLUMN * len(columns))
    return whole if enough else None


def slopes_of(values: np.ndarray) -> np.ndarray:
    """Return the slopes of the regression of each column on all others."""
    scale = values.std(axis=0)
    unfit = ~((scale > 0) & np.isfinite(scale))
    scale[unfit] = 1.0
    scaled = (values - values.mean(axis=0)) / scale
    # A column too large for squares goes with no other.
    scaled[:, unfit] = 0.0
    gram = scaled.T @ scaled / len(scaled)
    gram[np.diag_indices(len(gram))] += _RIDGE
    precision = np.linalg.inv(gram)
    slopes = -precision / precision.diagonal()[:, None]
    slopes *= scale[:, None] / scale
    np.fill_diagonal(slopes, 0.0)
    return slopes


def _rests(
    column: Any, total: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what is left of a total and how often, None if that is no rule."""
    known = ~np.isnan(rest)
    rest = rounded(rest[known], _digits_of_rests(column))
    if spread_of(rest) > _MAX_SHARE * spread_of(total[known]):
        return None
    values, counts = np.unique(rest, return_counts=True)
    alone = counts == 1
    if alone.sum() <= _EXCEPTIONS * len(rest):
        values, counts = values[~alone], counts[~alone]
    most = min(np.sqrt(len(rest)), _MAX_VALUES * len(np.unique(total[known])))
    return (values, counts / counts.sum()) if len(values) <= most else None


def _digits_of_rests(column: Any) -> int:
    digits = _decimals(column)
    if digits > _AMOUNT:
        digits = min(digits, _decimals_left(column, _DIGITS_SINGLE))
    return digits


def _decimals(column: Any) -> int:
    own = column.decimals
    return _decimals_left(column, _DIGITS) if own is None else int(own)


def _decimals_left(column: Any, digits: int) -> int:
    """Return how many of so many digits of a column's largest value are decimals."""
    largest = max(abs(bound) for bound in column.extent)
    return digits - int(np.log10(largest))


def add_up(sums: list[Sum], derived: list[Derived], draft: Draft) -> None:
    """Make totals the sums of their parts, in rows where one of them is open.

    The column that lies in the widest bin gives way, if it stays within its range, else
    the next or several. The median of a total is not the sum of medians: where values
    are not drawn they stay as they are, unless all but one of them are known.

    Parameters
    ----------
    sums : list of Sum
        Sums among the columns.
    derived : list of Derived
        Columns that another one determines; they follow where it gives way, and where
        they are known it does not.
    draft : Draft
        Rows, changed in place.
    """
    summed = {j for entry in sums for j in entry.columns}
    following = [entry for entry in derived if entry.parent in summed]
    cells = draft.known | _known_by_followers(following, draft)
    before = {entry.parent: draft.values[entry.parent] for entry in following}
    for entry in sums:
        _Balance(entry, cells, draft).settle()
    for follower in following:
        j, new = follower.child, draft.values[follower.parent]
        moved = (new != before[follower.parent]) & ~np.isnan(new)
        source, column = draft.column(follower.parent), draft.column(j)
        led = follow(follower, source, column, new)
        draft.values[j] = np.where(moved, led, draft.values[j])


class _Balance:
    """A sum in the rows of a draft, and the rows in which it does not hold yet.

    Parameters
    ----------
    entry : Sum
        The sum.
    cells : dict of int to Series
        Known cells by column, NaN where they are not known.
    draft : Draft
        Rows, changed in place.
    """

    def __init__(self, entry: Sum, cells: dict[int, pd.Series], draft: Draft):
        self.entry, self.draft = entry, draft
        values = draft.values
        none = np.full(len(values[entry.total]), np.nan)
        own = {j: cells[j].to_numpy() if j in cells else none for j in entry.columns}
        self.known = {j: ~np.isnan(seen) for j, seen in own.items()}
        self.n_open = sum(~here for here in self.known.values())
        exact = {j: np.where(self.known[j], own[j], values[j]) for j in own}
        self.rest = entry.rest(exact)
        waiting = self.n_open >= 1 if draft.rng is not None else self.n_open == 1
        self.waiting = waiting & ~np.isnan(self.rest)
        self.half = 0.51 * 10.0 ** -_decimals(draft.column(entry.total))

    def settle(self) -> None:
        """Let one column give way in each row, or several where one cannot."""
        entry, rest = self.entry, self.rest
        place = _places(entry, self.draft)
        for wanted in (likely(entry, rest), *_around(entry.rests, rest)):
            for turn in range(len(place)):
                for own, (j, sign) in zip(place, entry.effects, strict=True):
                    self._give_way(j, sign * (wanted - rest), own == turn)
        if self.waiting.any():
            self._share_out()

    def _give_way(self, j: int, change: np.ndarray, here: np.ndarray) -> None:
        """Change a column in some of the waiting rows, where it stays in its range."""
        column, own = self.draft.column(j), self.draft.values[j]
        aim = own + change
        moved = rounded(aim, _decimals(column))
        here = here & self.waiting & ~self.known[j] & column.is_within(moved)
        # A part with fewer decimals than the total cannot make up for it alone.
        here[here] = np.abs(moved[here] - aim[here]) <= self.half
        self.draft.values[j] = np.where(here, moved, own)
        self.waiting = self.waiting & ~here

    def _share_out(self) -> None:
        """Let several columns give way, each as far as its range goes.

        A total of which all parts are known may leave its own.
        """
        entry, draft, waiting = self.entry, self.draft, self.waiting
        wanted = likely(entry, self.rest)
        moved, left = {}, self.rest
        for j, sign in entry.effects:
            column, own = draft.column(j), draft.values[j]
            low, high = column.extent
            aim = rounded(own + sign * (wanted - left), _decimals(column))
            alone = (j == entry.total) & (self.n_open == 1)
            aim = np.where(alone, aim, np.clip(aim, low, high))
            moved[j] = np.where(waiting & ~self.known[j], aim, own)
            left = left + sign * (moved[j] - own)
        # What is off by less than the decimals that a part lacks is near enough.
        coarse = min(_decimals(draft.column(j)) for j in entry.columns)
        reached = waiting & (np.abs(left - wanted) <= 0.51 * 10.0**-coarse)
        for j, own in moved.items():
            draft.values[j] = np.where(reached, own, draft.values[j])


def _places(entry: Sum, draft: Draft) -> np.ndarray:
    """Return when each column of a sum gives way, in each row.

    First the one of which the bin that it is in is the widest: its distribution changes
    the least. Repeated values, of no width, come last.
    """
    widths = []
    for j in entry.columns:
        own = draft.values[j]
        known, width = ~np.isnan(own), np.zeros(len(own))
        width[known] = draft.column(j).widths_at(own[known])
        widths.append(width)
    order = np.argsort(-np.stack(widths), axis=0, kind="stable")
    return order.argsort(axis=0)


def _known_by_followers(following: list[Derived], draft: Draft) -> dict[int, pd.Series]:
    """Return the columns that others follow from, as known where those are."""
    fixed: dict[int, pd.Series] = {}
    known = draft.known
    for entry in following:
        if entry.child in known:
            own = fixed.get(entry.parent, known[entry.parent])
            drawn = pd.Series(draft.values[entry.parent])
            fixed[entry.parent] = own.where(known[entry.child].isna(), drawn)
    return fixed


def likely(entry: Any, values: np.ndarray) -> np.ndarray:
    """Return rests that are near to values, as far as rests spread, and frequent."""
    weight = np.log(entry.shares)
    at = np.searchsorted(np.cumsum(entry.shares), [0.1, 0.9])
    low, high = entry.rests[np.minimum(at, len(entry.rests) - 1)]
    if low == high:
        return np.full(len(values), entry.rests[weight.argmax()])
    best, chosen = np.full(len(values), -np.inf), np.full(len(values), np.nan)
    for rest, log_share in zip(entry.rests, weight, strict=True):
        score = log_share - np.abs(values - rest) / (high - low)
        chosen = np.where(score > best, rest, chosen)
        best = np.fmax(score, best)
    return chosen


def _around(rests: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest of sorted rests to each value, and the one beyond it."""
    place = np.searchsorted(rests, values)
    padded = np.concatenate([[-np.inf], rests, [np.inf]])
    below, above = padded[place], padded[place + 1]
    is_below = values - below <= above - values
    return np.where(is_below, below, above), np.where(is_below, above, below)
