"""Columns of objects that stand for numbers or dates: Decimal, date, Period."""

from __future__ import annotations

import datetime
import decimal
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class ObjectForm:
    """How a column of objects is read as numbers or dates, and written again.

    Parameters
    ----------
    kind : {"decimal", "date", "period"}
        What the cells are.
    detail : int, str or None
        Decimals of numbers, or the frequency of periods.
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
        kinds = {type(value) for value in series.dropna()}
        if kinds == {decimal.Decimal}:
            finite = (value for value in series.dropna() if value.is_finite())
            places = (-int(value.as_tuple().exponent) for value in finite)
            return cls("decimal", max(places, default=0))
        return cls("date") if kinds == {datetime.date} else None

    def read(self, series: pd.Series, name: Any) -> pd.Series:
        """Return the numbers or dates that objects stand for.

        Raises
        ------
        ValueError
            If a cell is something else.
        """
        if series.dtype.kind in "Mif":
            return series
        if isinstance(series.dtype, pd.PeriodDtype):
            series = series.dt.to_timestamp()
        try:
            if self.kind == "decimal":
                return pd.to_numeric(series.astype(float))
            return pd.to_datetime(series.astype(object)).dt.as_unit("us")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Column {name!r} held objects of the kind {self.kind!r} in training; "
                f"got {series.dropna().iloc[0]!r}."
            ) from error

    def written(self, values: Any) -> pd.Series:
        """Return numbers or dates as the objects they came as."""
        series = pd.Series(values)
        if self.kind == "period":
            return series.dt.to_period(self.detail)
        known = series.notna().to_numpy()
        out = np.full(len(series), None, dtype=object)
        if self.kind == "date":
            out[known] = series[known].dt.date.to_numpy()
        else:
            texts = (f"{value:.{max(self.detail, 0)}f}" for value in series[known])
            out[known] = [decimal.Decimal(text) for text in texts]
        return pd.Series(out, dtype=object)

    def to_dict(self) -> dict[str, Any]:
        """Return the form as plain values."""
        return asdict(self)


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
