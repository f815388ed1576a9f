"""Numbers that formulas tell, which may themselves be part of other formulas.

A net is a price times a quantity, a tax a rate of the net, and a gross their sum. Each
column is told by one formula at most, from columns that do not depend on it: drawn
values follow from the first formula to the last, and known ones narrow down the others
from the last to the first.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skvae._table._dependence import Derived, follow, follow_back
from skvae._table._draft import Draft
from skvae._table._sums import likely

# Relative error of calculated numbers; levels of a factor that are tried out.
_ERROR, _MAX_LEVELS = 1e-9, 256
# Steps towards a known number through several formulas, the first as a share of the
# range of the column that moves.
_STEPS, _STEP = 3, 0.01


@dataclass(eq=False)
class Formula:
    """A column that others tell.

    Parameters
    ----------
    child : int
        The column.
    inputs : list of int
        Columns that tell it.
    kind : {"product", "sum", "gap", "link"}
        A rate times the product or the sum of the others; one column and a difference
        that is drawn; one column that it rises or falls with.
    rate : float, default=1.0
        The constant.
    signs : list of int
        1 for what a sum adds, -1 for what it takes off.
    rests, shares : ndarray of shape (n_rests,)
        What sums leave in training rows, in rising order, and how often.
    movable : list of int
        Inputs that may give way, in that order.
    """

    child: int
    inputs: list[int]
    kind: str
    rate: float = 1.0
    signs: list[int] = field(default_factory=list)
    rests: np.ndarray = field(default_factory=lambda: np.zeros(1))
    shares: np.ndarray = field(default_factory=lambda: np.ones(1))
    movable: list[int] = field(default_factory=list)

    @property
    def columns(self) -> list[int]:
        """The column and those that tell it."""
        return [self.child, *self.inputs]

    def turned(self, j: int) -> Formula:
        """Return the formula of a part of a sum, from its total and the others."""
        sign = self.signs[self.inputs.index(j)]
        signed = zip(self.signs, self.inputs, strict=True)
        others = {i: -sign * s for s, i in signed if i != j}
        step = -sign
        return Formula(
            j,
            [self.child, *others],
            "sum",
            signs=[sign, *others.values()],
            rests=(step * self.rests)[::step].copy(),
            shares=self.shares[::step].copy(),
        )

    def without_rest(self, cells: Any, leave_out: int = -1) -> Any:
        """Return what the inputs give, all or all but one, of cells by column."""
        if self.kind == "product":
            factors = [cells[j] for j in self.inputs if j != leave_out]
            return self.rate * np.prod(factors, axis=0)
        signed = zip(self.signs, self.inputs, strict=True)
        parts = [sign * cells[j] for sign, j in signed if j != leave_out]
        return self.rate * np.sum(parts, axis=0)


def settle(
    chain: list[Formula], hints: list[Formula], derived: list[Derived], draft: Draft
) -> None:
    """Make columns agree with the formulas that tell them.

    The median of a sum is not the sum of medians: where values are not drawn, they
    follow from a single column, or where all but one cell of a formula are known.

    Parameters
    ----------
    chain : list of Formula
        Formulas, each after those of its inputs.
    hints : list of Formula
        Formulas that follow from those, and tell more of what is known.
    derived : list of Derived
        Columns whose codes follow from those of another one.
    draft : Draft
        Rows, changed in place.
    """
    if not chain:
        return
    rows = _Rows(chain, derived, draft)
    # What a formula does not fit gives no numbers, and is left as it is.
    with np.errstate(all="ignore"):
        while rows.tell(chain) or any(rows.tell([hint]) for hint in hints):
            pass
        if rows.is_drawn:
            rows.search(chain)
        for entry in reversed(chain):
            rows.give_way(entry)
        for entry in chain:
            rows.follow(entry)
    for j, cells in rows.cells.items():
        draft.values[j] = draft.column(j).cells_of(cells)


class _Rows:
    """Cells of rows, and which of them are known or follow from what is known."""

    def __init__(self, chain: list[Formula], derived: list[Derived], draft: Draft):
        own = sorted({j for entry in chain for j in entry.columns})
        self.column = draft.column
        self.is_drawn = draft.rng is not None
        self.links = {(e.child, e.parent): e for e in derived}
        self.cells = {j: draft.numbers(j) for j in own}
        self.known = {j: ~draft.is_open(j) for j in own}
        self.before = dict(self.cells)
        self.children = {entry.child for entry in chain}
        self.used: set[int] = set()
        # Medians follow where all inputs follow from a single one.
        self.root: dict[int, int] = {}

    # -- what a formula says -----------------------------------------------------------
    def _unit(self, j: int) -> float:
        decimals = self.column(j).decimals
        return 0.0 if decimals is None else 10.0**-decimals

    def _rest(self, entry: Formula) -> Any:
        """Return what a sum leaves, near to what the cells leave, or a difference."""
        if entry.kind == "gap":
            return self.before[entry.child] - entry.without_rest(self.before)
        if entry.kind == "product" or len(entry.rests) == 1:
            return entry.rests[0]
        left = self.cells[entry.child] - entry.without_rest(self.cells)
        return likely(entry, left)

    def _told(self, entry: Formula, cells: Any = None, rest: Any = None) -> np.ndarray:
        """Return the child that a formula tells of cells."""
        if entry.kind == "link":
            return self._linked(entry)
        rest = self._rest(entry) if rest is None else rest
        values = entry.without_rest(self.cells if cells is None else cells)
        return self.column(entry.child).rounded(values + rest)

    def _linked(self, entry: Formula) -> np.ndarray:
        j, parent = entry.child, entry.inputs[0]
        values = self.cells[parent]
        own, source = self.column(j), self.column(parent)
        if (j, parent) in self.links:
            new = follow(self.links[j, parent], source, own, values)
        else:
            new = follow_back(self.links[parent, j], own, source, values)
        same = (values == self.before[parent]) | np.isnan(values)
        return np.where(same, self.cells[j], new)

    def _solved(
        self, entry: Formula, j: int, wanted: np.ndarray, rest: Any
    ) -> np.ndarray:
        """Return the input, near to what it is, with which the child is as wanted."""
        others = entry.without_rest(self.cells, leave_out=j)
        if entry.kind != "product":
            sign = entry.signs[entry.inputs.index(j)] * entry.rate
            return self.column(j).rounded((wanted - rest - others) / sign)
        others = others + np.zeros(len(wanted))
        half = self._unit(entry.child) / 2
        ends = np.sort([(wanted - half) / others, (wanted + half) / others], axis=0)
        near = self.column(j).rounded(np.clip(self.cells[j], *ends))
        exact = self.column(j).rounded(wanted / others)
        keeps = self._agrees(entry, wanted, self.cells | {j: near}, rest)
        return np.where(keeps, near, exact)

    def _agrees(
        self, entry: Formula, wanted: np.ndarray, cells: Any = None, rest: Any = None
    ) -> Any:
        told = self._told(entry, cells, rest)
        return _equal(told, wanted)

    def _is_whole(self, entry: Formula) -> np.ndarray:
        """Tell in which rows no cell is missing."""
        missing = np.isnan([self.cells[j] for j in entry.columns])
        return ~np.asarray(missing.any(axis=0))

    def _n_open(self, columns: list[int]) -> np.ndarray:
        return np.sum([~self.known[j] for j in columns], axis=0)

    def _set(self, j: int, rows: np.ndarray, values: np.ndarray) -> None:
        self.cells[j] = np.where(rows, values, self.cells[j])

    # -- from what is known ------------------------------------------------------------
    def tell(self, entries: list[Formula]) -> bool:
        """Calculate cells that follow from known ones alone; tell if there are some."""
        told = False
        for entry in entries:
            if entry.kind not in ("product", "sum") or len(entry.rests) > 1:
                continue
            alone = (self._n_open(entry.columns) == 1) & self._is_whole(entry)
            for j in entry.columns if alone.any() else ():
                told |= self._tell_one(entry, j, alone & ~self.known[j])
        return told

    def _tell_one(self, entry: Formula, j: int, rows: np.ndarray) -> bool:
        if not rows.any():
            return False
        if j == entry.child:
            value, fits = self._told(entry), rows
        else:
            rest, wanted = entry.rests[0], self.cells[entry.child]
            value = self._solved(entry, j, wanted, rest)
            fits = self._agrees(entry, wanted, self.cells | {j: value}, rest)
            fits &= rows & self._is_unique(entry, j)
        self._set(j, fits, value)
        self.known[j] = self.known[j] | fits
        return bool(fits.any())

    def _is_unique(self, entry: Formula, j: int) -> Any:
        """Tell whether the child leaves one value of an input."""
        slope = entry.rate
        if entry.kind == "product":
            slope = np.abs(entry.without_rest(self.cells, leave_out=j))
        unit = self._unit(j) if self._unit(entry.child) else np.inf
        return self._unit(entry.child) <= unit * np.abs(slope) * (1 + _ERROR)

    def give_way(self, entry: Formula) -> None:
        """Move open inputs to where a known child follows from them."""
        child, n_open = entry.child, self._n_open(entry.inputs)
        bound = self.known[child] & (n_open > 0) & self._is_whole(entry)
        if not self.is_drawn:
            bound &= n_open == 1
        if not bound.any():
            return
        if entry.kind != "link":
            self._move_inputs(entry, bound)
        # What else depends on them must not move them again.
        for j in entry.inputs:
            self.known[j] = self.known[j] | bound

    def _move_inputs(self, entry: Formula, bound: np.ndarray) -> None:
        wanted, rest = self.cells[entry.child], self._rest(entry)
        left = bound & ~self._agrees(entry, wanted, rest=rest)
        for j in entry.movable if left.any() else ():
            left = self._move(entry, j, wanted, rest, left)
        if entry.kind == "product":
            for j in entry.movable if left.any() else ():
                left = self._try_levels(entry, j, wanted, left)
        else:
            self._spread(entry, wanted, rest, left)

    def _move(
        self, entry: Formula, j: int, wanted: np.ndarray, rest: Any, rows: np.ndarray
    ) -> np.ndarray:
        """Move an input where that is enough; return the rows in which it is not."""
        moved = self._solved(entry, j, wanted, rest)
        fits = rows & ~self.known[j] & self.column(j).is_within(moved)
        fits &= self._agrees(entry, wanted, self.cells | {j: moved}, rest)
        self._set(j, fits, moved)
        return rows & ~fits

    def _try_levels(
        self, entry: Formula, j: int, wanted: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Try the values of a factor of few until another one can give way."""
        levels = self._levels(j)
        for i in entry.movable if len(levels) else ():
            here = np.flatnonzero(rows & ~self.known[j] & ~self.known[i])
            if i == j or not len(here):
                continue
            beside = entry.without_rest(self.cells, leave_out=j) / self.cells[i]
            given = np.outer(levels, beside[here])
            moved = self.column(i).rounded(wanted[here] / given)
            told = self.column(entry.child).rounded(given * moved)
            fits = _equal(told, wanted[here])
            fits &= self.column(i).is_within(moved)
            off = np.where(fits, np.abs(levels[:, None] - self.cells[j][here]), np.inf)
            best, place = off.argmin(axis=0), np.arange(len(here))
            found = np.isfinite(off[best, place])
            for k, new in ((j, levels[best]), (i, moved[best, place])):
                self.cells[k] = self.cells[k].copy()
                self.cells[k][here[found]] = new[found]
            rows = rows.copy()
            rows[here[found]] = False
        return rows

    def _levels(self, j: int) -> np.ndarray:
        """Return the values of a column if they are few."""
        column = self.column(j)
        low, high = column.extent
        unit = self._unit(j)
        if unit and high - low <= unit * _MAX_LEVELS:
            return self.column(j).rounded(np.arange(low, high + unit / 2, unit))
        levels = np.unique(column.knots)
        few = column.discrete and len(levels) <= _MAX_LEVELS
        return levels if few else levels[:0]

    def _spread(
        self, entry: Formula, wanted: np.ndarray, rest: Any, rows: np.ndarray
    ) -> None:
        """Let several parts give way, each as far as its range goes."""
        for j in entry.movable if rows.any() else ():
            moved = self._solved(entry, j, wanted, rest)
            moved = np.clip(moved, *self.column(j).extent)
            self._set(j, rows & ~self.known[j], moved)

    # -- through several formulas ------------------------------------------------------
    def search(self, chain: list[Formula]) -> None:
        """Find drawn cells from which several formulas lead to a known one.

        A gross amount follows from a net one and its tax, and both from a price: to
        move one of these alone breaks a formula.
        """
        for entry in reversed(chain):
            upstream = _upstream(entry, chain)
            told = [form.child for form in upstream]
            if entry.kind not in ("product", "sum") or not told:
                continue
            bound = self.known[entry.child] & self._is_whole(entry)
            bound &= self._n_open(told) > 0
            if bound.any():
                for form in upstream:
                    self.follow(form, bound)
                self.used = set()
                self._take(np.flatnonzero(bound), entry, upstream)

    def _take(self, rows: np.ndarray, entry: Formula, upstream: list[Formula]) -> None:
        """Take the cells that are found for some rows, which then stay as they are."""
        some = copy(self)
        for name in ("cells", "known", "before"):
            own = getattr(self, name)
            setattr(some, name, {j: cells[rows] for j, cells in own.items()})
        cells, found = some.leading(entry, upstream)
        here = rows[found]
        for j in {j for form in (entry, *upstream) for j in form.columns}:
            self.cells[j], self.known[j] = self.cells[j].copy(), self.known[j].copy()
            self.cells[j][here], self.known[j][here] = cells[j][found], True

    def leading(
        self, entry: Formula, upstream: list[Formula]
    ) -> tuple[dict[int, np.ndarray], np.ndarray]:
        """Return cells that lead to a known child, and tell in which rows.

        Where no column alone can make up for what is missing, one of few values takes
        the nearest of them beside which another one can.
        """
        chosen = start = self.cells
        best = np.full(len(start[entry.child]), np.inf)
        movable = [j for form in (entry, *upstream[::-1]) for j in form.movable]
        roots = [j for j in dict.fromkeys(movable) if j not in self.children]
        trials = [(-1, 0.0), *((i, v) for i in roots for v in self._levels(i))]
        for i, level in trials:
            base = dict(start)
            far, left = np.zeros(len(best)), np.isinf(best)
            if i >= 0:
                base[i] = np.where(self.known[i], start[i], level)
                far = 1 + np.abs(base[i] - start[i])
                left = (far < best) & ~self.known[i]
            for j in (-1, *roots):
                if j == i >= 0 or not left.any():
                    continue
                self.cells = dict(base)
                fits = left & self._leads(entry, upstream, j)
                best = np.where(fits, far, best)
                chosen = {k: np.where(fits, self.cells[k], chosen[k]) for k in chosen}
                left = left & ~fits
        return chosen, np.isfinite(best)

    def _leads(self, entry: Formula, upstream: list[Formula], j: int) -> Any:
        """Tell where a known child is told, once column j has moved towards that."""
        wanted, told = self.cells[entry.child], self._led(entry, upstream)
        fits: Any = True
        if j >= 0:
            own, (low, high) = self.cells[j], self.column(j).extent
            step = max(self._unit(j), _STEP * (high - low))
            self.cells[j] = own + step
            slope = (self._led(entry, upstream) - told) / step
            self.cells[j] = own
            for _ in range(_STEPS):
                moved = self.cells[j] + (wanted - told) / slope
                moved = self.column(j).rounded(np.clip(moved, low, high))
                self.cells[j] = np.where(np.isnan(moved), own, moved)
                told = self._led(entry, upstream)
            fits = ~self.known[j]
        for form in (entry, *upstream):
            told = self.cells[form.child]
            fits = fits & self._agrees(form, told)
            fits &= self.known[form.child] | self.column(form.child).is_within(told)
        return fits

    def _led(self, entry: Formula, upstream: list[Formula]) -> np.ndarray:
        """Return the child as told, once what it depends on follows."""
        for form in upstream:
            self._set(form.child, ~self.known[form.child], self._told(form))
        return self._told(entry)

    # -- to what is drawn --------------------------------------------------------------
    def follow(self, entry: Formula, here: Any = True) -> None:
        """Make the child what its inputs tell; they give way if it leaves its range."""
        j = entry.child
        rows = here & ~self.known[j] & self._is_whole(entry)
        roots = {self.root.get(i, i) for i in entry.inputs}
        if not self.is_drawn and len(roots) > 1:
            rows &= self._n_open(entry.inputs) == 0
        elif not self.is_drawn:
            self.root[j] = roots.pop()
        if rows.any():
            rest = self._rest(entry)
            if entry.kind in ("product", "sum") and self.is_drawn:
                told = self._told(entry, rest=rest)
                self._stay_within(entry, rest, rows & ~self.column(j).is_within(told))
            self._set(j, rows, self._told(entry, rest=rest))
        self.used |= set(entry.columns)

    def _stay_within(self, entry: Formula, rest: Any, rows: np.ndarray) -> None:
        """Move an input that nothing else depends on yet where the child is outside."""
        wanted = self.cells[entry.child]
        for j in entry.movable:
            if j in self.children or j in self.used or not rows.any():
                continue
            moved = self._solved(entry, j, wanted, rest)
            moved = np.clip(moved, *self.column(j).extent)
            again = self._told(entry, self.cells | {j: moved}, rest)
            fits = rows & ~self.known[j] & self.column(entry.child).is_within(again)
            self._set(j, fits, moved)
            rows = rows & ~fits


def _upstream(entry: Formula, chain: list[Formula]) -> list[Formula]:
    """Return the formulas that what tells a column depends on, in order."""
    needed, found = set(entry.inputs), []
    for form in reversed(chain[: chain.index(entry)]):
        if form.child in needed:
            needed |= set(form.inputs)
            found.append(form)
    return found[::-1]


def _equal(told: np.ndarray, wanted: np.ndarray) -> Any:
    error = _ERROR * np.maximum(np.abs(told), 1)
    return np.abs(told - wanted) <= error
