"""Columns that stay close to another one: an end soon after a start.

Bins are too coarse for what two such columns share. The later one is coded as its
difference from the earlier one, and comes back as their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skvae._table._datetime import NANOSECONDS, TimeColumn, in_one_unit
from skvae._table._draft import Draft
from skvae._table._frames import without_zone
from skvae._table._numeric import NumericColumn

# Rows and bins from which on a difference is judged; the share of them in bins.
_MIN_ROWS, _MIN_BINS, _MIN_SHARE = 50, 4, 0.5
# Moments are fewer where an event is rare; on one side of earlier ones is no chance.
_MIN_MOMENTS = 20
# Spread of the difference, 10 to 90 %, at most: in bins of the later column, and for
# moments on one side of the earlier ones, as a share of the spread of those.
_MAX_BINS, _MAX_SHARE = 0.6, 0.25
# Of columns with many bins, those of many rows, also the square of this share of them:
# 4 of 64. Rows enough to learn how a wider difference goes with the other columns.
_BINS_OF_MANY_ROWS = 32
# Rows that most pairs of columns are judged by, and what those may be off by.
_SCREENED, _SLACK = 512, 2.0


@dataclass
class Gap:
    """A column coded as its difference from another one.

    Parameters
    ----------
    child, parent : int
        The column, and the one before it that it is counted from.
    column : NumericColumn or TimeColumn
        The column as it came.
    usual : float
        Median of the difference; in steps of the column if it holds moments.
    side : int
        1 if no difference is negative, -1 if none is positive, else 0.
    day : int, default=0
        -1 if the column holds the day of each earlier moment, 1 if those are the days
        of its moments, else 0.
    """

    child: int
    parent: int
    column: Any
    usual: float
    side: int
    day: int = 0

    def difference(self, child: Any, parent: Any, decimals: int | None) -> pd.Series:
        """Return the later cells less the earlier ones, which have `decimals`."""
        if isinstance(self.column, TimeColumn):
            end, start = in_one_unit(plain(child), plain(parent))
            return end - start
        difference = plain(child) - plain(parent)
        own = self.column.decimals
        both = None if own is None or decimals is None else max(own, decimals)
        return difference if both is None else difference.round(both)

    def end(self, parent: Any, difference: Any) -> Any:
        """Return the later cells, within the range of training.

        That of the starts may reach further, where ends are missing: an end that is
        always on one side of the start stays there.
        """
        start = plain(parent)
        end = start + pd.Series(difference)
        if self.day < 0:
            end = start.dt.normalize().where(end.notna())
        values = _numbers(self.column, end)
        inside = np.clip(values, *number_of(self.column).extent)
        if self.side:
            keep = np.maximum if self.side > 0 else np.minimum
            inside = keep(inside, _numbers(self.column, start))
        return _in_form(inside, self.column, self.side)

    def start(self, child: Any, difference: Any, like: Any) -> Any:
        """Return the earlier cells, within the range of their column `like`."""
        start = plain(child) - pd.Series(difference)
        if self.day > 0:
            start = plain(child).dt.normalize().where(start.notna())
        values = _numbers(like, start)
        return _in_form(np.clip(values, *number_of(like).extent), like)

    def usual_start(self, child: Any, like: Any) -> Any:
        """Return earlier cells that the later ones leave likely."""
        if isinstance(self.column, NumericColumn):
            return self.start(child, np.full(len(child), self.usual), like)
        stamps = np.int64(round(self.usual)) * self.column.step
        usual = np.full(len(child), stamps).view(f"m8[{self.column.unit}]")
        return self.start(child, usual, like)

    def get_state(self) -> dict[str, Any]:
        """Return the gap as plain values."""
        own = ("child", "parent", "usual", "side", "day")
        state = {n: getattr(self, n) for n in own}
        return state | {"column": self.column.get_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Gap:
        """Make the gap from plain values."""
        kinds: Any = {kind.kind: kind for kind in (NumericColumn, TimeColumn)}
        column = kinds[state["column"]["kind"]].from_state(state["column"])
        return cls(**{**state, "column": column})


def find_gaps(columns: list[Any], cells: list[Any]) -> list[Gap]:
    """Find the columns that stay close to one before them.

    Parameters
    ----------
    columns : list
        The fitted columns.
    cells : list of array-like
        Their training cells.

    Returns
    -------
    gaps : list of Gap
        In the order of the columns; a parent may itself be the child of another.
    """
    gaps = []
    with np.errstate(over="ignore", invalid="ignore"):
        candidates = list(_candidates(columns, cells))
    for j, parents in candidates:
        found = []
        for i in parents:
            closeness = _closeness(columns[j], cells[i], cells[j])
            found += [] if closeness is None else [(*closeness, i)]
        if found:
            _, usual, side, parent = min(found)
            day = _day_of(columns[j], cells[parent], cells[j])
            gaps.append(Gap(j, parent, columns[j], usual, side, day))
    return gaps


def _day_of(column: Any, before: Any, after: Any) -> int:
    """Tell whether the later cells are the days of the earlier ones, or these theirs.

    Of moments with a zone the day depends on more than their number.
    """
    if not isinstance(column, TimeColumn) or column.is_duration or column.zone:
        return 0
    start, end = plain(before), plain(after)
    known = start.notna() & end.notna()
    start, end = start[known], end[known]
    if (start.dt.normalize() == end).all():
        return -1
    return int((end.dt.normalize() == start).all())


def _candidates(
    columns: list[Any], cells: list[Any]
) -> Iterator[tuple[int, list[int]]]:
    """Yield each column with those before it that some rows show to be close."""
    kinds = [_kind(column) for column in columns]
    for j, kind in enumerate(kinds):
        before = [i for i in range(j) if kind is not None and kinds[i] == kind]
        known = np.flatnonzero(pd.notna(cells[j])) if before else np.empty(0)
        if not len(known):
            continue
        place = np.linspace(0, len(known) - 1, min(len(known), _SCREENED))
        some = known[place.astype(np.int64)]
        few = {i: _absolute(pd.Series(cells[i]).iloc[some]) for i in (*before, j)}
        starts = np.column_stack([few[i] for i in before])
        spread = spread_of(few[j][:, None] - starts)
        limit = _max_bins(columns[j]) * _typical_width(columns[j])
        if isinstance(columns[j], TimeColumn):
            limit = np.maximum(limit, _MAX_SHARE * spread_of(starts))
        close = np.flatnonzero(np.isfinite(spread) & (spread <= _SLACK * limit))
        if len(close):
            yield j, [before[k] for k in close]


def _kind(column: Any) -> Any:
    """Return what two columns share that have a difference; None without bins."""
    if isinstance(column, TimeColumn) and len(column.bins):
        # Moments that nanoseconds cannot tell have a difference from their like only.
        unit = "any" if column.fits_nanoseconds else column.unit
        return unit, column.is_duration, column.zone is None
    if isinstance(column, NumericColumn) and len(column.bins) >= _MIN_BINS:
        return "number"
    return None


def _absolute(cells: pd.Series) -> np.ndarray:
    """Return cells as numbers of one scale, NaN where they are missing."""
    if cells.dtype.kind not in "mM":
        return cells.to_numpy(dtype=np.float64)
    moments = plain(cells)
    stamps = moments.to_numpy()
    scale = float(NANOSECONDS[np.datetime_data(stamps.dtype)[0]])
    return np.where(moments.isna(), np.nan, scale * stamps.view(np.int64))


def _max_bins(column: Any) -> float:
    """Return the spread of a difference, in bins, up to which it is small."""
    return max(_MAX_BINS, (len(column.bins) / _BINS_OF_MANY_ROWS) ** 2)


def _typical_width(column: Any) -> float:
    """Return the width of a usual bin."""
    number = number_of(column)
    width = float(np.median((number.high - number.low)[number.bins]))
    if not isinstance(column, TimeColumn):
        return width
    return float(NANOSECONDS[column.unit]) * column.step * width


def missing_starts(
    gaps: list[Gap], cells: dict[int, pd.Series], column_of: Callable[[int], Any]
) -> bool:
    """Replace ends by the starts they leave likely, where those are missing.

    Parameters
    ----------
    gaps : list of Gap
        Gaps between columns.
    cells : dict of int to Series
        Cells of their columns, changed in place.
    column_of : callable
        Returns a column as it came, by its position.

    Returns
    -------
    changed : bool
        Whether there was one.
    """
    changed = False
    for gap in reversed(gaps):
        alone = _told_by_end(gap, gaps, cells)
        if alone.any():
            end, start = cells[gap.child], cells[gap.parent]
            usual = pd.Series(gap.usual_start(end, column_of(gap.parent)))
            cells[gap.parent] = plain(start).where(~alone, plain(usual))
            cells[gap.child] = end.where(~alone)
            changed = True
    return changed


def close_gaps(gaps: list[Gap], draft: Draft) -> None:
    """Replace drawn differences by the ends they lead to.

    Parameters
    ----------
    gaps : list of Gap
        Gaps between columns.
    draft : Draft
        Rows, changed in place.
    """
    values, cells = draft.values, dict(draft.known)
    for gap in reversed(gaps if cells else []):
        alone = _told_by_end(gap, gaps, cells)
        if alone.any():
            like = draft.column(gap.parent)
            start = gap.start(cells[gap.child], values[gap.child], like)
            known = plain(cells[gap.parent])
            cells[gap.parent] = known.where(~alone, plain(pd.Series(start)))
    children = {gap.child for gap in gaps}
    for gap in gaps:
        if gap.parent not in children and gap.parent in cells:
            values[gap.parent] = _with_known(cells, draft, gap.parent)
        values[gap.child] = gap.end(values[gap.parent], values[gap.child])
        if gap.child in cells:
            values[gap.child] = _with_known(cells, draft, gap.child)


def _with_known(cells: dict[int, pd.Series], draft: Draft, j: int) -> Any:
    """Return the values of a column, known cells first."""
    own, column = known_first(cells[j], draft.values[j]), draft.column(j)
    return _in_form(_numbers(column, own), column)


def _told_by_end(gap: Gap, gaps: list[Gap], cells: dict[int, pd.Series]) -> pd.Series:
    """Tell in which rows nothing but the end says where a gap starts."""
    alone = cells[gap.parent].isna() & cells[gap.child].notna()
    for before in gaps:
        if before.child == gap.parent:
            alone &= cells[before.parent].isna()
    return alone


def _closeness(child: Any, before: Any, after: Any) -> tuple[float, float, int] | None:
    """Return spread, median and side of a difference, None unless it is small."""
    start, end = (_numbers(child, cells) for cells in (before, after))
    known = ~np.isnan(end)
    # An end beside a start that is missing could not be coded.
    if np.isnan(start[known]).any():
        return None
    start, end = start[known], end[known]
    number = number_of(child)
    width = number.widths_at(end)
    binned = width > 0
    least = _MIN_MOMENTS if isinstance(child, TimeColumn) else _MIN_ROWS
    if binned.sum() < max(least, _MIN_SHARE * len(end)):
        return None
    difference = end - start
    low, high = difference.min(), difference.max()
    spread = float(spread_of(difference[binned]))
    # Bins of few rows are too wide to tell what is close.
    fine = len(child.bins) >= _MIN_BINS and binned.sum() >= _MIN_ROWS
    limit = _max_bins(child) * float(np.median(width[binned])) if fine else 0.0
    side = int(low >= 0) - int(high <= 0)
    if isinstance(child, TimeColumn) and side:
        limit = max(limit, _MAX_SHARE * spread_of(start))
    # Columns that differ by a constant determine each other.
    if low == high or spread > limit:
        return None
    return spread, float(np.median(difference)), side


def spread_of(values: np.ndarray) -> Any:
    """Return how far apart the deciles of numbers, or of columns of them, lie."""
    low, high = np.quantile(values, [0.1, 0.9], axis=0)
    return high - low


def _numbers(column: Any, cells: Any) -> np.ndarray:
    """Return cells as numbers, moments in the steps of a column of moments."""
    if isinstance(column, TimeColumn):
        return column.steps(cells)
    return np.asarray(cells, dtype=np.float64)


def plain(cells: Any) -> pd.Series:
    """Return cells to calculate with, moments without their zone."""
    return without_zone(pd.Series(cells).reset_index(drop=True))


def known_first(known: Any, drawn: Any) -> pd.Series:
    """Return known cells, and drawn ones where those are missing, without zones."""
    cells = plain(known)
    return cells.where(cells.notna(), plain(drawn))


def number_of(column: Any) -> NumericColumn:
    """Return a column of numbers, of moments that of their steps."""
    return column.numeric if isinstance(column, TimeColumn) else column


def _in_form(values: np.ndarray, column: Any, side: int = 0) -> Any:
    """Return numbers, or steps of a column of moments, as its cells."""
    if isinstance(column, TimeColumn):
        return column.dates(values, side)
    if column.decimals is None:
        # A series lends its numbers for reading only.
        return values.copy()
    return np.round(values, column.decimals)
