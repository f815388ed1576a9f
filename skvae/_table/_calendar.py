"""Columns that a date tells: its weekday, its month, its hour.

Within a bin dates are drawn whatever the other columns hold, so that a Friday's row may
come with a Monday's date. Of the dates of a bin one is taken that the other columns
agree with; those that no date of the bin agrees with follow the date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skvae._table._datetime import TimeColumn
from skvae._table._dependence import determines
from skvae._table._draft import Draft
from skvae._table._gaps import known_first, plain

# Parts of a date, the coarsest first.
_PARTS = ("year", "quarter", "month", "year_month", "day_of_week", "day", "hour")
# What a known cell counts beside a drawn one.
_KNOWN = 100
# Days or hours of the training range that are tried at most.
_MAX_TRIALS = 200_000


@dataclass(frozen=True)
class DatePart:
    """A column that follows from a part of a date.

    Parameters
    ----------
    child, parent : int
        The column, and that of the dates.
    part : str
        Part of the date, such as "day_of_week".
    keys, codes : list of int
        Values of the part in training, in rising order, and the code of each.
    """

    child: int
    parent: int
    part: str
    keys: list[int]
    codes: list[int]

    def told(self, moments: pd.Series) -> np.ndarray:
        """Return the code that each date tells, -1 where it tells none."""
        keys = _keys(moments, self.part)
        place = np.searchsorted(self.keys, keys).clip(0, len(self.keys) - 1)
        same = np.asarray(self.keys)[place] == keys
        return np.where(same, np.asarray(self.codes)[place], -1)


def find_date_parts(
    columns: list[Any], cells: list[Any], codes: np.ndarray, gap_children: set[int]
) -> list[DatePart]:
    """Find the columns that a part of a date determines in all training rows.

    Parameters
    ----------
    columns : list
        The fitted columns.
    cells : list of array-like
        Their training cells.
    codes : ndarray of shape (n_rows, n_columns)
        The codes of those.
    gap_children : set of int
        Columns that hold differences.

    Returns
    -------
    parts : list of DatePart
        Each column is at most one of them.
    """
    own = set(range(len(columns))) - gap_children
    dates = [j for j in sorted(own) if _holds_dates(columns[j])]
    few = [j for j in sorted(own) if dates and not len(columns[j].bins)]
    months = [j for j in few if _holds_dates(columns[j]) and not columns[j].zone]
    others = [j for j in few if columns[j].kind != "time"]
    parts: dict[int, DatePart] = {}
    for children in (months, others):
        for parent in dates:
            open_ = {j: columns[j] for j in children if j not in parts and j != parent}
            # A date that another one tells does not tell others itself.
            if open_ and parent not in parts:
                parts |= _parts_of(parent, cells[parent], open_, codes)
    return list(parts.values())


def _parts_of(
    parent: int, dates: Any, columns: dict[int, Any], codes: np.ndarray
) -> dict[int, DatePart]:
    """Return the columns that a part of some dates tells, by the first such part."""
    found: dict[int, DatePart] = {}
    for part in _PARTS:
        keys = _keys(dates, part)
        for j in [j for j in columns if j not in found]:
            told = _codes_of_keys(keys, codes[:, j], columns[j])
            if told is not None:
                found[j] = DatePart(j, parent, part, *told)
    return found


def _holds_dates(column: Any) -> bool:
    return isinstance(column, TimeColumn) and not column.is_duration


def _keys(moments: pd.Series, part: str) -> np.ndarray:
    """Return a part of each date, -1 where it is missing."""
    if part == "year_month":
        keys = 12 * moments.dt.year + moments.dt.month
    else:
        keys = getattr(moments.dt, part)
    return keys.fillna(-1).to_numpy(dtype=np.int64)


def _codes_of_keys(
    keys: np.ndarray, codes: np.ndarray, column: Any
) -> tuple[list[int], list[int]] | None:
    """Return the keys and the code of each, None if keys do not determine codes."""
    known = keys >= 0
    values, first, index = np.unique(
        keys[known], return_index=True, return_inverse=True
    )
    codes = codes[known]
    pair = np.column_stack([index, codes])
    if not len(pair) or codes.min() < 0:
        return None
    if not determines(pair, (-1, column.missing_code), 2):
        return None
    return values.tolist(), codes[first].tolist()


def move_dates(parts: list[DatePart], draft: Draft) -> None:
    """Move drawn dates to where the columns they tell agree.

    They stay within their bins unless no date there has what is known.

    Parameters
    ----------
    parts : list of DatePart
        Columns that a date tells.
    draft : Draft
        Rows, changed in place.
    """
    for parent in sorted({entry.parent for entry in parts}):
        own = [entry for entry in parts if entry.parent == parent]
        column = draft.column(parent)
        moments = pd.Series(draft.values[parent]).reset_index(drop=True)
        open_ = moments.notna().to_numpy() & draft.is_open(parent)
        wanted = [(entry, *_wanted(entry, draft)) for entry in own]
        most = sum(counts for _, _, counts in wanted)
        rows = np.flatnonzero(open_ & (_score(moments, wanted, slice(None)) < most))
        if len(rows):
            moved = moments.iloc[rows].reset_index(drop=True)
            moved = _best(moved, _same_bin(moved, column), column, wanted, rows)
            if not column.numeric.discrete and any(e.part == "hour" for e in own):
                moved = _best(moved, _same_day(moved, column), column, wanted, rows)
            moved = _anywhere(moved, column, wanted, rows)
            moments.iloc[rows] = moved.array
            draft.values[parent] = moments


def follow_dates(parts: list[DatePart], draft: Draft) -> None:
    """Make columns agree with the dates that tell them; see `move_dates`."""
    for entry in parts:
        column, dates = draft.column(entry.child), draft.column(entry.parent)
        moments = pd.Series(draft.values[entry.parent]).reset_index(drop=True)
        if entry.parent in draft.known:
            known = known_first(draft.known[entry.parent], moments)
            moments = dates.zoned(known)
        codes = entry.told(moments)
        own = column.encode(pd.Series(draft.values[entry.child]))
        wrong = (codes >= 0) & (codes != own) & draft.is_open(entry.child)
        if wrong.any():
            new = draft.values[entry.child].copy()
            new[wrong] = _drawn(column, codes[wrong])
            draft.values[entry.child] = new


def _drawn(column: Any, codes: np.ndarray) -> Any:
    if column.kind != "category":
        return pd.Series(column.draw(codes, np.full(len(codes), 0.5))).array
    return column.draw(codes, np.random.default_rng(0))


def _wanted(entry: DatePart, draft: Draft) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes a date is to tell, and how much each counts."""
    cells, open_ = pd.Series(draft.values[entry.child]), draft.is_open(entry.child)
    if entry.child in draft.known:
        cells = cells.where(open_, draft.known[entry.child].astype(cells.dtype))
    codes = draft.column(entry.child).encode(cells)
    return codes, np.where(open_, 1, _KNOWN)


