"""Columns that the values of another one tell: a city by its zip code.

Codes are too coarse for that where they stand for several values: a bin, or the rare
levels of a category. What a value tells is looked up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from skvae._table._dependence import determines

# Rows that most pairs of columns are told apart by.
_SCREENED = 2048
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
        The value of the child beside each, NaN for a missing cell.
    """

    child: int
    parent: int
    keys: np.ndarray
    weights: np.ndarray
    told: np.ndarray

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Return the place of each value among the keys, -1 if it is not there."""
        places = np.searchsorted(self.keys, numbers).clip(0, len(self.keys) - 1)
        return np.where(self.keys[places] == numbers, places, -1)

    def to_dict(self) -> dict[str, Any]:
        """Return the lookup as plain values."""
        return dict(vars(self))


def find_lookups(
    columns: list[Any], cells: list[Any], codes: np.ndarray, bound: set[int]
) -> list[Lookup]:
    """Find the columns that the values of another one tell in all training rows.

    Parameters
    ----------
    columns : list
        The fitted columns.
    cells : list of array-like
        Their training cells.
    codes : ndarray of shape (n_rows, n_columns)
        The codes of those.
    bound : set of int
        Columns whose values have to agree with others already.

    Returns
    -------
    lookups : list of Lookup
        No column is told by two, and none that is told tells another.
    """
    parents = [
        j
        for j in range(len(columns))
        if j not in bound
        and _has_values_beyond_codes(columns[j], cells[j], codes[:, j])
    ]
    if not parents:
        return []
    numbers = {
        j: columns[j].numbers(cells[j]) for j in range(len(columns)) if j not in bound
    }
    distinct = {j: _n_distinct(own) for j, own in numbers.items()}
    found: dict[int, Lookup] = {}
    # The finest first; of two that tell each other the left one is the parent.
    for parent in sorted(parents, key=lambda j: (-distinct[j], j)):
        if parent in found:
            continue
        known = np.flatnonzero(~np.isnan(numbers[parent]))
        rows = known[np.argsort(numbers[parent][known], kind="stable")]
        keys = numbers[parent][rows]
        taken = {entry.parent for entry in found.values()} | found.keys() | {parent}
        for child in sorted(numbers.keys() - taken):
            values = numbers[child][rows]
            if (
                1 < distinct[child] <= distinct[parent]
                # A value of hardly more than one row is nobody's rule, but a name is.
                and distinct[parent] <= max(len(keys) / 2, 2 * distinct[child])
                and _tells(keys, values, len(columns))
            ):
                first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
                counts = np.diff(np.r_[first, len(keys)]).astype(np.float64)
                entry = Lookup(child, parent, keys[first], counts, values[first])
                found[child] = entry
    return list(found.values())


def _has_values_beyond_codes(column: Any, cells: Any, codes: np.ndarray) -> bool:
    """Tell whether codes of a column stand for several values that are drawn again."""
    if not column.is_discrete:
        return False
    return _n_distinct(column.numbers(cells)) > len(np.unique(codes[codes >= 0]))


def _n_distinct(numbers: np.ndarray) -> int:
    return len(np.unique(numbers[~np.isnan(numbers)]))


def _tells(keys: np.ndarray, values: np.ndarray, n_columns: int) -> bool:
    """Tell whether sorted keys determine values, not by chance."""
    for most in (min(_SCREENED, len(keys)), len(keys)):
        same = keys[1:most] == keys[: most - 1]
        left, right = values[: most - 1][same], values[1:most][same]
        if not ((left == right) | (np.isnan(left) & np.isnan(right))).all():
            return False
    pair = [np.unique(own, return_inverse=True)[1] for own in (keys, values)]
    return determines(np.column_stack(pair), (-1, -1), n_columns)


def choose_keys(
    lookups: list[Lookup],
    values: list[Any],
    column_of: Callable[[int], Any],
    told: dict[int, pd.Series],
    rng: np.random.Generator | None,
) -> None:
    """Replace drawn values by others that tell what the row says.

    Parameters
    ----------
    lookups : list of Lookup
        Columns that others tell.
    values : list of array-like
        Drawn values of all columns, changed in place.
    column_of : callable
        Returns a column by its position.
    told : dict of int to Series
        Cells of their columns that are known.
    rng : Generator or None
        Chooses among several; None takes the most frequent.
    """
    for parent in sorted({entry.parent for entry in lookups}):
        own = [entry for entry in lookups if entry.parent == parent]
        column, keys = column_of(parent), own[0].keys
        numbers = column.numbers(values[parent])
        rows = np.flatnonzero(_is_open(told, parent, len(numbers)) & ~np.isnan(numbers))
        if not len(rows):
            continue
        clues = [_Clue.of(column, numbers[rows], keys)]
        for entry in own:
            child = column_of(entry.child)
            said = _with_known(child, values, told, entry.child)[rows]
            known = ~_is_open(told, entry.child, len(numbers))[rows]
            clues.append(_Clue.of(child, said, entry.told, known))
        places = _agreeing(own[0].places(numbers[rows]), clues, own[0].weights, rng)
        moved = numbers.copy()
        moved[rows] = np.where(places >= 0, keys[places], numbers[rows])
        values[parent] = column.cells_of(moved)


def follow_keys(
    lookups: list[Lookup],
    values: list[Any],
    column_of: Callable[[int], Any],
    told: dict[int, pd.Series],
) -> None:
    """Make columns agree with the values that tell them; see `choose_keys`."""
    for entry in lookups:
        child, parent = column_of(entry.child), column_of(entry.parent)
        numbers = child.numbers(values[entry.child])
        places = entry.places(_with_known(parent, values, told, entry.parent))
        follows = (places >= 0) & _is_open(told, entry.child, len(numbers))
        # What is to be filled is not filled with a gap.
        asked = ~_is_open(told, entry.parent, len(numbers))
        follows &= ~(asked & np.isnan(entry.told[places]))
        if follows.any():
            numbers = np.where(follows, entry.told[places], numbers)
            values[entry.child] = child.cells_of(numbers)


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
    known : ndarray of shape (n_rows,)
        Whether the value of the row is known, and not only drawn.
    """

    codes: tuple[np.ndarray, np.ndarray]
    values: tuple[np.ndarray, np.ndarray]
    scores: tuple[np.ndarray, np.ndarray]
    is_graded: bool
    known: np.ndarray

    @classmethod
    def of(
        cls,
        column: Any,
        rows: np.ndarray,
        keys: np.ndarray,
        known: np.ndarray | None = None,
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
            np.zeros(len(rows), dtype=bool) if known is None else known,
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
    known = np.column_stack([clue.known for clue in clues])
    for pattern in np.unique(known, axis=0):
        firm = [c.values for c, exact in zip(clues, pattern, strict=True) if exact]
        rest = [c for c, exact in zip(clues, pattern, strict=True) if not exact]
        soft = [c.codes for c in rest if not c.is_graded]
        soft.sort(key=lambda pair: len(np.unique(pair[1])))
        near = [c.scores for c in rest if c.is_graded]
        trials: list[tuple[Pairs, Pairs]] = []
        if near:
            trials.append((firm + [c.codes for c in rest], []))
        trials += [(firm + soft[:used], near) for used in range(len(soft), -1, -1)]
        left = np.flatnonzero((known == pattern).all(axis=1))
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


def _is_open(told: dict[int, pd.Series], j: int, n: int) -> np.ndarray:
    return told[j].isna().to_numpy() if j in told else np.ones(n, dtype=bool)


def _with_known(
    column: Any, values: list[Any], told: dict[int, pd.Series], j: int
) -> np.ndarray:
    """Return the values of a column as numbers, known cells first."""
    numbers = column.numbers(values[j])
    if j not in told:
        return numbers
    known = column.numbers(told[j])
    return np.where(np.isnan(known), numbers, known)
