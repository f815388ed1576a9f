"""A numeric column as codes: atoms for repeated values, quantile bins between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from skvae._table._digits import Digits, all_decimals, rounded

_KNOTS = 33
# A value repeated by this share of the rows is an atom; so is every value of a column
# of few values.
_ATOM_SHARE, _ATOM_ROWS = 0.01, 5
_FEW_VALUES, _ROWS_PER_FEW = 32, 3
_ROWS_PER_BIN = 20
# Steps between floats by which a calculation may miss a number with few decimals.
_ULPS = 4


class NumericColumn:
    """Codes of one numeric column, ordered by value; "missing" is the last code.

    Attributes
    ----------
    low, high : ndarray of shape (n_codes,)
        Smallest and largest training value of each code; equal for an atom.
    knots : ndarray of shape (n_codes, n_knots)
        Empirical quantiles of the training values of each code; of a discrete column
        they are training values.
    frequencies : ndarray of shape (size,)
        Share of each code among the training rows.
    decimals : int or None
        Decimals all training values have; None if more than 8.
    digits : Digits
        Decimals that are usual among the values of each code.
    discrete : bool
        Whether most values of the column are repeated.
    """

    kind = "numeric"

    def __init__(
        self,
        name: str,
        low: np.ndarray,
        high: np.ndarray,
        knots: np.ndarray,
        frequencies: np.ndarray,
        digits: Digits,
        decimals: int | None,
        discrete: bool,
        has_missing: bool,
    ):
        self.name = name
        self.low = low
        self.high = high
        self.knots = knots
        self.frequencies = frequencies
        self.digits = digits
        self.decimals = decimals
        self.discrete = discrete
        self.has_missing = has_missing
        self._thresholds = high[:-1] / 2 + low[1:] / 2
        starts = np.cumsum(frequencies) - frequencies
        self._starts = starts[: len(low)]

    @classmethod
    def fit(cls, values: np.ndarray, name: str, max_bins: int) -> NumericColumn:
        """Learn the codes of training values; NaN is missing."""
        values = np.asarray(values, dtype=np.float64)
        missing = np.isnan(values)
        known = np.sort(values[~missing])
        if np.isinf(known).any():
            raise ValueError(
                f"Column {name!r} contains infinity. Replace it by a number, or by NaN "
                "if it is missing."
            )
        distinct = 1 + np.count_nonzero(np.diff(known)) if len(known) else 0
        discrete = bool(distinct < len(known) / 2)
        return cls(
            name,
            *_codes(known, _starts(known, max_bins), len(values), discrete),
            all_decimals(known),
            discrete,
            bool(missing.any()),
        )

    def cut(self, known: np.ndarray, ranks: np.ndarray, n: int) -> NumericColumn:
        """Return the column with codes that begin at more ranks of its values too.

        Parameters
        ----------
        known : ndarray of shape (n_known,)
            Known training values, sorted.
        ranks : ndarray of int
            Where unequal values meet.
        n : int
            Training values, missing ones included.

        Returns
        -------
        column : NumericColumn
            The same column in finer codes.
        """
        starts = np.union1d(np.searchsorted(known, self.low), ranks)
        return NumericColumn(
            self.name,
            *_codes(known, starts, n, self.discrete),
            self.decimals,
            self.discrete,
            self.has_missing,
        )

    @property
    def size(self) -> int:
        """Number of codes, "missing" included."""
        return len(self.frequencies)

    @property
    def missing_code(self) -> int:
        """Code of a missing cell, -1 where training had none."""
        return self.size - 1 if self.has_missing else -1

    @property
    def bins(self) -> np.ndarray:
        """Codes that are bins, in the order of their values."""
        return np.flatnonzero(self.high > self.low)

    @property
    def code_values(self) -> np.ndarray:
        """Normal score of each code."""
        scores = np.zeros(self.size)
        middle = self._starts + 0.5 * self.frequencies[: len(self.low)]
        scores[: len(self.low)] = self._score(middle)
        return scores

    def _score(self, rank: np.ndarray) -> np.ndarray:
        known = self.frequencies[: len(self.low)].sum()
        return ndtri(np.clip(rank / max(known, 1e-12), 1e-4, 1 - 1e-4))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the code of each value; values never seen get the nearest one."""
        values = self.numbers(values)
        missing = np.isnan(values)
        codes = np.searchsorted(self._thresholds, values).astype(np.int32)
        if not len(self.low):
            codes[:] = -1
        codes[missing] = self.missing_code
        return codes

    def scores(self, values: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the normal score of each value, 0 where it is missing."""
        values = self.numbers(values)
        scores = np.zeros(len(values))
        known = ~np.isnan(values)
        if not len(self.low):
            return scores
        c, v = codes[known], values[known]
        width = self.high[c] - self.low[c]
        within = np.full(len(c), 0.5)
        np.divide(v - self.low[c], width, out=within, where=width > 0)
        rank = self._starts[c] + np.clip(within, 0, 1) * self.frequencies[c]
        scores[known] = self._score(rank)
        return scores

    def numbers(self, values: Any) -> np.ndarray:
        """Return values as they are, as floats."""
        values = np.asarray(values, dtype=np.float64)
        if np.isinf(values).any():
            raise ValueError(f"Column {self.name!r} contains infinity.")
        return values

    @staticmethod
    def cells_of(numbers: np.ndarray) -> np.ndarray:
        """Return the cells of numbers: the same."""
        return numbers

    @property
    def is_discrete(self) -> bool:
        """Whether training values are drawn again, and no others."""
        return self.discrete

    def draw(self, codes: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Return a value for each code, at a uniform rank among its training values."""
        if self.discrete:
            rank = (np.floor(rank * _KNOTS) + 0.5) / _KNOTS
        return self._values(codes, rank)

    def ranks(self, values: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the rank at which `draw` gives a value, NaN where it is missing."""
        knots = self.knots[codes.clip(0, len(self.low) - 1)]
        left = (knots <= values[:, None]).sum(axis=1).clip(1, _KNOTS - 1) - 1
        rows = np.arange(len(values))
        below, above = knots[rows, left], knots[rows, left + 1]
        share = np.divide(
            values - below, above - below, where=above > below, out=np.zeros(len(rows))
        )
        rank = (left + share.clip(0, 1)) / (_KNOTS - 1)
        return np.where(np.isnan(values), np.nan, rank)

    def point(
        self, probabilities: np.ndarray, known: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the median of each row's distribution over the codes.

        Parameters
        ----------
        probabilities : ndarray of shape (n_rows, size)
            Probabilities of the codes.
        known : ndarray of shape (n_rows,) or None, default=None
            Ranks within the code, where another column tells them, and NaN.
        """
        n = len(self.low)
        if not n:
            return np.full(len(probabilities), np.nan)
        running = np.cumsum(probabilities[:, :n], axis=1)
        half = 0.5 * running[:, -1:]
        codes = np.minimum((running < half).sum(axis=1), n - 1)
        rows = np.arange(len(codes))
        share = np.maximum(probabilities[rows, codes], 1e-300)
        before = running[rows, codes] - share
        rank = np.clip((half[:, 0] - before) / share, 0, 1)
        if known is not None:
            rank = np.where(np.isnan(known), rank, known)
        values = self._values(codes, rank)
        if self.has_missing:
            values[probabilities[:, -1] > 0.5] = np.nan
        return values

    def _values(self, codes: np.ndarray, rank: np.ndarray) -> np.ndarray:
        missing = (codes == self.missing_code) | (codes < 0)
        if not len(self.low):
            return np.full(len(codes), np.nan)
        codes = np.where(missing, 0, codes)
        place = rank * (_KNOTS - 1)
        left = np.minimum(place.astype(np.int64), _KNOTS - 2)
        share = place - left
        if self.discrete:
            left, share = np.round(place).astype(np.int64), np.zeros(len(codes))
            right = left
        else:
            right = left + 1
        values = (
            self.knots[codes, left] * (1 - share) + self.knots[codes, right] * share
        )
        # Discrete values are training values, whatever their decimals.
        if not self.discrete:
            values = self.digits.written(values, codes)
        values = np.clip(values, self.low[codes], self.high[codes])
        values[missing] = np.nan
        return values

    def codes_of(self, value: Any) -> np.ndarray:
        """Return the code a condition on this column admits."""
        number = self.exact(value)
        if np.isnan(number):
            if not self.has_missing:
                raise ValueError(f"Column {self.name!r} has no missing cells.")
            return np.array([self.missing_code])
        low, high = self.extent
        if not low <= number <= high:
            raise ValueError(
                f"Column {self.name!r} lies in [{low:g}, {high:g}] in training; got "
                f"the condition {value!r}."
            )
        if number != self._written(number):
            raise ValueError(
                f"Column {self.name!r} has {self.decimals} decimals in training; got "
                f"the condition {value!r}."
            )
        return self.encode(np.array([number]))

    @property
    def extent(self) -> tuple[float, float]:
        """Lowest and highest number of the training rows."""
        return self.low.min(initial=np.inf), self.high.max(initial=-np.inf)

    @property
    def spread(self) -> float:
        """Standard deviation of the training values, one if they do not vary."""
        share = (
            self.frequencies[: len(self.low)] / self.frequencies[: len(self.low)].sum()
        )
        middle = self.low + (self.high - self.low) / 2
        variance = share @ np.square(middle - share @ middle)
        return float(np.sqrt(variance)) or 1.0

    def widths_at(self, values: np.ndarray) -> np.ndarray:
        """Return the width of the code of each known value, 0 of a repeated one."""
        codes = self.encode(values)
        return self.high[codes] - self.low[codes]

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """Return numbers with the decimals of the column, if it has a usual count."""
        return values if self.decimals is None else rounded(values, self.decimals)

    def is_within(self, values: np.ndarray) -> np.ndarray:
        """Tell which numbers lie in the range of the training rows."""
        low, high = self.extent
        return (values >= low) & (values <= high)

    def _written(self, number: float) -> float:
        """Return a number with the decimals of the column, if it has a usual count."""
        return number if self.decimals is None else round(number, self.decimals)

    def exact(self, value: Any) -> float:
        """Return the number a condition asks for, NaN for a missing cell.

        What a calculation leaves behind the last decimal is no part of it.
        """
        try:
            number = math.nan if value is None or value is pd.NA else float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Column {self.name!r} is numeric; got the condition {value!r}."
            ) from error
        written = self._written(number)
        is_rest = abs(written - number) <= _ULPS * math.ulp(number)
        return written if is_rest else number

    def get_state(self) -> dict[str, Any]:
        """Return the learned state as plain values."""
        names = ("name", "low", "high", "knots", "frequencies", "decimals")
        state = {n: getattr(self, n) for n in (*names, "discrete", "has_missing")}
        return {"kind": self.kind, **state, "digits": self.digits.to_dict()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> NumericColumn:
        """Make the column from plain values."""
        own = {k: v for k, v in state.items() if k not in ("kind", "digits")}
        return cls(**own, digits=Digits(**state["digits"]))


def _starts(known: np.ndarray, max_bins: int) -> np.ndarray:
    """Return the ranks of sorted values at which codes begin."""
    n = len(known)
    values, first, counts = np.unique(known, return_index=True, return_counts=True)
    if not n:
        return first
    few = len(values) <= _FEW_VALUES and n >= _ROWS_PER_FEW * len(values)
    atom = counts >= max(_ATOM_ROWS, _ATOM_SHARE * n)
    if few or len(values) == 1:
        atom[:] = True
    free = int(counts[~atom].sum())
    wanted = int(np.clip(free // _ROWS_PER_BIN, 1, max_bins))
    per_bin = max(1.0, free / wanted)
    # A bin ends where it is full or where the next value is an atom.
    edges = [0]
    held = 0.0
    for i in range(len(values) - 1):
        held = 0.0 if atom[i] else held + counts[i]
        if atom[i] or atom[i + 1] or held >= per_bin:
            edges.append(i + 1)
            held = 0.0
    return first[edges]


def _codes(
    known: np.ndarray, starts: np.ndarray, n: int, discrete: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Digits]:
    """Return bounds, knots, shares and digits of codes of n values, those known sorted.

    A share more is that of the missing ones, where there are any.
    """
    totals = np.diff(np.append(starts, len(known))).astype(np.float64)
    low, high = known[starts], known[starts + totals.astype(np.int64) - 1]
    ranks = np.linspace(0, 1, _KNOTS)
    place = starts[:, None] + ranks * (totals[:, None] - 1)
    left = np.floor(place).astype(np.int64)
    right = np.minimum(left + 1, len(known) - 1)
    share = place - left
    if discrete:
        share = np.round(share)
    knots = known[left] * (1 - share) + known[right] * share
    missing = n - len(known)
    counts = np.append(totals, missing) if missing else totals
    # Interpolation between two values of one code stays within the code.
    knots = np.clip(knots, low[:, None], high[:, None])
    return low, high, knots, counts / max(n, 1), Digits.fit(known, starts)
