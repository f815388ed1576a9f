"""Data frames in and out: the one place that knows the frame libraries.

A `Container` remembers what rows came in - array, pandas or polars frame, column
names and types - and gives numbers back in the same form. Its state is plain.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from skvae._table._objects import ObjectForm

# What `pandas.api.types.infer_dtype` says of objects that have a place among numbers.
_OBJECT_KINDS = {
    **dict.fromkeys(("date", "datetime", "datetime64"), "M"),
    **dict.fromkeys(("timedelta", "timedelta64"), "m"),
    **dict.fromkeys(("decimal", "integer", "floating", "mixed-integer-float"), "f"),
}


def library_of(X: Any) -> str | None:
    """Return "pandas" or "polars" for a frame, None for anything else."""
    home = type(X).__module__.partition(".")[0]
    if home == "polars" and type(X).__name__ == "LazyFrame":
        raise TypeError(
            "A polars LazyFrame was passed, which has no rows yet. Use '.collect()' to "
            "convert to a polars DataFrame."
        )
    if home in ("pandas", "polars") and type(X).__name__ == "DataFrame":
        return home
    return None


def dense_columns(X: Any, *, keep_matrix: bool = False) -> Any:
    """Return a pandas frame with its sparse columns dense, other rows as they are.

    Parameters
    ----------
    X : {array, DataFrame} of shape (n_samples, n_features)
        Rows.
    keep_matrix : bool, default=False
        Whether a frame stays that scikit-learn reads as a sparse matrix: zeros and
        other numbers, none of them missing.

    Returns
    -------
    rows : {array, DataFrame} of shape (n_samples, n_features)
        Rows without sparse columns, or those of a matrix.
    """
    if library_of(X) != "pandas":
        return X
    sparse = [isinstance(dtype, pd.SparseDtype) for dtype in X.dtypes]
    if not any(sparse):
        return X
    is_matrix = all(sparse) and all(dtype.fill_value == 0 for dtype in X.dtypes)
    if keep_matrix and is_matrix and not has_missing(X):
        return X
    types = {name: dtype.subtype for name, dtype in X.dtypes[sparse].items()}
    return X.astype(types)


def to_pandas(X: Any) -> pd.DataFrame:
    """Return a frame as a dense pandas frame; polars columns keep their nulls."""
    if library_of(X) == "pandas":
        return dense_columns(X)
    columns = {name: _polars_column(X[name]) for name in X.columns}
    return pd.DataFrame(columns)


def _polars_column(series: Any) -> pd.Series:
    import polars as pl

    dtype = series.dtype
    if dtype in (pl.Categorical, pl.Enum) or isinstance(dtype, pl.Enum):
        enum = isinstance(dtype, pl.Enum)
        levels = (
            list(dtype.categories) if enum else series.drop_nulls().unique().to_list()
        )
        return pd.Series(pd.Categorical(series.to_list(), categories=levels))
    if dtype == pl.String:
        return pd.Series(series.to_list(), dtype="str")
    if dtype.is_temporal():
        moments = pd.Series(series.to_numpy())
        zone = getattr(dtype, "time_zone", None)
        return moments if zone is None else with_zone(moments, zone)
    if dtype == pl.Boolean:
        return pd.Series(
            series.to_list(), dtype="boolean" if series.null_count() else bool
        )
    if dtype.is_decimal():
        return pd.Series(series.cast(pl.Float64).to_numpy())
    if dtype.is_integer() and series.null_count():
        return pd.Series(series.to_list(), dtype="Int64")
    return pd.Series(series.to_numpy())


def from_pandas(frame: pd.DataFrame, library: str, dtypes: dict[str, str]) -> Any:
    """Return a pandas frame in the library and types that came in."""
    if library == "pandas":
        return frame
    import polars as pl

    columns = {}
    for name in frame.columns:
        values = without_zone(frame[name])
        missing = values.isna().to_numpy()
        data = [None if m else v for v, m in zip(values.tolist(), missing, strict=True)]
        dtype = _polars_dtype(dtypes[name], values)
        first = pl.Float64 if dtype.is_decimal() else dtype
        # Moments stay moments where dates are asked for, unless they are cast.
        columns[name] = pl.Series(name, data, dtype=first).cast(dtype)
    return pl.DataFrame(columns)


def _polars_dtype(name: str, values: pd.Series) -> Any:
    import polars as pl

    if name.startswith(("Enum", "Categorical")):
        levels = [str(v) for v in values.cat.categories]
        return pl.Enum(levels) if name.startswith("Enum") else pl.Categorical
    base, _, rest = name.partition("(")
    if base == "Datetime":
        unit: Any = rest.split("'")[1] if "'" in rest else "us"
        zone = rest.split("time_zone=")[-1].rstrip(")").strip("'")
        return pl.Datetime(unit, None if zone in ("None", "") else zone)
    if base == "Decimal":
        figures = [part.split("=")[1] for part in rest.rstrip(")").split(", ")]
        return pl.Decimal(*map(int, figures))
    if base == "Duration":
        step: Any = rest.split("'")[1] if "'" in rest else "us"
        return pl.Duration(step)
    return getattr(pl, base)


def type_name(dtype: Any) -> str:
    """Return the name of a column type, of pandas text with how it is stored."""
    if isinstance(dtype, pd.SparseDtype):  # What comes back is dense.
        dtype = dtype.subtype
    if not isinstance(dtype, pd.StringDtype):
        return str(dtype)
    return f"{dtype}({dtype.storage})"


def pandas_type(name: str) -> Any:
    """Return the pandas type of a name, also where pandas itself cannot tell it."""
    if name.startswith(("str(", "string(")):
        return _text_type(*name.rstrip(")").split("("))
    if not name.endswith("[pyarrow]"):
        return name
    import pyarrow as pa

    base, _, rest = name.removesuffix("[pyarrow]").partition("(")
    if base == "string":  # For pandas, that is a type of its own.
        return pd.ArrowDtype(pa.string())
    if base.startswith("decimal"):
        figures = map(int, rest.rstrip(")").split(","))
        return pd.ArrowDtype(getattr(pa, base)(*figures))
    if base.startswith("dictionary<"):
        parts = dict(p.split("=") for p in base[len("dictionary<") : -1].split(", "))
        kinds = (pa.type_for_alias(parts[name]) for name in ("indices", "values"))
        return pd.ArrowDtype(pa.dictionary(*kinds, ordered=parts["ordered"] == "1"))
    return name


def _text_type(kind: str, storage: str) -> Any:
    # Missing is NaN in the one and pd.NA in the other.
    missing = {"na_value": np.nan} if kind == "str" else {}
    try:
        return pd.StringDtype(storage, **missing)
    except ImportError:  # Stored where pyarrow is, and loaded where it is not.
        return kind


def has_categories(X: Any) -> bool:
    """Tell whether a frame holds a column that is not numeric."""
    library = library_of(X)
    if library is None:
        return False
    if library == "polars":
        return not all(dtype.is_numeric() for dtype in X.dtypes)
    return not all(_is_numeric(dtype) for dtype in X.dtypes)


def has_integers(X: Any) -> bool:
    """Tell whether a frame holds a column of an integer type."""
    library = library_of(X)
    if library is None:
        return False
    if library == "polars":
        return any(dtype.is_integer() for dtype in X.dtypes)
    return any(pd.api.types.is_integer_dtype(dtype) for dtype in X.dtypes)


def _is_numeric(dtype: Any) -> bool:
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(
        dtype
    )


def has_missing(X: Any) -> bool:
    """Tell whether any cell is missing: NaN, None, NA, NaT or null."""
    library = library_of(X)
    if library == "polars":
        nulls = any(n for n in X.null_count().row(0))
        return nulls or any(
            bool(X[c].is_nan().any()) for c, t in X.schema.items() if t.is_float()
        )
    if library == "pandas":
        return bool(X.isna().to_numpy().any())
    if sp.issparse(X):
        # Some sparse formats keep no flat array of values.
        return X.dtype.kind == "f" and bool(np.isnan(X.tocsr().data).any())
    array = np.asarray(X)
    if array.dtype.kind == "f":
        return bool(np.isnan(np.sum(array))) and bool(np.isnan(array).any())
    if array.dtype.kind == "O":
        return bool(pd.isna(array).any())
    return False


def check_names(names: list[Any], seen: list[Any]) -> None:
    """Refuse other columns, or in another order; scikit-learn looks at text alone."""
    if pd.Index(names).equals(pd.Index(seen)):
        return
    message = "The feature names should match those that were passed during fit.\n"
    unseen = [name for name in names if name not in seen]
    missing = [name for name in seen if name not in names]
    if unseen:
        message += f"Feature names unseen at fit time: {unseen[:5]}.\n"
    if missing:
        message += f"Feature names seen at fit time, yet now missing: {missing[:5]}.\n"
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)


def columns_of_no_numbers(X: Any) -> list[Any]:
    """Return the names of the columns of a frame that no array of numbers can hold."""
    if library_of(X) is None:
        return []
    frame, names = to_pandas(X), []
    for name, dtype in frame.dtypes.items():
        try:
            timed = dtype.kind in "mM"
            frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            timed = True
        if timed:
            names.append(name)
    return names


def missing_cells(X: Any) -> np.ndarray:
    """Return which cells are missing, as a boolean array."""
    if library_of(X) is not None:
        return to_pandas(X).isna().to_numpy()
    return np.asarray(pd.isna(np.asarray(X)))


def fill_cells(X: Any, filled: Any, cells: np.ndarray) -> Any:
    """Return a copy of rows with the given cells taken from other rows.

    Parameters
    ----------
    X, filled : {array, DataFrame} of shape (n_samples, n_features)
        Rows, and rows of the same form to take cells from.
    cells : ndarray of shape (n_samples, n_features)
        True where a cell is taken from `filled`.

    Returns
    -------
    rows : {array, DataFrame} of shape (n_samples, n_features)
        Rows in their own types; where one has no room for a cell, in that of `filled`.
    """
    library = library_of(X)
    if library is None:
        rows = np.array(X)
        rows[cells] = np.asarray(filled)[cells]
        return rows
    ours, other = to_pandas(X), to_pandas(filled)
    columns, types = {}, dict(zip(X.columns, X.dtypes, strict=True))
    for j, name in enumerate(ours.columns):
        column, more = (frame[name].reset_index(drop=True) for frame in (ours, other))
        gaps = cells[:, j]
        # A column of nothing but gaps may have no type of its own.
        untyped = column.dtype == object or str(types[name]) == "Null"
        if gaps.all() and untyped:
            column, types[name] = more, filled[name].dtype
        elif gaps.any():
            column = _filled(column, more, gaps)
            if library == "polars" and not _holds(types[name], filled[name]):
                types[name] = filled[name].dtype
        columns[name] = column
    frame = pd.DataFrame(columns)
    if library == "pandas":
        frame.index = X.index
        return frame
    return from_pandas(frame, library, {n: str(t) for n, t in types.items()})


def _filled(column: pd.Series, more: pd.Series, cells: np.ndarray) -> pd.Series:
    """Return a column with some cells of another one, in a type that holds both."""
    form = ObjectForm.of(more)
    if form is not None and column.dtype != more.dtype:
        more = form.read(more, column.name)
    try:
        filled = column.mask(cells, more)
        is_plain = filled.dtype != object or object in (column.dtype, more.dtype)
        if is_plain and filled[cells].tolist() == more[cells].tolist():
            return filled
    except (TypeError, ValueError):  # The type has no room for what is filled in.
        pass
    objects = column.astype(object).mask(cells, more.astype(object))
    return objects.astype(more.dtype)


def _holds(dtype: Any, series: Any) -> bool:
    """Tell whether a polars type holds the cells of a column as they are."""
    import polars as pl

    if dtype.is_float() and series.dtype.is_float():
        return True
    try:
        return bool(series.cast(dtype).cast(series.dtype).equals(series))
    except pl.exceptions.PolarsError:
        return False


def concat_rows(parts: list[Any]) -> Any:
    """Join blocks of rows, arrays or frames."""
    if len(parts) == 1:
        return parts[0]
    library = library_of(parts[0])
    if library == "pandas":
        return pd.concat(parts, ignore_index=True)
    if library == "polars":
        import polars as pl

        return pl.concat(parts)
    return np.concatenate(parts)


class Container:
    """What rows came in: an array, or a frame with names and types.

    Parameters
    ----------
    library : {"pandas", "polars"} or None
        Frame library; None for arrays.
    names : list of str
        Column names of a frame.
    dtypes : list of str
        Column types of a frame.
    """

    def __init__(self, library: str | None, names: list[str], dtypes: list[str]):
        self.library = library
        self.names = names
        self.dtypes = dtypes

    @classmethod
    def of(cls, X: Any) -> Container:
        """Remember the container of `X`."""
        library = library_of(X)
        if library is None:
            return cls(None, [], [])
        return cls(library, list(X.columns), [type_name(t) for t in X.dtypes])

    @property
    def is_frame(self) -> bool:
        """Whether rows came as a frame."""
        return self.library is not None

    def restore(self, values: np.ndarray) -> Any:
        """Return numbers with the names and types of the container.

        Parameters
        ----------
        values : ndarray of shape (n_samples, n_features)
            Finite numbers.

        Returns
        -------
        rows : ndarray or DataFrame of shape (n_samples, n_features)
            Whole-number types are rounded and kept within their range.
        """
        if self.library is None or values.shape[1] != len(self.names):
            return values
        if self.library == "pandas":
            columns = {
                name: _cast_pandas(values[:, j], dtype)
                for j, (name, dtype) in enumerate(
                    zip(self.names, self.dtypes, strict=True)
                )
            }
            return pd.DataFrame(columns)
        import polars as pl

        return pl.DataFrame(
            [
                _cast_polars(name, values[:, j], dtype)
                for j, (name, dtype) in enumerate(
                    zip(self.names, self.dtypes, strict=True)
                )
            ]
        )

    def frame(self, columns: list[np.ndarray]) -> Any:
        """Return the cells of a frame's columns with their names and types.

        Parameters
        ----------
        columns : list of ndarray of shape (n_samples,)
            Cells that came from such a frame, none of them missing.

        Returns
        -------
        rows : DataFrame
            Categories are those among the cells.
        """
        assert self.library is not None
        dtypes = dict(zip(self.names, self.dtypes, strict=True))
        series = {}
        for (name, dtype), cells in zip(dtypes.items(), columns, strict=True):
            of_levels = dtype.startswith(("category", "Categorical", "Enum"))
            kind = "category" if of_levels else pandas_type(dtype)
            plain = self.library == "polars" and not of_levels
            series[name] = pd.Series(cells, dtype=None if plain else kind)
        return from_pandas(pd.DataFrame(series), self.library, dtypes)

    def get_state(self) -> dict[str, Any]:
        """Return the container as plain values."""
        return {
            "library": self.library,
            "names": list(self.names),
            "dtypes": list(self.dtypes),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Container:
        """Make the container from plain values."""
        return cls(**state)


def whole_within(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round numbers and keep them within the range of a whole-number type."""
    limits = np.iinfo(dtype)
    # The largest int64 is not a float: stay one float below it.
    high = (
        np.nextafter(float(limits.max), 0) if limits.bits == 64 else float(limits.max)
    )
    return np.clip(np.round(values), float(limits.min), high).astype(dtype)


