"""Whether synthetic rows are new, or training rows in disguise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skvae.metrics._columns import Table, align, subsample
from skvae.metrics._distances import MixedSpace


def distance_to_closest_record_share(
    real: Any,
    holdout: Any,
    synthetic: Any,
    *,
    categorical_features: Iterable[Any] | None = None,
    max_rows: int = 10_000,
    random_state: Any = None,
) -> float:
    """Compute the share of synthetic rows closer to training than to unseen rows.

    As many training rows are drawn as there are hold-out rows, so that a generator that
    learned the distribution and no row of it scores 0.5. A tie counts one half. The
    distance is L1 over numbers scaled to [0, 1] by the range of the training rows and
    one-hot categories, missing being a level.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows the generator was fitted on.
    holdout : {DataFrame, array-like} of shape (n_holdout, n_columns)
        Real rows it never saw.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask.
    max_rows : int, default=10_000
        Rows drawn from each table, at most; time grows with its square.
    random_state : int, RandomState instance or None, default=None
        Draws those rows.

    Returns
    -------
    share : float
        0.5 for new rows, 1 for copies. No guarantee of privacy follows from 0.5.

    Raises
    ------
    ValueError
        If the tables differ in their columns, or `max_rows` leaves no row.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import distance_to_closest_record_share
    >>> real, holdout = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> distance_to_closest_record_share(real, holdout, real + 1e-6)
    1.0
    """
    seen, unseen, drawn = align(
        real, holdout, synthetic, categorical_features=categorical_features
    )
    return aligned_share(seen, unseen, drawn, max_rows, random_state)


def aligned_share(
    real: Table, holdout: Table, synthetic: Table, max_rows: int, random_state: Any
) -> float:
    """Compute `distance_to_closest_record_share` of aligned tables."""
    rng = check_random_state(random_state)
    space = MixedSpace(real)
    n = min(len(real), len(holdout), max_rows)
    if n < 1:
        raise ValueError(f"Found {n} row(s) to compare; at least 1 is needed.")
    seen, unseen = subsample(real, n, rng), subsample(holdout, n, rng)
    rows = subsample(synthetic, max_rows, rng)
    to_seen, _ = space.nearest(rows, seen, "cityblock")
    to_unseen, _ = space.nearest(rows, unseen, "cityblock")
    tie = np.isclose(to_seen, to_unseen, rtol=1e-12, atol=1e-12)
    return float(np.mean(np.where(tie, 0.5, to_seen < to_unseen)))


def exact_copies(
    real: Any, synthetic: Any, *, categorical_features: Iterable[Any] | None = None
) -> float:
    """Compute the share of synthetic rows equal to a training row in every cell.

    A table of few levels has honest repeats: compare with the share of a real hold-out.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows the generator was fitted on.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask.

    Returns
    -------
    share : float
        Between 0 and 1. Two missing cells are equal.

    Examples
    --------
    >>> from skvae.metrics import exact_copies
    >>> exact_copies([[1.0, 2.0], [3.0, float("nan")]],
    ...              [[3.0, float("nan")], [1.0, 2.5]])
    0.5
    """
    tables = align(real, synthetic, categorical_features=categorical_features)
    return aligned_copies(*tables)


def aligned_copies(real: Table, synthetic: Table) -> float:
    """Compute `exact_copies` of aligned tables."""
    known = {row.tobytes() for row in _comparable(real)}
    return float(np.mean([row.tobytes() in known for row in _comparable(synthetic)]))


def _comparable(table: Table) -> np.ndarray:
    # One NaN for all, and no negative zero: equal rows get equal bytes.
    return np.where(np.isnan(table.values), np.nan, table.values + 0.0)