def _score(moments: pd.Series, wanted: list[Any], rows: Any) -> np.ndarray:
    """Return how much agrees with the dates of some rows."""
    score = np.zeros(len(moments), dtype=np.int64)
    for entry, codes, counts in wanted:
        score += counts[rows] * (entry.told(moments) == codes[rows])
    return score


def _best(
    moments: pd.Series,
    trials: Iterable[pd.Series],
    column: Any,
    wanted: list[Any],
    rows: np.ndarray,
) -> pd.Series:
    """Return, of the dates to try that lie in the same bin, those that agree most.

    The nearest of them, and the date itself if none agrees more.
    """
    codes, number = column.encode(moments), column.numeric
    best, chosen = _score(moments, wanted, rows), moments.copy()
    far = np.zeros(len(moments))
    own = plain(moments)
    for trial in trials:
        score = _score(trial, wanted, rows)
        distance = (plain(trial) - own).dt.total_seconds().abs().to_numpy()
        better = (score > best) | ((score == best) & (distance < far))
        steps = column.steps(trial)
        better &= (steps >= number.low[codes]) & (steps <= number.high[codes])
        chosen = chosen.where(~better, trial)
        best, far = np.where(better, score, best), np.where(better, distance, far)
    return chosen


def _same_bin(moments: pd.Series, column: Any) -> Iterator[pd.Series]:
    """Yield dates of training from the same bin, with the time of day if it varies."""
    number, codes = column.numeric, column.encode(moments)
    # Clocks may skip midnight in some zones.
    own = plain(moments)
    time_of_day = own - own.dt.normalize()
    for k in range(number.knots.shape[1]):
        trial = plain(column.dates(number.knots[codes, k]))
        if not number.discrete:
            trial = trial.dt.normalize() + time_of_day
        yield column.zoned(trial.dt.as_unit(column.unit))


