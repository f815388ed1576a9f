"""Columns that the values of another one tell: a city by its zip code.

Codes are too coarse for that where they stand for several values: a bin, or the rare
levels of a category. What a value tells is looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from skvae._table._dependence import Derived
from skvae._table._draft import Draft

# Rows that most pairs of columns are told apart by.
_SCREENED = 2048
# Share of rows that may be otherwise: slips of whoever wrote the table. Rows beyond one
# a key, and nats that keys save, from which on a rule is believed.
_EXCEPTIONS, _MIN_EVIDENCE, _LEAST_GAIN = 0.01, 30, 25.0
# Distance between groups of keys, in normal scores: beyond any within one.
_FAR = 100.0


@dataclass(frozen=True)
class Lookup:
    """A column whose cells are told by the value of another one.

    Parameters
    ----------
    child, parent : int
        The column, and the one that tells it.
    keys : ndarray of shape (n_keys,)
        Values of the parent in the training rows as numbers, rising.
    weights : ndarray of shape (n_keys,)
        Training rows that have each.
    told : ndarray of shape (n_keys,)
        The usual value of the child beside each, NaN for a missing cell.
    has_gaps : bool
        Whether cells of the child are missing though the key tells a value.
    """

    child: int
    parent: int
    keys: np.ndarray
    weights: np.ndarray
    told: np.ndarray
    has_gaps: bool

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Return the place of each value among the keys, -1 if it is not there."""
        places = np.searchsorted(self.keys, numbers).clip(0, len(self.keys) - 1)
        return np.where(self.keys[places] == numbers, places, -1)

    def to_dict(self) -> dict[str, Any]:
        """Return the lookup as plain values."""
        return dict(vars(self))


def find_lookups(
    columns: list[Any],
    cells: list[Any],
    codes: np.ndarray,
    derived: list[Derived],
    bound: set[int],
) -> list[Lookup]:
    """Find the columns that the values of another one tell, but for few exceptions.

    Parameters
    ----------
    columns : list
        The fitted columns.
    cells : list of array-like
        Their training cells.
    codes : ndarray of shape (n_rows, n_columns)
        The codes of those.
    derived : list of Derived
        Columns whose codes follow from those of another one.
    bound : set of int
        Columns whose values have to agree with others already.

    Returns
    -------
    lookups : list of Lookup
        No column is told by two, and none that is told tells another.
    """
    free = [j for j in range(len(columns)) if j not in bound]
    if not free:
        return []
    numbers = {j: columns[j].numbers(cells[j]) for j in free}
    table = np.column_stack(list(numbers.values()))
    distinct = {j: _n_distinct(own) for j, own in numbers.items()}
    parents = [j for j in free if columns[j].is_discrete and distinct[j] > 1]
    followed = {(e.parent, e.child) for e in derived}
    found: dict[int, Lookup] = {}
    # The finest first; of two that tell each other the left one is the parent.
    for parent in sorted(parents, key=lambda j: (-distinct[j], j)):
        if parent in found:
            continue
        known = np.flatnonzero(~np.isnan(numbers[parent]))
        rows = known[np.argsort(numbers[parent][known], kind="stable")]
        keys = numbers[parent][rows]
        fine = distinct[parent] > len(np.unique(codes[rows, parent]))
        taken = {entry.parent for entry in found.values()} | found.keys() | {parent}
        possible = {free[k] for k in _hardly_changing(keys, table[rows[:_SCREENED]])}
        for child in sorted(possible - taken):
            few = 1 < distinct[child] <= distinct[parent]
            # A value of hardly more than one row is nobody's rule, but a name is.
            few &= distinct[parent] <= max(len(keys) / 2, 2 * distinct[child])
            if few and (fine or (parent, child) not in followed):
                told = _told(keys, numbers[child][rows], len(columns))
                if told is not None:
                    found[child] = Lookup(child, parent, *told)
    return _with_followers(found, derived)


def _hardly_changing(keys: np.ndarray, some: np.ndarray) -> list[int]:
    """Return the columns of some rows that seldom change where the key stays."""
    most = len(some)
    same = np.flatnonzero(keys[1:most] == keys[: most - 1])
    before, after = some[same], some[same + 1]
    changes = (before != after) & ~np.isnan(before) & ~np.isnan(after)
    # A row that is otherwise changes twice.
    return np.flatnonzero(changes.sum(axis=0) <= 2 * _EXCEPTIONS * most).tolist()


def _n_distinct(numbers: np.ndarray) -> int:
    return len(np.unique(numbers[~np.isnan(numbers)]))


def _with_followers(found: dict[int, Lookup], derived: list[Derived]) -> list[Lookup]:
    """Leave out columns from which others follow that are not told with them."""
    left = dict(found)
    for entry in derived:
        own, other = found.get(entry.parent), found.get(entry.child)
        if own and (other is None or other.parent != own.parent):
            left.pop(entry.parent, None)
    return list(left.values())


