"""Which columns formulas tell, of numbers that may be part of several formulas.

Of two to four columns any product, rate and sum is tried on a few rows, which the
regressions behind other rules cannot tell apart once a total is repeated. Of what holds
as many formulas are kept as tell a column each without going round in circles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from skvae._table._dependence import Derived
from skvae._table._formulas import Formula
from skvae._table._gaps import Gap, spread_of
from skvae._table._products import Product, half_a_unit, has_values, rate_of
from skvae._table._sums import Sum

# Columns that are tried at most, and rows that candidates are judged by. Some rows, of
# which so many may be otherwise, rule most of them out; most cells of those are known.
_MAX_COLUMNS, _ROWS = 64, 8192
_SCREENED, _MIN_TOLD = ((12, 1), (240, 6)), 0.2
# Share of rows that may be otherwise, also where a part of a sum is not zero; rows that
# a part needs to tell a column.
_EXCEPTIONS, _EXCEPTIONS_OF_PART, _MIN_ROWS = 0.01, 0.05, 50
_MIN_SHARE, _MIN_COUNTING, _SURE = 0.05, 0.5, 0.999
# Columns whose sums are compared to those of others, times that, and relative error.
_MAX_IN_SUMS, _DRAWS, _ROWS_OF_SUMS, _ERROR = 32, 3, 12, 1e-9
# Share of rows with a repeated value from which a column tells others.
_MANY = 0.25
# Formulas that follow from others, of which known cells may make use.
_MAX_HINTS = 32
# In this order formulas get a column to tell: those that leave no choice come first.
_PRODUCT, _ONE_WAY, _SUM, _TURNED_SUM, _RATED_SUM, _TWO_WAY, _RATED = range(7)


@dataclass(eq=False)
class Candidate:
    """A formula that training rows keep, and its other forms.

    Parameters
    ----------
    rank : tuple
        The class of the formula and what counts within it, the lowest first.
    forms : list of Formula
        The formula for each of the columns that it may tell.
    agreement : float
        Share of the rows that keep it.
    """

    rank: tuple[Any, ...]
    forms: list[Formula]
    agreement: float = 1.0


@dataclass
class Numbers:
    """Columns of numbers and some of their training rows.

    Parameters
    ----------
    columns : dict of int to NumericColumn
        The columns, as they came.
    cells : dict of int to ndarray of shape (n_rows,)
        Their cells in some rows.
    """

    columns: dict[int, Any]
    cells: dict[int, np.ndarray]

    @classmethod
    def of(cls, columns: list[Any], cells: list[Any], free: Iterable[int]) -> Numbers:
        """Choose rows, and columns that vary."""
        n = len(cells[0]) if cells else 0
        rows = np.linspace(0, n - 1, min(n, _ROWS)).astype(np.int64)
        some = {j: np.asarray(cells[j])[rows] for j in sorted(free)}
        own = {j: own for j, own in some.items() if _is_active(own)}
        return cls({j: columns[j] for j in own}, own)

    def is_told(self, j: int) -> bool:
        """Tell whether a column has values enough to be told by a formula."""
        return has_values(self.columns[j], self.cells[j])

    def spread(self, j: int) -> float:
        """Return how far apart the deciles of a column lie."""
        cells = self.cells[j]
        return float(spread_of(cells[~np.isnan(cells)]))


def _is_active(cells: np.ndarray) -> bool:
    known = cells[~np.isnan(cells)]
    least = max(_MIN_ROWS, _MIN_SHARE * len(known))
    # Squares of larger numbers overflow.
    small = np.abs(known).max(initial=0.0) < 1e100
    return bool(small and np.count_nonzero(known) >= least and np.ptp(known) > 0)


def find_candidates(numbers: Numbers) -> list[Candidate]:
    """Find the rates, products and sums that rows keep."""
    if len(numbers.cells) < 2 or len(numbers.cells) > _MAX_COLUMNS:
        return []
    with np.errstate(all="ignore"):
        rates = list(_rates(numbers))
        # What repeats a column adds nothing to it.
        same = {c.forms[0].child for c in rates if c.forms[0].rate == 1}
        cells = {j: own for j, own in numbers.cells.items() if j not in same}
        rest = replace(numbers, cells=cells)
        return [*rates, *_of_pairs(rest), *_of_four(rest)]


def _rates(numbers: Numbers) -> Iterator[Candidate]:
    """Yield the columns that are a rate of another one."""
    found: dict[tuple[int, int], Formula] = {}
    for child in filter(numbers.is_told, numbers.cells):
        others = [(i,) for i in numbers.cells if i != child]
        for inputs in _possible(numbers, child, others, lambda x: x[0]):
            formula = _judged(numbers, Formula(child, [*inputs], "product"))
            if formula is not None:
                found[child, inputs[0]] = formula
    for (child, parent), formula in found.items():
        back = found.get((parent, child))
        agreement = _agreement(numbers, formula)
        rank = (-round(agreement, 3), _length(formula.rate), parent, child)
        if back is None:
            yield Candidate((_ONE_WAY, *rank), [formula], agreement)
        elif parent < child:
            yield Candidate((_TWO_WAY, *rank), [formula, back], agreement)


def _of_pairs(numbers: Numbers) -> Iterator[Candidate]:
    """Yield the columns that are a rate times the product or the sum of two others."""
    ways: list[tuple[str, list[int], Any]] = [
        ("product", [], lambda x: x[0] * x[1]),
        ("sum", [1, 1], lambda x: x[0] + x[1]),
        ("sum", [1, -1], lambda x: x[0] - x[1]),
    ]
    for child in filter(numbers.is_told, numbers.cells):
        pairs = list(combinations([i for i in numbers.cells if i != child], 2))
        for kind, signs, way in ways:
            for inputs in _possible(numbers, child, pairs, way):
                trial = Formula(child, [*inputs], kind, signs=signs)
                formula = _judged(numbers, trial)
                if formula is not None:
                    yield _candidate(numbers, formula)


def _candidate(numbers: Numbers, formula: Formula) -> Candidate:
    """Return a product or a sum, of which each part may be told."""
    is_sum, is_plain = formula.kind == "sum", formula.rate == 1
    kinds = {
        (False, True): _PRODUCT,
        (False, False): _RATED,
        (True, True): _SUM,
        (True, False): _RATED_SUM,
    }
    agreement = _agreement(numbers, formula)
    n_less = sum(sign < 0 for sign in formula.signs)
    parts = formula.inputs if is_sum and is_plain else []
    # Of what is left of a total the larger is told, which an error hardly changes.
    parts = sorted(parts, key=numbers.spread, reverse=True)
    rank = (
        kinds[is_sum, is_plain],
        len(formula.inputs),
        # A total is more than its parts.
        n_less,
        -round(agreement, 3),
        -numbers.spread(formula.child) if n_less and is_plain else 0.0,
        _length(formula.rate),
        formula.columns,
    )
    forms = [formula, *(formula.turned(j) for j in parts)]
    return Candidate(rank, forms, agreement)


def candidate_of(rule: Sum | Product) -> Candidate:
    """Return a rule that was found before."""
    if isinstance(rule, Product):
        kind = _TWO_WAY if len(rule.factors) == 1 else _RATED
        kind = _PRODUCT if rule.rate == 1 else kind
        form = Formula(rule.child, list(rule.factors), "product", rule.rate)
        return Candidate((kind, len(rule.factors)), [form])
    form = Formula(
        rule.total,
        list(rule.parts),
        "sum",
        signs=list(rule.signs),
        rests=rule.rests,
        shares=rule.shares,
    )
    rank = (_SUM, len(form.inputs), sum(sign < 0 for sign in form.signs))
    return Candidate(rank, [form, *(form.turned(j) for j in form.inputs)])


def spare_repeated(candidates: list[Candidate], columns: list[Any]) -> None:
    """Let numbers that come again and again, such as round amounts, tell others."""
    for candidate in candidates:
        if candidate.forms[0].kind == "sum":
            candidate.forms.sort(key=lambda form: _repeats(columns[form.child]))


def _repeats(column: Any) -> bool:
    own = column.frequencies[: len(column.low)]
    return bool(own[column.low == column.high].sum() > _MANY)


def _length(rate: float) -> int:
    return len(repr(rate))


def _possible(
    numbers: Numbers, child: int, inputs: Sequence[tuple[int, ...]], way: Any
) -> list[tuple[int, ...]]:
    """Return the inputs that some rows, and then more of them, do not rule out."""
    cells = numbers.cells[child]
    known = np.flatnonzero(~np.isnan(cells) & (cells != 0))
    order = np.random.default_rng(0).permutation(known)
    places = {j: k for k, j in enumerate(numbers.cells)}
    left = np.array([[places[j] for j in own] for own in inputs]).T
    for n_rows, n_slips in _SCREENED:
        if not left.size:
            return []
        rows = order[:n_rows]
        table = np.column_stack([own[rows] for own in numbers.cells.values()])
        given = way([table[:, k] for k in left])
        some = cells[rows][:, None]
        half = half_a_unit(numbers.columns[child], some)
        first, second = (some - half) / given, (some + half) / given
        low, high = np.minimum(first, second), np.maximum(first, second)
        told = np.isfinite(low)
        low, high = np.where(told, low, -np.inf), np.where(told, high, np.inf)
        last = len(rows) - 1 - n_slips
        fits = (
            np.partition(low, last, axis=0)[last]
            <= np.partition(high, n_slips, axis=0)[n_slips]
        )
        # Rows in which a cell is missing rule nothing out.
        fits &= told.sum(axis=0) > _MIN_TOLD * len(rows)
        left = left[:, fits]
    own = list(numbers.cells)
    return [tuple(own[k] for k in place) for place in left.T.tolist()]


def _judged(numbers: Numbers, formula: Formula) -> Formula | None:
    """Return a formula with its rate, None if rows do not keep it."""
    cells = numbers.cells[formula.child]
    given = formula.without_rest(numbers.cells)
    rate = rate_of(numbers.columns[formula.child], cells, given)
    if rate is None:
        return None
    if formula.kind == "sum":
        # A part that is not zero has to count.
        signs = [int(np.sign(rate)) * sign for sign in formula.signs]
        formula = replace(formula, rate=abs(rate), signs=signs)
        agrees = _agrees(numbers, formula)
        for j in formula.inputs:
            beside = (numbers.cells[j] != 0) & ~np.isnan(given + cells)
            if not agrees[beside].mean() >= 1 - _EXCEPTIONS_OF_PART:
                return None
            half = half_a_unit(numbers.columns[formula.child], cells[beside])
            counts = np.abs(formula.rate * numbers.cells[j][beside]) > 2 * half
            if not counts.mean() > _MIN_COUNTING:
                return None
        return formula if _is_round(formula.rate) else None
    return replace(formula, rate=rate)


def _is_round(rate: float) -> bool:
    """Tell whether a rate or its inverse has few digits: a mean of three has."""
    return any(float(f"{own:.2e}") == float(f"{own:.8e}") for own in (rate, 1 / rate))


def _agrees(numbers: Numbers, formula: Formula) -> np.ndarray:
    cells = numbers.cells[formula.child]
    off = np.abs(formula.without_rest(numbers.cells) - cells)
    half = half_a_unit(numbers.columns[formula.child], cells)
    return np.asarray(off <= half * (1 + 1e-6))


def _agreement(numbers: Numbers, formula: Formula) -> float:
    known = ~np.isnan(np.sum([numbers.cells[j] for j in formula.columns], axis=0))
    return float(_agrees(numbers, formula)[known].mean())


# -- sums of more columns --------------------------------------------------------------
def _of_four(numbers: Numbers) -> Iterator[Candidate]:
    """Yield the columns that are the sum of three others, or of two less one."""
    own = list(numbers.cells)
    table = np.column_stack([numbers.cells[j] for j in own])
    table = table[~np.isnan(table).any(axis=1)]
    table = np.random.default_rng(0).permutation(table)
    if not 4 <= len(own) <= _MAX_IN_SUMS or len(table) < _MIN_ROWS:
        return
    rng = np.random.default_rng(0)
    found: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for _ in range(_DRAWS):
        # Equal sums of columns are equal sums of some of their rows.
        rows = rng.choice(len(table), _ROWS_OF_SUMS, False)
        found |= set(_equal_sums(rng.standard_normal(len(rows)) @ table[rows]))
    some = table[: _SCREENED[-1][0]]
    error = _ERROR * np.abs(some).max(axis=1)
    for left, right in sorted(found):
        off = some[:, left].sum(axis=1) - some[:, right].sum(axis=1)
        if (np.abs(off) > error).mean() > 2 * _EXCEPTIONS:
            continue
        columns = [own[i] for i in (*left, *right)]
        signs = dict(zip(columns, (*[1] * len(left), *[-1] * len(right)), strict=True))
        total = max(columns[: len(left)], key=numbers.spread)
        inputs = sorted((j for j in columns if j != total), key=numbers.spread)[::-1]
        formula = Formula(total, inputs, "sum", signs=[-signs[j] for j in inputs])
        judged = _judged(numbers, formula)
        if judged is not None and judged.rate == 1 and numbers.is_told(total):
            yield _candidate(numbers, judged)


def _equal_sums(
    values: np.ndarray,
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield one number and three, or two and two, that have the same sum."""
    own = range(len(values))
    pairs, threes = list(combinations(own, 2)), list(combinations(own, 3))
    ones: list[tuple[int, ...]] = [(i,) for i in own]
    for left, right in ((ones, threes), (pairs, pairs)):
        sums = [values[np.array(side)].sum(axis=1) for side in (left, right)]
        error = _ERROR * np.abs(values).max()
        order = np.argsort(sums[1])
        ordered = sums[1][order]
        first = np.searchsorted(ordered, sums[0] - error)
        stop = np.searchsorted(ordered, sums[0] + error)
        for k in np.flatnonzero(stop > first):
            for m in order[first[k] : stop[k]]:
                a, b = tuple(left[k]), tuple(right[m])
                if set(a).isdisjoint(b) and (len(a) == 1 or a < b):
                    yield a, b


