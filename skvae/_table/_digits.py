"""How many decimals the numbers of a column are written with, where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_MAX_DECIMALS = 8
# Share of the values of a code that are written with its decimals; the rest are
# leftovers of a calculation, or of another unit.
_USUAL = 0.9
# Values that are looked at; enough for a few hundred a code.
_ROWS = 20_000


@dataclass(frozen=True)
class Digits:
    """Decimals of the values of each code.

    Parameters
    ----------
    decimals : ndarray of shape (n_codes,)
        Decimals that nine of ten values need at most; more than 8 if they have no
        end.
    single : bool
        Whether the values came in single precision, as 0.2 that reads 0.200000003.
    """

    decimals: np.ndarray
    single: bool

    @classmethod
    def fit(cls, known: np.ndarray, starts: np.ndarray) -> Digits:
        """Learn the decimals of sorted values, of which codes begin at `starts`."""
        rows = np.linspace(0, len(known) - 1, min(len(known), _ROWS)).astype(np.int64)
        values = known[rows]
        needed = _needed(values, np.float64)
        single = bool((needed > _MAX_DECIMALS).any()) and _are_single(values)
        if single:
            needed = _needed(values, np.float32)
        codes = np.searchsorted(starts, rows, side="right") - 1
        needed = needed[np.lexsort((needed, codes))]
        counts = np.bincount(codes, minlength=len(starts))
        usual = np.cumsum(counts) - counts + np.ceil(_USUAL * counts).astype(int) - 1
        decimals = np.full(len(starts), _MAX_DECIMALS + 1)
        decimals[counts > 0] = needed[usual[counts > 0]]
        return cls(decimals, single)

    def written(self, values: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return values of codes with the decimals that are usual there."""
        decimals = self.decimals[codes]
        written = values.copy()
        for d in np.unique(decimals[decimals <= _MAX_DECIMALS]):
            own = decimals == d
            written[own] = rounded(values[own], d)
        return written.astype(np.float32).astype(float) if self.single else written

    def to_dict(self) -> dict[str, Any]:
        """Return the decimals as plain values."""
        return {"decimals": self.decimals, "single": self.single}


def all_decimals(known: np.ndarray) -> int | None:
    """Return the decimals that all sorted values have, None if more than 8."""
    if len(known) > _ROWS:
        known = known[:: len(known) // _ROWS]
    for decimals in range(_MAX_DECIMALS + 1):
        if np.array_equal(rounded(known, decimals), known):
            return decimals
    return None


def _are_single(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float32) == values).all())


def _needed(values: np.ndarray, precision: type[np.floating]) -> np.ndarray:
    """Return the decimals that tell each value, as far as its precision goes."""
    epsilon = float(np.finfo(precision).eps)
    needed = np.full(len(values), _MAX_DECIMALS + 1)
    open_ = np.arange(len(values))
    for decimals in range(_MAX_DECIMALS + 1):
        rest = np.abs(rounded(values[open_], decimals) - values[open_])
        close = rest <= epsilon * np.abs(values[open_])
        needed[open_[close]] = decimals
        open_ = open_[~close]
    return needed


def rounded(values: np.ndarray, decimals: int) -> np.ndarray:
    """Return rounded values; where powers of ten are too large, values as they are."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.round(values, decimals)
    return np.where(np.isfinite(result), result, values)
