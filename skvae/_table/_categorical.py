"""A column of categories, strings or booleans as codes."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd

# Codes of rare levels that have none of their own, and rows that make a level rare.
_TAIL_GROUPS, _RARE = 64, 5
_DIGITS = re.compile(r"(\d+)")


class UnorderedCodes:
    """Codes in no order, of which none are bins.

    Attributes
    ----------
    frequencies : ndarray of shape (size,)
        Share of the training rows that have each.
    """

    frequencies: np.ndarray

    @property
    def size(self) -> int:
        """Number of codes, "missing" included."""
        return len(self.frequencies)

    @property
    def bins(self) -> np.ndarray:
        """Codes that are neighbouring bins: none."""
        return np.empty(0, dtype=np.int64)

    @property
    def code_values(self) -> np.ndarray:
        """Normal score of each code: none."""
        return np.zeros(self.size)


class CategoryColumn(UnorderedCodes):
    """Codes of one categorical column, most frequent first; "missing" is the last.

    Beyond `max_levels` levels the rare ones share a few tail codes, each a stretch of
    their alphabet, since a zip code, a product or a patient often resembles the next
    one. Within a code a level is drawn by its frequency: the column costs codes, not
    levels.

    Attributes
    ----------
    levels : list
        Levels seen in training, by code.
    code_of_level : ndarray of shape (n_levels,)
        Code of each level.
    weights : ndarray of shape (n_levels,)
        Share of each level within its code.
    declared : list
        Levels a categorical type declares though no training row has them.
    """

    kind = "category"

    def __init__(
        self,
        name: str,
        levels: list[Any],
        code_of_level: np.ndarray,
        weights: np.ndarray,
        frequencies: np.ndarray,
        declared: list[Any],
        has_missing: bool,
    ):
        self.name = name
        self.levels = levels
        self.code_of_level = np.asarray(code_of_level, dtype=np.int32)
        self.weights = weights
        self.frequencies = frequencies
        self.declared = declared
        self.has_missing = has_missing
        self._index = pd.Index(levels) if levels else pd.Index([], dtype=object)
        # Levels are ordered by code: a code's levels are one stretch of them.
        self._running = np.cumsum(weights) if len(weights) else np.empty(0)
        self._first = np.searchsorted(self.code_of_level, np.arange(self._n_codes))

    @classmethod
    def fit(cls, series: pd.Series, name: str, max_levels: int) -> CategoryColumn:
        """Learn the levels of a training column."""
        declared: list[Any] = []
        if isinstance(series.dtype, pd.CategoricalDtype):
            declared = series.cat.categories.tolist()
            series = pd.Series(np.asarray(series.astype(object)), dtype=object)
        missing = int(series.isna().sum())
        _check_one_type(series, name)
        with warnings.catch_warnings():
            # pandas 2 tells that it will not infer the type of levels any more.
            warnings.simplefilter("ignore", FutureWarning)
            counts = series.dropna().value_counts(sort=True)
        n = counts.to_numpy(dtype=np.float64)
        # Ties in the order of the values, whatever the order of the rows.
        order = sorted(range(len(n)), key=lambda i: (-n[i], str(counts.index[i])))
        own = _n_own(n, max_levels)
        order[own:] = sorted(order[own:], key=lambda i: _in_order(counts.index[i]))
        levels = [_plain(counts.index[i]) for i in order]
        n = n[order]
        codes = np.concatenate([np.arange(own), own + _even_groups(n[own:])])
        totals = np.bincount(codes, weights=n) if len(n) else np.empty(0)
        shares = np.append(totals, missing) if missing else totals
        return cls(
            name,
            levels,
            codes,
            n / totals[codes] if len(n) else np.empty(0),
            shares / max(shares.sum(), 1),
            [level for level in declared if level not in set(levels)],
            bool(missing),
        )

    @property
    def _n_codes(self) -> int:
        return len(self.frequencies) - int(self.has_missing)

    @property
    def missing_code(self) -> int:
        """Code of a missing cell, -1 where training had none."""
        return self.size - 1 if self.has_missing else -1

    def encode(self, series: pd.Series) -> np.ndarray:
        """Return the code of each cell; a level never seen is refused."""
        missing = series.isna().to_numpy()
        try:
            found = self._places(series)
        except TypeError:  # Lists and their like have no hash.
            _check_one_type(series, self.name)
            raise
        codes = np.full(len(found), -1, dtype=np.int32)
        codes[found >= 0] = self.code_of_level[found[found >= 0]]
        codes[missing] = self.missing_code
        unseen = (found < 0) & ~missing
        if unseen.any():
            values = pd.unique(series[unseen])
            known = set(self.declared)
            unknown = [_plain(v) for v in values if v not in known]
            if unknown:
                raise ValueError(
                    f"Found unknown categories in column {self.name!r} during "
                    f"transform: {unknown[:10]}. Known categories are "
                    f"{self.levels[:20]}{'...' if len(self.levels) > 20 else ''}."
                )
        return codes

    def _places(self, series: pd.Series) -> np.ndarray:
        """Return the place of each cell among the levels, -1 if it is not there."""
        if isinstance(series.dtype, pd.CategoricalDtype):
            series = pd.Series(np.asarray(series.astype(object)), dtype=object)
        return self._found(pd.Index(series, dtype=series.dtype))

    def _found(self, cells: pd.Index) -> np.ndarray:
        # As floats, long whole numbers would be taken for their neighbours.
        if self._index.dtype.kind in "iu" and cells.dtype.kind == "f":
            cells = cells.astype(object)
        return self._index.get_indexer(cells)

    # Levels are drawn again, each as it came.
    is_discrete = True

    def values_of_codes(self) -> dict[Any, int]:
        """Return the code of each level that has one of its own."""
        pairs = zip(self.levels, self.code_of_level.tolist(), self.weights, strict=True)
        return {level: code for level, code, weight in pairs if weight == 1}

    def numbers(self, cells: Any) -> np.ndarray:
        """Return the place of each cell among the levels, NaN if it is missing."""
        places = self._places(pd.Series(cells)).astype(np.float64)
        places[places < 0] = np.nan
        return places

    def cells_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the cells of such numbers."""
        missing = np.isnan(numbers)
        places = np.where(missing, 0, numbers).astype(np.int64)
        levels = np.empty(len(self.levels), dtype=object)
        levels[:] = self.levels
        cells = levels[places] if len(levels) else np.empty(len(places), dtype=object)
        cells[missing] = None
        return cells

    def scores(self, series: pd.Series, codes: np.ndarray) -> np.ndarray:
        """Return the normal scores of the cells: zeros."""
        return np.zeros(len(codes))

    def draw(self, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the level of each code, a rare one by its frequency."""
        return self._take(codes, rng.random(len(codes)))

    def point(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the most probable level of each row."""
        codes = probabilities.argmax(axis=1)
        return self._take(codes, np.zeros(len(codes)))

    def _take(self, codes: np.ndarray, rank: np.ndarray) -> np.ndarray:
        missing = (codes == self.missing_code) | (codes < 0)
        out = np.empty(len(codes), dtype=object)
        if not self.levels:
            out[:] = None
            return out
        safe = np.where(missing, 0, codes)
        target = safe + rank  # Each code's weights sum to one.
        index = np.searchsorted(self._running, target, side="right")
        ends = np.append(self._first[1:], len(self.levels)) - 1
        index = np.clip(index, self._first[safe], ends[safe])
        levels = np.empty(len(self.levels), dtype=object)
        levels[:] = self.levels
        out[:] = levels[index]
        out[missing] = None
        return out

    def codes_of(self, value: Any) -> np.ndarray:
        """Return the code a condition on this column admits."""
        if pd.isna(value):
            if not self.has_missing:
                raise ValueError(f"Column {self.name!r} has no missing cells.")
            return np.array([self.missing_code])
        found = self._found(pd.Index([value]))
        if found[0] < 0:
            raise ValueError(
                f"Column {self.name!r} has no level {value!r}. Known levels are "
                f"{self.levels[:20]}{'...' if len(self.levels) > 20 else ''}."
            )
        return self.code_of_level[found]

    def exact(self, value: Any) -> Any:
        """Return the level a condition asks for, None for a missing cell."""
        if pd.isna(value):
            return None
        return self.levels[int(self._found(pd.Index([value]))[0])]

    def get_state(self) -> dict[str, Any]:
        """Return the learned state as plain values."""
        names = ("name", "levels", "code_of_level", "weights", "frequencies")
        state = {n: getattr(self, n) for n in (*names, "declared", "has_missing")}
        return {"kind": self.kind, **state}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CategoryColumn:
        """Make the column from plain values."""
        return cls(**{k: v for k, v in state.items() if k != "kind"})


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _check_one_type(series: pd.Series, name: str) -> None:
    """Refuse a column that mixes kinds of values, such as strings and numbers."""
    kinds: set[Any]
    if series.dtype == object:
        kinds = {type(v) for v in series.dropna().head(100_000)}
    elif isinstance(series.dtype, pd.ArrowDtype):
        kinds = {series.dtype.type}
    else:
        return
    numbers = {int, float, bool, np.bool_, np.int64, np.float64}
    if len(kinds) > 1 and not kinds <= numbers:
        found = sorted(k.__name__ for k in kinds)
        raise TypeError(
            f"Column {name!r} mixes values of types {found}. Convert it to one type, "
            "for instance with astype(str)."
        )
    if any(not getattr(k, "__hash__", None) for k in kinds):
        raise TypeError(
            f"Column {name!r} holds {next(iter(kinds)).__name__} objects; categories "
            "must be strings, numbers or booleans."
        )


def _in_order(level: Any) -> tuple[list[Any], str]:
    """Return what a level is sorted by: its text, in which numbers count as such."""
    parts: list[Any] = _DIGITS.split(str(level))
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return parts, str(level)


def _n_own(counts: np.ndarray, max_levels: int) -> int:
    """Return how many levels have a code of their own, given falling counts."""
    if len(counts) <= max_levels:
        return len(counts)
    frequent = int(np.count_nonzero(counts >= _RARE))
    return min(frequent, max(1, max_levels - _TAIL_GROUPS))


def _even_groups(counts: np.ndarray) -> np.ndarray:
    """Return groups of neighbouring levels that have about as many rows each."""
    before = np.cumsum(counts) - counts
    share = (before + counts / 2) / max(counts.sum(), 1.0)
    groups = np.unique((share * _TAIL_GROUPS).astype(np.int64), return_inverse=True)[1]
    return groups.ravel()
