"""Rules between the values of a row, which codes are too coarse for."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from skvae._table._calendar import (
    DatePart,
    find_date_parts,
    follow_dates,
    move_dates,
)
from skvae._table._chains import (
    Numbers,
    as_hints,
    candidate_of,
    connected,
    find_candidates,
    ordered,
    spare_repeated,
)
from skvae._table._dependence import Derived, telling_values
from skvae._table._draft import Draft
from skvae._table._formulas import Formula, settle
from skvae._table._gaps import Gap, close_gaps
from skvae._table._joint import JointColumn
from skvae._table._lookups import (
    Lookup,
    choose_keys,
    find_lookups,
    follow_keys,
    weighed_lookups,
)
from skvae._table._orders import Order, find_orders, keep_orders
from skvae._table._products import Product, find_products, find_rates, multiply
from skvae._table._sums import Sum, add_up, find_sums

_KINDS: dict[str, Any] = {
    "date_parts": DatePart,
    "sums": Sum,
    "lookups": Lookup,
    "products": Product,
    "orders": Order,
    "formulas": Formula,
    "hints": Formula,
}


@dataclass
class Rules:
    """What decoded values are made to agree with.

    Parameters
    ----------
    gaps : list of Gap
        Columns coded as their difference from another one.
    derived : list of Derived
        Columns whose codes follow from the values of another one.
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
    formulas : list of Formula
        Columns of numbers that others tell, where one has a part in several rules.
    hints : list of Formula
        Formulas that follow from those.
    """

    gaps: list[Gap] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    date_parts: list[DatePart] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    formulas: list[Formula] = field(default_factory=list)
    hints: list[Formula] = field(default_factory=list)

    @classmethod
    def find(
        cls,
        columns: list[Any],
        cells: list[Any],
        codes: np.ndarray,
        gaps: list[Gap],
        derived: list[Derived],
        joint: list[JointColumn],
        came: list[Any],
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
        came : list of array-like
            The training cells before differences were taken.

        Returns
        -------
        rules : Rules
            A column follows from others by one rule only.
        """
        # A value that moves stays known: what tells no more than that leaves it free.
        own = cls(gaps, telling_values(derived, columns))
        patterns = {j for column in joint for j in column.members}
        own.date_parts = find_date_parts(columns, cells, codes, _children(gaps))
        bound = both_of(gaps) | _children(derived) | _children(own.date_parts)
        # Only numbers follow a number that gives way.
        others = (e for e in own.derived if columns[e.child].kind != "numeric")
        bound |= {entry.parent for entry in others}
        own.sums = find_sums(columns, cells, bound)
        dates = {entry.parent for entry in own.date_parts}
        bound = (own.columns - dates) | patterns
        lookups = find_lookups(columns, cells, codes, derived, bound, joint)
        own.lookups = weighed_lookups(lookups, columns, cells, codes, derived)
        free = set(range(len(columns)))
        free -= _children(derived) | both_of(own.derived)
        free -= both_of(gaps) | both_of(own.date_parts)
        totals = {entry.total for entry in own.sums}
        free_children = free - _children(own.lookups) - totals
        factors = free - own.sum_columns
        own.products = find_products(columns, cells, free_children, factors)
        flags = _children(derived) - _children(own.derived)
        own._find_chain(columns, came, patterns | flags)
        linked = [entry for entry in own.derived if entry.direction]
        own.products += find_rates(columns, cells, linked, own.columns | patterns)
        told = [*derived, *own.lookups, *gaps, *own.products, *own.date_parts]
        told += own.formulas
        bound = _children(told) | own.sum_columns | patterns
        own.orders = find_orders(columns, cells, bound)
        return own

    def _find_chain(
        self, columns: list[Any], cells: list[Any], apart: set[int]
    ) -> None:
        """Find numbers with a part in several rules; their formulas replace these."""
        # Columns as they came: that of a gap's end holds differences.
        ends = {gap.child: gap.column for gap in self.gaps}
        columns = [ends.get(j, column) for j, column in enumerate(columns)]
        numeric = {j for j, own in enumerate(columns) if own.kind == "numeric"}
        numbers = Numbers.of(
            columns, cells, numeric - apart - _children(self.date_parts)
        )
        candidates = find_candidates(numbers)
        if not candidates:
            return
        rules: list[Sum | Product] = [*self.sums, *self.products]
        candidates += [candidate_of(rule) for rule in rules]
        spare_repeated(candidates, columns)
        gaps = [gap for gap in self.gaps if gap.child in numbers.cells]
        links = _within(numbers.cells.keys(), self.derived)
        firm = both_of(_not_within(numeric, [*self.derived, *self.lookups]))
        old = {frozenset(rule.columns) for rule in rules}
        while True:
            chain, left = ordered(candidates, gaps, links, firm)
            self.formulas, own = connected(chain, old)
            # What is looked up, or tells that, stays as it is.
            bound = (own & both_of(_not_within(own, self.lookups))) - firm
            if not bound:
                break
            firm |= bound
        self.hints = as_hints(left, self.formulas)
        self.sums = [e for e in self.sums if e.total not in own]
        self.products = [e for e in self.products if e.child not in own]
        self.lookups = _not_within(own, self.lookups)

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
        chained = {j for entry in self.formulas for j in entry.columns}
        return self.sum_columns | made | ordered | told | chained

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
        self._meet_known(draft)
        add_up(self.sums, self.derived, draft)
        settle(self.formulas, self.hints, self.derived, draft)

    def _meet_known(self, draft: Draft) -> None:
        """Try more than one factor, where a known product needs that."""
        made = [entry.columns for entry in self.products]
        if any(not draft.is_open(j).all() for own in made for j in own):
            forms = [candidate_of(entry).forms[0] for entry in self.products]
            forms = [replace(form, movable=form.inputs) for form in forms]
            settle(forms, [], self.derived, draft)

    def to_dict(self) -> dict[str, Any]:
        """Return the rules as plain values, those of codes apart."""
        return {n: [dict(vars(e)) for e in getattr(self, n)] for n in _KINDS}

    @classmethod
    def from_dict(
        cls, state: dict[str, Any], gaps: list[Gap], derived: list[Derived]
    ) -> Rules:
        """Make the rules from plain values."""
        own = {n: [kind(**e) for e in state.get(n, [])] for n, kind in _KINDS.items()}
        return cls(gaps, derived, **own)


def both_of(entries: Iterable[Any]) -> set[int]:
    """Return the columns of pairs of a parent and a child."""
    return {j for entry in entries for j in (entry.parent, entry.child)}


def _within(columns: Set[int], entries: Iterable[Any]) -> list[Any]:
    """Return the pairs of which both columns are among some."""
    return [entry for entry in entries if {entry.parent, entry.child} <= columns]


def _not_within(columns: Set[int], entries: Iterable[Any]) -> list[Any]:
    """Return the other pairs."""
    return [entry for entry in entries if not {entry.parent, entry.child} <= columns]


def _children(entries: Iterable[Any]) -> set[int]:
    return {entry.child for entry in entries}
