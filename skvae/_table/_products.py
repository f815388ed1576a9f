"""Numbers that are the product of others: a price times a quantity, a tax of a net."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from skvae._table._dependence import Derived
from skvae._table._draft import Draft
from skvae._table._numeric import NumericColumn
from skvae._table._sums import slopes_of, whole_rows

# Rows that a rate is found from, at least.
_MIN_ROWS = 50
# How far from 1 the slope of the logarithm of a factor may be, and how many there are.
_OFF, _MAX_FACTORS = 0.25, 3
# Share of rows that may be otherwise, and values that a rule is worth finding for.
_EXCEPTIONS, _MIN_VALUES = 0.01, 10
# Relative error of products without decimals; decimals of a round rate.
_ERROR, _MAX_DECIMALS = 1e-9, 8


@dataclass(frozen=True)
class Product:
    """A column that is a constant times the product of others, rounded.

    Parameters
    ----------
    child : int
        The column.
    factors : list of int
        Columns whose product it is.
    rate : float
        The constant.
    """

    child: int
    factors: list[int]
    rate: float

    @property
    def columns(self) -> list[int]:
        """The column and its factors."""
        return [self.child, *self.factors]


def find_products(
    columns: list[Any], cells: list[Any], children: set[int], factors: set[int]
) -> list[Product]:
    """Find the columns that are products of others in the training rows.

    Parameters
    ----------
    columns : list
        The fitted columns.
    cells : list of array-like
        Their training cells; those of numbers are arrays of floats.
    children, factors : set of int
        Columns that may be a product, and those that may be its factors.

    Returns
    -------
    products : list of Product
        No factor is itself a product that comes later.
    """
    free = [j for j in sorted(children | factors) if _is_positive(columns[j], cells[j])]
    found = _proportional(columns, cells, free, children, factors)
    told = {entry.child for entry in found}
    rest = [j for j in free if j not in told]
    whole = whole_rows(cells, rest) if len(rest) >= 3 else None
    if whole is None:
        return found
    slopes = slopes_of(np.log(whole))
    first: list[Product] = []
    for k, j in enumerate(rest):
        near = [rest[i] for i in np.flatnonzero(np.abs(slopes[k] - 1) < _OFF)]
        taken = {entry.child for entry in first}
        if j in children and 2 <= len(near) <= _MAX_FACTORS and taken.isdisjoint(near):
            rate = rate_of(
                columns[j], cells[j], np.prod([cells[i] for i in near], axis=0)
            )
            if rate is not None and set(near) <= factors:
                first.append(Product(j, near, rate))
    # What is proportional to a product comes after it.
    return first + found


def _is_positive(column: Any, cells: Any) -> bool:
    numeric = isinstance(column, NumericColumn)
    return numeric and column.extent[0] > 0 and has_values(column, cells)


def has_values(column: Any, cells: np.ndarray) -> bool:
    """Tell whether a column of numbers has values enough to be told by others.

    Of few rows many values share a code.
    """
    many = len(column.low) >= _MIN_VALUES
    return many or len(np.unique(cells[~np.isnan(cells)])) >= _MIN_VALUES


def _proportional(
    columns: list[Any],
    cells: list[Any],
    free: list[int],
    children: set[int],
    factors: set[int],
) -> list[Product]:
    """Return the columns that are a rate of another one."""
    found: dict[int, Product] = {}
    for j, i in permutations(free, 2):
        if j not in children or i not in factors or found.keys() & {i, j}:
            continue
        rate = rate_of(columns[j], cells[j], cells[i])
        if rate is not None:
            found[j] = Product(j, [i], rate)
    return list(found.values())


def find_rates(
    columns: list[Any], cells: list[Any], linked: list[Derived], bound: set[int]
) -> list[Product]:
    """Find the rates of columns that rise and fall with another one.

    Ranks within a code lead close to them, a rate to the last decimal.

    Parameters
    ----------
    columns : list
        The fitted columns.
    cells : list of array-like
        Their training cells; those of numbers are arrays of floats.
    linked : list of Derived
        Columns that rise and fall with another one.
    bound : set of int
        Columns whose values already have to agree with others.

    Returns
    -------
    products : list of Product
        Those that all training rows keep to.
    """
    found: list[Product] = []
    for entry in linked:
        pair = [entry.child, entry.parent]
        numeric = all(isinstance(columns[j], NumericColumn) for j in pair)
        if not numeric or not bound.isdisjoint(pair):
            continue
        alone = sum(other.parent == entry.parent for other in linked) == 1
        ways = [pair, pair[::-1]] if alone else [pair]
        rates = [(_exact_rate(columns[j], cells[j], cells[i]), j, i) for j, i in ways]
        kept = [(rate, j, i) for rate, j, i in rates if rate is not None]
        if kept:
            # Of 1.19 and 0.84033613 the first one is meant.
            rate, child, factor = min(kept, key=lambda own: len(repr(own[0])))
            found.append(Product(child, [factor], rate))
    return found


def _exact_rate(column: Any, cells: np.ndarray, given: np.ndarray) -> float | None:
    rate = rate_of(column, cells, given)
    if rate is None:
        return None
    known = ~(np.isnan(cells) | np.isnan(given))
    told = column.rounded(rate * given[known])
    return rate if (np.abs(told - cells[known]) <= _error(cells[known])).all() else None


def _error(cells: np.ndarray) -> Any:
    return _ERROR * np.abs(cells)


def rate_of(column: Any, cells: np.ndarray, product: np.ndarray) -> float | None:
    """Return the rate of which cells are the rounded product, None if there is none."""
    known = ~(np.isnan(cells) | np.isnan(product))
    cells, product = cells[known], product[known]
    tells = product != 0
    if tells.sum() < _MIN_ROWS:
        return None
    half = half_a_unit(column, cells)
    off, own, given = half[tells], cells[tells], product[tells]
    with np.errstate(over="ignore", invalid="ignore"):
        ends = np.sort([(own - off) / given, (own + off) / given], axis=0)
    # Most rows leave the rate a range; a few slips do not count.
    low = np.quantile(ends[0], 1 - _EXCEPTIONS)
    high = np.quantile(ends[1], _EXCEPTIONS)
    if low > high:
        return None
    middle = low / 2 + high / 2
    rounded = (float(np.round(middle, d)) for d in range(_MAX_DECIMALS + 1))
    rate = next((r for r in rounded if low <= r <= high and r != 0), float(middle))
    agrees = np.abs(rate * product - cells) <= half * (1 + 1e-6)
    return rate if agrees.mean() >= 1 - _EXCEPTIONS else None


def half_a_unit(column: Any, cells: np.ndarray) -> np.ndarray:
    """Return how far numbers of a column are from what they were rounded from."""
    error = _error(cells)
    if column.decimals is None:
        return error
    return 0.5 * 10.0**-column.decimals + error


def multiply(products: list[Product], draft: Draft) -> None:
    """Make columns the products of their factors, in rows where one of them is open.

    The product gives way; where it is known, or would leave its range, a factor does
    that stays within its own. The median of a product is not the product of medians:
    where values are not drawn it stays as it is, unless all but one cell are known.

    Parameters
    ----------
    products : list of Product
        Products among the columns.
    draft : Draft
        Rows, changed in place.
    """
    for entry in products:
        child, column = entry.child, draft.column(entry.child)
        open_ = {j: draft.is_open(j) for j in (child, *entry.factors)}
        cells = {j: draft.numbers(j) for j in open_}
        product = column.rounded(entry.rate * _times(cells, entry.factors))
        n_open = sum(own.astype(int) for own in open_.values())
        waiting = n_open >= 1 if draft.rng is not None else n_open == 1
        waiting &= ~np.isnan(product) & ~np.isnan(cells[child])
        waiting &= product != cells[child]
        moves = waiting & open_[child] & column.is_within(product)
        wanted, cells[child] = cells[child], np.where(moves, product, cells[child])
        waiting &= ~moves
        for j in entry.factors if waiting.any() else ():
            number, others = draft.column(j), [i for i in entry.factors if i != j]
            rest = entry.rate * _times(cells, others)
            moved = number.rounded(wanted / rest)
            again = column.rounded(rest * moved)
            fits = open_[j] & number.is_within(moved) & column.is_within(again)
            here = waiting & fits & (open_[child] | (again == wanted))
            cells[j] = np.where(here, moved, cells[j])
            cells[child] = np.where(here, again, cells[child])
            waiting &= ~here
        for j, own in cells.items():
            draft.values[j] = own


def _times(cells: dict[int, np.ndarray], columns: list[int]) -> Any:
    product: Any = 1.0
    for j in columns:
        product = product * cells[j]
    return product