def _numpy_name(dtype: str) -> str:
    return dtype.lower().replace("[pyarrow]", "").replace("double", "float64")


def _cast_pandas(values: np.ndarray, dtype: str) -> Any:
    base, kind = _numpy_name(dtype), pandas_type(dtype)
    if base.startswith("bool"):
        return pd.Series(values > 0.5).astype(kind)
    if base.startswith(("int", "uint")):
        return pd.Series(whole_within(values, np.dtype(base))).astype(kind)
    return pd.Series(values).astype(kind)


def _cast_polars(name: str, values: np.ndarray, dtype: str) -> Any:
    import polars as pl

    kind = getattr(pl, dtype.partition("(")[0])
    if dtype.startswith(("Int", "UInt")):
        return pl.Series(
            name, whole_within(values, np.dtype(dtype.lower())), dtype=kind
        )
    if dtype == "Boolean":
        return pl.Series(name, values > 0.5)
    return pl.Series(name, values).cast(kind)


def polars_like(values: Any, dtype: str) -> pd.Series:
    """Return values as a pandas column that converts to a polars type."""
    of_objects = isinstance(values, np.ndarray) and values.dtype == object
    if dtype.startswith(("Int", "UInt")):
        return pd.Series(values, dtype=dtype if of_objects else "Float64").astype(dtype)
    if of_objects:
        return pd.Series(values, dtype=object)
    return pd.Series(values)