def _same_day(moments: pd.Series, column: Any) -> Iterator[pd.Series]:
    """Yield the hours around."""
    for hours in range(-23, 24):
        trial = moments + pd.Timedelta(hours=hours)
        yield trial.dt.as_unit(column.unit)


def _anywhere(
    moments: pd.Series, column: Any, wanted: list[Any], rows: np.ndarray
) -> pd.Series:
    """Return dates that agree with what is known, where those of the bin do not.

    Of the dates of the training range the nearest of those that agree most.
    """
    firm = [
        (entry, codes, counts * (counts == _KNOWN)) for entry, codes, counts in wanted
    ]
    most = sum(counts[rows] for _, _, counts in firm)
    far = np.flatnonzero(_score(moments, firm, rows) < most)
    if not len(far):
        return moments
    hourly = any(entry.part == "hour" for entry, _, _ in wanted)
    unit = "h" if hourly else "D"
    trials = _trials(column, unit)
    own = _clock(moments.iloc[far])
    found = _nearest(trials, column, wanted, rows[far], own)
    if not column.is_discrete:
        found = found + (own - own.dt.floor(unit))
    steps = column.steps(_of_clock(found, column))
    new = column.dates(np.clip(steps, *column.numeric.extent))
    before = moments.iloc[far].reset_index(drop=True)
    better = _score(new, wanted, rows[far]) > _score(before, wanted, rows[far])
    moved = moments.copy()
    moved.iloc[far] = before.where(~better, new).array
    return moved


def _trials(column: Any, unit: str) -> pd.Series:
    """Return dates of training, or all days or hours if values are drawn between them.

    They are what a clock in their zone shows.
    """
    some = _clock(column.dates(np.unique(column.numeric.knots))).sort_values()
    length = (some.iloc[-1] - some.iloc[0]) // pd.Timedelta(1, unit)
    if column.is_discrete or length > _MAX_TRIALS:
        return some
    first, last = some.iloc[0].floor(unit), some.iloc[-1].floor(unit)
    return pd.Series(pd.date_range(first, last, freq=unit, unit=column.unit))


def _nearest(
    trials: pd.Series,
    column: Any,
    wanted: list[Any],
    rows: np.ndarray,
    own: pd.Series,
) -> pd.Series:
    """Return, of dates to try, those that agree most with rows; the nearest of them."""
    dates = _of_clock(trials, column)
    told = [entry.told(dates) for entry, _, _ in wanted]
    asked = [own for _, codes, counts in wanted for own in (codes[rows], counts[rows])]
    patterns, group = np.unique(np.column_stack(asked), axis=0, return_inverse=True)
    both = (moments.dt.as_unit(column.unit) for moments in (trials, own))
    stamps, at = (moments.to_numpy().view(np.int64) for moments in both)
    found = np.zeros(len(rows), dtype=np.int64)
    for k, pattern in enumerate(patterns.reshape(len(patterns), -1, 2)):
        agreeing = [
            count * (codes == code)
            for codes, (code, count) in zip(told, pattern, strict=True)
        ]
        score = np.sum(agreeing, axis=0)
        best, here = stamps[score == score.max()], np.flatnonzero(group.ravel() == k)
        after = np.searchsorted(best, at[here]).clip(1, max(len(best) - 1, 1))
        pair = best[np.minimum([after - 1, after], len(best) - 1)]
        closest = np.abs(pair - at[here]).argmin(axis=0)
        found[here] = pair[closest, np.arange(len(here))]
    return pd.Series(found.view(f"M8[{column.unit}]"))


def _clock(moments: pd.Series) -> pd.Series:
    """Return what a clock shows at moments, in their zone."""
    return moments.dt.tz_localize(None).reset_index(drop=True)


def _of_clock(shown: pd.Series, column: Any) -> pd.Series:
    """Return the moments at which a clock in the zone of a column shows that."""
    if column.zone is None:
        return shown.dt.as_unit(column.unit)
    first = np.ones(len(shown), dtype=bool)
    moments = shown.dt.tz_localize(column.zone, first, "shift_forward")
    return moments.dt.as_unit(column.unit)
