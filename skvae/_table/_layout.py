"""Where the codes of columns stand among all codes of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from skvae._table._joint import JointColumn

# Groups that the codes of a column are counted in, if it has more.
_GROUPS = 16


class CodeLayout:
    """What fitted columns say of their codes, one column after the other.

    Attributes
    ----------
    columns : list
        One object a column.
    joint : list of JointColumn
        Patterns of several columns, coded after all columns.
    """

    columns: list[Any]
    joint: list[JointColumn]

    @property
    def coded(self) -> list[Any]:
        """The columns of codes: those of the table, and the joint ones."""
        return [*self.columns, *self.joint]

    @property
    def sizes(self) -> np.ndarray:
        """Codes of each column."""
        return np.array([c.size for c in self.coded], dtype=np.int64)

    @property
    def offsets(self) -> np.ndarray:
        """Position of each column's first code among all codes."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    def places(self, j: int) -> tuple[slice, slice]:
        """Return the positions of a column's codes, with and without "missing"."""
        first, column = int(self.offsets[j]), self.coded[j]
        last = first + column.size
        return slice(first, last), slice(first, last - int(column.missing_code >= 0))

    @property
    def missing_code(self) -> np.ndarray:
        """Code of a missing cell in each column, -1 where training had none."""
        return np.array([c.missing_code for c in self.coded])

    @property
    def code_frequencies(self) -> np.ndarray:
        """Share of every code in its column, one column after the other."""
        return np.concatenate([c.frequencies for c in self.coded])

    @property
    def code_values(self) -> np.ndarray:
        """Normal score of every code, one column after the other."""
        return np.concatenate([c.code_values for c in self.coded])

    @property
    def bin_runs(self) -> list[np.ndarray]:
        """Positions, among all codes, of the neighbouring bins of each column."""
        runs = [c.bins + o for c, o in zip(self.coded, self.offsets, strict=True)]
        return [run for run in runs if len(run) > 1]

    def with_joint(self, codes: np.ndarray) -> np.ndarray:
        """Return codes of the table's columns, and after them the joint ones."""
        joint = [column.encode(codes) for column in self.joint]
        return np.column_stack([codes, *joint]) if joint else codes

    def groups(self, codes: np.ndarray) -> np.ndarray:
        """Return coarser codes: of many, neighbouring values or rare levels are one.

        Parameters
        ----------
        codes : ndarray of shape (n_samples, n_columns)
            Codes, in the order of values or from frequent to rare.

        Returns
        -------
        groups : ndarray of shape (n_samples, n_columns)
            Parts of the training rows of about equal size; the last is "missing".
        """
        groups = np.empty(codes.shape, dtype=np.int64)
        for j, column in enumerate(self.coded):
            if column.size <= _GROUPS:
                groups[:, j] = codes[:, j]
                continue
            share = column.frequencies
            middle = np.cumsum(share) - share / 2
            of_code = np.minimum((middle * _GROUPS).astype(np.int64), _GROUPS - 1)
            if column.missing_code >= 0:
                of_code[column.missing_code] = _GROUPS
            groups[:, j] = of_code[codes[:, j]]
        return groups
