"""What is known of cells beyond their codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Known:
    """Ranks and values of cells that decoding is to agree with.

    Parameters
    ----------
    ranks : dict of int to ndarray of shape (n_rows,)
        Ranks within their codes of linked columns, NaN where they are not known.
    cells : dict of int to Series of length n_rows
        Cells of columns with a gap between them, or that add up, as they came.
    """

    ranks: dict[int, np.ndarray] = field(default_factory=dict)
    cells: dict[int, pd.Series] = field(default_factory=dict)

    def rows(self, place: Any) -> Known:
        """Return what is known of some rows."""
        ranks = {j: values[place] for j, values in self.ranks.items()}
        cells = {
            j: column.iloc[place].reset_index(drop=True)
            for j, column in self.cells.items()
        }
        return Known(ranks, cells)

    @classmethod
    def joined(cls, parts: list[Known]) -> Known:
        """Join what is known of blocks of rows."""
        first = parts[0]
        ranks = {j: np.concatenate([p.ranks[j] for p in parts]) for j in first.ranks}
        cells = {
            j: pd.concat([p.cells[j] for p in parts], ignore_index=True)
            for j in first.cells
        }
        return cls(ranks, cells)
