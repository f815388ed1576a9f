"""Columns that are never below another one: an end after its start, a high price.

In small tables codes of the one that lie below all of a code of the other are next to
impossible from the start; drawn values are made to keep the order in any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from skvae._table._datetime import NANOSECONDS, TimeColumn
from skvae._table._draft import Draft
from skvae._table._exclusions import MAX_ROWS
from skvae._table._gaps import number_of
from skvae._table._numeric import NumericColumn

# Rows of both columns, and rows that independent columns would have the wrong way
# round, from which on an order is believed; of moments, which seldom have none.
_MIN_ROWS, _MIN_EXPECTED = 50, 30.0
_MIN_MOMENTS, _MIN_EXPECTED_OF_MOMENTS = 20, 8.0
# Rows that most pairs of columns are told apart by.
_SCREENED = 512
# Relative error of large numbers; codes of all columns up to which pairs are listed.
_ROUNDING, _MAX_CODES = 1e-15, 4096


@dataclass(frozen=True)
class Order:
    """A column that is nowhere below another one.

    Parameters
    ----------
    above, below : int
        The two columns.
    """

    above: int
    below: int


def find_orders(columns: list[Any], cells: list[Any], bound: set[int]) -> list[Order]:
    """Find the columns that no training row has below another one, not by chance.

    Parameters
    ----------
    columns : list
        The fitted columns.
    cells : list of array-like
        Their training cells.
    bound : set of int
        Columns whose values already follow from others.

    Returns
    -------
    orders : list of Order
        Those that do not follow from others, the lowest columns first.
    """
    asked = [j for j in range(len(columns)) if j not in bound and _kind(columns[j])]
    numbers = {j: absolute(columns[j], columns[j].numbers(cells[j])) for j in asked}
    keeps = np.zeros((len(columns), len(columns)), dtype=bool)
    for kind in {_kind(columns[j]) for j in asked}:
        own = [j for j in asked if _kind(columns[j]) == kind]
        for below, above in _never_crossed([numbers[j] for j in own]):
            i, j = own[below], own[above]
            is_time = isinstance(columns[i], TimeColumn)
            keeps[i, j] = _is_no_chance(numbers[i], numbers[j], is_time)
    # Columns that are nowhere below each other are equal.
    keeps &= ~keeps.T
    steps = keeps.astype(np.int64)
    direct = keeps & ~((steps @ steps) > 0)
    rank = keeps.sum(axis=0)
    pairs = sorted(np.argwhere(direct).tolist(), key=lambda pair: rank[pair[1]])
    return [Order(above, below) for below, above in pairs]


def _never_crossed(numbers: list[np.ndarray]) -> list[tuple[int, int]]:
    """Return the pairs of which the second is nowhere below the first."""
    if len(numbers) < 2:
        return []
    table = np.column_stack(numbers)
    some = table[np.linspace(0, len(table) - 1, min(len(table), _SCREENED)).astype(int)]
    pairs: list[tuple[int, int]] = []
    for i in range(len(numbers)):
        # Missing cells cross nothing.
        crossed = np.asarray(_under(some, some[:, [i]]).any(axis=0))
        possible = np.flatnonzero(~crossed)
        crossed[possible] = _under(table[:, possible], table[:, [i]]).any(axis=0)
        crossed[i] = True
        pairs += [(i, j) for j in np.flatnonzero(~crossed).tolist()]
    return pairs


def _under(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Tell where one is below the other, not by rounding: moments are large numbers."""
    return above < below - _ROUNDING * np.abs(below)


def _is_no_chance(below: np.ndarray, above: np.ndarray, is_time: bool) -> bool:
    both = ~(np.isnan(below) | np.isnan(above))
    n = int(both.sum())
    if n < (_MIN_MOMENTS if is_time else _MIN_ROWS):
        return False
    lower = np.searchsorted(np.sort(above[both]), below[both], side="left")
    expected = _MIN_EXPECTED_OF_MOMENTS if is_time else _MIN_EXPECTED
    return bool(lower.sum() / n >= expected)


