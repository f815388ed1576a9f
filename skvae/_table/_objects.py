"""Columns of objects that stand for numbers, dates or durations, as Decimal, date."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

# What `pandas.api.types.infer_dtype` says of cells that are read as each kind.
_NUMBERS = ("floating", "mixed-integer-float", "integer")
_MOMENTS = ("datetime", "datetime64", "date")
_DURATIONS = ("timedelta", "timedelta64")
_READ = {
    "integer": _NUMBERS,
    "float": _NUMBERS,
    "datetime": _MOMENTS,
    "Timestamp": _MOMENTS,
    "timedelta": _DURATIONS,
    "Timedelta": _DURATIONS,
    "time": ("time",),
}
_OF_TYPE = {
    datetime.datetime: "datetime",
    pd.Timestamp: "Timestamp",
    datetime.timedelta: "timedelta",
    pd.Timedelta: "Timedelta",
    datetime.time: "time",
}
_WRITE: dict[str, Any] = {
    "integer": round,
    "float": float,
    "date": pd.Timestamp.date,
    "datetime": pd.Timestamp.to_pydatetime,
    "timedelta": pd.Timedelta.to_pytimedelta,
}
# Whole numbers up to the one are floats; from the other on there are none.
_LARGEST, _OVERFLOW = 2**53, 2**1023
_LAST_TIME = datetime.timedelta(days=1, microseconds=-1)


@dataclass(frozen=True)
class ObjectForm:
    """How a column of objects is read as numbers or dates, and written again.

    Parameters
    ----------
    kind : str
        What the cells are: "decimal", "date", "period", "integer", "float", or the name
        of a type of moments, durations or times.
    detail : int, str or None
        Decimals of numbers, the frequency of periods, or the time zone of moments.
    """

    kind: str
    detail: Any = None

    @classmethod
    def of(cls, series: pd.Series) -> ObjectForm | None:
        """Return the form of a column, None if its cells are what they stand for."""
        if isinstance(series.dtype, pd.PeriodDtype):
            return cls("period", str(series.dtype)[len("period[") : -1])
        if series.dtype != object:
            return None
        known = series.dropna()
        kinds = {type(value) for value in known}
        if kinds == {decimal.Decimal}:
            finite = (value for value in known if value.is_finite())
            places = max((-int(v.as_tuple().exponent) for v in finite), default=0)
            is_number = places > 0 or are_exact_floats(known)
            return cls("decimal", places) if is_number else None
        if kinds == {datetime.date}:
            return cls("date")
        if len(kinds) == 1 and not kinds.isdisjoint(_OF_TYPE):
            return cls._of_times(known, _OF_TYPE[kinds.pop()])
        found = pd.api.types.infer_dtype(known)
        if found != "integer":
            return cls("float") if found in _NUMBERS else None
        return cls("integer") if are_exact_floats(known) else None

    @classmethod
    def _of_times(cls, known: pd.Series, kind: str) -> ObjectForm | None:
        """Return the form of moments, durations or times, None where they differ."""
        zones = {str(getattr(value, "tzinfo", None)) for value in known}
        zone = zones.pop()
        if zones or (kind == "time" and zone != "None"):
            return None
        form = cls(kind, None if zone == "None" else zone)
        try:
            form.read(known, None)
        except ValueError:  # Out of the range of pandas, or in a zone it has not.
            return None
        return form

    def read(self, series: pd.Series, name: Any) -> pd.Series:
        """Return the numbers or dates that objects stand for.

        Raises
        ------
        ValueError
            If a cell is something else.
        """
        if series.dtype.kind in "Mmif":
            return series
        if isinstance(series.dtype, pd.PeriodDtype):
            series = series.dt.to_timestamp()
        try:
            return self._read(series.astype(object))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Column {name!r} held objects of the kind {self.kind!r} in training; "
                f"got {series.dropna().iloc[0]!r}."
            ) from error

    def _read(self, cells: pd.Series) -> pd.Series:
        if self.kind in _READ:
            found = pd.api.types.infer_dtype(cells, skipna=True)
            if found not in (*_READ[self.kind], "empty"):
                raise TypeError(found)
        if self.kind in ("decimal", "integer", "float"):
            return pd.to_numeric(cells.astype(float))
        if self.kind == "time":
            cells = cells.map(duration_of, na_action="ignore")
        if self.kind in ("time", "timedelta", "Timedelta"):
            durations = pd.to_timedelta(cells)
            return durations if self.kind == "Timedelta" else durations.dt.as_unit("us")
        aware = {getattr(value, "tzinfo", None) is not None for value in cells.dropna()}
        moments = pd.to_datetime(cells, utc=aware == {True})
        if self.detail and aware == {True}:
            moments = moments.dt.tz_convert(self.detail)
        return moments if self.kind == "Timestamp" else moments.dt.as_unit("us")

    def written(self, values: Any) -> pd.Series:
        """Return numbers or dates as the objects they came as."""
        series = pd.Series(values)
        if self.kind == "period":
            return series.dt.to_period(self.detail)
        known = series.notna().to_numpy()
        out = np.full(len(series), None, dtype=object)
        out[known] = [self._object(value) for value in series[known]]
        return pd.Series(out, dtype=object)

    def _object(self, value: Any) -> Any:
        """Return a number or a date as the object that stands for it."""
        if self.kind == "decimal":
            return decimal.Decimal(f"{value:.{max(self.detail, 0)}f}")
        if self.kind == "time":
            # What is drawn as a difference from another time may leave the day.
            length = value.to_pytimedelta()
            length = min(max(length, datetime.timedelta(0)), _LAST_TIME)
            return (datetime.datetime.min + length).time()
        return _WRITE[self.kind](value) if self.kind in _WRITE else value

    def to_dict(self) -> dict[str, Any]:
        """Return the form as plain values."""
        return asdict(self)


def are_exact_floats(whole: pd.Series) -> bool:
    """Tell whether known whole numbers are the same as floats; long keys are not."""
    large = (v for v in whole.tolist() if not -_LARGEST <= v <= _LARGEST)
    return all(abs(v) < _OVERFLOW and int(float(v)) == v for v in large)


def duration_of(time: datetime.time) -> datetime.timedelta:
    """Return how long after midnight a time of the day is."""
    return (
        datetime.datetime.combine(datetime.datetime.min, time) - datetime.datetime.min
    )


def object_forms(frame: pd.DataFrame, declared: set[Any]) -> dict[int, ObjectForm]:
    """Return the forms of columns by position; declared categories have none."""
    forms = {}
    for j, name in enumerate(frame.columns):
        form = None if name in declared else ObjectForm.of(frame.iloc[:, j])
        if form is not None:
            forms[j] = form
    return forms


def read_objects(frame: pd.DataFrame, forms: dict[int, ObjectForm]) -> pd.DataFrame:
    """Return a frame with numbers and dates in place of the objects of some columns."""
    frame = frame.copy(deep=False) if forms else frame
    for j, form in forms.items():
        if j < frame.shape[1]:
            read = form.read(frame.iloc[:, j], frame.columns[j])
            frame.isetitem(j, read)
    return frame


def _moment_parts(moment: Any) -> list[Any]:
    moment = pd.Timestamp(moment)
    zone = None if moment.tzinfo is None else str(moment.tzinfo)
    return [int(moment.asm8.astype(np.int64)), moment.unit, zone]


def _moment(count: int, unit: Any, zone: str | None) -> pd.Timestamp:
    moment = pd.Timestamp(np.datetime64(count, unit))
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone)


# Levels of tables and conditions that are no plain values: as plain ones, and back.
PLAIN_FORMS: dict[type, tuple[Callable[[Any], list[Any]], Callable[..., Any]]] = {
    bytes: (lambda v: [v.hex()], bytes.fromhex),
    datetime.date: (lambda v: [v.isoformat()], datetime.date.fromisoformat),
    datetime.datetime: (_moment_parts, lambda *v: _moment(*v).to_pydatetime()),
    datetime.time: (lambda v: [v.isoformat()], datetime.time.fromisoformat),
    datetime.timedelta: (
        lambda v: [v.days, v.seconds, v.microseconds],
        datetime.timedelta,
    ),
    decimal.Decimal: (lambda v: [str(v)], decimal.Decimal),
    pd.Interval: (lambda v: [v.left, v.right, v.closed], pd.Interval),
    pd.Period: (
        lambda v: [v.ordinal, v.freqstr],
        lambda ordinal, freq: pd.Period(ordinal=ordinal, freq=freq),
    ),
    pd.Timedelta: (
        lambda v: [int(v.asm8.astype(np.int64)), v.unit],
        lambda count, unit: pd.Timedelta(np.timedelta64(count, unit)),
    ),
    pd.Timestamp: (_moment_parts, _moment),
    uuid.UUID: (lambda v: [str(v)], uuid.UUID),
}
