"""Where synthetic rows lie among real ones, and what they leave uncovered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skvae.metrics._columns import Table, align, subsample
from skvae.metrics._distances import MixedSpace

_LEVELS = np.linspace(0, 1, 30)


def alpha_precision(
    real: Any,
    synthetic: Any,
    *,
    categorical_features: Iterable[Any] | None = None,
    max_rows: int = 10_000,
    random_state: Any = None,
) -> float:
    r"""Compute whether synthetic rows are as far from the centre as real rows.

    .. math:: 1 - 2 \int_0^1 |\alpha - P(\|x_{syn} - c\| \le r_\alpha)| \, d\alpha

    with :math:`c` the mean of the real rows and :math:`r_\alpha` the radius of the ball
    around it that holds a share :math:`\alpha` of them; the integral is a sum over 30
    equal steps, as in synthcity's ``AlphaPrecision`` ("naive": no embedding). Numbers
    are scaled to [0, 1] by the real range, categories are one-hot, missing is a level.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask.
    max_rows : int, default=10_000
        Rows drawn from each table, at most.
    random_state : int, RandomState instance or None, default=None
        Draws those rows.

    Returns
    -------
    score : float
        About 1 for new rows of a real distribution without ties, and for independent
        columns about 0.9, so read it beside others. Rows of few levels, or constant
        columns, tie in their distances, which lowers the score of the real rows
        themselves (one column of two levels: 0.46): the score of a real hold-out is
        the yardstick, not 1.

    See Also
    --------
    beta_recall : Whether every real row has a synthetic one near.

    References
    ----------
    .. [1] Alaa, van Breugel, Saveliev, van der Schaar (2022). How Faithful is your
       Synthetic Data? arXiv:2102.08921

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import alpha_precision
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(2, 1000, 2))
    >>> alpha_precision(real, fake) > 0.9
    True
    >>> alpha_precision(real, np.zeros((1000, 2))) < 0.1
    True
    """
    ours, theirs = align(real, synthetic, categorical_features=categorical_features)
    return aligned_precision(*_same_size(ours, theirs, max_rows, random_state))


def beta_recall(
    real: Any,
    synthetic: Any,
    *,
    categorical_features: Iterable[Any] | None = None,
    max_rows: int = 10_000,
    random_state: Any = None,
) -> float:
    r"""Compute whether the real rows are covered by synthetic ones.

    A real row is covered when its nearest synthetic row is no farther than its nearest
    other real row. The score is

    .. math::

        1 - 2 \int_0^1 |\beta - P(\text{covered and } s(x) \le q_\beta)| \, d\beta,

    where :math:`s(x)` is the distance of that synthetic row from the synthetic mean and
    :math:`q_\beta` its quantiles; a sum over 30 equal steps, as in synthcity's
    ``AlphaPrecision`` ("naive"). As many rows are drawn from both tables, and scaled as
    in :func:`alpha_precision`. Two samples of one distribution score about 0.5, not 1:
    compare with the score of a real hold-out; above it, rows may be copies.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows.
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
    score : float
        At most 1; about 0.5 for new rows of the real distribution. Ties lower it as
        they do :func:`alpha_precision`, even for the real rows themselves.

    Raises
    ------
    ValueError
        If a table has fewer than 2 rows.

    See Also
    --------
    alpha_precision : Whether synthetic rows lie where real rows do.

    References
    ----------
    .. [1] Alaa, van Breugel, Saveliev, van der Schaar (2022). How Faithful is your
       Synthetic Data? arXiv:2102.08921

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import beta_recall
    >>> real = np.random.default_rng(0).normal(size=(500, 2))
    >>> beta_recall(real, real) > 0.9
    True
    >>> beta_recall(real, real[:1].repeat(500, axis=0)) < 0.1
    True
    """
    ours, theirs = align(real, synthetic, categorical_features=categorical_features)
    return aligned_recall(*_same_size(ours, theirs, max_rows, random_state))


def _same_size(
    real: Table, synthetic: Table, max_rows: int, random_state: Any
) -> tuple[Table, Table]:
    rng = check_random_state(random_state)
    n = min(len(real), len(synthetic), max_rows)
    if n < 2:
        raise ValueError(f"Found {n} row(s) to compare; at least 2 are needed.")
    return subsample(real, n, rng), subsample(synthetic, n, rng)


def aligned_precision(real: Table, synthetic: Table) -> float:
    """Compute `alpha_precision` of aligned tables."""
    ours, theirs = MixedSpace(real).from_center(real, synthetic)
    radii = np.quantile(ours, _LEVELS)
    inside = np.searchsorted(np.sort(theirs), radii, side="right") / len(theirs)
    return _closeness(inside)


def aligned_recall(real: Table, synthetic: Table) -> float:
    """Compute `beta_recall` of aligned tables."""
    space = MixedSpace(real)
    to_real, _ = space.nearest(real, real, "euclidean", skip_self=True)
    to_synthetic, index = space.nearest(real, synthetic, "euclidean")
    spread = space.from_center(synthetic, synthetic)[0][index]
    radii = np.quantile(spread, _LEVELS)
    covered = np.sort(spread[to_synthetic <= to_real])
    return _closeness(np.searchsorted(covered, radii, side="right") / len(real))


def _closeness(curve: np.ndarray) -> float:
    """Return 1 minus twice the area between a curve and the diagonal."""
    step = _LEVELS[1] - _LEVELS[0]
    return float(1 - 2 * np.abs(_LEVELS - curve).sum() * step)


def coverage(
    real: Table, synthetic: Table, max_rows: int, random_state: Any
) -> tuple[float, float]:
    """Compute precision and recall of aligned tables, on the same rows."""
    pair = _same_size(real, synthetic, max_rows, random_state)
    return aligned_precision(*pair), aligned_recall(*pair)
