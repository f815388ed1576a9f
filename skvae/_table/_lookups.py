"""Columns that the values of another one tell: a city by its zip code.

Codes are too coarse for that where they stand for several values: a bin, or the rare
levels of a category. What a value tells is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skvae._table._clues import DRAWN, KNOWN, SILENT, Clue, agreeing
from skvae._table._dependence import Derived
from skvae._table._draft import Draft
from skvae._table._joint import JointColumn

# Rows that most pairs of columns are told apart by.
_SCREENED = 2048
# Share of rows that may be otherwise: slips of whoever wrote the table. Rows beyond one
# a key, and nats that keys save, from which on a rule is believed.
_EXCEPTIONS, _MIN_EVIDENCE, _LEAST_GAIN = 0.01, 30, 25.0
# Weight at least of a number among those that a key is to be near.
_LEAST_WORTH = 0.05


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
    worth : tuple of float, default=(1.0, 1.0)
        Largest correlation of the child, and of the parent, with numbers that the
        parent does not tell.
    """

    child: int
    parent: int
    keys: np.ndarray
    weights: np.ndarray
    told: np.ndarray
    has_gaps: bool
    worth: tuple[float, float] = (1.0, 1.0)

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Return the place of each value among the keys, -1 if it is not there."""
        places = np.searchsorted(self.keys, numbers).clip(0, len(self.keys) - 1)
        return np.where(self.keys[places] == numbers, places, -1)


def find_lookups(
    columns: list[Any],
    cells: list[Any],
    codes: np.ndarray,
    derived: list[Derived],
    bound: set[int],
    joint: Iterable[JointColumn] = (),
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
    joint : iterable of JointColumn, default=()
        Patterns of several columns, put after all of them. What tells the pattern
        tells each of those.

    Returns
    -------
    lookups : list of Lookup
        No column is told by two, and none that is told tells another.
    """
    free = [j for j in range(len(columns)) if j not in bound]
    numbers = {j: columns[j].numbers(cells[j]) for j in free}
    patterns = _patterns(columns, cells, codes, derived, joint)
    numbers |= {j: own.of_rows for j, own in patterns.items()}
    n_values = {j: _n_distinct(own) for j, own in numbers.items()}
    parents = [j for j in free if columns[j].is_discrete and n_values[j] > 1]
    if not parents:
        return []
    coarse = {j for j in free if n_values[j] > _n_codes(codes[:, j], numbers[j])}
    pairs = {(entry.parent, entry.child) for entry in derived}
    # What follows from a code is told already, where codes hold one value each.
    told_by_codes = {pair for pair in pairs if coarse.isdisjoint(pair)}
    search = _Search(numbers, n_values, told_by_codes, len(columns))
    found: dict[int, Lookup] = {}
    # The finest first; of two that tell each other the left one is the parent.
    for parent in sorted(parents, key=lambda j: (-n_values[j], j)):
        if parent not in found:
            taken = {entry.parent for entry in found.values()} | found.keys()
            found |= search.lookups(parent, taken | {parent})
    for j, own in patterns.items():
        if j in found:
            found |= own.told_by(found.pop(j))
    return _with_followers(found, derived)


@dataclass(frozen=True)
class _Search:
    """What lookups are searched for in.

    Parameters
    ----------
    numbers : dict of int to ndarray of shape (n_rows,)
        Cells of each column as numbers, NaN where they are missing.
    n_values : dict of int to int
        Distinct numbers of each.
    told_by_codes : set of (int, int)
        Parents and children that are not asked.
    n_columns : int
        Columns of the table.
    """

    numbers: dict[int, np.ndarray]
    n_values: dict[int, int]
    told_by_codes: set[tuple[int, int]]
    n_columns: int

    def lookups(self, parent: int, taken: set[int]) -> dict[int, Lookup]:
        """Return the columns that a column tells, but for those that are taken."""
        own = self.numbers[parent]
        rows = np.flatnonzero(~np.isnan(own))
        rows = rows[np.argsort(own[rows], kind="stable")]
        keys, found = own[rows], {}
        for child in sorted(self._steady(parent, rows) - taken):
            n_keys, n_values = self.n_values[parent], self.n_values[child]
            asked = (parent, child) not in self.told_by_codes
            if not (asked and _is_worth_a_look(n_keys, n_values, len(rows))):
                continue
            told = _told(keys, self.numbers[child][rows], self.n_columns)
            if told is not None:
                found[child] = Lookup(child, parent, *told)
        return found

    def _steady(self, parent: int, rows: np.ndarray) -> set[int]:
        """Return the columns that seldom change from row to row where a key stays."""
        some = rows[:_SCREENED]
        table = np.column_stack([numbers[some] for numbers in self.numbers.values()])
        places = list(self.numbers)
        return {places[k] for k in _hardly_changing(self.numbers[parent][some], table)}