def _kind(column: Any) -> Any:
    """Return what two columns share that can be compared, None if nothing can."""
    if isinstance(column, TimeColumn):
        return "time", column.is_duration, column.zone is None
    return "number" if isinstance(column, NumericColumn) else None


def absolute(column: Any, numbers: np.ndarray) -> np.ndarray:
    """Return numbers of a column on a scale that it shares with others."""
    if isinstance(column, TimeColumn):
        return (numbers * column.step + column.origin) * NANOSECONDS[column.unit]
    return numbers


def _own(column: Any, numbers: np.ndarray) -> np.ndarray:
    """Return numbers of the shared scale as those of a column."""
    if isinstance(column, TimeColumn):
        # Moments of another column may be off its steps, but not by rounding.
        stamps = numbers / NANOSECONDS[column.unit]
        return np.round((stamps - column.origin) / column.step, 6)
    return numbers


def crossing_codes(
    orders: list[Order], columns: list[Any], offsets: np.ndarray, n_rows: int
) -> list[tuple[int, int, float]]:
    """Return the codes of two columns that would have the order wrong.

    Parameters
    ----------
    orders : list of Order
        Columns that keep an order.
    columns : list
        The fitted columns.
    offsets : ndarray of shape (n_columns,)
        Position of the first code of each.
    n_rows : int
        Training rows: a pair that none of them has is that rare.

    Returns
    -------
    exclusions : list of (int, int, float)
        Positions of two codes, the first one further left, and nats. Of many rows a
        model learns that by itself.
    """
    pairs: list[tuple[int, int, float]] = []
    if n_rows > MAX_ROWS or sum(column.size for column in columns) > _MAX_CODES:
        return pairs
    for order in orders:
        below, above = (columns[j] for j in (order.below, order.above))
        lowest = absolute(below, number_of(below).low)
        highest = absolute(above, number_of(above).high)
        for a, b in np.argwhere(highest[None] < lowest[:, None]).tolist():
            places = (int(offsets[order.below]) + a, int(offsets[order.above]) + b)
            pairs.append((min(places), max(places), math.log(n_rows)))
    return pairs


def keep_orders(orders: list[Order], draft: Draft) -> None:
    """Move drawn values to where they keep the order of their columns.

    The higher one moves up, or the lower one down where the higher one is known.

    Parameters
    ----------
    orders : list of Order
        Columns that keep an order, the lowest first.
    draft : Draft
        Rows, changed in place.
    """
    moves = [(order.above, order.below, 1) for order in orders]
    if draft.known:
        moves += [(order.below, order.above, -1) for order in reversed(orders)]
    for j, other, side in moves:
        column, numbers = draft.column(j), draft.numbers(j)
        limit = absolute(draft.column(other), draft.numbers(other))
        limit = _own(column, limit)
        rows = np.flatnonzero((side * numbers < side * limit) & draft.is_open(j))
        if len(rows):
            share = np.zeros(len(rows))
            if draft.rng is not None:
                share = draft.rng.random(len(rows))
            moved = column.numbers(draft.values[j]).copy()
            moved[rows] = _beyond(number_of(column), limit[rows], side, share)
            is_time = isinstance(column, TimeColumn)
            cells = column.dates(moved, side) if is_time else column.cells_of(moved)
            draft.values[j] = cells


def _beyond(
    number: NumericColumn, limit: np.ndarray, side: int, share: np.ndarray
) -> np.ndarray:
    """Return values not below a limit, or not above one, from the nearest code."""
    last = len(number.low) - 1
    if side > 0:
        codes = np.searchsorted(number.high, limit).clip(0, last)
        end = number.high[codes]
    else:
        codes = (np.searchsorted(number.low, limit, side="right") - 1).clip(0, last)
        end = number.low[codes]
    rank = number.ranks(limit, codes)
    rank = rank + (1 - rank) * share if side > 0 else rank * (1 - share)
    drawn = number.draw(codes, rank)
    return np.where(side * drawn < side * limit, end, drawn)
