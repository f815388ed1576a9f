"""Levels that never come together in training rows, though their shares are large.

A model of few rows has hardly learned that, and draws people who travel alone with
their families. How unlikely such a pair is can be counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

import numpy as np

from skvae._table._mixture import one_hot

# Rows that independent columns would have of a pair, from which on it counts that there
# are none; rows from which on models learn it by themselves, and columns from which on
# none has a context.
_MIN_EXPECTED, MAX_ROWS, _MAX_COLUMNS = 6.0, 2000, 256
# Of many rows only missing cells are asked: they follow a rule, or come by chance. And
# rows that are looked at.
_MIN_EXPECTED_OF_MANY, _ROWS = 20.0, 50_000
# Rows that independent columns would have equal, from which on it counts that none is.
_MIN_EQUAL = 30.0
# Pairs up to which those of all known codes of a column are listed.
_MAX_PAIRS = 1 << 16


def find_exclusions(
    codes: np.ndarray,
    sizes: np.ndarray,
    left_out: Iterable[int],
    missing_codes: Iterable[int] = (),
) -> list[tuple[int, int, float]]:
    r"""Find pairs of codes that no training row has.

    With e rows expected of independent columns a pair is taken to be 1 + e times as
    rare as by chance. All that a cell can be when it is not missing counts as one code,
    too: a loan has an amount and a rate, or neither. Of many rows only pairs with a
    missing cell, or with all that it can be otherwise, are found.

    Parameters
    ----------
    codes : ndarray of shape (n_rows, n_columns)
        Codes of the training rows.
    sizes : ndarray of shape (n_columns,)
        Codes of each column.
    left_out : iterable of int
        Positions, among all codes, of those that are not asked.
    missing_codes : iterable of int, default=()
        Code of a missing cell in each column, -1 if it has none.

    Returns
    -------
    exclusions : list of (int, int, float)
        Positions of two codes, the first one further left, and :math:`\log(1 + e)`.
    """
    missing_codes = [int(code) for code in missing_codes]
    many = len(codes) > MAX_ROWS
    has_gaps = max(missing_codes, default=-1) >= 0
    if codes.shape[1] > _MAX_COLUMNS or (many and not has_gaps):
        return []
    codes = codes[np.linspace(0, len(codes) - 1, min(len(codes), _ROWS)).astype(int)]
    n, d = codes.shape
    least = _MIN_EXPECTED_OF_MANY if many else _MIN_EXPECTED
    rows = one_hot(codes, sizes)
    asked = rows.sum(axis=0) >= least
    asked[list(left_out)] = False
    # Events: a row has one code, or any of the known codes of a column.
    events = [[place] for place in np.flatnonzero(asked).tolist()]
    events += _known_codes(sizes, missing_codes, asked)
    happens = _rows_of_events(events, rows)
    counts = happens.sum(axis=0)
    first = np.arange(len(events))
    if many:
        first = first[_about_gaps(events, sizes, missing_codes)]
    together = (happens[:, first].T @ happens).toarray()
    expected = np.outer(counts[first], counts) / n
    never = np.argwhere((together == 0) & (expected >= least))
    pairs = np.column_stack([first[never[:, 0]], never[:, 1]])
    column = np.repeat(np.arange(d), sizes)[[own[0] for own in events]]
    pairs = _from_left_to_right(pairs, column)
    length = np.array([len(own) for own in events])
    if length[pairs].prod(axis=1).sum() > _MAX_PAIRS:
        pairs = pairs[length[pairs].max(axis=1) == 1]
    found: dict[tuple[int, int], float] = {}
    for a, b in pairs.tolist():
        nats = float(np.log1p(counts[a] * counts[b] / n))
        # What holds for all known codes, which come last, says more than one of them.
        found |= dict.fromkeys(product(events[a], events[b]), nats)
    return [(*pair, nats) for pair, nats in found.items()]


def _rows_of_events(events: list[list[int]], rows: Any) -> Any:
    """Return which rows have one of the codes of each event, as a sparse matrix."""
    owner = np.repeat(np.arange(len(events)), [len(own) for own in events])
    places = np.concatenate([np.empty(0, dtype=np.int64), *events]).astype(np.int64)
    members = one_hot(owner[:, None], [len(events)]).T
    return (members @ rows[:, places].T).T


def _about_gaps(
    events: list[list[int]], sizes: np.ndarray, missing_codes: list[int]
) -> np.ndarray:
    """Tell which events are that a cell is missing, or that it is not."""
    first = np.cumsum([0, *sizes]).tolist()
    gaps = {a + m for a, m in zip(first, missing_codes, strict=False) if m >= 0}
    return np.array([len(own) > 1 or own[0] in gaps for own in events], dtype=bool)


def _from_left_to_right(pairs: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return pairs of events of two columns, once and that further left first."""
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    return np.unique(pairs[column[pairs[:, 0]] < column[pairs[:, 1]]], axis=0)


def _known_codes(
    sizes: np.ndarray, missing_codes: Iterable[int], asked: np.ndarray
) -> list[list[int]]:
    """Return the positions of all codes but "missing", of columns that have it."""
    known = []
    first = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    for start, stop, missing in zip(first, first[1:], missing_codes, strict=False):
        if missing >= 0 and asked[start + missing]:
            known.append([p for p in range(start, stop) if p != start + missing])
    return [own for own in known if own]


def find_unlike(
    columns: list[Any], codes: np.ndarray, left_out: set[int]
) -> list[tuple[int, int, float]]:
    r"""Find columns that are equal in no row: who plays at home, and who comes.

    Parameters
    ----------
    columns : list
        The fitted columns.
    codes : ndarray of shape (n_rows, n_columns)
        Codes of the training rows.
    left_out : set of int
        Columns that are not asked: those that follow from others, and all but
        categories.

    Returns
    -------
    exclusions : list of (int, int, float)
        Positions of two codes of one value, the first one further left, and
        :math:`\log(1 + e)` where e rows of independent columns would be equal.
    """
    n, d = codes.shape
    asked = [j for j in range(d) if j not in left_out and d <= _MAX_COLUMNS]
    first = np.cumsum([0, *(column.size for column in columns)])
    values = {j: columns[j].values_of_codes() for j in asked}
    shares = {j: np.bincount(codes[:, j], minlength=columns[j].size) for j in asked}
    found = []
    for i, j in combinations(asked, 2):
        both = [v for v in values[i] if v in values[j]]
        a, b = (np.array([values[k][v] for v in both], dtype=int) for k in (i, j))
        expected = float(shares[i][a] @ shares[j][b]) / n
        if expected < _MIN_EQUAL:
            continue
        alike = np.full(columns[i].size, -1)
        alike[a] = b
        if not (alike[codes[:, i]] == codes[:, j]).any():
            places = zip((first[i] + a).tolist(), (first[j] + b).tolist(), strict=True)
            found += [(*pair, float(np.log1p(expected))) for pair in places]
    return found
