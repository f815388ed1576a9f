"""One column at a time: its distribution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from skvae.metrics._columns import Table, align


def shape_error(
    real: Any, synthetic: Any, *, categorical_features: Iterable[Any] | None = None
) -> float:
    """Compute the mean over columns of the distance between their distributions.

    It says nothing of dependence: columns drawn independently do best. Read it beside
    :func:`association_error` and :func:`detection_auc`.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows; they decide which columns are numeric.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask. Strings,
        booleans and category types are categories anyway.

    Returns
    -------
    error : float
        Between 0 (same distributions) and 1.

    Raises
    ------
    ValueError
        If the tables do not have the same columns, two columns have one name, a column
        holds other kinds of cells than in the first table, or infinity.

    See Also
    --------
    shape_errors : The same, column by column, with the definitions.

    Examples
    --------
    >>> from skvae.metrics import shape_error
    >>> shape_error([[1.0], [2.0], [3.0], [4.0]], [[3.0], [4.0], [3.0], [4.0]])
    0.5
    """
    errors = shape_errors(real, synthetic, categorical_features=categorical_features)
    return mean_of_columns(errors)


def shape_errors(
    real: Any, synthetic: Any, *, categorical_features: Iterable[Any] | None = None
) -> dict[str, float]:
    r"""Compute the distance between real and synthetic distributions of each column.

    For numbers and dates, the Kolmogorov-Smirnov statistic

    .. math:: \sup_t |F_{real}(t) - F_{synthetic}(t)|,

    where a missing cell counts as a value above every number. Text that `VAE` reads as
    dates, and `Decimal`, `date` and `Period` objects, count as what they stand for,
    unless declared categorical; so do ISO dates and booleans where the real cells are
    dates or numbers. For categories, the total variation

    .. math:: \tfrac12 \sum_v |p_{real}(v) - p_{synthetic}(v)|,

    where missing is one more level. Without missing cells, 1 minus these are the
    ``KSComplement`` and ``TVComplement`` of sdmetrics.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows; they decide which columns are numeric.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask.

    Returns
    -------
    errors : dict of str to float
        Column name to a distance between 0 and 1; columns of an array are ``x0``,
        ``x1``, ...

    Raises
    ------
    ValueError
        If the tables do not have the same columns, two columns have one name, a column
        holds other kinds of cells than in the first table, or infinity.

    See Also
    --------
    shape_error : Mean over the columns.

    Examples
    --------
    >>> import pandas as pd
    >>> from skvae.metrics import shape_errors
    >>> real = pd.DataFrame({"age": [20, 30, 40, 50], "city": list("aabb")})
    >>> synthetic = pd.DataFrame({"age": [20, 30, 40, 60], "city": list("aaab")})
    >>> shape_errors(real, synthetic)
    {'age': 0.25, 'city': 0.25}
    """
    tables = align(real, synthetic, categorical_features=categorical_features)
    return column_distances(*tables)


def mean_of_columns(errors: dict[str, float]) -> float:
    """Return the mean of the columns."""
    return float(np.mean(list(errors.values())))


def column_distances(real: Table, synthetic: Table) -> dict[str, float]:
    """Compute `shape_errors` of aligned tables."""
    errors = {}
    for j, name in enumerate(real.names):
        a, b = real.values[:, j], synthetic.values[:, j]
        if real.categorical[j]:
            errors[name] = _total_variation(a, b, int(real.n_levels[j]))
        else:
            errors[name] = _kolmogorov_smirnov(a, b)
    return errors


def _total_variation(a: np.ndarray, b: np.ndarray, n_levels: int) -> float:
    return 0.5 * float(np.abs(_shares(a, n_levels) - _shares(b, n_levels)).sum())


def _shares(codes: np.ndarray, n_levels: int) -> np.ndarray:
    known = np.where(np.isnan(codes), n_levels, codes).astype(np.int64)
    return np.bincount(known, minlength=n_levels + 1) / len(codes)


def _kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    # Missing lies above every number; a NaN would break the searches.
    a, b = (np.sort(np.where(np.isnan(x), np.inf, x)) for x in (a, b))
    points = np.concatenate([a, b])
    below_a = np.searchsorted(a, points, side="right") / len(a)
    below_b = np.searchsorted(b, points, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())
