"""What a conditional model is told of a row: classes, numbers, or several columns.

A `Conditions` object learns how to write conditions as numbers - classes one-hot,
continuous values standardised - and how to give them back. Its state is plain.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.decomposition import PCA
from sklearn.semi_supervised import LabelSpreading
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

from skvae._table import (
    Container,
    cells_as_floats,
    has_missing,
    kind_of_cells,
    whole_within,
)

_MAX_KEPT = 10_000
# Labels spread over this many neighbours, in this many principal components.
_NEIGHBOURS, _SPREAD_COMPONENTS, _MAX_SPREAD = 7, 30, 20_000
_KEPT_PRIOR = 0.05
# Floats that are whole numbers, and integers in a table of conditions, count as
# continuous from more values than this on.
_MAX_LEVELS = 20
# Labels that a message lists at most.
_MAX_LISTED = 10
# Parts that numbers are cut into where groups are wanted.
_GROUPS = 16


class ConditionColumn:
    """One condition: its classes, or its mean and standard deviation.

    Parameters
    ----------
    name : str
        Name used in messages.
    classes : ndarray or None
        Sorted classes; None for a continuous condition.
    mean, sd : float
        Of a continuous condition.
    kind : {"M", "m", "f", "O"}
        Whether it came as moments, durations, numbers or anything else.
    """

    def __init__(
        self,
        name: str,
        classes: np.ndarray | None,
        mean: float = 0.0,
        sd: float = 1.0,
        kind: str = "O",
    ):
        self.name = name
        self.classes = classes
        self.mean = mean
        self.sd = sd
        self.kind = kind

    @classmethod
    def fit(cls, values: np.ndarray, name: str, *, as_classes: bool) -> ConditionColumn:
        """Learn a condition from known values."""
        if as_classes:
            return cls(name, np.unique(values))
        kind = kind_of_cells(values)
        numbers = cells_as_floats(values, kind)
        sd = float(numbers.std())
        return cls(name, None, float(numbers.mean()), sd if sd > 0 else 1.0, kind)

    @property
    def width(self) -> int:
        """Numbers the condition is written as."""
        return 1 if self.classes is None else len(self.classes)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Write values as numbers; unknown classes are refused."""
        if self.classes is None:
            return ((self._numbers(values) - self.mean) / self.sd)[:, None]
        try:
            codes = np.searchsorted(self.classes, values)
        except TypeError:  # Numbers have no place among names.
            codes = np.zeros(len(values), dtype=np.int64)
        codes = np.minimum(codes, len(self.classes) - 1)
        unseen = self.classes[codes] != values
        if np.any(unseen):
            raise ValueError(
                f"{self.name} contains previously unseen labels: "
                f"{_listed(np.unique(np.asarray(values)[unseen]))}. Known labels are "
                f"{_listed(self.classes)}, those of the first fit; of a single "
                "condition `classes` names more in the first call of partial_fit."
            )
        return np.eye(len(self.classes))[codes]

    def _numbers(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        what = {"M": "dates", "m": "durations"}.get(self.kind, "numbers")
        try:
            # Of numbers pandas would make moments soon after 1970.
            if what != "numbers" and kind_of_cells(values) == "f":
                raise TypeError(what)
            return cells_as_floats(values, self.kind)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name} holds {what}. Got {values[:3].tolist()}."
            ) from error

    def check_one(self, cell: Any) -> None:
        """Refuse what is not one value, or what the type of a frame would let pass."""
        if np.ndim(cell) or _is_missing(cell):
            raise ValueError(
                f"{self.name} must be one value in a dict. Got {cell!r}; a frame has "
                "conditions for each row."
            )
        is_flag = self.classes is not None and self.classes.dtype.kind == "b"
        if (is_flag and cell not in (False, True)) or self.kind in "mM":
            self.encode(np.asarray([cell], dtype=object))


