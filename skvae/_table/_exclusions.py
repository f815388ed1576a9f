"""Levels that never come together in training rows, though their shares are large.

A model of few rows has hardly learned that, and draws people who travel alone with
their families. How unlikely such a pair is can be counted.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from skvae._table._mixture import one_hot

# Rows that independent columns would have of a pair, from which on it counts that there
# are none; rows from which on models learn it by themselves, and columns from which on
# none hears another.
_MIN_EXPECTED, MAX_ROWS, _MAX_COLUMNS = 6.0, 2000, 256


def find_exclusions(
    codes: np.ndarray, sizes: np.ndarray, left_out: Iterable[int]
) -> list[tuple[int, int, float]]:
    r"""Find pairs of codes that no training row has.

    With e rows expected of independent columns a pair is taken to be 1 + e times as
    rare as by chance.

    Parameters
    ----------
    codes : ndarray of shape (n_rows, n_columns)
        Codes of the training rows.
    sizes : ndarray of shape (n_columns,)
        Codes of each column.
    left_out : iterable of int
        Positions, among all codes, of those that are not asked.

    Returns
    -------
    exclusions : list of (int, int, float)
        Positions of two codes, the first one further left, and :math:`\log(1 + e)`.
    """
    n, d = codes.shape
    if n > MAX_ROWS or d > _MAX_COLUMNS:
        return []
    rows = one_hot(codes, sizes)
    counts = rows.sum(axis=0)
    column = np.repeat(np.arange(len(sizes)), sizes)
    asked = counts >= _MIN_EXPECTED
    asked[list(left_out)] = False
    places = np.flatnonzero(asked)
    some, counts, column = rows[:, places], counts[places], column[places]
    together = (some.T @ some).toarray()
    expected = np.outer(counts, counts) / n
    never = (together == 0) & (expected >= _MIN_EXPECTED)
    first, second = np.nonzero(never & (column[:, None] < column))
    nats = np.log1p(expected[first, second])
    return list(
        zip(places[first].tolist(), places[second].tolist(), nats.tolist(), strict=True)
    )