# -- who tells whom --------------------------------------------------------------------
def ordered(
    candidates: list[Candidate],
    gaps: list[Gap],
    derived: list[Derived],
    firm: set[int],
) -> tuple[list[Formula], list[Formula]]:
    """Choose the formulas that tell a column each, without going round in circles.

    Parameters
    ----------
    candidates : list of Candidate
        Formulas that rows keep.
    gaps : list of Gap
        Columns of numbers coded as their difference from another one.
    derived : list of Derived
        Columns of numbers whose codes follow from those of another one.
    firm : set of int
        Columns that no formula tells, since others follow from them that are none.

    Returns
    -------
    chain : list of Formula
        Each after those of its inputs.
    left : list of Formula
        The others.
    """
    chain = _Chain(firm)
    waiting = sorted(candidates, key=lambda own: own.rank)
    for stage in range(_RATED + 1):
        # Parts of sums are told where a total is told by something else.
        asked = _SUM if stage == _TURNED_SUM else stage
        for candidate in [c for c in waiting if c.rank[0] == asked]:
            if chain.add(_forms_at(stage, candidate.forms, chain.inputs)):
                waiting.remove(candidate)
    # What has slips of its own tells nothing for sure.
    left = [c.forms[0] for c in waiting if c.agreement >= _SURE]
    for gap in gaps:
        chain.add([Formula(gap.child, [gap.parent], "gap", signs=[1])])
    apart = {gap.child for gap in gaps}
    for entry in derived:
        if apart.isdisjoint((entry.child, entry.parent)):
            links = [Formula(entry.child, [entry.parent], "link")]
            if entry.direction:
                links.append(Formula(entry.parent, [entry.child], "link"))
            chain.add(links)
    return chain.in_order(), left