class Conditions:
    """The conditions of a model, one or several columns.

    Parameters
    ----------
    columns : list of ConditionColumn
        One for each condition.
    is_table : bool
        Whether conditions came as a table.
    container : Container
        What conditions came in.
    kept : list of ndarray
        Values of training rows with a label, which `draw` draws from.
    total : ndarray of shape (width,) or float
        Sum of these rows as they are written.
    n_seen : int
        Their number.
    """

    def __init__(
        self,
        columns: list[ConditionColumn],
        is_table: bool,
        container: Container,
        kept: list[np.ndarray],
        total: Any = 0.0,
        n_seen: int = 0,
    ):
        self.columns = columns
        self.is_table = is_table
        self.container = container
        self.kept = kept
        self.total = total
        self.n_seen = n_seen

    @classmethod
    def fit(cls, y: Any, classes: Any = None) -> Conditions:
        """Learn how to write the conditions of training rows.

        Of these conditions none are kept so far; see `following`.
        """
        arrays, names, is_table = _columns_of(y)
        if classes is not None:
            if len(arrays) > 1:
                raise ValueError(
                    "classes are those of a single condition, but y has "
                    f"{len(arrays)} columns. Use classes=None."
                )
            name = f"y[{names[0]!r}]" if names else "y"
            columns = [ConditionColumn(name, np.unique(column_or_1d(classes)))]
        elif not is_table:
            values, unlabelled = split_unlabelled(arrays[0])
            known = values[~unlabelled]
            _check_some(len(known))
            column = ConditionColumn.fit(known, "y", as_classes=not _are_numbers(known))
            columns = [column]
        else:
            assert names is not None
            columns = [
                ConditionColumn.fit(a, f"y[{n!r}]", as_classes=_is_classes(a))
                for a, n in zip(arrays, names, strict=True)
            ]
        return cls(columns, is_table, Container.of(y), [])

    def following(self, y: Any, encoded: np.ndarray, *, more: bool) -> Conditions:
        """Return these conditions with the shares of other rows.

        Parameters
        ----------
        y : array-like or DataFrame
            Conditions of training rows.
        encoded : ndarray of shape (n_rows, width)
            What `encode` makes of them.
        more : bool
            Whether they come after those seen so far, and do not replace them.
        """
        labelled = ~np.isnan(encoded).any(axis=1)
        n_new, total = int(labelled.sum()), encoded[labelled].sum(axis=0)
        if more and not n_new:
            return self
        _check_some(n_new)
        added = self._values(y, labelled)
        n_before = self.n_seen if more else 0
        # How many of a draw from all rows seen are among the new ones.
        rng = np.random.RandomState((0, n_before % 2**32) if n_before else 0)
        most = min(_MAX_KEPT, n_before + n_new)
        n_added = rng.hypergeometric(n_new, n_before, most) if n_before else most
        new: Any = slice(None)
        if n_added < n_new:
            new = rng.choice(n_new, n_added, replace=False)
        kept = [values[new] for values in added]
        if n_before:
            left = rng.choice(len(self.kept[0]), most - n_added, replace=False)
            kept = [_joined(a[left], b) for a, b in zip(self.kept, kept, strict=True)]
            total = self.total + total
        n_seen = n_before + n_new
        return Conditions(
            self.columns, self.is_table, self.container, kept, total, n_seen
        )

    def _values(self, y: Any, labelled: np.ndarray) -> list[np.ndarray]:
        """Return the conditions of labelled rows, a column each."""
        arrays = self._matched(y)
        if not self.is_table:
            arrays = [split_unlabelled(arrays[0], self.classes)[0]]
        return [values[labelled] for values in arrays]

    @property
    def mean(self) -> np.ndarray:
        """The average condition of training rows, as it is written."""
        return np.asarray(self.total / self.n_seen)

    @property
    def class_prior(self) -> np.ndarray | None:
        """Share of each class, for a single condition of classes."""
        return None if self.classes is None else self.mean

    @property
    def width(self) -> int:
        """Numbers the conditions are written as."""
        return sum(c.width for c in self.columns)

    @property
    def classes(self) -> np.ndarray | None:
        """Classes of a single condition of classes."""
        return self.columns[0].classes if len(self.columns) == 1 else None

    def encode(self, y: Any) -> np.ndarray:
        """Write conditions as numbers; unlabelled rows are NaN throughout."""
        arrays = self._matched(y)
        if self.is_table:
            parts = [c.encode(a) for c, a in zip(self.columns, arrays, strict=True)]
            return np.concatenate(parts, axis=1)
        column = self.columns[0]
        if column.classes is None:
            out = column.encode(arrays[0])
            if np.isnan(out).any():
                raise ValueError("Input y contains NaN.")
            return out
        values, unlabelled = split_unlabelled(arrays[0], column.classes)
        out = np.full((len(values), self.width), np.nan)
        out[~unlabelled] = column.encode(values[~unlabelled])
        return out

    def rows(self, y: Any, n: int) -> Any:
        """Return the conditions asked for, one or one for each of n rows, as rows."""
        if isinstance(y, Mapping):
            return self._repeated(y, n)
        container = Container.of(y)
        if not container.is_frame:
            if np.ndim(y):
                return np.asarray(y) if isinstance(y, list | tuple) else y
            return np.asarray([y] * n)
        if len(y) != 1:
            return y
        return container.frame([np.repeat(np.asarray(y[c]), n) for c in y.columns])

    @property
    def _names(self) -> list[Any]:
        """Names of several conditions; their positions, where they came without."""
        return self.container.names or list(range(len(self.columns)))

    def _repeated(self, asked: Mapping[Any, Any], n: int) -> Any:
        """Return one value a condition as n rows, in the container seen in fit."""
        if not self.is_table:
            raise ValueError(
                f"y={asked!r} names conditions, but the model was fitted with one that "
                "has no name. Pass its value."
            )
        self._check_names(list(asked))
        cells = [asked[name] for name in self._names]
        for column, cell in zip(self.columns, cells, strict=True):
            column.check_one(cell)
        if not self.container.is_frame:
            row = np.array(cells)
            return np.array([cells] * n, object if row.dtype.kind in "US" else None)
        try:
            return self.container.frame([np.asarray([cell] * n) for cell in cells])
        except (TypeError, ValueError) as error:
            types = dict(zip(self._names, self.container.dtypes, strict=True))
            raise ValueError(
                f"y={asked!r} does not fit the types of conditions in fit: {types}."
            ) from error

    def _check_names(self, names: list[Any]) -> None:
        if len(names) != len(self._names) or set(names) != set(self._names):
            raise ValueError(
                f"y has the condition columns {names}, but the model was fitted with "
                f"{self._names}. Pass these, in any order."
            )

    def _matched(self, y: Any) -> list[np.ndarray]:
        """Return columns of conditions in the order of fit: by name in frames."""
        arrays, names, _ = _columns_of(y)
        if Container.of(y).is_frame and self.container.is_frame:
            assert names is not None
            self._check_names(names)
            return [arrays[names.index(name)] for name in self._names]
        if len(arrays) != len(self.columns):
            known = f", {self._names}" if self.is_table else ""
            raise ValueError(
                f"y has {len(arrays)} condition columns, but the model was fitted with "
                f"{len(self.columns)}{known}. Pass a column for each."
            )
        return arrays

    def groups(self, encoded: np.ndarray) -> np.ndarray:
        """Return coarser conditions, (n_rows, n_conditions): classes, parts of numbers.

        Parameters
        ----------
        encoded : ndarray of shape (n_rows, width)
            As `encode` returns, all rows with labels.
        """
        groups = np.empty((len(encoded), len(self.columns)), dtype=np.int64)
        start = 0
        for j, column in enumerate(self.columns):
            own = encoded[:, start : start + column.width]
            start += column.width
            if column.classes is not None:
                groups[:, j] = own.argmax(axis=1)
                continue
            edges = np.quantile(own, np.arange(1, _GROUPS) / _GROUPS)
            groups[:, j] = np.searchsorted(edges, own[:, 0])
        return groups

    def draw(self, n: int, rng: np.random.RandomState) -> Any:
        """Draw the conditions of n rows from those of the training rows.

        One systematic draw in random order: shares carry no noise of their own.
        """
        places = (rng.permutation(n) + rng.uniform()) / n
        if self.class_prior is not None and not self.is_table:
            classes = self.columns[0].classes
            assert classes is not None
            found = np.searchsorted(self.class_prior.cumsum(), places, side="right")
            return classes[np.minimum(found, len(classes) - 1)]
        last = len(self.kept[0]) - 1
        rows = np.minimum((places * (last + 1)).astype(np.int64), last)
        if not self.is_table:
            return self.kept[0][rows]
        if self.container.is_frame:
            return self.container.frame([values[rows] for values in self.kept])
        table = np.empty((n, len(self.kept)), dtype=np.result_type(*self.kept))
        if table.dtype.kind in "US":
            table = table.astype(object)
        for j, values in enumerate(self.kept):
            table[:, j] = values[rows]
        return table

    def get_state(self) -> dict[str, Any]:
        """Return the learned state as plain values."""
        columns = [dict(vars(c)) for c in self.columns]
        container = self.container.get_state()
        return {**vars(self), "columns": columns, "container": container}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Conditions:
        """Make the conditions from plain values."""
        columns = [ConditionColumn(**c) for c in state["columns"]]
        container = Container.from_state(state["container"])
        return cls(**{**state, "columns": columns, "container": container})