def _n_codes(codes: np.ndarray, numbers: np.ndarray) -> int:
    """Return how many codes the known values of a column have."""
    return len(np.unique(codes[~np.isnan(numbers)]))


def _is_worth_a_look(n_keys: int, n_values: int, n_rows: int) -> bool:
    """Tell whether so many keys of some rows can tell so many values.

    A key of hardly more than one row is nobody's rule, unless the values are names.
    """
    return 1 < n_values <= n_keys <= max(n_rows / 2, 2 * n_values)


def weighed_lookups(
    lookups: list[Lookup],
    columns: list[Any],
    cells: list[Any],
    codes: np.ndarray,
    derived: list[Derived],
) -> list[Lookup]:
    """Return lookups with what their columns have to do with the rest of the table.

    A number that says nothing of the rest, such as a running one, need not be near.
    """
    graded = [j for j, column in enumerate(columns) if len(column.bins)]
    families = {e.parent: {e.parent} for e in lookups}
    for entry in lookups:
        families[entry.parent].add(entry.child)
    if all(len(own & {*graded}) < 2 for own in families.values()):
        return lookups
    rows = np.linspace(0, len(codes) - 1, min(len(codes), _SCREENED)).astype(int)
    scores = [columns[j].scores(cells[j], codes[:, j])[rows] for j in graded]
    told = np.zeros((len(columns), len(columns)))
    with np.errstate(divide="ignore", invalid="ignore"):
        told[np.ix_(graded, graded)] = np.nan_to_num(np.abs(np.corrcoef(scores)))
    followers = {entry.child for entry in derived}
    worth = {}
    for parent, own in families.items():
        others = [j for j in graded if j not in own | followers]
        if others and len(own & {*graded}) > 1:
            worth[parent] = told[:, others].max(axis=1).clip(_LEAST_WORTH, 1).tolist()
    return [
        replace(e, worth=(worth[e.parent][e.child], worth[e.parent][e.parent]))
        if e.parent in worth
        else e
        for e in lookups
    ]


@dataclass(frozen=True)
class _Patterns:
    """The pattern of some columns as one column.

    Parameters
    ----------
    of_rows : ndarray of shape (n_rows,)
        Pattern of each training row.
    values : dict of int to ndarray of shape (n_patterns,)
        Numbers of each column that follows from the pattern.
    """

    of_rows: np.ndarray
    values: dict[int, np.ndarray]

    def told_by(self, entry: Lookup) -> dict[int, Lookup]:
        """Return the columns, told by what tells their pattern."""
        pattern = entry.told.astype(np.int64)
        return {
            j: replace(entry, child=j, told=own[pattern])
            for j, own in self.values.items()
        }


def _patterns(
    columns: list[Any],
    cells: list[Any],
    codes: np.ndarray,
    derived: list[Derived],
    joint: Iterable[JointColumn],
) -> dict[int, _Patterns]:
    """Return the patterns of joint columns that tell the values of all they lead."""
    found = {}
    for j, column in enumerate(joint, start=len(columns)):
        of_rows = column.encode(codes)
        first = np.unique(of_rows, return_index=True)[1]
        values = {}
        for child in (e.child for e in derived if e.parent == j):
            numbers = columns[child].numbers(cells[child])
            values[child] = numbers[first]
            # Of a bin the pattern does not tell the value.
            if not np.array_equal(values[child][of_rows], numbers, equal_nan=True):
                break
        else:
            found[j] = _Patterns(of_rows.astype(np.float64), values)
    return found


def _hardly_changing(keys: np.ndarray, some: np.ndarray) -> list[int]:
    """Return the columns of some rows that seldom change where the key stays."""
    most = len(some)
    same = np.flatnonzero(keys[1:] == keys[:-1])
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
        clues = [Clue.of(column, numbers[rows], keys).weighed(own[0].worth[1])]
        for entry in own:
            said = draft.numbers(entry.child)[rows]
            state = np.where(draft.is_open(entry.child)[rows], DRAWN, KNOWN)
            if entry.has_gaps:
                state[np.isnan(said)] = SILENT
            child = draft.column(entry.child)
            clue = Clue.of(child, said, entry.told, state)
            clues.append(clue.weighed(entry.worth[0]))
        places = own[0].places(numbers[rows])
        places = agreeing(places, clues, own[0].weights, draft.rng)
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