def _forms_at(stage: int, forms: list[Formula], inputs: set[int]) -> list[Formula]:
    """Return the forms of a formula to try at a stage; see `ordered`."""
    if stage == _SUM:
        return forms[:1]
    if stage == _TWO_WAY:
        # What tells other columns had better not be told.
        return sorted(forms, key=lambda form: form.child in inputs)
    return forms


class _Chain:
    """Formulas of which each tells another column, and none depends on itself.

    Parameters
    ----------
    firm : set of int
        Columns that no formula tells.
    """

    def __init__(self, firm: set[int]):
        self.firm = firm
        self.chosen: dict[int, Formula] = {}

    @property
    def inputs(self) -> set[int]:
        """Inputs of the formulas that have several."""
        several = [form for form in self.chosen.values() if len(form.inputs) > 1]
        return {j for form in several for j in form.inputs}

    def add(self, forms: Iterable[Formula]) -> bool:
        """Add the first of some forms that is free; tell whether there is one."""
        form = next(filter(self._is_free, forms), None)
        if form is not None:
            self.chosen[form.child] = form
        return form is not None

    def _is_free(self, form: Formula) -> bool:
        """Tell whether nothing tells a column yet and none of its inputs needs it."""
        if form.child in self.chosen or form.child in self.firm:
            return False
        seen, waiting = set(), list(form.inputs)
        while waiting:
            j = waiting.pop()
            if j not in seen:
                seen.add(j)
                waiting += self.chosen[j].inputs if j in self.chosen else []
        return form.child not in seen

    def in_order(self) -> list[Formula]:
        """Return formulas after those of their inputs, of several inputs first."""
        chain: list[Formula] = []
        waiting = sorted(
            self.chosen.values(), key=lambda form: (len(form.inputs) == 1, form.child)
        )
        while waiting:
            open_ = {form.child for form in waiting}
            form = next(form for form in waiting if open_.isdisjoint(form.inputs))
            waiting.remove(form)
            movable = [j for j in form.inputs if j not in self.firm]
            # Those that nothing tells give way first.
            movable.sort(key=lambda j: j in self.chosen)
            chain.append(replace(form, movable=movable))
        return chain


