"""Rows that are being decoded, which rules between columns still change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass
class Draft:
    """Values of all columns, and what is known of their cells.

    Parameters
    ----------
    values : list of array-like
        Decoded values of each column; rules replace them.
    column : callable
        Returns a column as it came, by its position.
    known : dict of int to Series
        Cells of columns that have to agree, as far as they are known.
    rng : Generator or None
        Draws where a rule leaves a choice. None takes the most probable: the rows are
        medians and modes.
    """

    values: list[Any]
    column: Callable[[int], Any]
    known: dict[int, pd.Series]
    rng: np.random.Generator | None

    def is_open(self, j: int) -> np.ndarray:
        """Tell in which rows the cell of a column is not known."""
        if j in self.known:
            return self.known[j].isna().to_numpy()
        return np.ones(len(self.values[j]), dtype=bool)

    def numbers(self, j: int) -> np.ndarray:
        """Return the values of a column as numbers, known cells first."""
        column = self.column(j)
        numbers = column.numbers(self.values[j])
        if j not in self.known:
            return numbers
        known = column.numbers(self.known[j])
        return np.where(np.isnan(known), numbers, known)
