"""Columns of two codes that exclude or imply each other: those of a one-hot code.

Each is a coin of its own to a model that has seen few rows, which then draws two levels
of one category, or none. Their patterns become the codes of one more column, which all
of them follow from; the table it came from does not have it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from skvae._table._categorical import UnorderedCodes
from skvae._table._dependence import Derived

# Rows that are searched at least, cells at most; patterns of a joint column.
_ROWS, _CELLS, _MAX_PATTERNS = 8192, 1 << 25, 256
# Rows from which on one true cell in each makes columns a one-hot code.
_MIN_ROWS = 50
# Log-chance that independent columns agree so, of a column more and of all together,
# from which on a rule is believed.
_LOG_CHANCE_EACH, _LOG_CHANCE = -1.0, -25.0


class JointColumn(UnorderedCodes):
    """The pattern of columns that have few patterns, as one column.

    Attributes
    ----------
    members : list of int
        The columns.
    patterns : ndarray of shape (n_patterns, n_members)
        Their codes, from frequent to rare patterns.
    frequencies : ndarray of shape (n_patterns,)
        Share of the training rows that have each.
    """

    kind = "joint"
    missing_code = -1

    def __init__(self, members: list[int], patterns: Any, frequencies: Any):
        self.members = members
        self.patterns = np.asarray(patterns)
        self.frequencies = np.asarray(frequencies)

    @classmethod
    def fit(cls, codes: np.ndarray, members: list[int]) -> JointColumn:
        """Learn the patterns of some columns of codes."""
        own = codes[:, members]
        # By keys: sorting rows of many cells is slow.
        keys = _keys(own)
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts))
        return cls(members, own[first[order]], counts[order] / len(codes))

    def encode(self, codes: np.ndarray) -> np.ndarray:
        """Return the pattern of rows of codes, the nearest of one that is new.

        Parameters
        ----------
        codes : ndarray of shape (n_rows, n_columns)
            Codes of all columns; -1 is a cell that is not known.

        Returns
        -------
        patterns : ndarray of shape (n_rows,)
            -1 where a member is not known.
        """
        own = codes[:, self.members]
        keys = _keys(self.patterns)
        order = np.argsort(keys)
        place = np.searchsorted(keys[order], _keys(own)).clip(0, self.size - 1)
        found = order[place]
        new = np.flatnonzero((self.patterns[found] != own).any(axis=1))
        rows, place = np.unique(own[new], axis=0, return_inverse=True)
        nearest = [int((self.patterns != row).sum(axis=1).argmin()) for row in rows]
        is_open = (rows < 0).any(axis=1)
        found[new] = np.where(is_open, -1, nearest)[place.ravel()]
        return found.astype(codes.dtype)

    def followers(self, parent: int, n: int) -> list[Derived]:
        """Return how the members follow from this column.

        Parameters
        ----------
        parent : int
            Position of this column.
        n : int
            Training rows.
        """
        rest = 1.0 / (n - self.size + 2)
        return [
            Derived(j, parent, codes, rest)
            for j, codes in zip(self.members, self.patterns.T.tolist(), strict=True)
        ]

    def agreed(self, parts: list[np.ndarray], share: np.ndarray) -> list[np.ndarray]:
        """Return probabilities of codes where members have the most probable pattern.

        Parameters
        ----------
        parts : list of ndarray of shape (n_rows, n_codes)
            Probabilities of the codes of each column.
        share : ndarray of shape (n_rows, n_patterns)
            Probabilities of the patterns.
        """
        parts = list(parts)
        chosen = self.patterns[share.argmax(axis=1)]
        for j, codes in zip(self.members, chosen.T, strict=True):
            parts[j] = np.eye(parts[j].shape[1])[codes]
        return parts

    def get_state(self) -> dict[str, Any]:
        """Return the learned state as plain values."""
        return {
            "kind": self.kind,
            "members": self.members,
            "patterns": self.patterns.tolist(),
            "frequencies": self.frequencies.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> JointColumn:
        """Make the column from plain values."""
        return cls(state["members"], state["patterns"], state["frequencies"])


def _keys(codes: np.ndarray) -> np.ndarray:
    """Return a number for each row of codes, equal for equal rows."""
    n_columns = codes.shape[1]
    weights = np.random.default_rng(0).integers(1, 1 << 62, size=n_columns)
    return codes.astype(np.int64) @ weights


def find_joint(
    codes: np.ndarray, missing_codes: np.ndarray, derived: list[Derived]
) -> tuple[list[JointColumn], list[Derived]]:
    """Find columns of two codes that have hardly more patterns than columns.

    A column joins others if it varies in one of their patterns at most: two that
    exclude each other, or of which one implies the other, have three patterns.

    Parameters
    ----------
    codes : ndarray of shape (n_rows, n_columns)
        Codes of the training rows.
    missing_codes : ndarray of shape (n_columns,)
        Code of a missing cell in each, -1 if it has none.
    derived : list of Derived
        Columns that another one determines.

    Returns
    -------
    joint : list of JointColumn
        To be put after all columns; each column is a member of one at most.
    derived : list of Derived
        With the members, and what followed from one of them, as followers.
    """
    n, d = codes.shape
    taken = {entry.child for entry in derived}
    low, high = codes.min(axis=0), codes.max(axis=0)
    some = (low < high) & (missing_codes < 0)
    two = [
        j
        for j in np.flatnonzero(some).tolist()
        if j not in taken and ((codes[:, j] == low[j]) | (codes[:, j] == high[j])).all()
    ]
    joint: list[JointColumn] = []
    for group in _groups(codes[:, two] == high[two], np.log(max(d, 2))):
        column = JointColumn.fit(codes, [two[k] for k in group])
        parent = d + len(joint)
        derived = _led_by(column.followers(parent, n), derived)
        joint.append(column)
    return joint, derived


def _led_by(followers: list[Derived], derived: list[Derived]) -> list[Derived]:
    """Return what is derived, where nothing follows from a new follower."""
    new = {entry.child: entry for entry in followers}
    moved = []
    for entry in derived:
        if entry.parent in new:
            leader = new[entry.parent]
            codes = [entry.codes[code] for code in leader.codes]
            entry = replace(entry, parent=leader.parent, codes=codes, direction=0)
        moved.append(entry)
    return [*moved, *followers]


def _groups(cells: np.ndarray, log_d: float) -> list[list[int]]:
    """Return groups of columns of booleans with few patterns."""
    search = _Search(cells)
    # First one-hot codes: a level that implies one of another code stays with its own.
    groups = _one_hot_codes(cells, search.pairs)
    for group in groups:
        search.free[group] = False
    # Columns that vary most tell most about others.
    for first in np.argsort(np.abs(search.shares - 0.5), kind="stable").tolist():
        if not search.free[first]:
            continue
        group, chance = search.grown(first)
        # So many groups of this size could have agreed.
        if len(group) > 1 and chance < _LOG_CHANCE - len(group) * log_d:
            groups.append(sorted(group))
            search.free[group] = False
    return groups


def _one_hot_codes(cells: np.ndarray, pairs: np.ndarray) -> list[list[int]]:
    """Return runs of neighbouring columns of which one is true in every row."""
    n, k = cells.shape
    codes, start = [], 0
    while start < k and n >= _MIN_ROWS:
        stop, rows = start, np.zeros(n, dtype=bool)
        # Some rows tell most columns apart without a look at all of them.
        while stop < k and not pairs[stop, start:stop].any() and not rows.all():
            if (rows & cells[:, stop]).any():
                break
            rows = rows | cells[:, stop]
            stop += 1
        if rows.all() and stop - start > 2:
            codes.append(list(range(start, stop)))
            start = stop
        else:
            start += 1
    return codes


class _Search:
    """Groups of columns of booleans, grown from one of them.

    Parameters
    ----------
    cells : ndarray of shape (n_rows, n_columns)
        The columns.
    """

    def __init__(self, cells: np.ndarray):
        n, k = cells.shape
        self.cells, self.shares = cells, cells.mean(axis=0)
        rows = min(n, max(_ROWS, _CELLS // max(k, 1)))
        self.some = cells[np.linspace(0, n - 1, rows).astype(np.int64)]
        # Counts are exact in single precision.
        self.pairs = self.some.T.astype(np.float32) @ self.some
        self.free = np.ones(k, dtype=bool)

    def grown(self, first: int) -> tuple[list[int], float]:
        """Return the columns that go with the first, and the log-chance that they do.

        Parameters
        ----------
        first : int
            A column that is free.
        """
        group, total = [first], 0.0
        left = self.free.copy()
        left[first] = False
        patterns = self.cells[:, first].astype(np.int64)
        own = self.some[:, first]
        parts, sizes = [own, ~own], [own.sum(), (~own).sum()]
        counts = [self.pairs[first], self.pairs.diagonal() - self.pairs[first]]
        while len(parts) < _MAX_PATTERNS:
            varies, chance = self._agreement(np.array(counts), np.array(sizes))
            fits = left & (varies.sum(axis=0) <= 1) & (chance < _LOG_CHANCE_EACH)
            if not fits.any():
                break
            best = int(np.where(fits, chance, np.inf).argmin())
            left[best] = False
            joined = 2 * patterns + self.cells[:, best]
            present = np.bincount(joined) > 0
            if present.sum() > patterns.max() + 2:
                continue
            group.append(best)
            patterns, total = (np.cumsum(present) - 1)[joined], total + chance[best]
            for r in np.flatnonzero(varies[:, best]).tolist():
                inside = parts[r] & self.some[:, best]
                parts[r] = parts[r] & ~inside
                parts.append(inside)
                sizes.append(inside.sum())
                sizes[r] = sizes[r] - sizes[-1]
                counts.append(self.some[inside].sum(axis=0))
                counts[r] = counts[r] - counts[-1]
        return group, total

    def _agreement(
        self, counts: np.ndarray, sizes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where columns vary, and the log-chance that they do not elsewhere."""
        varies = (counts > 0) & (counts < sizes[:, None])
        on = np.where(varies, 0, counts).sum(axis=0)
        off = np.where(varies, 0, sizes[:, None] - counts).sum(axis=0)
        return varies, on * np.log(self.shares) + off * np.log1p(-self.shares)
