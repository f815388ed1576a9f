"""Dates that a table holds as text, as files do."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from skvae._table._frames import without_zone
from skvae._table._objects import ObjectForm

# Text of fewer values, or of more rows a value, is a category whatever it says.
_FEW, _ROWS_PER_VALUE = 32, 20
# What a date says at least: year, month and day.
_PARTS = (("%Y",), ("%m", "%b", "%B"), ("%d",))


@dataclass(frozen=True)
class WrittenDates:
    """Dates as text: how they are read, and those of the training rows.

    Parameters
    ----------
    layout : str
        Their form, as `pandas.to_datetime` takes it.
    aware : bool
        Whether they have a time zone.
    texts : list of str
        Texts of the training rows, by date.
    stamps : ndarray of shape (n_texts,)
        Their dates in UTC, rising, in the unit of `read`.
    """

    layout: str
    aware: bool
    texts: list[str]
    stamps: np.ndarray

    @classmethod
    def found(cls, series: pd.Series) -> WrittenDates | None:
        """Return the dates of a column of text, None if it holds anything else."""
        known = series.dropna()
        if pd.api.types.infer_dtype(known) != "string":
            return None
        texts = known.unique().tolist()
        if len(texts) < max(_FEW, len(known) / _ROWS_PER_VALUE):
            return None
        for layout, aware in _layouts(texts[0]):
            moments = _read(pd.Series(texts), layout, aware)
            stamps = _stamps_of(moments)
            # Two texts of one date could not be told apart again.
            if moments.notna().all() and len(np.unique(stamps)) == len(texts):
                order = np.argsort(stamps)
                return cls(layout, aware, [texts[i] for i in order], stamps[order])
        return None

    def read(self, series: pd.Series, name: str) -> pd.Series:
        """Return text as dates, and dates as they are.

        Raises
        ------
        ValueError
            If a cell is no date of that form.
        """
        if series.dtype.kind == "M":
            return series
        moments = _read(series, self.layout, self.aware)
        wrong = series.notna() & moments.isna()
        if wrong.any():
            raise ValueError(
                f"Column {name!r} held dates like {self.texts[0]!r} in training; got "
                f"{series[wrong].iloc[0]!r}."
            )
        return moments

    def nearest(self, stamps: np.ndarray, side: int = 0) -> np.ndarray:
        """Return the place of the nearest date of the training rows.

        Not of an earlier one for side 1, not of a later one for -1, if there are such.
        """
        right = np.searchsorted(self.stamps, stamps).clip(1, len(self.stamps) - 1)
        left = right - 1
        nearer = stamps - self.stamps[left] <= self.stamps[right] - stamps
        if side > 0:
            nearer = stamps <= self.stamps[left]
        elif side < 0:
            nearer = stamps < self.stamps[right]
        return np.where(nearer, left, right)

    def holds(self, moments: pd.Series) -> np.ndarray:
        """Tell which dates are among those of the training rows."""
        return np.isin(_stamps_of(moments), self.stamps)

    def written(self, moments: pd.Series) -> np.ndarray:
        """Return the texts of the nearest dates of the training rows."""
        places = self.nearest(_stamps_of(moments))
        texts = np.array(self.texts, dtype=object)[places]
        texts[moments.isna().to_numpy()] = None
        return texts

    def to_dict(self) -> dict[str, Any]:
        """Return the dates as plain values."""
        return asdict(self)


def _layouts(text: str) -> list[tuple[str, bool]]:
    """Return the forms that a text may have as a date, and whether with a time zone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # The day may come first.
        guesses = [guess_datetime_format(text, dayfirst=first) for first in (0, 1)]
    layouts = [
        (guess, "%z" in guess)
        for guess in dict.fromkeys(guesses)
        if guess and all(any(code in guess for code in part) for part in _PARTS)
    ]
    # Fractions of a second may come and go.
    return layouts + [("ISO8601", aware) for _, aware in layouts[:1]]


def iso_dates(series: pd.Series) -> pd.Series | None:
    """Return the dates of text in the form of ISO 8601, None if a cell is no date."""
    known = series.dropna()
    if pd.api.types.infer_dtype(known) != "string":
        return None
    # pandas 2 only warns where some have a time zone and some do not.
    zoned = {not set("+-Z").isdisjoint(text[len("2024-01-01") :]) for text in known}
    if len(zoned) > 1 or not _layouts(known.iloc[0]):
        return None
    moments = _read(series, "ISO8601", zoned.pop())
    return moments if moments.notna().sum() == len(known) else None


def _read(series: pd.Series, layout: str, aware: bool) -> pd.Series:
    text = series.astype(object).where(series.notna(), None)
    moments = pd.to_datetime(text, format=layout, errors="coerce", utc=aware)
    return moments.dt.as_unit("us")


def _stamps_of(moments: pd.Series) -> np.ndarray:
    return without_zone(moments).to_numpy().astype("M8[us]").view(np.int64)


def form_of(series: pd.Series) -> ObjectForm | WrittenDates | None:
    """Return how text or objects are read as numbers or dates, None if they are not."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return None
    form = ObjectForm.of(series)
    if form is None and series.dtype.kind == "O":
        return WrittenDates.found(series)
    return form
