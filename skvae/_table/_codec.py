"""A table as codes: one column object a column, exact restoration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from skvae._table._categorical import CategoryColumn
from skvae._table._datetime import TimeColumn
from skvae._table._dependence import (
    Derived,
    direction_of,
    find_derived,
    telling_values,
    told_ranks,
)
from skvae._table._draft import Draft
from skvae._table._exclusions import find_exclusions, find_unlike
from skvae._table._finer import with_finer_bins
from skvae._table._frames import (
    check_names,
    declared_categories,
    declared_features,
    floats_of,
    from_pandas,
    library_of,
    pandas_type,
    polars_like,
    to_pandas,
    type_name,
)
from skvae._table._gaps import Gap, find_gaps, missing_starts, number_of, plain
from skvae._table._given import known_of_fixed
from skvae._table._joint import JointColumn, find_joint
from skvae._table._known import Known
from skvae._table._layout import CodeLayout
from skvae._table._lookups import find_lookups
from skvae._table._numeric import NumericColumn
from skvae._table._objects import (
    ObjectForm,
    are_exact_floats,
    object_forms,
    read_objects,
)
from skvae._table._orders import crossing_codes
from skvae._table._rules import Rules, both_of
from skvae._table._written_dates import WrittenDates

Column = NumericColumn | CategoryColumn | TimeColumn
_KINDS: dict[str, Any] = {
    kind.kind: kind for kind in (NumericColumn, CategoryColumn, TimeColumn)
}


class TableCodec(CodeLayout):
    """Turn a table into integer codes and back.

    Every column becomes a categorical variable: levels of a category, repeated values
    and quantile bins of a number, and "missing" where training had missing cells.

    Parameters
    ----------
    categorical_features : "from_dtype" or array-like, default="from_dtype"
        Numeric columns that are categories: names, indices or a boolean mask.
    max_bins : int, default=64
        Quantile bins of a numeric column.
    max_levels : int, default=256
        Levels of a category with a code of their own.

    Attributes
    ----------
    columns : list
        One object a column.
    joint : list of JointColumn
        Patterns of columns that exclude or imply each other, coded after all columns.
    derived : list of Derived
        Columns that another one determines.
    exclusions : list of (int, int, float)
        Positions of codes that never come together, and how unlikely that is, in nats.
    gaps : list of Gap
        Columns coded as their difference from another one.
    rules : Rules
        What decoded values are made to agree with.
    sizes : ndarray of shape (n_coded,)
        Codes of each column, and of the joint ones after them.
    """

    def __init__(
        self,
        categorical_features: Any = "from_dtype",
        max_bins: int = 64,
        max_levels: int = 256,
    ):
        self.categorical_features = categorical_features
        self.max_bins = max_bins
        self.max_levels = max_levels
        self.columns: list[Any] = []
        self.joint: list[JointColumn] = []
        self.derived: list[Derived] = []
        self.exclusions: list[tuple[int, int, float]] = []
        self.gaps: list[Gap] = []
        self.rules = Rules()
        self.library: str | None = None
        self.names: list[Any] = []
        self.dtypes: list[str] = []
        self.forms: dict[int, ObjectForm] = {}
        self.categories: list[dict[str, Any] | None] = []

    # -- learning ----------------------------------------------------------------------
    def fit(self, X: Any) -> TableCodec:
        """Learn the codes of a training table.

        Parameters
        ----------
        X : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Training rows; an array is numeric, with NaN for missing cells.

        Returns
        -------
        self : TableCodec
            The fitted codec.
        """
        frame, declared = self._learn_container(X)
        self.columns = [
            self._fit_column(frame[name], name, name in declared)
            for name in frame.columns
        ]
        self.gaps, self.joint = [], []
        cells = [self.cells(frame, j) for j in range(len(self.columns))]
        self.gaps = self._find_gaps(cells)
        came = list(cells)
        for j in (gap.child for gap in self.gaps):
            cells[j] = self.cells(frame, j)
            difference = pd.Series(cells[j])
            self.columns[j] = self._fit_column(difference, self.names[j], False)
        codes = self._codes(cells)
        self.derived = self._find_derived(codes, cells)
        finer = with_finer_bins(self.columns, cells, self.derived)
        if finer != self.columns:
            self.columns = finer
            codes = self._codes(cells)
            self.derived = self._find_derived(codes, cells)
        self.joint, self.derived = find_joint(codes, self.missing_code, self.derived)
        self.exclusions = self._find_exclusions(self.with_joint(codes))
        self.rules = Rules.find(
            self.columns, cells, codes, self.gaps, self.derived, self.joint, came
        )
        self.exclusions += crossing_codes(
            self.rules.orders, self.columns, self.offsets, len(codes)
        )
        return self

    def _learn_container(self, X: Any) -> tuple[pd.DataFrame, Any]:
        """Learn what rows come in; return them, and the declared categories."""
        self.library = library_of(X)
        self.forms = {}
        frame = self._frame(X)
        self.names = list(frame.columns)
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"Expected unique column names, got {self.names}.")
        kinds = X.dtypes if self.library else [np.asarray(X).dtype] * frame.shape[1]
        self.dtypes = [type_name(t) for t in kinds]
        self.categories = declared_categories(frame)
        declared = declared_features(frame, self.categorical_features)
        self.forms = object_forms(frame, declared)
        return self._frame(X), declared

    def _find_gaps(self, cells: list[Any]) -> list[Gap]:
        gaps = find_gaps(self.columns, cells)
        if not any(gap.column.is_discrete for gap in gaps):
            return gaps
        # What a key tells is looked up; a difference from another key says less. The
        # lookups of `Rules` are others: of columns whose gaps are known.
        codes = self._codes(cells)
        looked_up = find_lookups(self.columns, cells, codes, [], set())
        told = {entry.child for entry in looked_up}
        keys = {(entry.parent, entry.child) for entry in looked_up}
        return [
            gap
            for gap in gaps
            if gap.child not in told and (gap.child, gap.parent) not in keys
        ]

    def _codes(self, cells: list[Any]) -> np.ndarray:
        pairs = zip(self.columns, cells, strict=True)
        return np.column_stack([column.encode(own) for column, own in pairs])

    def _find_derived(self, codes: np.ndarray, cells: list[Any]) -> list[Derived]:
        found = []
        for entry in find_derived(codes, self.columns):
            pair = (entry.parent, entry.child)
            if all(len(self.columns[j].bins) for j in pair):
                values = [self.columns[j].scores(cells[j], codes[:, j]) for j in pair]
                direction = direction_of(codes[:, entry.parent], *values)
                entry = replace(entry, direction=direction)
            found.append(entry)
        return found

    def _find_exclusions(self, codes: np.ndarray) -> list[tuple[int, int, float]]:
        places = [self.places(entry.child)[0] for entry in self.derived]
        silent = [np.arange(place.start, place.stop) for place in places]
        left_out = np.concatenate([[], *silent, *self.bin_runs]).astype(np.int64)
        found = find_exclusions(codes, self.sizes, left_out, self.missing_code)
        other = {j for j, own in enumerate(self.columns) if own.kind != "category"}
        other |= {entry.child for entry in self.derived}
        return found + find_unlike(self.columns, codes[:, : len(self.columns)], other)

    def _frame(self, X: Any) -> pd.DataFrame:
        if library_of(X) is not None:
            return read_objects(to_pandas(X), self.forms)
        array = np.asarray(X)
        return pd.DataFrame(array, columns=[f"x{j}" for j in range(array.shape[1])])

    def _fit_column(self, series: pd.Series, name: str, declared: bool) -> Column:
        dtype = series.dtype
        if declared or isinstance(dtype, pd.CategoricalDtype):
            return CategoryColumn.fit(series, name, self.max_levels)
        if dtype.kind in "mM":
            return TimeColumn.fit(series, name, self.max_bins)
        if pd.api.types.is_bool_dtype(dtype):
            return CategoryColumn.fit(series, name, self.max_levels)
        whole = pd.api.types.is_integer_dtype(dtype)
        if whole and not are_exact_floats(series.dropna()):
            return CategoryColumn.fit(series, name, self.max_levels)
        if pd.api.types.is_numeric_dtype(dtype):
            if dtype.kind == "c":
                raise ValueError("Complex data not supported")
            return NumericColumn.fit(floats_of(series), name, self.max_bins)
        dates = WrittenDates.found(series)
        if dates is not None:
            return TimeColumn.fit(series, name, self.max_bins, dates)
        return CategoryColumn.fit(series, name, self.max_levels)

    # -- there and back ----------------------------------------------------------------
    def encode(self, X: Any, *, unknown_missing: bool = False) -> np.ndarray:
        """Return the codes of rows.

        Parameters
        ----------
        X : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Rows.
        unknown_missing : bool, default=False
            Whether a missing cell is one that is not known, -1, rather than a value.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_coded), int32
            Codes; -1 is a cell that is not known.

        Raises
        ------
        ValueError
            If a level was never seen, or a column has another type.
        """
        frame = self._checked(X)
        codes = np.empty(frame.shape, dtype=np.int32)
        for j, column in enumerate(self.columns):
            codes[:, j] = column.encode(self.cells(frame, j))
            if unknown_missing and column.missing_code >= 0:
                codes[codes[:, j] == column.missing_code, j] = -1
        return self.with_joint(codes)

    def with_starts(self, X: Any) -> Any:
        """Return rows in which the end of a gap tells where it usually starts.

        Parameters
        ----------
        X : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Rows.

        Returns
        -------
        rows : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Rows; a start that is missing is known, and its end is not.
        """
        if not self.gaps:
            return X
        frame = self._checked(X).reset_index(drop=True)
        cells = self._plain_cells(frame, self.gap_columns)
        if missing_starts(self.gaps, cells, self.column_as_it_came):
            frame = frame.copy()
            for j, known in cells.items():
                column: Any = self.column_as_it_came(j)
                is_time = column.kind == "time"
                frame.isetitem(j, column.zoned(known) if is_time else known)
        return frame

    def encode_values(self, X: Any, codes: np.ndarray) -> np.ndarray:
        """Return the normal score of every cell, 0 for categories and missing cells.

        Parameters
        ----------
        X : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Rows.
        codes : ndarray of shape (n_samples, n_columns)
            Their codes.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_columns)
            Standard normal ranks among the training rows.
        """
        frame = self._checked(X)
        scores = np.zeros(codes.shape)
        for j in range(len(self.columns)):
            scores[:, j] = self.columns[j].scores(self.cells(frame, j), codes[:, j])
        return scores

    def beyond(self, X: Any) -> np.ndarray:
        """Return how odd it is that numbers and dates lie beyond those of training.

        Parameters
        ----------
        X : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Rows.

        Returns
        -------
        nats : ndarray of shape (n_samples, n_columns)
            2 log(1 + d / s) at a distance d, with s the standard deviation in training:
            the tail of a Cauchy distribution; 0 within the range.
        """
        frame = self._checked(X)
        nats = np.zeros(frame.shape)
        for j in range(frame.shape[1]):
            column: Any = self.column_as_it_came(j)
            numeric = number_of(column)
            if numeric.kind == "numeric" and len(numeric.low):
                values = column.numbers(self._own_cells(frame, j))
                low, high = numeric.extent
                distance = np.fmax(np.fmax(low - values, values - high), 0)
                nats[:, j] = 2 * np.log1p(distance / numeric.spread)
        return nats

    def _checked(self, X: Any) -> pd.DataFrame:
        frame = self._frame(X)
        if frame.shape[1] != len(self.columns):
            raise ValueError(
                f"X has {frame.shape[1]} features, but the model was fitted on "
                f"{len(self.columns)}."
            )
        if self.library and library_of(X):
            check_names(list(frame.columns), self.names)
        return frame

    def cells(self, frame: pd.DataFrame, j: int) -> Any:
        """Return the cells that column j codes."""
        gap = self._gap_of(j)
        if gap is None:
            return self._own_cells(frame, j)
        ends, starts = (self._own_cells(frame, i) for i in (j, gap.parent))
        decimals = getattr(self.column_as_it_came(gap.parent), "decimals", None)
        difference = gap.difference(ends, starts, decimals)
        return difference if gap.column.kind == "time" else difference.to_numpy()

    def column_as_it_came(self, j: int) -> Column:
        """Return a column, that of its own values where it codes differences."""
        gap = self._gap_of(j)
        return self.columns[j] if gap is None else gap.column

    def _gap_of(self, child: int) -> Gap | None:
        return next((gap for gap in self.gaps if gap.child == child), None)

    def _own_cells(self, frame: pd.DataFrame, j: int) -> Any:
        series = frame.iloc[:, j].reset_index(drop=True)
        column = self.column_as_it_came(j)
        if column.kind == "numeric":
            numeric = pd.api.types.is_numeric_dtype(series.dtype)
            if not numeric and series.notna().any():
                raise ValueError(
                    f"Column {column.name!r} was numeric in training, and has type "
                    f"{series.dtype} now."
                )
            return floats_of(series)
        return column.checked(series) if isinstance(column, TimeColumn) else series

    def decode(
        self,
        codes: np.ndarray,
        rng: np.random.Generator,
        fixed: Iterable[tuple[slice, int, Any]] = (),
        known: Known | None = None,
    ) -> Any:
        """Return rows of the form that came in; values within a code are drawn.

        Parameters
        ----------
        codes : ndarray of shape (n_samples, n_columns)
            Codes.
        rng : Generator
            Draws ranks within bins, and rare levels.
        fixed : iterable of (slice, int, object), default=()
            Rows and column of cells whose value is known, not only its code.
        known : Known or None, default=None
            What `known` tells of the cells.

        Returns
        -------
        rows : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Same columns, order, types, levels, decimals and ranges.
        """
        fixed = list(fixed)
        known = known or known_of_fixed(self, codes, fixed)
        values = self._drawn(codes, rng, known.ranks)
        self._agree(values, known, rng)
        for rows, j, value in fixed:
            cells: Any = values[j]
            cells = cells.iloc if isinstance(cells, pd.Series) else cells
            cells[rows] = self.column_as_it_came(j).exact(value)
        return self._rows(values)

    def _drawn(
        self, codes: np.ndarray, rng: np.random.Generator, known: dict[int, np.ndarray]
    ) -> list[Any]:
        """Draw the values of every column, those that go together at one rank."""
        told = told_ranks(self._linked, known)
        values: dict[int, Any] = {}
        ranks: dict[int, np.ndarray] = {}
        for j, column in enumerate(self.columns):
            if isinstance(column, CategoryColumn):
                values[j] = column.draw(codes[:, j], rng)
                continue
            ranks[j] = rng.random(len(codes))
            if j in told:
                ranks[j] = np.where(np.isnan(told[j]), ranks[j], told[j])
        for entry in self._linked:
            ranks[entry.child] = entry.turned(ranks[entry.parent])
        for j, rank in ranks.items():
            number: Any = self.columns[j]
            values[j] = number.draw(codes[:, j], rank)
        return [values[j] for j in range(len(self.columns))]

    # -- cells known beyond their codes ------------------------------------------------
    @property
    def _linked(self) -> list[Derived]:
        return [entry for entry in self.derived if entry.direction]

    @property
    def linked_columns(self) -> set[int]:
        """Columns whose values within a code go together."""
        return both_of(self._linked)

    @property
    def gap_columns(self) -> set[int]:
        """Columns with a gap between them."""
        return both_of(self.gaps)

    def _plain_cells(
        self, frame: pd.DataFrame, columns: set[int]
    ) -> dict[int, pd.Series]:
        """Return the cells of columns as they came, moments without their zone."""
        return {j: plain(self._own_cells(frame, j)) for j in sorted(columns)}

    def known(self, X: Any, codes: np.ndarray) -> Known:
        """Return what rows tell beyond the codes of their cells.

        Parameters
        ----------
        X : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Rows.
        codes : ndarray of shape (n_samples, n_columns)
            Their codes.

        Returns
        -------
        known : Known
            Ranks of linked columns, and cells of gaps and sums.
        """
        linked, told = self.linked_columns, self.rules.columns
        if not (linked or told):
            return Known()
        frame = self._checked(X)
        ranks = {}
        for j in sorted(linked):
            column: Any = self.columns[j]
            ranks[j] = column.ranks(self.cells(frame, j), codes[:, j])
        return Known(ranks, self._plain_cells(frame, told))

    def decode_point(
        self, probabilities: np.ndarray, known: Known | None = None
    ) -> Any:
        """Return the mode of categories and the median of numbers.

        Parameters
        ----------
        probabilities : ndarray of shape (n_samples, sum(sizes))
            Probabilities of the codes of each column.
        known : Known or None, default=None
            What `known` tells of the cells.

        Returns
        -------
        rows : {DataFrame, ndarray} of shape (n_samples, n_columns)
            Rows of the form that came in.
        """
        known = known or Known()
        parts = np.split(probabilities, self.offsets[1:], axis=1)
        for joint, share in zip(self.joint, parts[len(self.columns) :], strict=True):
            parts = joint.agreed(parts, share)
        told = told_ranks(self._linked, known.ranks)
        values = [
            column.point(part)
            if isinstance(column, CategoryColumn)
            else column.point(part, told.get(j))
            for j, (column, part) in enumerate(zip(self.columns, parts, strict=False))
        ]
        self._agree(values, known, None)
        return self._rows(values)

    def _agree(
        self, values: list[Any], known: Known, rng: np.random.Generator | None
    ) -> None:
        """Make values agree with what is known and with each other, in place.

        Drawn values, given a generator, else the most probable ones.
        """
        self.rules.agree(Draft(values, self.column_as_it_came, known.cells, rng))

    def _rows(self, values: list[Any]) -> Any:
        if self.library is None:
            kind = np.dtype(self.dtypes[0])
            return np.column_stack(
                [np.asarray(v, dtype=np.float64) for v in values]
            ).astype(kind if kind.kind == "f" else np.float64)
        series = {name: self._typed(values[j], j) for j, name in enumerate(self.names)}
        frame = pd.DataFrame(series)
        types = dict(zip(self.names, self.dtypes, strict=True))
        return from_pandas(frame, self.library, types)

    def _typed(self, values: Any, j: int) -> Any:
        column = self.column_as_it_came(j)
        dtype, known = self.dtypes[j], self.categories[j]
        if j in self.forms:
            return self.forms[j].written(values)
        if isinstance(column, TimeColumn):
            values = column.as_they_came(values)
        if known is not None:
            levels = pd.Index(known["values"]).astype(pandas_type(known["dtype"]))
            kind = pd.CategoricalDtype(levels, ordered=known["ordered"])
            return pd.Series(values, dtype=object).astype(kind)
        if isinstance(values, pd.Series) and self.library == "polars":
            return values
        if self.library == "polars":
            return polars_like(values, dtype)
        if isinstance(values, np.ndarray) and values.dtype == object:
            return pd.Series(values, dtype=object).astype(pandas_type(dtype))
        series = pd.Series(values)
        if "int" in dtype.lower() and series.isna().any():
            return series.astype("Float64").astype(dtype)
        return series.astype(pandas_type(dtype))

    # -- state -------------------------------------------------------------------------
    def get_state(self) -> dict[str, Any]:
        """Return the learned state as plain values."""
        return {
            "columns": [c.get_state() for c in self.columns],
            "joint": [c.get_state() for c in self.joint],
            "exclusions": [list(entry) for entry in self.exclusions],
            "derived": [entry.to_dict() for entry in self.derived],
            "gaps": [gap.get_state() for gap in self.gaps],
            "rules": self.rules.to_dict(),
            "library": self.library,
            "names": self.names,
            "dtypes": self.dtypes,
            "categories": self.categories,
            "forms": [[j, form.to_dict()] for j, form in self.forms.items()],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TableCodec:
        """Make the codec from plain values."""
        codec = cls()
        codec.columns = [_KINDS[c["kind"]].from_state(c) for c in state["columns"]]
        codec.joint = [JointColumn.from_state(c) for c in state["joint"]]
        codec.exclusions = [tuple(entry) for entry in state["exclusions"]]
        codec.derived = [Derived(**entry) for entry in state["derived"]]
        codec.gaps = [Gap.from_state(gap) for gap in state["gaps"]]
        telling = telling_values(codec.derived, codec.columns)
        codec.rules = Rules.from_dict(state["rules"], codec.gaps, telling)
        codec.forms = {j: ObjectForm(**form) for j, form in state["forms"]}
        for name in ("library", "names", "dtypes", "categories"):
            setattr(codec, name, state[name])
        return codec