def declared_categories(frame: pd.DataFrame) -> list[dict[str, Any] | None]:
    """Return levels, their order and type of each column of type "category"."""
    return [
        {
            "values": frame[name].cat.categories.tolist(),
            "ordered": bool(frame[name].cat.ordered),
            "dtype": type_name(frame[name].cat.categories.dtype),
        }
        if isinstance(frame[name].dtype, pd.CategoricalDtype)
        else None
        for name in frame.columns
    ]


def column_positions(wanted: Any, names: list[Any]) -> list[int]:
    """Return the positions of columns given by name, by position or as a mask.

    Raises
    ------
    ValueError
        If there is no such column, or a mask is not as long as there are columns.
    """
    chosen = wanted.tolist() if isinstance(wanted, np.ndarray) else list(wanted)
    if chosen and all(isinstance(c, (bool, np.bool_)) for c in chosen):
        if len(chosen) != len(names):
            raise ValueError(
                f"categorical_features has {len(chosen)} entries as a mask, but X "
                f"has {len(names)} columns."
            )
        return [j for j, is_chosen in enumerate(chosen) if is_chosen]
    positions = [_position_of(c, names) for c in chosen]
    unknown = [c for c, j in zip(chosen, positions, strict=True) if j is None]
    if unknown:
        raise ValueError(
            f"categorical_features names unknown columns {unknown}. Known columns "
            f"are {names}; integers are positions from 0 to {len(names) - 1}."
        )
    return [j for j in positions if j is not None]