def spread_labels(
    columns: Any, X: Any, condition: np.ndarray, prior: np.ndarray
) -> np.ndarray:
    """Return shares of the classes for every row, from the labels of similar rows.

    Labels spread over the nearest neighbours of numeric rows; a part of every share
    is that of the class among the labelled rows, which is all there is for tables.

    Parameters
    ----------
    columns : object
        What was learned about the columns.
    X : {ndarray, csr_array} of shape (n_samples, n_features)
        Stored rows.
    condition : ndarray of shape (n_samples, n_classes)
        One-hot classes, NaN for rows without a label.
    prior : ndarray of shape (n_classes,)
        Shares of the classes among labelled rows.

    Returns
    -------
    shares : ndarray of shape (n_samples, n_classes)
        They sum to one.
    """
    unlabelled = np.isnan(condition).any(axis=1)
    prior = np.broadcast_to(prior, condition.shape)
    cannot = len(condition) > _MAX_SPREAD or unlabelled.all() or issparse(X)
    if columns.kind != "numeric" or columns.has_missing or cannot:
        return np.where(unlabelled[:, None], prior, condition)
    rows = (X - columns.center) / columns.scale
    if rows.shape[1] > _SPREAD_COMPONENTS:
        rows = PCA(_SPREAD_COMPONENTS, random_state=0).fit_transform(rows)
    labels = np.where(unlabelled, -1, np.nan_to_num(condition).argmax(axis=1))
    neighbours = min(_NEIGHBOURS, len(rows) - 1)
    with warnings.catch_warnings():
        # Rows that no label reaches keep the shares of the classes.
        warnings.simplefilter("ignore")
        model = LabelSpreading(kernel="knn", n_neighbors=neighbours, alpha=0.5)
        model.fit(rows, labels)
    found = np.zeros(condition.shape)
    found[:, model.classes_] = np.nan_to_num(model.label_distributions_)
    reached = found.sum(axis=1, keepdims=True) > 0
    mixed = np.where(reached, (1 - _KEPT_PRIOR) * found + _KEPT_PRIOR * prior, prior)
    return np.where(unlabelled[:, None], mixed, condition)


