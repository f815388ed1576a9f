"""Tables as matrices that can be compared: numbers, and codes of levels they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skvae._table._frames import column_positions, library_of, to_pandas
from skvae._table._objects import ObjectForm
from skvae._table._written_dates import WrittenDates, form_of


@dataclass(frozen=True)
class Table:
    """Rows whose columns are comparable with those of the tables aligned with it.

    Parameters
    ----------
    names : list of str
        Column names.
    values : ndarray of shape (n_samples, n_columns), float64
        Numbers, or codes of levels (0 is the level most frequent in the first table);
        NaN where a cell is missing.
    categorical : ndarray of shape (n_columns,), bool
        Which columns hold codes.
    n_levels : ndarray of shape (n_columns,), int
        Levels found in any of the tables; 0 for a column of numbers.
    n_known : ndarray of shape (n_columns,), int
        Levels found in the first table: a code from there on is a level it lacks.
    """

    names: list[str]
    values: np.ndarray
    categorical: np.ndarray
    n_levels: np.ndarray
    n_known: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def take(self, rows: np.ndarray) -> Table:
        """Return some of the rows."""
        return Table(
            self.names, self.values[rows], self.categorical, self.n_levels, self.n_known
        )


def align(
    *frames: Any, categorical_features: Iterable[Any] | None = None
) -> list[Table]:
    """Return tables with the columns of the first one, in codes they share.

    Parameters
    ----------
    *frames : {DataFrame, array-like} of shape (n_samples, n_columns)
        Tables; the first decides which columns there are, which are categorical, and
        which hold dates as text, or dates, periods and decimals as objects.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns to treat as categories: names, indices or a boolean mask.

    Returns
    -------
    tables : list of Table
        One for each frame.
    """
    tables = [_table_of(frame) for frame in frames]
    declared = _declared(list(tables[0]), categorical_features)
    forms = {
        k: form_of(cells)
        for k, cells in tables[0].items()
        if k not in declared and not isinstance(cells, np.ndarray)
    }
    columns = [
        {k: _column_of(cells, k, forms.get(k)) for k, cells in table.items()}
        for table in tables
    ]
    names = list(columns[0])
    for table in columns[1:]:
        _check_same_columns(names, list(table))
    categorical = np.array(
        [name in declared or columns[0][name].dtype == object for name in names],
        dtype=bool,
    )
    values = [np.empty((len(t[names[0]]), len(names))) for t in columns]
    n_levels = np.zeros(len(names), dtype=np.int64)
    n_known = np.zeros(len(names), dtype=np.int64)
    for j, name in enumerate(names):
        cells = [table[name] for table in columns]
        if not categorical[j]:
            for target, column in zip(values, cells, strict=True):
                target[:, j] = _numbers(column, name)
            continue
        codes, n_known[j], n_levels[j] = _shared_codes(cells)
        for target, column in zip(values, codes, strict=True):
            target[:, j] = column
    return [Table(names, v, categorical, n_levels, n_known) for v in values]


def _declared(names: list[Any], features: Any) -> set[Any]:
    if isinstance(features, str):
        features = None if features == "from_dtype" else [features]
    if features is None:
        return set()
    return {names[j] for j in column_positions(features, names)}


def _check_same_columns(names: list[str], others: list[str]) -> None:
    missing = [name for name in names if name not in others]
    extra = [name for name in others if name not in names]
    if missing or extra:
        raise ValueError(
            "All tables must have the same columns; compared with the first, a table "
            f"lacks {missing} and adds {extra}."
        )


def _refuse_repeated(names: list[Any]) -> None:
    name, times = Counter(names).most_common(1)[0] if names else (None, 1)
    if times > 1:
        raise ValueError(
            f"All columns of a table must have names of their own; {name!r} is the "
            f"name of {times}."
        )


def _table_of(frame: Any) -> dict[Any, Any]:
    """Return columns as pandas series, those of arrays as arrays."""
    if library_of(frame) is not None:
        _refuse_repeated(list(frame.columns))
        frame = to_pandas(frame)
        columns = {name: frame[name] for name in frame.columns}
    else:
        array = np.asarray(frame)
        if array.ndim != 2:
            raise ValueError(f"Expected a table with 2 dimensions, got {array.ndim}.")
        columns = {f"x{j}": array[:, j] for j in range(array.shape[1])}
    if not columns or not len(next(iter(columns.values()))):
        raise ValueError("Expected a table with at least 1 row and 1 column.")
    return columns


def _column_of(
    cells: Any, name: Any, form: ObjectForm | WrittenDates | None
) -> np.ndarray:
    """Return cells as float64 (NaN missing) or objects (None missing)."""
    if isinstance(cells, np.ndarray):
        return _array_column(cells)
    return _frame_column(cells if form is None else form.read(cells, name))


def _frame_column(series: Any) -> np.ndarray:
    kind = getattr(series.dtype, "kind", "O")
    missing = series.isna().to_numpy(dtype=bool)
    if kind in "iuf" and str(series.dtype) != "category":
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    if kind in "mM":
        stamps = series.to_numpy(
            dtype=f"{'datetime64' if kind == 'M' else 'timedelta64'}[us]"
        )
        return np.where(missing, np.nan, stamps.astype(np.int64).astype(np.float64))
    cells = series.to_numpy(dtype=object)
    return _with_none(cells, missing)


def _array_column(cells: np.ndarray) -> np.ndarray:
    if cells.dtype.kind in "iuf":
        return cells.astype(np.float64)
    if cells.dtype.kind != "O":
        return cells.astype(object)
    missing = np.array([c is None or c != c for c in cells], dtype=bool)
    known = cells[~missing]
    if len(known) and all(
        isinstance(c, int | float | np.number) and not isinstance(c, bool)
        for c in known
    ):
        return np.where(missing, np.nan, cells).astype(np.float64)
    return _with_none(cells, missing)


def _with_none(cells: np.ndarray, missing: np.ndarray) -> np.ndarray:
    cells = cells.copy()
    cells[missing] = None
    return cells


def _numbers(column: np.ndarray, name: str) -> np.ndarray:
    if column.dtype != object:
        return column
    if all(cell is None for cell in column):
        return np.full(len(column), np.nan)
    raise ValueError(
        f"Column {name!r} holds numbers in the first table and "
        f"{type(next(c for c in column if c is not None)).__name__} cells in another. "
        "List it in categorical_features, or make the types agree."
    )


def _shared_codes(columns: list[np.ndarray]) -> tuple[list[np.ndarray], int, int]:
    """Return codes in order of frequency in the first column, NaN where missing."""
    cells = [_present(column) for column in columns]
    order = [level for level, _ in Counter(cells[0]).most_common() if level is not None]
    code = {level: float(i) for i, level in enumerate(order)}
    n_known = len(code)
    for column in cells[1:]:
        for level in column:
            if level is not None and level not in code:
                code[level] = float(len(code))
    n_levels = len(code)
    code[None] = np.nan
    return [np.array([code[c] for c in column]) for column in cells], n_known, n_levels


def _present(column: np.ndarray) -> list[Any]:
    if column.dtype == object:
        return column.tolist()
    return [None if cell != cell else cell for cell in column.tolist()]


def subsample(table: Table, n_rows: int, random_state: Any) -> Table:
    """Return `n_rows` rows drawn without replacement, or all when there are fewer."""
    if len(table) <= n_rows:
        return table
    rng = check_random_state(random_state)
    return table.take(np.sort(rng.choice(len(table), size=n_rows, replace=False)))
