"""Two columns at a time: how they depend on each other."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from skvae.metrics._columns import Table, align

_N_BINS = 10
# Cells of a contingency table up to which counting beats sorting.
_MAX_DENSE_CELLS = 1_000_000


def association_error(
    real: Any, synthetic: Any, *, categorical_features: Iterable[Any] | None = None
) -> float:
    """Compute the mean over all pairs of columns of the error in their association.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows; they decide which columns are numeric, and the bins.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask.

    Returns
    -------
    error : float
        Between 0 and 1; 0 for a table of one column. It is not 0 for two samples of
        one distribution: compare with the error of a real hold-out of the same size.

    Raises
    ------
    ValueError
        If the tables do not have the same columns, two columns have one name, a column
        holds other kinds of cells than in the first table, or infinity.

    See Also
    --------
    association_errors : The same, pair by pair, with the definitions.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import association_error
    >>> x = np.arange(6.0)
    >>> association_error(np.column_stack([x, x]), np.column_stack([x, -x]))
    1.0
    """
    errors = association_errors(
        real, synthetic, categorical_features=categorical_features
    )
    return mean_of_pairs(errors)


def association_errors(
    real: Any, synthetic: Any, *, categorical_features: Iterable[Any] | None = None
) -> np.ndarray:
    r"""Compute the error in the association of every pair of columns.

    Two numeric columns: :math:`|\rho_{real} - \rho_{synthetic}| / 2` with Pearson's
    correlations over the rows where both are known; the correlation with a constant is
    0. Otherwise: the total variation between the two contingency tables,

    .. math:: \tfrac12 \sum_{u, v} |p_{real}(u, v) - p_{synthetic}(u, v)|,

    after cutting a numeric column into 10 equal bins over the real range, the outer two
    open (``numpy.digitize(x, numpy.histogram_bin_edges(real)[1:-1])``). Missing is a
    level of its own. Without missing cells these are 1 minus ``CorrelationSimilarity``
    and ``ContingencySimilarity`` of sdmetrics 0.32; its report averages only over the
    pairs whose real association passes a threshold, these are all pairs.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows; they decide which columns are numeric, and the bins.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask.

    Returns
    -------
    errors : ndarray of shape (n_columns, n_columns)
        Symmetric, between 0 and 1, with zeros on the diagonal.

    Raises
    ------
    ValueError
        If the tables do not have the same columns, two columns have one name, a column
        holds other kinds of cells than in the first table, or infinity.

    See Also
    --------
    association_error : Mean over the pairs.

    Examples
    --------
    >>> import pandas as pd
    >>> from skvae.metrics import association_errors
    >>> real = pd.DataFrame({"a": list("xxyy"), "b": list("ppqq")})
    >>> synthetic = pd.DataFrame({"a": list("xxyy"), "b": list("pqpq")})
    >>> association_errors(real, synthetic)
    array([[0. , 0.5],
           [0.5, 0. ]])
    """
    tables = align(real, synthetic, categorical_features=categorical_features)
    return pair_distances(*tables)


def mean_of_pairs(errors: np.ndarray) -> float:
    """Return the mean of the pairs of a symmetric matrix, 0 if there are none."""
    pairs = errors[np.triu_indices(len(errors), 1)]
    return float(pairs.mean()) if len(pairs) else 0.0


def pair_distances(real: Table, synthetic: Table) -> np.ndarray:
    """Compute `association_errors` of aligned tables."""
    d = len(real.names)
    codes = [_discretised(real, synthetic, j) for j in range(d)]
    errors = np.zeros((d, d))
    for i, j in combinations(range(d), 2):
        if real.categorical[i] or real.categorical[j]:
            error = _contingency_variation(codes[i], codes[j], len(real))
        else:
            ours = _correlation(real.values[:, i], real.values[:, j])
            theirs = _correlation(synthetic.values[:, i], synthetic.values[:, j])
            error = abs(ours - theirs) / 2
        errors[i, j] = errors[j, i] = error
    return errors


def _discretised(real: Table, synthetic: Table, j: int) -> np.ndarray:
    """Return small integer codes of the real cells, then of the synthetic ones."""
    cells = np.concatenate([real.values[:, j], synthetic.values[:, j]])
    missing = np.isnan(cells)
    if real.categorical[j]:
        return np.where(missing, real.n_levels[j], cells).astype(np.int64)
    known = real.values[:, j]
    known = known[np.isfinite(known)]
    edges = np.histogram_bin_edges(known if len(known) else [0.0], bins=_N_BINS)
    bins = np.digitize(np.where(missing, 0.0, cells), edges[1:-1])
    return np.where(missing, _N_BINS, bins).astype(np.int64)


def _contingency_variation(a: np.ndarray, b: np.ndarray, n_real: int) -> float:
    width = int(b.max()) + 1
    cells = a * width + b
    n_cells = (int(a.max()) + 1) * width
    if n_cells > _MAX_DENSE_CELLS:
        levels, cells = np.unique(cells, return_inverse=True)
        n_cells = len(levels)
    ours = np.bincount(cells[:n_real], minlength=n_cells) / n_real
    theirs = np.bincount(cells[n_real:], minlength=n_cells) / (len(cells) - n_real)
    return 0.5 * float(np.abs(ours - theirs).sum())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    # Scaled before the squares, which may overflow.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))