def connected(
    chain: list[Formula], old: set[frozenset[int]]
) -> tuple[list[Formula], set[int]]:
    """Return the formulas that hang together with one that is new.

    Parameters
    ----------
    chain : list of Formula
        All formulas.
    old : set of frozenset of int
        Columns of sums and products that are rules already.

    Returns
    -------
    kept : list of Formula
        Those of tables that have a sum or a product beside a new formula.
    columns : set of int
        Their columns.
    """
    groups: list[set[int]] = []
    for form in chain:
        own = set(form.columns)
        for group in [g for g in groups if g & own]:
            groups.remove(group)
            own |= group
        groups.append(own)
    columns: set[int] = set()
    for group in groups:
        forms = [f for f in chain if f.child in group and f.kind in ("product", "sum")]
        several = any(len(form.inputs) > 1 for form in forms)
        if several and any(frozenset(form.columns) not in old for form in forms):
            columns |= group
    return [form for form in chain if form.child in columns], columns


def as_hints(left: list[Formula], chain: list[Formula]) -> list[Formula]:
    """Return formulas that follow from those of a chain, those of few columns first."""
    known = {frozenset(form.columns) for form in chain}
    own = {j for form in chain for j in form.columns}
    hints = []
    for form in sorted(left, key=lambda form: len(form.inputs)):
        columns = frozenset(form.columns)
        if columns <= own and columns not in known:
            known.add(columns)
            hints.append(form)
    return hints[:_MAX_HINTS]
