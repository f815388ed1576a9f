"""One column of several tables, read alike: the first says what its cells are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from skvae._table._datetime import from_arrow
from skvae._table._frames import floats_of, without_zone
from skvae._table._objects import ObjectForm, are_exact_floats
from skvae._table._written_dates import WrittenDates, form_of, iso_dates

# What a column holds that has a place among numbers.
_WORDS = {
    "f": "numbers",
    "M": "dates without a time zone",
    "Z": "dates with a time zone",
    "m": "durations",
}
# What `pandas.api.types.infer_dtype` says of objects that equal numbers, or are text.
_LEVELS = {
    **dict.fromkeys(("boolean", "decimal", "integer"), "numbers"),
    **dict.fromkeys(("floating", "mixed-integer-float"), "numbers"),
    "string": "text",
}


def series_of(cells: np.ndarray) -> pd.Series:
    """Return the column of an array, objects as they are."""
    return pd.Series(cells, dtype=object if cells.dtype == object else None)


def read_alike(
    columns: list[pd.Series], name: Any, is_declared: bool
) -> tuple[list[np.ndarray], bool]:
    """Return the cells of one column of all tables, as numbers or as levels.

    Parameters
    ----------
    columns : list of Series
        The column in each table; the first decides what it holds.
    name : str
        Its name.
    is_declared : bool
        Whether it holds categories, whatever its type.

    Returns
    -------
    cells : list of ndarray
        Numbers, dates and durations as float64, NaN where missing; other levels as
        objects, None where missing.
    are_levels : bool
        Whether they are categories.

    Raises
    ------
    ValueError
        If the tables hold cells that have no place beside each other, or infinity.
    """
    columns = [from_arrow(column) for column in columns]
    first, form = columns[0], None
    if not is_declared:
        form = form_of(first)
        first = first if form is None else form.read(first, name)
    kind = None if is_declared or _is_key(first) else _kind_of(first)
    if kind is None:
        columns = [_bare(column) for column in columns]
        _check_levels(columns, name)
        return [_levels(column, name) for column in columns], True
    others = [_read_as(column, kind, form, name) for column in columns[1:]]
    return [_floats(column, name) for column in (first, *others)], False


def _kind_of(series: pd.Series) -> str | None:
    """Return a key of `_WORDS`, None for levels."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(dtype):
        return None
    if dtype.kind == "M":
        return "M" if getattr(dtype, "tz", None) is None else "Z"
    if dtype.kind == "m":
        return "m"
    is_number = pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c"
    return "f" if is_number else None


def _is_key(series: pd.Series) -> bool:
    """Tell whether whole numbers are too long for floats, as the codec does."""
    whole = pd.api.types.is_integer_dtype(series.dtype)
    return whole and not are_exact_floats(series.dropna())


def _read_as(
    series: pd.Series, kind: str, form: ObjectForm | WrittenDates | None, name: Any
) -> pd.Series:
    """Return cells of another table as what they are in the first."""
    if not series.notna().any():
        return pd.Series(np.full(len(series), np.nan))
    plain, reason = series, None
    if form is not None:
        try:
            plain = form.read(series, name)
        except ValueError as error:
            reason = error
    if _kind_of(plain) != kind:
        plain = _by_itself(series, kind)
    if _kind_of(plain) == kind:
        return plain
    if reason is not None and isinstance(form, WrittenDates):
        raise reason
    raise _other_kinds(name, _WORDS[kind], _held(plain) or "cells of other types")


def _by_itself(series: pd.Series, kind: str) -> pd.Series:
    """Return what objects, text or levels stand for, or the cells as they are."""
    cells = series
    if isinstance(series.dtype, pd.CategoricalDtype):
        cells = series.astype(object)
    form = ObjectForm.of(cells)
    if form is not None:
        return form.read(cells, series.name)
    if kind == "f" and pd.api.types.infer_dtype(cells) in ("boolean", "integer"):
        return pd.Series(cells.to_numpy(dtype=np.float64, na_value=np.nan))
    dates = iso_dates(cells) if kind in "MZ" else None
    return series if dates is None else dates


def _floats(series: pd.Series, name: Any) -> np.ndarray:
    if series.dtype.kind not in "mM":
        numbers = floats_of(series)
        if np.isinf(numbers).any():
            raise ValueError(
                f"Column {name!r} contains infinity. Replace it by a number, or by "
                "NaN for a missing cell."
            )
        return numbers
    steps = without_zone(series).to_numpy(dtype=f"{series.dtype.kind}8[us]")
    return np.where(np.isnat(steps), np.nan, steps.astype(np.int64).astype(np.float64))


# -- levels ----------------------------------------------------------------------------


def _bare(series: pd.Series) -> pd.Series:
    """Return levels that are dates or durations as such, other cells as they are."""
    levels = getattr(series.dtype, "categories", None)
    if levels is None or levels.dtype.kind not in "mM":
        return series
    return series.astype(levels.dtype)


def _levels(series: pd.Series, name: Any) -> np.ndarray:
    if _kind_of(series) is not None and not _is_key(series):
        return _floats(series, name)
    cells = series.to_numpy(dtype=object).copy()
    cells[series.isna().to_numpy(dtype=bool)] = None
    return cells


def _check_levels(columns: list[pd.Series], name: Any) -> None:
    """Refuse levels none of which could ever equal one of the first table."""
    ours = _held(columns[0])
    for theirs in map(_held, columns[1:]):
        if None not in (ours, theirs) and ours != theirs:
            raise _other_kinds(name, ours, theirs)


def _held(series: pd.Series) -> str | None:
    """Tell in words what the known cells are, None if there are none or any."""
    if not series.notna().any():
        return None
    kind = _kind_of(series)
    if kind is not None:
        return _WORDS[kind]
    found = pd.api.types.infer_dtype(series.dropna().astype(object))
    if found.startswith("mixed") and found not in _LEVELS:
        return None
    return _LEVELS.get(found, f"{found} objects")


def _other_kinds(name: Any, ours: Any, theirs: Any) -> ValueError:
    return ValueError(
        f"Column {name!r} holds {ours} in the first table and {theirs} in another. "
        "Make the types agree, for instance with pandas.to_numeric or "
        "pandas.to_datetime."
    )