def _position_of(column: Any, names: list[Any]) -> int | None:
    if isinstance(column, (bool, np.bool_)):
        return None
    if isinstance(column, (int, np.integer)):
        return int(column) if 0 <= column < len(names) else None
    return names.index(column) if column in names else None


def declared_features(frame: pd.DataFrame, wanted: Any) -> set[Any]:
    """Return the names of the columns that `categorical_features` asks for."""
    if isinstance(wanted, str):
        return set()
    names = list(frame.columns)
    return {names[j] for j in column_positions(wanted, names)}


def without_zone(series: pd.Series) -> pd.Series:
    """Return moments in UTC without their zone, other cells as they are."""
    if getattr(series.dtype, "tz", None) is None:
        return series
    return series.dt.tz_convert("UTC").dt.tz_localize(None)


def with_zone(moments: pd.Series, zone: str) -> pd.Series:
    """Return moments in UTC, given without a zone, in a time zone."""
    # A copy: pandas 2 warns of writing to what a method of `dt` returned.
    return moments.dt.tz_localize("UTC").dt.tz_convert(zone).copy()


def floats_of(series: pd.Series) -> np.ndarray:
    """Return a numeric column as floats, NaN where it is missing."""
    if series.dtype.kind in "iuf" and isinstance(series.dtype, np.dtype):
        return series.to_numpy(dtype=np.float64)
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def kind_of_cells(values: np.ndarray) -> str:
    """Tell moments, "M", and durations, "m", from numbers, "f", and the rest, "O"."""
    kind: str = values.dtype.kind
    if kind == "O":
        kind = _OBJECT_KINDS.get(pd.api.types.infer_dtype(values), "O")
    kind = "f" if kind in "iu" else kind
    return kind if kind in "mMf" else "O"


def cells_as_floats(values: np.ndarray, kind: str) -> np.ndarray:
    """Return numbers, moments or durations as floats."""
    if kind not in "mM":
        return values.astype(np.float64)
    cells = pd.Series(values)
    steps = pd.to_datetime(cells, utc=True) if kind == "M" else pd.to_timedelta(cells)
    return without_zone(steps).to_numpy(f"{kind}8[us]").astype(np.float64)
