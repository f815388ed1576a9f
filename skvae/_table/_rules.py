"""Rules between the values of a row, which codes are too coarse for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skvae._table._calendar import (
    DatePart,
    find_date_parts,
    follow_dates,
    move_dates,
)
from skvae._table._dependence import Derived
from skvae._table._draft import Draft
from skvae._table._gaps import Gap, close_gaps
from skvae._table._joint import JointColumn
from skvae._table._lookups import Lookup, choose_keys, find_lookups, follow_keys
from skvae._table._orders import Order, find_orders, keep_orders
from skvae._table._products import Product, find_products, multiply
from skvae._table._sums import Sum, add_up, find_sums

_KINDS: dict[str, Any] = {
    "date_parts": DatePart,
    "sums": Sum,
    "lookups": Lookup,
    "products": Product,
    "orders": Order,
}


@dataclass
class Rules:
    """What decoded values are made to agree with.

    Parameters
    ----------
    gaps : list of Gap
        Columns coded as their difference from another one.
    derived : list of Derived
        Columns whose codes follow from those of another one.
    date_parts : list of DatePart
        Columns that a date tells.
    sums : list of Sum
        Columns that are the sum of others.
    lookups : list of Lookup
        Columns that the values of another one tell.
    products : list of Product
        Columns that are products of others.
    orders : list of Order
        Columns that are nowhere below another one.
    """

    gaps: list[Gap] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    date_parts: list[DatePart] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    @classmethod
    def find(
        cls,
        columns: list[Any],
        cells: list[Any],
        codes: np.ndarray,
        gaps: list[Gap],
        derived: list[Derived],
        joint: list[JointColumn],
    ) -> Rules:
        """Find the rules that training rows keep to.

        Parameters
        ----------
        columns : list
            The fitted columns.
        cells : list of array-like
            Their training cells.
        codes : ndarray of shape (n_rows, n_columns)
            The codes of those.
        gaps : list of Gap
            Columns coded as their difference from another one.
        derived : list of Derived
            Columns whose codes follow from those of another one.
        joint : list of JointColumn
            Patterns of several columns.

        Returns
        -------
        rules : Rules
            A column follows from others by one rule only.
        """
        own = cls(gaps, derived)
        patterns = {j for column in joint for j in column.members}
        own.date_parts = find_date_parts(columns, cells, codes, _children(gaps))
        bound = both_of(gaps) | _children(derived) | _children(own.date_parts)
        # Only numbers follow a number that gives way.
        others = (e for e in derived if columns[e.child].kind != "numeric")
        bound |= {entry.parent for entry in others}
        own.sums = find_sums(columns, cells, bound)
        dates = {entry.parent for entry in own.date_parts}
        bound = (own.columns - dates) | patterns
        own.lookups = find_lookups(columns, cells, codes, derived, bound)
        free = set(range(len(columns)))
        free -= both_of(derived) | both_of(gaps) | both_of(own.date_parts)
        totals = {entry.total for entry in own.sums}
        free_children = free - _children(own.lookups) - totals
        factors = free - own.sum_columns
        own.products = find_products(columns, cells, free_children, factors)
        told = [*derived, *own.lookups, *gaps, *own.products, *own.date_parts]
        bound = _children(told) | own.sum_columns | patterns
        own.orders = find_orders(columns, cells, bound)
        return own

    @property
    def sum_columns(self) -> set[int]:
        """Totals and their parts, and what follows from them."""
        own = {j for entry in self.sums for j in entry.columns}
        return own | {entry.child for entry in self.derived if entry.parent in own}

    @property
    def columns(self) -> set[int]:
        """Columns whose values have to agree with each other."""
        made = {j for entry in self.products for j in (entry.child, *entry.factors)}
        ordered = {j for entry in self.orders for j in (entry.below, entry.above)}
        told = both_of([*self.gaps, *self.date_parts, *self.lookups])
        return self.sum_columns | made | ordered | told

    def agree(self, draft: Draft) -> None:
        """Make values agree with what is known and with each other, in place."""
        move_dates(self.date_parts, draft)
        dated = {entry.parent for entry in self.date_parts}
        choose_keys([e for e in self.lookups if e.parent not in dated], draft)
        keep_orders(self.orders, draft)
        close_gaps(self.gaps, draft)
        follow_dates(self.date_parts, draft)
        follow_keys(self.lookups, draft)
        multiply(self.products, draft)
        add_up(self.sums, self.derived, draft)

    def to_dict(self) -> dict[str, Any]:
        """Return the rules as plain values, those of codes apart."""
        return {n: [entry.to_dict() for entry in getattr(self, n)] for n in _KINDS}

    @classmethod
    def from_dict(
        cls, state: dict[str, Any], gaps: list[Gap], derived: list[Derived]
    ) -> Rules:
        """Make the rules from plain values."""
        own = {n: [kind(**e) for e in state[n]] for n, kind in _KINDS.items()}
        return cls(gaps, derived, **own)


def both_of(entries: Iterable[Any]) -> set[int]:
    """Return the columns of pairs of a parent and a child."""
    return {j for entry in entries for j in (entry.parent, entry.child)}


def _children(entries: Iterable[Any]) -> set[int]:
    return {entry.child for entry in entries}
