"""Mixtures of factorised columns, fitted to codes by expectation-maximisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp

# Rows each component borrows from the margins: no code is impossible anywhere.
_PSEUDO_COUNT = 0.3
# Components this far below the best, in nats, weigh nothing; numbers as small as their
# shares would be are slow to compute with.
_LOWEST = -80.0
# Rounds of scaling until a kernel keeps the shares of bins.
_BALANCING = 50


def one_hot(codes: np.ndarray, sizes: Sequence[int] | np.ndarray) -> sp.csr_array:
    """Return codes as sparse indicator rows; -1 indicates nothing.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_columns)
        Codes of each column.
    sizes : sequence of int of shape (n_columns,)
        Codes each column has.

    Returns
    -------
    rows : csr_array of shape (n_samples, sum(sizes)), float32
        Indicators.
    """
    n = len(codes)
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    known = codes >= 0
    indices = (codes + offsets)[known]
    pointers = np.concatenate([[0], np.cumsum(known.sum(axis=1))])
    data = np.ones(len(indices), dtype=np.float32)
    return sp.csr_array((data, indices, pointers), shape=(n, int(np.sum(sizes))))


def fit_mixture(
    codes: np.ndarray,
    sizes: Sequence[int] | np.ndarray,
    n_components: int,
    *,
    bin_runs: Sequence[np.ndarray] = (),
    smoothing: float = 1.0,
    n_iter: int = 60,
    tol: float = 1e-4,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Fit a mixture of factorised categorical columns.

    .. math:: p(x) = \sum_k \pi_k \prod_j p_{kj}(x_j)

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_columns)
        Codes; -1 is a cell that is not known.
    sizes : sequence of int of shape (n_columns,)
        Codes each column has.
    n_components : int
        Components.
    bin_runs : sequence of ndarray, default=()
        Positions, among all codes, of neighbouring bins, which share strength.
    smoothing : float, default=1.0
        Standard deviation of the sharing, in bins; 0 is none.
    n_iter : int, default=60
        Iterations at most.
    tol : float, default=1e-4
        Gain in mean log-likelihood, in nats, at which to stop.
    rng : Generator
        Draws the start.

    Returns
    -------
    log_weights : ndarray of shape (n_components,)
        Log-weights.
    log_probs : ndarray of shape (sum(sizes), n_components)
        Log-probability of every code in every component.
    """
    rows = one_hot(codes, sizes)
    transposed = rows.T.tocsr()
    margin = _margin(rows, sizes)
    smooth = _smoothers(bin_runs, smoothing, margin)
    n = len(codes)
    # Rows drawn as seeds: a component starts at a row and the rows like it.
    seeds = rows[np.sort(rng.choice(n, size=n_components, replace=n < n_components))]
    likeness = np.asarray((rows @ seeds.T).todense(), dtype=np.float32)
    responsibilities, _ = _normalised(3.0 * likeness)
    previous = -np.inf
    for _ in range(n_iter):
        log_weights, log_probs = _maximise(
            transposed, responsibilities, margin, sizes, smooth
        )
        joint = rows @ log_probs.astype(np.float32) + log_weights.astype(np.float32)
        responsibilities, log_sums = _normalised(joint)
        current = float(np.mean(log_sums, dtype=np.float64))
        if current - previous < tol:
            break
        previous = current
    return _maximise(transposed, responsibilities, margin, sizes, smooth)


def mixture_log_prob(
    codes: np.ndarray,
    sizes: Sequence[int] | np.ndarray,
    log_weights: np.ndarray,
    log_probs: np.ndarray,
) -> np.ndarray:
    """Return the log-probability of rows under a mixture, in nats.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_columns)
        Codes; -1 is left out.
    sizes : sequence of int of shape (n_columns,)
        Codes each column has.
    log_weights : ndarray of shape (n_components,)
        Log-weights.
    log_probs : ndarray of shape (sum(sizes), n_components)
        Log-probabilities of the codes.

    Returns
    -------
    log_prob : ndarray of shape (n_samples,)
        Nats per row.
    """
    return logsumexp(one_hot(codes, sizes) @ log_probs + log_weights, axis=1)


def _normalised(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares that logarithms stand for, and the logarithm of their sum."""
    peak = joint.max(axis=1, keepdims=True)
    powers = np.exp(np.maximum(joint - peak, _LOWEST))
    total = powers.sum(axis=1, keepdims=True)
    powers /= total
    return powers, np.log(total) + peak


def _margin(rows: sp.csr_array, sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the share of each code in its column, never quite zero."""
    counts = np.asarray(rows.sum(axis=0), dtype=np.float64) + 0.5
    return counts / np.repeat(_column_sums(counts, sizes), sizes)


def _column_sums(values: np.ndarray, sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, np.concatenate([[0], np.cumsum(sizes)[:-1]]), axis=0)


def _maximise(
    transposed: sp.csr_array,
    responsibilities: np.ndarray,
    margin: np.ndarray,
    sizes: Sequence[int] | np.ndarray,
    smooth: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return log-weights and log-probabilities given the responsibilities."""
    counts = np.asarray(transposed @ responsibilities, dtype=np.float64)
    for run, kernel in smooth:
        counts[run] = kernel @ counts[run]
    counts += _PSEUDO_COUNT * margin[:, None]
    sums = np.repeat(_column_sums(counts, sizes), sizes, axis=0)
    mass = responsibilities.sum(axis=0, dtype=np.float64) + 1e-3
    return np.log(mass / mass.sum()), np.log(counts / sums)


def _smoothers(
    runs: Sequence[np.ndarray], width: float, margin: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each run of bins, the kernel its counts are spread by."""
    if width <= 0:
        return []
    kernels = []
    for run in runs:
        steps = np.arange(len(run))
        closeness = np.exp(-0.5 * (np.subtract.outer(steps, steps) / width) ** 2)
        kernels.append((np.asarray(run), _balanced(closeness, margin[run])))
    return kernels


def _balanced(closeness: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the kernel of neighbours that leaves counts in these shares as they are.

    Its columns sum to one: spreading moves counts, it makes none.
    """
    scale = np.ones(len(shares))
    for _ in range(_BALANCING):
        scale = np.sqrt(scale * shares / (closeness @ scale))
    kernel = closeness * scale[:, None]
    return kernel / kernel.sum(axis=0)
