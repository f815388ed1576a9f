"""Tables as matrices that can be compared: numbers, and codes of levels they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import check_random_state

from skvae._table._alike import read_alike, series_of
from skvae._table._frames import column_positions, library_of, to_pandas


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
        which hold numbers, dates or durations, in whatever form.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns to treat as categories: names, indices or a boolean mask.

    Returns
    -------
    tables : list of Table
        One for each frame.
    """
    tables = [_table_of(frame) for frame in frames]
    names = list(tables[0])
    for table in tables[1:]:
        _check_same_columns(names, list(table))
    declared = _declared(names, categorical_features)
    values = [np.empty((len(t[names[0]]), len(names))) for t in tables]
    categorical = np.zeros(len(names), dtype=bool)
    n_levels = np.zeros(len(names), dtype=np.int64)
    n_known = np.zeros(len(names), dtype=np.int64)
    for j, name in enumerate(names):
        columns, categorical[j] = read_alike(
            [table[name] for table in tables], name, name in declared
        )
        if categorical[j]:
            columns, n_known[j], n_levels[j] = _shared_codes(columns, name)
        for target, column in zip(values, columns, strict=True):
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
    """Return the columns as pandas series."""
    if library_of(frame) is not None:
        _refuse_repeated(list(frame.columns))
        frame = to_pandas(frame)
        columns = {name: frame[name] for name in frame.columns}
    else:
        array = _array_of(frame)
        columns = {f"x{j}": series_of(array[:, j]) for j in range(array.shape[1])}
    if not columns or not len(next(iter(columns.values()))):
        raise ValueError("Expected a table with at least 1 row and 1 column.")
    return columns


def _array_of(rows: Any) -> np.ndarray:
    if sp.issparse(rows):
        raise TypeError(
            "Sparse data was passed, but dense data is required. Use '.toarray()' to "
            "convert to a dense numpy array."
        )
    # Of numbers beside text in a list, numpy would make text.
    array = np.asarray(rows, dtype=object if isinstance(rows, list | tuple) else None)
    if array.ndim != 2:
        raise ValueError(f"Expected a table with 2 dimensions, got {array.ndim}.")
    return array


def _shared_codes(
    columns: list[np.ndarray], name: Any
) -> tuple[list[np.ndarray], int, int]:
    """Return codes in order of frequency in the first column, NaN where missing."""
    cells = [_present(column) for column in columns]
    _refuse_unhashable(cells, name)
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


def _refuse_unhashable(columns: list[list[Any]], name: Any) -> None:
    for kind in {type(cell) for cells in columns for cell in cells}:
        if not getattr(kind, "__hash__", None):
            raise TypeError(
                f"Column {name!r} holds {kind.__name__} objects; categories must be "
                "strings, numbers or booleans."
            )


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