def _told(
    keys: np.ndarray, values: np.ndarray, n_columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool] | None:
    """Return keys, their rows, what each tells and if gaps vary; None if by chance.

    Where cells are missing beside a key always or never that is told, too.
    """
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    owner = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(keys)]))
    told, wrong = _majority(owner, values, len(first))
    if wrong > _EXCEPTIONS * len(keys):
        return None
    weights = np.bincount(owner).astype(np.float64)
    gaps = np.bincount(owner, np.isnan(values))
    vary = bool(((gaps > 0) & (gaps < weights)).any())
    if not _is_rule(values, len(first), wrong, n_columns):
        return None
    return keys[first], weights, told, vary


def _majority(
    owner: np.ndarray, values: np.ndarray, n_keys: int
) -> tuple[np.ndarray, int]:
    """Return the most frequent known value of each key, and rows that differ."""
    known = ~np.isnan(values)
    distinct, index = np.unique(values[known], return_inverse=True)
    pairs, counts = np.unique(
        owner[known] * max(len(distinct), 1) + index, return_counts=True
    )
    of_key, of_value = np.divmod(pairs, max(len(distinct), 1))
    # The last of the pairs of a key has most rows.
    order = np.lexsort((-of_value, counts, of_key))
    owners = of_key[order]
    last = order[np.flatnonzero(np.r_[owners[1:] != owners[:-1], True][: len(order)])]
    told = np.full(n_keys, np.nan)
    told[of_key[last]] = distinct[of_value[last]]
    return told, int(counts.sum() - counts[last].sum())


def _is_rule(values: np.ndarray, n_keys: int, wrong: int, n_columns: int) -> bool:
    """Tell whether keys say of values what independent columns would not.

    The gain in nats has to be more than it takes to write down what each key says.
    """
    known = values[~np.isnan(values)]
    n, counts = len(known), np.unique(known, return_counts=True)[1]
    if n - n_keys < _MIN_EVIDENCE or len(counts) < 2:
        return False
    alone = float((counts * np.log(counts / n)).sum())
    rest = (wrong + 1) / (n + 2)
    told = (n - wrong) * np.log1p(-rest) + wrong * np.log(rest / len(counts))
    rules = n_keys * np.log(len(counts))
    return bool(told - rules - alone > _LEAST_GAIN + 2 * np.log(n_columns))


def choose_keys(lookups: list[Lookup], draft: Draft) -> None:
    """Replace drawn values by others that tell what the row says.

    Parameters
    ----------
    lookups : list of Lookup
        Columns that others tell.
    draft : Draft
        Rows, changed in place.
    """
    for parent in sorted({entry.parent for entry in lookups}):
        own = [entry for entry in lookups if entry.parent == parent]
        column, keys = draft.column(parent), own[0].keys
        numbers = column.numbers(draft.values[parent])
        rows = np.flatnonzero(draft.is_open(parent) & ~np.isnan(numbers))
        if not len(rows):
            continue
        clues = [_Clue.of(column, numbers[rows], keys)]
        for entry in own:
            said = draft.numbers(entry.child)[rows]
            state = np.where(draft.is_open(entry.child)[rows], _DRAWN, _KNOWN)
            if entry.has_gaps:
                state[np.isnan(said)] = _SILENT
            child = draft.column(entry.child)
            clues.append(_Clue.of(child, said, entry.told, state))
        places = own[0].places(numbers[rows])
        places = _agreeing(places, clues, own[0].weights, draft.rng)
        moved = numbers.copy()
        moved[rows] = np.where(places >= 0, keys[places], numbers[rows])
        draft.values[parent] = column.cells_of(moved)


def follow_keys(lookups: list[Lookup], draft: Draft) -> None:
    """Make columns agree with the values that tell them; see `choose_keys`."""
    for entry in lookups:
        child = draft.column(entry.child)
        numbers = child.numbers(draft.values[entry.child])
        places = entry.places(draft.numbers(entry.parent))
        follows = (places >= 0) & draft.is_open(entry.child)
        gap = np.isnan(entry.told[places])
        if entry.has_gaps:
            # Whether a cell is missing is nobody's rule.
            follows &= ~(gap | np.isnan(numbers))
        # What is to be filled is not filled with a gap.
        follows &= ~(gap & ~draft.is_open(entry.parent))
        if follows.any():
            numbers = np.where(follows, entry.told[places], numbers)
            draft.values[entry.child] = child.cells_of(numbers)


