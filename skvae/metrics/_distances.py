"""Distances between rows of mixed columns, without ever making one-hot columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial.distance import cdist

from skvae.metrics._columns import Table

# Distances held at a time: 16 MB of float64.
_BLOCK_CELLS = 2_000_000


class MixedSpace:
    """Scale numbers to the range of real rows and set categories beside them.

    Distances equal those between rows of numbers scaled to [0, 1] by the real range and
    one-hot categories: two different levels are 2 apart in L1 and in squared L2.
    A missing number becomes the real median and a level "missing" of its own.

    Parameters
    ----------
    real : Table
        Rows that give ranges and medians.
    """

    def __init__(self, real: Table):
        numbers = real.values[:, ~real.categorical]
        known = ~np.isnan(numbers)
        filled = np.where(known.any(axis=0), numbers, 0.0)
        self.low = np.nanmin(filled, axis=0)
        width = np.nanmax(filled, axis=0) - self.low
        self.width = np.where(width > 0, width, 1.0)
        self.median = np.nanmedian(filled, axis=0)

    def coordinates(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Return scaled numbers, and codes with a column of flags for each number."""
        numbers = table.values[:, ~table.categorical]
        missing = np.isnan(numbers)
        scaled = (np.where(missing, self.median, numbers) - self.low) / self.width
        codes = np.nan_to_num(table.values[:, table.categorical], nan=-1.0)
        return scaled, np.hstack([codes, missing[:, missing.any(axis=0)]])

    def pair(
        self, a: Table, b: Table
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Return coordinates of two tables with the same flags."""
        joint = Table(
            a.names,
            np.vstack([a.values, b.values]),
            a.categorical,
            a.n_levels,
            a.n_known,
        )
        numbers, codes = self.coordinates(joint)
        n = len(a)
        return (numbers[:n], codes[:n]), (numbers[n:], codes[n:])

    def nearest(
        self, a: Table, b: Table, metric: str, *, skip_self: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return distance and position of the row of `b` nearest to each row of `a`.

        Parameters
        ----------
        a, b : Table
            Rows.
        metric : {"cityblock", "euclidean"}
            L1 or L2.
        skip_self : bool, default=False
            Whether row i of `b` is row i of `a`, and no neighbour of it.

        Returns
        -------
        distance : ndarray of shape (n_a,)
            Distances.
        index : ndarray of shape (n_a,)
            Positions in `b`.
        """
        distance = np.empty(len(a))
        index = np.empty(len(a), dtype=np.int64)
        for rows, block in self._blocks(a, b, metric):
            if skip_self:
                block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = np.inf
            index[rows] = block.argmin(axis=1)
            distance[rows] = block[np.arange(len(block)), index[rows]]
        return (np.sqrt(distance) if metric == "euclidean" else distance), index

    def _blocks(
        self, a: Table, b: Table, metric: str
    ) -> Iterator[tuple[slice, np.ndarray]]:
        (numbers_a, codes_a), (numbers_b, codes_b) = self.pair(a, b)
        kind = "sqeuclidean" if metric == "euclidean" else metric
        step = max(1, _BLOCK_CELLS // len(b))
        for start in range(0, len(a), step):
            rows = slice(start, min(start + step, len(a)))
            block = np.zeros((rows.stop - start, len(b)))
            if numbers_a.shape[1]:
                block += cdist(numbers_a[rows], numbers_b, kind)
            if codes_a.shape[1]:
                # Share of columns that differ, back to their whole number.
                share = cdist(codes_a[rows], codes_b, "hamming")
                block += 2.0 * np.rint(share * codes_a.shape[1])
            yield rows, block

    def from_center(self, real: Table, other: Table) -> tuple[np.ndarray, np.ndarray]:
        """Return L2 distances of the rows of two tables from the mean of the first."""
        ours, theirs = self.pair(real, other)
        center = ours[0].mean(axis=0)
        distances = [
            ((numbers - center) ** 2).sum(axis=1) for numbers, _ in (ours, theirs)
        ]
        for j in range(ours[1].shape[1]):
            for i, (_, codes) in enumerate((ours, theirs)):
                distances[i] += _from_shares(ours[1][:, j], codes[:, j])
        return np.sqrt(distances[0]), np.sqrt(distances[1])


def _from_shares(real: np.ndarray, other: np.ndarray) -> np.ndarray:
    r"""Return :math:`\|e_v - p\|^2 = 1 - 2 p_v + \sum_u p_u^2` for every level."""
    levels, counts = np.unique(real, return_counts=True)
    shares = counts / len(real)
    place = np.minimum(np.searchsorted(levels, other), len(levels) - 1)
    share = np.where(levels[place] == other, shares[place], 0.0)
    return 1.0 - 2.0 * share + float(shares @ shares)
