"""Finer bins where values must not be drawn whatever the other columns hold.

That is what happens to values within a bin. Of a heavy tail the last quantile bin may
hold nearly all of the variance, and with it means and correlations. And a column that
another one tells to within a bin (the length and the width of a diamond) is known more
closely than its bins say.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skvae._table._dependence import Derived

# A bin is halved, down to so many rows, while it holds more of the variance than this
# share of what the bins have to share on average. Outer bins of a normal column hold
# .1 to .2 of it, those of an exponential one 1.
_SHARE, _MIN_ROWS = 0.25, 5
# Bins of so many rows are halved once where rows that are next to each other in another
# column lie less than so many bins apart; unrelated ones lie 19 of 64 bins apart. Some
# of the rows tell.
_CLOSE_ROWS, _CLOSE, _JUDGED = 200, 1.5, 2048


def with_finer_bins(
    columns: list[Any], cells: list[Any], derived: list[Derived]
) -> list[Any]:
    """Cut bins that hold much of their column's variance, or that others see within.

    Columns whose values go together are cut at the same ranks, so that one still tells
    the other. What follows from another column otherwise stays as it is.

    Parameters
    ----------
    columns : list
        Fitted columns.
    cells : list
        Training cells of each column.
    derived : list of Derived
        Columns that another one determines.

    Returns
    -------
    columns : list
        Columns, those with cut bins made anew.
    """
    told = _told_closely(columns, cells, derived)
    columns = list(columns)
    followers = {entry.child for entry in derived}
    for j in range(len(columns)):
        linked = [e for e in derived if e.parent == j and e.direction]
        signs = {j: 1} | {e.child: e.direction for e in linked}
        if j in followers or any(columns[i].kind != "numeric" for i in signs):
            continue
        known = {i: _known(cells[i], sign) for i, sign in signs.items()}
        if len({len(values) for values in known.values()}) > 1:
            continue
        bins = _ranks_of_bins(columns[j], known[j])
        least = _CLOSE_ROWS if j in told else np.inf
        cuts = {cut for values in known.values() for cut in _cuts(values, bins, least)}
        ranks = np.array([c for c in cuts if _parts(known.values(), c)], dtype=int)
        for i, sign in signs.items() if len(ranks) else ():
            own = ranks if sign > 0 else len(known[i]) - ranks
            columns[i] = columns[i].cut(known[i][::sign], own, len(cells[i]))
    return columns


def _told_closely(
    columns: list[Any], cells: list[Any], derived: list[Derived]
) -> set[int]:
    """Return the columns that another one tells to within little more than a bin."""
    followers = {entry.child for entry in derived}
    n = len(cells[0]) if cells else 0
    large = [
        j
        for j, column in enumerate(columns)
        if column.kind == "numeric" and j not in followers and _is_large(column, n)
    ]
    if len(large) < 2:
        return set()
    # Rows that are equal in a column must not stand in an order of their own.
    rows = np.random.default_rng(0).permutation(n)[:_JUDGED]
    places = np.column_stack([_places(columns[j], cells[j][rows]) for j in large])
    told = set()
    for k, j in enumerate(large):
        order = np.argsort(cells[j][rows], kind="stable")
        steps = np.abs(np.diff(places[order], axis=0))
        steps[:, k] = np.inf
        near = np.count_nonzero(steps < _CLOSE, axis=0)
        far = np.count_nonzero(steps >= _CLOSE, axis=0)
        told |= {large[i] for i in np.flatnonzero(near > far)}
    return told


def _is_large(column: Any, n: int) -> bool:
    """Tell whether a usual bin has enough rows for two."""
    bins = column.bins
    return len(bins) > 0 and n * column.frequencies[bins].mean() >= _CLOSE_ROWS


def _places(column: Any, values: np.ndarray) -> np.ndarray:
    """Return where values stand in a row of equal bins, NaN outside of them."""
    places = np.full(len(values), np.nan)
    binned = np.isin(column.encode(values), column.bins)
    ranks = np.argsort(np.argsort(values[binned]))
    places[binned] = ranks * (len(column.bins) / max(len(ranks), 1))
    return places


def _known(cells: np.ndarray, sign: int) -> np.ndarray:
    """Return the known cells in the order of the column they go with."""
    known = np.sort(cells[~np.isnan(cells)])
    return known if sign > 0 else known[::-1]


def _ranks_of_bins(column: Any, known: np.ndarray) -> list[tuple[int, int]]:
    """Return the ranks at which each bin begins and ends."""
    first = np.searchsorted(known, column.low[column.bins])
    stop = np.searchsorted(known, column.high[column.bins], side="right")
    return list(zip(first.tolist(), stop.tolist(), strict=True))


def _cuts(values: np.ndarray, bins: list[tuple[int, int]], least: float) -> list[int]:
    """Return the ranks at which bins of ordered values are to be cut.

    Bins of `least` rows are halved once for the sake of other columns.
    """
    # In units of the largest: squares of huge values overflow.
    values = values / (np.abs(values).max(initial=0.0) or 1.0)
    much = _SHARE * len(values) * values.var() / len(bins) if bins else 0.0
    waiting = [(first, stop, stop - first >= least) for first, stop in bins]
    cuts = []
    while waiting:
        first, stop, seen_within = waiting.pop()
        part = values[first:stop]
        middle = _middle(part)
        if middle and (seen_within or len(part) * part.var() > much):
            cut = first + middle
            cuts.append(cut)
            waiting += [(first, cut, False), (cut, stop, False)]
    return cuts


def _middle(part: np.ndarray) -> int:
    """Return the rank that parts unequal values most evenly, 0 if there is none."""
    n = len(part)
    same = np.flatnonzero(part == part[n // 2])
    ends = [end for end in (same[0], same[-1] + 1) if _MIN_ROWS <= end <= n - _MIN_ROWS]
    return int(min(ends, key=lambda end: abs(2 * end - n), default=0))


def _parts(known: Any, rank: int) -> bool:
    """Tell whether a cut at a rank parts different values, in every column."""
    return all(values[rank - 1] != values[rank] for values in known)
