"""Few rows that stand for many: which of the rows drawn to keep.

Independent draws of a small table have counts of pairs of levels that are off by
chance. Of two rows one is kept, the one that evens out the counts of those kept so
far: kernel halving [1]_, with the squared number of equal cells as the kernel, whose
features are the counts of all pairs of levels. Each row is kept as often as any other.

References
----------
.. [1] Dwivedi and Mackey (2024). Kernel Thinning. JMLR 25(152). arXiv:2105.05842
"""

from __future__ import annotations

import numpy as np

from skvae._table import one_hot

# Rows and cells worth drawing for it, and how often rows are halved at most.
_MAX_ROWS, _MAX_CELLS, _MAX_HALVINGS = 24_576, 1 << 19, 5
# Rows that are halved together: so many for each to keep, or so many in all. What the
# first rounds leave uneven between blocks the later ones see.
_BLOCK, _MAX_BLOCK = 4, 4096
# How often the choices are gone through again.
_MAX_SWEEPS = 10
# Squares of counts of more columns are not exact in single precision.
_MAX_COLUMNS = 2000


def n_halvings(n: int, d: int) -> int:
    """Return how often to halve what is drawn for n rows of d columns."""
    if d > _MAX_COLUMNS:
        return 0
    most = min(_MAX_ROWS, _MAX_CELLS // d) // n
    return min(_MAX_HALVINGS, max(0, most.bit_length() - 1))


def thinned(
    groups: np.ndarray,
    n: int,
    rng: np.random.Generator,
    conditions: np.ndarray | None = None,
) -> np.ndarray:
    """Choose n rows whose counts of pairs of groups are close to those of all.

    Parameters
    ----------
    groups : ndarray of shape (n_rows, n_columns)
        Group of each cell among those of its column, from 0.
    n : int
        Rows to keep; `n_rows` is n times a power of two.
    rng : Generator
        Pairs the rows.
    conditions : ndarray of shape (n, n_conditions) or None, default=None
        Groups of what each row to keep was drawn for. Rows i, n + i, 2 n + i... were
        drawn for the same, and one of them is kept.

    Returns
    -------
    kept : ndarray of shape (n,)
        Rows to keep, in random order or in that of `conditions`.
    """
    if conditions is not None:
        groups = np.hstack([groups, np.tile(conditions, (len(groups) // n, 1))])
    cells = one_hot(groups, groups.max(axis=0) + 1).toarray()
    # Rows of the same line may be paired.
    lines = np.arange(len(groups)).reshape(-1, n).T
    if conditions is None:
        lines = lines.reshape(1, -1)
    while lines.size > n:
        lines = rng.permuted(rng.permutation(lines), axis=1)
        n_blocks = -(-lines.size // min(_BLOCK * n, _MAX_BLOCK))
        blocks = np.array_split(lines.reshape(-1, 2), n_blocks)
        kept = np.concatenate([_halved(cells, pairs, rng) for pairs in blocks])
        lines = kept.reshape(len(lines), -1)
    kept = lines.ravel()
    return rng.permutation(kept) if conditions is None else kept[np.argsort(kept % n)]


def _halved(
    cells: np.ndarray, pairs: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Keep of each pair of rows the one that evens out the counts so far."""
    first, second = pairs.T
    gain = _gains(cells[first], cells[second])
    signs = rng.choice([-1.0, 1.0], size=len(pairs))
    excess = np.zeros(len(pairs))
    for i in range(len(pairs)):
        if excess[i]:
            signs[i] = -np.sign(excess[i])
        excess += signs[i] * gain[i]
    return np.where(_evened(signs, excess, gain) > 0, first, second)


def _gains(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return what choices for two pairs of rows have to do with each other."""
    # Whole numbers below 2^24: exact, whatever the order of the sums.
    gain, part = np.zeros((2, len(first), len(first)), dtype=first.dtype)
    for one, other, sign in (
        (first, first, np.add),
        (second, second, np.add),
        (first, second, np.subtract),
        (second, first, np.subtract),
    ):
        np.matmul(one, other.T, out=part)
        sign(gain, np.square(part, out=part), out=gain)
    return gain


def _evened(signs: np.ndarray, excess: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Change choices while that evens out the counts of all pairs of rows.

    All choices turned round are as good: either row stays as likely to be kept.
    """
    own = gain.diagonal()
    for _ in range(_MAX_SWEEPS):
        before = signs.copy()
        for i in range(len(signs)):
            if signs[i] * excess[i] > own[i]:
                signs[i] = -signs[i]
                excess += 2 * signs[i] * gain[i]
        if np.array_equal(signs, before):
            break
    return signs
