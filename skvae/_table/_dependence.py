"""Columns that another column determines: a class and its number, a zone's borough."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

# Rows that tell most pairs of columns apart, before all rows are asked.
_SCREENED = 512
# Log-chance that independent columns agree so, and rows beyond one a code, from which
# on a dependence is believed.
_LOG_CHANCE, _MIN_EVIDENCE = -25.0, 30


@dataclass(frozen=True)
class Derived:
    """A column whose code follows from that of another one.

    Parameters
    ----------
    child, parent : int
        The column, and the one that determines it.
    codes : list of int
        Code of the child for each code of the parent.
    exceptions : float
        Share of rows that may be otherwise, though no training row is.
    direction : int
        How values within a bin go together: 1 rising, -1 falling, 0 not at all.
    """

    child: int
    parent: int
    codes: list[int]
    exceptions: float
    direction: int = 0

    def turned(self, ranks: np.ndarray) -> np.ndarray:
        """Return the ranks of one of the two, from those of the other."""
        return ranks if self.direction > 0 else 1 - ranks

    def to_dict(self) -> dict[str, Any]:
        """Return the dependence as plain values."""
        return asdict(self)


def find_derived(codes: np.ndarray, columns: list[Any]) -> list[Derived]:
    """Find the columns that another one determines in all training rows.

    Columns of many codes are asked first; of two that determine each other the left
    one is the parent.

    Parameters
    ----------
    codes : ndarray of shape (n_rows, n_columns)
        Codes of the training rows.
    columns : list
        The fitted columns.

    Returns
    -------
    derived : list of Derived
        No parent is itself derived.
    """
    n, d = codes.shape
    used = np.array([len(np.unique(codes[:, j])) for j in range(d)])
    some = codes[np.linspace(0, n - 1, min(n, _SCREENED)).astype(np.int64)]
    free: list[tuple[int, np.ndarray]] = []
    derived = []
    for j in np.argsort(-used, kind="stable").tolist():
        parents = [a for a, candidates in free if candidates[j]]
        parents.sort(key=lambda a: (used[a], a))
        parent = next((a for a in parents if _tells(codes, a, j, columns)), None)
        if parent is None:
            free.append((j, _consistent(some, j) & (used > 1)))
            continue
        mapping = np.zeros(columns[parent].size, dtype=np.int64)
        mapping[codes[:, parent]] = codes[:, j]
        exceptions = 1.0 / (n - used[parent] + 2)
        derived.append(Derived(j, parent, mapping.tolist(), float(exceptions)))
    return derived


def _consistent(codes: np.ndarray, parent: int) -> np.ndarray:
    """Tell of each column whether it has one code wherever the parent has one."""
    ordered = codes[np.argsort(codes[:, parent], kind="stable")]
    changed = ordered[1:] != ordered[:-1]
    return ~changed[~changed[:, parent]].any(axis=0)


def _tells(codes: np.ndarray, a: int, j: int, columns: list[Any]) -> bool:
    missing = columns[a].missing_code, columns[j].missing_code
    return determines(codes[:, [a, j]], missing, codes.shape[1])


def determines(pair: np.ndarray, missing: tuple[int, int], n_columns: int) -> bool:
    """Tell whether the first of two columns determines the other, not by chance.

    Parameters
    ----------
    pair : ndarray of shape (n_rows, 2)
        Codes of both.
    missing : tuple of int
        Code of a missing cell in each, -1 if it has none.
    n_columns : int
        Columns of the table, as many chances.
    """
    if not _consistent(pair, 0)[1]:
        return False
    counts = np.bincount(pair[:, 0])
    counts = counts[counts > 0]
    if counts.sum() - len(counts) < _MIN_EVIDENCE:
        return False
    # A gap that is filled must not be filled with a gap.
    gaps = pair[:, 1] == missing[1]
    if gaps.any() and (pair[gaps, 0] != missing[0]).any():
        return False
    shares = np.bincount(pair[:, 1]) / len(pair)
    logs = np.log(shares[shares > 0])
    chance = logsumexp(counts[:, None] * logs, axis=1).sum()
    return bool(chance < _LOG_CHANCE - 2 * np.log(n_columns))


def telling_values(derived: list[Derived], columns: list[Any]) -> list[Derived]:
    """Leave out columns that only tell where the cells of another one are missing.

    Parameters
    ----------
    derived : list of Derived
        Columns that another one determines.
    columns : list
        The fitted columns.

    Returns
    -------
    telling : list of Derived
        Those that may change with a value of the other column.
    """
    telling = []
    for entry in derived:
        is_own = entry.parent < len(columns)
        missing = columns[entry.parent].missing_code if is_own else -1
        known = {code for k, code in enumerate(entry.codes) if k != missing}
        telling += [entry] if len(known) > 1 else []
    return telling


def direction_of(codes: np.ndarray, parent: np.ndarray, child: np.ndarray) -> int:
    """Tell how values of two columns go together among rows of one code.

    Parameters
    ----------
    codes : ndarray of shape (n_rows,)
        Codes of the parent.
    parent, child : ndarray of shape (n_rows,)
        Values of both columns, in an order that agrees with theirs.

    Returns
    -------
    direction : int
        1 if the child never falls where the parent rises, -1 if it never rises, else 0.
    """
    for sign in (1, -1):
        order = np.lexsort((sign * child, parent, codes))
        same = np.diff(codes[order]) == 0
        if (sign * np.diff(child[order])[same] >= 0).all():
            return sign
    return 0


def told_ranks(
    linked: list[Derived], known: dict[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """Return the ranks of linked columns, as far as one of a family tells them.

    Parameters
    ----------
    linked : list of Derived
        Columns whose values within a bin go together.
    known : dict of int to ndarray of shape (n_rows,)
        Known ranks by column, and NaN.

    Returns
    -------
    told : dict of int to ndarray of shape (n_rows,)
        Ranks by column, and NaN.
    """
    told = dict(known)
    for entry in linked:
        if entry.child in known:
            own = entry.turned(known[entry.child])
            parent = told.get(entry.parent, own)
            told[entry.parent] = np.where(np.isnan(parent), own, parent)
    for entry in linked:
        if entry.parent in told:
            told[entry.child] = entry.turned(told[entry.parent])
    return told


def follow(entry: Derived, source: Any, column: Any, values: np.ndarray) -> Any:
    """Return the numbers that follow from those of another column.

    Parameters
    ----------
    entry : Derived
        How the codes of one follow from those of the other.
    source, column : NumericColumn
        The column that determines the other, and that one.
    values : ndarray of shape (n_rows,)
        Values of the first.
    """
    codes = source.encode(values)
    ranks = np.full(len(values), 0.5)
    if entry.direction:
        ranks = np.nan_to_num(entry.turned(source.ranks(values, codes)))
    return column.draw(np.asarray(entry.codes)[codes], ranks)


def follow_back(
    entry: Derived, source: Any, column: Any, values: np.ndarray
) -> np.ndarray:
    """Return numbers of the column that determines another, from those of that one.

    The two rise or fall together; between training values they do so in straight lines.
    """
    codes = np.asarray(entry.codes)[: len(source.low)]
    knots = column.knots[codes]
    x, first = np.unique(
        knots if entry.direction > 0 else knots[:, ::-1], return_index=True
    )
    found = np.interp(values, x, source.knots.ravel()[first])
    return np.asarray(source.digits.written(found, source.encode(found)))
