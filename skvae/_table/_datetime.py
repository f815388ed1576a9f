"""Dates and durations as numeric columns of whole steps."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd

from skvae._table._frames import with_zone, without_zone
from skvae._table._numeric import NumericColumn
from skvae._table._objects import duration_of
from skvae._table._written_dates import WrittenDates

_MISSING = np.iinfo(np.int64).min
# Nanoseconds of each unit, and those that moments may be from 1970 to be told in them.
NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
_MOST = 1 << 62


class TimeColumn:
    """A column of dates or durations: whole steps since the first, as numbers.

    Parameters
    ----------
    numeric : NumericColumn
        Codes of the steps.
    origin, step : int
        First value and common step, in the unit of the type.
    unit : str
        Unit of the type, such as "ns".
    zone : str or None
        Time zone.
    is_duration : bool
        Whether the column holds durations.
    text : WrittenDates or None, default=None
        Dates of the training rows, where the column holds text; it has no others.
    """

    kind = "time"

    def __init__(
        self,
        numeric: NumericColumn,
        origin: int,
        step: int,
        unit: str,
        zone: str | None,
        is_duration: bool,
        text: WrittenDates | None = None,
    ):
        self.numeric = numeric
        self.origin = origin
        self.step = step
        self.unit = unit
        self.zone = zone
        self.is_duration = is_duration
        self.text = text
        self.name = numeric.name

    @classmethod
    def fit(
        cls,
        series: pd.Series,
        name: str,
        max_bins: int,
        text: WrittenDates | None = None,
    ) -> TimeColumn:
        """Learn the codes of a training column, which may hold text."""
        series = text.read(series, name) if text else from_arrow(series)
        dtype = series.dtype
        unit = _unit_of(series)
        zone = getattr(dtype, "tz", None)
        is_duration = dtype.kind == "m"
        stamps = _stamps(series)
        known = stamps[stamps != _MISSING]
        origin = int(known.min()) if len(known) else 0
        step = int(np.gcd.reduce(known - origin)) if len(known) else 1
        column = cls(
            NumericColumn.fit(np.empty(0), name, max_bins),
            origin,
            step or 1,
            unit,
            None if zone is None else str(zone),
            is_duration,
            text,
        )
        column.numeric = NumericColumn.fit(column.steps(series), name, max_bins)
        return column

    def checked(self, series: pd.Series) -> pd.Series:
        """Return cells in the unit of training.

        Raises
        ------
        ValueError
            If they are not what the column held in training.
        """
        if not series.notna().any():
            kind = "m8" if self.is_duration else "M8"
            return pd.Series(np.full(len(series), "NaT", f"{kind}[{self.unit}]"))
        series = self.text.read(series, self.name) if self.text else series
        series = from_arrow(series)
        is_kin = series.dtype.kind == ("m" if self.is_duration else "M")
        aware = getattr(series.dtype, "tz", None) is not None
        if not is_kin or aware != (self.zone is not None):
            what = "durations" if self.is_duration else "dates"
            if is_kin:
                what += f" with{'out' if self.zone is None else ''} a time zone"
            raise ValueError(
                f"Column {self.name!r} held {what} in training, and has type "
                f"{series.dtype} now."
            )
        return series.dt.as_unit(self.unit)

    def steps(self, series: pd.Series) -> np.ndarray:
        """Return the steps from the first date of training, NaN where missing.

        Moments may come in a finer unit, or in one that this one tells them in.
        """
        stamps = _stamps(series)
        own, other = NANOSECONDS[self.unit], NANOSECONDS[_unit_of(series)]
        finer = max(own // other, 1)
        whole = stamps * max(other // own, 1) - self.origin * finer
        steps = whole / (self.step * finer)
        steps[stamps == _MISSING] = np.nan
        return steps

    def __getattr__(self, name: str) -> Any:
        if name in ("size", "missing_code", "bins", "code_values", "frequencies"):
            return getattr(self.numeric, name)
        raise AttributeError(name)

    def encode(self, series: pd.Series) -> np.ndarray:
        """Return the code of each cell."""
        return self.numeric.encode(self.steps(series))

    def scores(self, series: pd.Series, codes: np.ndarray) -> np.ndarray:
        """Return the normal score of each cell."""
        return self.numeric.scores(self.steps(series), codes)

    def draw(self, codes: np.ndarray, rank: np.ndarray) -> Any:
        """Return a date for each code, at a uniform rank among those of training."""
        return self.dates(self.numeric.draw(codes, rank))

    def ranks(self, series: pd.Series, codes: np.ndarray) -> np.ndarray:
        """Return the rank at which `draw` gives a date, NaN where it is missing."""
        return self.numeric.ranks(self.steps(series), codes)

    def point(self, probabilities: np.ndarray, known: np.ndarray | None = None) -> Any:
        """Return the median date of each row; see `NumericColumn.point`."""
        return self.dates(self.numeric.point(probabilities, known))

    def dates(self, steps: np.ndarray, side: int = 0) -> Any:
        """Return the dates that are so many steps from the first, NaT for NaN.

        Of text the nearest ones it has, on one side of the steps if that is not 0.
        """
        missing = np.isnan(steps)
        whole = np.where(missing, 0, np.round(steps)).astype(np.int64)
        stamps = whole * self.step + self.origin
        if self.text:
            stamps = self.text.stamps[self.text.nearest(stamps, side)]
        stamps[missing] = _MISSING
        if self.is_duration:
            return pd.Series(stamps.view(f"m8[{self.unit}]"))
        return self.zoned(pd.Series(stamps.view(f"M8[{self.unit}]")))

    def zoned(self, moments: pd.Series) -> pd.Series:
        """Return moments without a zone, or durations, as cells of the column."""
        return moments if self.zone is None else with_zone(moments, self.zone)

    @property
    def fits_nanoseconds(self) -> bool:
        """Whether all moments of training can be told in nanoseconds."""
        ends = np.array(self.numeric.extent) * self.step + self.origin
        return bool((np.abs(ends) * NANOSECONDS[self.unit] < _MOST).all())

    @property
    def is_discrete(self) -> bool:
        """Whether training values are drawn again, and no others."""
        return self.text is not None or self.numeric.discrete

    def numbers(self, moments: Any) -> np.ndarray:
        """Return the steps of moments as numbers, NaN where missing."""
        return self.steps(pd.Series(moments))

    def cells_of(self, numbers: np.ndarray) -> pd.Series:
        """Return the moments of such numbers."""
        return self.dates(numbers)

    def as_they_came(self, moments: Any) -> Any:
        """Return moments as the column holds them: as they are, or as text."""
        return self.text.written(pd.Series(moments)) if self.text else moments

    def codes_of(self, value: Any) -> np.ndarray:
        """Return the code a condition on this column admits."""
        moment = pd.Series([self.exact(value)]).dt.as_unit(self.unit)
        steps = self.steps(moment)
        if self.text and moment.notna()[0] and not self.text.holds(moment)[0]:
            raise ValueError(
                f"Column {self.name!r} has no date {value!r} in training. The nearest "
                f"is {self.text.written(moment)[0]!r}."
            )
        numeric = self.numeric
        low, high = numeric.extent
        if not np.isnan(steps[0]) and not low <= steps[0] <= high:
            first, last = self.dates(np.array([low, high]))
            raise ValueError(
                f"Column {numeric.name!r} lies in [{first}, {last}] in training; got "
                f"the condition {value!r}."
            )
        return numeric.codes_of(np.round(steps[0]))

    def exact(self, value: Any) -> Any:
        """Return the date a condition asks for, NaT for a missing cell."""
        if self.text and isinstance(value, str):
            return self.text.read(pd.Series([value]), self.name)[0]
        value = value.to_timestamp() if isinstance(value, pd.Period) else value
        value = duration_of(value) if isinstance(value, datetime.time) else value
        kind = pd.Timedelta if self.is_duration else pd.Timestamp
        try:
            moment = kind(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Column {self.numeric.name!r} holds dates; got the condition "
                f"{value!r}."
            ) from error
        if self.is_duration or pd.isna(moment):
            return moment
        if self.zone is None and moment.tzinfo is not None:
            raise ValueError(
                f"Column {self.name!r} holds dates without a time zone; got the "
                f"condition {value!r}."
            )
        if self.zone is not None and moment.tzinfo is None:
            moment = moment.tz_localize(self.zone)
        return moment

    def get_state(self) -> dict[str, Any]:
        """Return the learned state as plain values."""
        names = ("origin", "step", "unit", "zone", "is_duration")
        state = {n: getattr(self, n) for n in names}
        state["text"] = self.text and self.text.to_dict()
        return {"kind": self.kind, "numeric": self.numeric.get_state(), **state}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TimeColumn:
        """Make the column from plain values."""
        rest = {k: v for k, v in state.items() if k not in ("kind", "numeric", "text")}
        text = state["text"] and WrittenDates(**state["text"])
        return cls(NumericColumn.from_state(state["numeric"]), **rest, text=text)


def from_arrow(series: pd.Series) -> pd.Series:
    """Return dates that pyarrow keeps as those of numpy, with their time zone."""
    if not isinstance(series.dtype, pd.ArrowDtype) or series.dtype.kind not in "mM":
        return series
    import pyarrow as pa

    return pa.array(series).to_pandas(date_as_object=False)


def in_one_unit(cells: pd.Series, others: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return two columns of moments in the finer of their units.

    What lies beyond its range is put at its end: further than moments of training.
    """
    finer = min(_unit_of(cells), _unit_of(others), key=NANOSECONDS.__getitem__)
    return _in_finer_unit(cells, finer), _in_finer_unit(others, finer)


def _in_finer_unit(cells: pd.Series, unit: str) -> pd.Series:
    ratio = NANOSECONDS[_unit_of(cells)] // NANOSECONDS[unit]
    if ratio == 1:
        return cells
    stamps = _stamps(cells).clip(-_MOST // ratio, _MOST // ratio) * ratio
    stamps[cells.isna().to_numpy()] = _MISSING
    return pd.Series(stamps.view(f"{cells.dtype.kind}8[{unit}]"), index=cells.index)


def _unit_of(series: pd.Series) -> str:
    return np.datetime_data(_stamps_of(series).dtype)[0]


def _stamps(series: pd.Series) -> np.ndarray:
    return _stamps_of(series).view(np.int64).copy()


def _stamps_of(series: pd.Series) -> np.ndarray:
    return without_zone(series).to_numpy()
