"""Levels that never come together in training rows, though their shares are large.

A model of few rows has hardly learned that, and draws people who travel alone with
their families. How unlikely such a pair is can be counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np

from skvae._table._mixture import one_hot

# Rows that independent columns would have of a pair, from which on it counts that there
# are none; rows from which on models learn it by themselves, and columns from which on
# none hears another.
_MIN_EXPECTED, MAX_ROWS, _MAX_COLUMNS = 6.0, 2000, 256
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
    too: a loan has an amount and a rate, or neither.

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
    n, d = codes.shape
    if n > MAX_ROWS or d > _MAX_COLUMNS:
        return []
    rows = one_hot(codes, sizes)
    asked = rows.sum(axis=0) >= _MIN_EXPECTED
    asked[list(left_out)] = False
    members = [[place] for place in np.flatnonzero(asked).tolist()]
    members += _known_codes(sizes, missing_codes, asked)
    owner = np.repeat(np.arange(len(members)), [len(own) for own in members])
    places = np.concatenate([np.empty(0, dtype=np.int64), *members]).astype(np.int64)
    kinds = one_hot(owner[:, None], [len(members)]).T
    some = (kinds @ rows[:, places].T).T
    counts = some.sum(axis=0)
    column = np.repeat(np.arange(d), sizes)[[own[0] for own in members]]
    together = (some.T @ some).toarray()
    expected = np.outer(counts, counts) / n
    never = (together == 0) & (expected >= _MIN_EXPECTED)
    pairs = np.argwhere(never & (column[:, None] < column))
    length = np.array([len(own) for own in members])
    if length[pairs].prod(axis=1).sum() > _MAX_PAIRS:
        pairs = pairs[length[pairs].max(axis=1) == 1]
    found: dict[tuple[int, int], float] = {}
    for a, b in pairs.tolist():
        nats = float(np.log1p(expected[a, b]))
        # What holds for all known codes, which come last, says more than one of them.
        found |= dict.fromkeys(product(members[a], members[b]), nats)
    return [(*pair, nats) for pair, nats in found.items()]


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