def _check_some(n_labelled: int) -> None:
    if not n_labelled:
        raise ValueError("y has no labelled row: at least one is needed.")


def _listed(labels: np.ndarray) -> str:
    """Return labels for a message, of many the first."""
    more = f", ... ({len(labels)})]" if len(labels) > _MAX_LISTED else "]"
    return str(labels[:_MAX_LISTED].tolist())[:-1] + more


def _joined(kept: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return values and further ones, in the type of the first or one of both."""
    kinds = {kept.dtype.kind, more.dtype.kind}
    if kinds <= set("iuf") and kept.dtype.kind != "f":
        more = whole_within(more, kept.dtype)
    if len(kinds) == 1 or kinds <= set("biuf"):
        return np.concatenate([kept, more])
    # NumPy would make numbers of dates.
    out = np.empty(len(kept) + len(more), dtype=object)
    out[:] = [*kept, *more]
    return out


def _is_missing(value: Any) -> bool:
    """Tell NaN, None and the NA of pandas, which equals nothing, from labels."""
    different = value != value
    return (
        value is None or not isinstance(different, bool | np.bool_) or bool(different)
    )


def split_unlabelled(
    values: np.ndarray, classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tell labelled rows from unlabelled ones: NaN, None, or -1 beside other labels.

    -1 marks a row without a label, as in `sklearn.semi_supervised`, unless it is one of
    only two values: then it is a class like the other. Floats are labels where they
    are few whole numbers; among other floats -1 is a number.
    """
    values = np.asarray(values)
    missing = np.zeros(len(values), dtype=bool)
    if values.dtype.kind == "O":
        missing = np.array([_is_missing(v) for v in values], dtype=bool)
        if any(isinstance(v, str) for v in values):
            # Beside names, numbers cannot tell by their order what -1 is.
            missing |= np.array([isinstance(v, Number) and v == -1 for v in values])
        values = _narrowed(values, missing)
    if values.dtype.kind in "mM":
        missing = np.isnat(values)
    if values.dtype.kind == "f":
        missing = missing | np.isnan(values)
        known = values[~missing]
        if missing.any() and np.all(known == np.round(known)):
            whole = np.full(len(values), -1, dtype=np.int64)
            whole[~missing] = known.astype(np.int64)
            values = whole
    if values.dtype.kind in "if" and _marks_by_minus_one(values[~missing], classes):
        missing = missing | (values == -1)
    return values, missing


def _narrowed(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return objects as an array of their own type, where there is one."""
    known = values[~missing]
    numbers = all(isinstance(v, Number | np.bool_) for v in known)
    if not numbers and not missing.any():
        return values
    known = np.array(known.tolist())
    filled = np.zeros(len(values), dtype=known.dtype)
    filled[~missing] = known
    return filled


def _marks_by_minus_one(known: np.ndarray, classes: np.ndarray | None) -> bool:
    """Tell whether -1 among numbers says that a row has no label."""
    if classes is not None:
        return -1 not in classes
    others = np.unique(known[known != -1])
    if len(others) < 2 or others.min() < 0:
        return False
    whole = bool(np.all(others == np.round(others)))
    return known.dtype.kind == "i" or (whole and len(others) <= _MAX_LEVELS)


def _columns_of(y: Any) -> tuple[list[np.ndarray], list[str] | None, bool]:
    """Return the condition columns of `y`, their names, and whether it is a table."""
    is_frame = Container.of(y).is_frame
    array = y if is_frame else np.asarray(y)
    if not is_frame and (array.ndim != 2 or array.shape[1] <= 1):
        column = column_or_1d(array, warn=True)
        assert_all_finite(column, allow_nan=True, input_name="y")
        return [column], None, False
    if has_missing(array):
        raise ValueError("Input y contains NaN: a table of conditions is complete.")
    if is_frame:
        names = list(y.columns)
        columns = [np.asarray(y[name]) for name in names]
    else:
        names = [str(j) for j in range(array.shape[1])]
        columns = [_narrow(values) for values in array.T]
    for column in columns:
        assert_all_finite(column, input_name="y")
    return columns, names, True


def _narrow(values: np.ndarray) -> np.ndarray:
    return np.array(values.tolist()) if values.dtype.kind == "O" else values


def _are_numbers(values: np.ndarray) -> bool:
    """Tell whether a single condition is a number or a date, and not a class."""
    is_object = values.dtype.kind == "O" and kind_of_cells(values) != "O"
    if values.dtype.kind in "mM" or is_object:
        return not _is_classes(values)
    target = type_of_target(values, raise_unknown=True, input_name="y")
    # Measured in whole numbers, as ages are; gaps are a matter of classes.
    whole = values.dtype.kind == "f" and len(np.unique(values)) > _MAX_LEVELS
    return target.startswith("continuous") or whole


def _is_classes(values: np.ndarray) -> bool:
    kind = kind_of_cells(values)
    if kind == "O":
        return True
    numbers = cells_as_floats(values, kind)
    whole = bool(np.all(numbers == np.round(numbers)))
    return whole and len(np.unique(numbers)) <= _MAX_LEVELS