_DRAWN, _KNOWN, _SILENT = range(3)
# What rows and keys are compared by.
Pairs = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Clue:
    """What a column says of the key of a row.

    Parameters
    ----------
    codes, values, scores : tuple of ndarray
        Codes, distinct values and normal scores, of the rows and of the keys.
    is_graded : bool
        Whether codes are bins, of which a near one is as good.
    state : ndarray of shape (n_rows,)
        Whether the value of the row is drawn, known, or missing and says nothing.
    """

    codes: tuple[np.ndarray, np.ndarray]
    values: tuple[np.ndarray, np.ndarray]
    scores: tuple[np.ndarray, np.ndarray]
    is_graded: bool
    state: np.ndarray

    @classmethod
    def of(
        cls,
        column: Any,
        rows: np.ndarray,
        keys: np.ndarray,
        state: np.ndarray | None = None,
    ) -> _Clue:
        values = np.unique(np.concatenate([rows, keys]), return_inverse=True)[1]
        cells = [pd.Series(column.cells_of(own)) for own in (rows, keys)]
        codes = [column.encode(own) for own in cells]
        scores = [column.scores(*own) for own in zip(cells, codes, strict=True)]
        return cls(
            (codes[0], codes[1]),
            (values[: len(rows)], values[len(rows) :]),
            (scores[0], scores[1]),
            len(column.bins) > 0,
            np.full(len(rows), _DRAWN) if state is None else state,
        )


def _agreeing(
    places: np.ndarray,
    clues: list[_Clue],
    weights: np.ndarray,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Return keys that agree with all that is known of rows, and most that is drawn.

    Where no key has all the drawn codes, those of numbers are only to be near, and
    those of columns of many values give way.
    """
    chosen = places.copy()
    states = np.column_stack([clue.state for clue in clues])
    for pattern in np.unique(states, axis=0):
        both = list(zip(clues, pattern.tolist(), strict=True))
        firm = [c.values for c, state in both if state == _KNOWN]
        rest = [c for c, state in both if state == _DRAWN]
        soft = [c.codes for c in rest if not c.is_graded]
        soft.sort(key=lambda pair: len(np.unique(pair[1])))
        near = [c.scores for c in rest if c.is_graded]
        trials: list[tuple[Pairs, Pairs]] = []
        if near:
            trials.append((firm + [c.codes for c in rest], []))
        trials += [(firm + soft[:used], near) for used in range(len(soft), -1, -1)]
        left = np.flatnonzero((states == pattern).all(axis=1))
        for equal, graded in trials:
            found = _matching(places, equal, graded, left, weights, rng)
            chosen[left[found >= 0]] = found[found >= 0]
            left = left[found < 0]
            if not len(left):
                break
    return chosen


def _matching(
    places: np.ndarray,
    equal: Pairs,
    near: Pairs,
    rows: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Return a key for some rows, -1 where none agrees in all that is to be equal.

    Of several the nearest; of those the one a row has, else one drawn by its weight.
    """
    n = len(weights)
    signs = np.zeros((n + len(rows), 1 + len(equal)), dtype=np.int64)
    for k, (of_rows, of_keys) in enumerate(equal):
        signs[:n, k], signs[n:, k] = of_keys, of_rows[rows]
    groups = np.unique(signs, axis=0, return_inverse=True)[1].ravel()
    is_there = np.isin(groups[n:], groups[:n])
    if near:
        groups = _nearest_points(groups, near, rows, n)
    drawn = _drawn(groups[:n], groups[n:], weights, rng)
    own = places[rows]
    keeps = (own >= 0) & (groups[:n][own] == groups[n:])
    return np.where(is_there, np.where(keeps, own, drawn), -1)


def _nearest_points(
    groups: np.ndarray, near: Pairs, rows: np.ndarray, n: int
) -> np.ndarray:
    """Return points in place of groups: of each row the nearest that keys have."""
    scores = [np.concatenate([of_keys, of_rows[rows]]) for of_rows, of_keys in near]
    points = np.column_stack([_FAR * groups, *scores])
    distinct, of_keys = np.unique(points[:n], axis=0, return_inverse=True)
    of_rows = KDTree(distinct).query(points[n:])[1]
    return np.concatenate([of_keys.ravel(), of_rows])


def _drawn(
    of_keys: np.ndarray,
    of_rows: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Return one of the keys of a group for each row, some key where there is none."""
    order = np.lexsort((-weights, of_keys))
    first, stop = (
        np.searchsorted(of_keys[order], of_rows, side=side)
        for side in ("left", "right")
    )
    running = np.concatenate([[0.0], np.cumsum(weights[order])])
    share = np.zeros(len(of_rows)) if rng is None else rng.random(len(of_rows))
    aim = running[first] + share * (running[stop] - running[first])
    place = np.searchsorted(running, aim, side="right") - 1
    place = np.clip(place, first, np.maximum(stop - 1, first))
    return order[np.minimum(place, len(order) - 1)]
