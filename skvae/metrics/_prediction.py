"""What boosted trees make of synthetic rows: learn from them, tell them apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import check_random_state

from skvae.metrics._columns import Table, align

# Histogram boosting takes 255 levels a column; the rarest share the last one.
_MAX_LEVELS = 254


class UtilityScore(NamedTuple):
    """Score on real rows of a model trained on synthetic rows, and on real ones."""

    synthetic: float
    real: float


def utility_score(
    real: Any,
    holdout: Any,
    synthetic: Any,
    target: Any,
    *,
    categorical_features: Iterable[Any] | None = None,
    random_state: Any = None,
) -> UtilityScore:
    """Train on synthetic rows, test on real ones, beside training on real rows.

    The learner is ``HistGradientBoostingClassifier`` or ``...Regressor`` with
    scikit-learn's defaults and native categories. A categorical target is scored by the
    area under the ROC curve (mean over one-vs-rest problems of three classes or more),
    a numeric one by R2. A class the training rows lack gets probability 0.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows the generator was fitted on.
    holdout : {DataFrame, array-like} of shape (n_holdout, n_columns)
        Real rows it never saw, to test on.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    target : str or int
        Column to predict; a position in an array.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories, the target perhaps among them: names,
        indices or a boolean mask.
    random_state : int, RandomState instance or None, default=None
        Seeds the learners.

    Returns
    -------
    score : UtilityScore
        Fields ``synthetic`` and ``real``; their ratio is what synthesis kept. NaN where
        nothing can be scored: fewer than two known numbers, or classes, to test on, or
        no other column.

    Raises
    ------
    ValueError
        If `target` is no column, or the tables differ in their columns.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import utility_score
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(600, 1))
    >>> table = np.hstack([x, 2 * x + rng.normal(size=(600, 1))])
    >>> noise = rng.normal(size=(200, 2))
    >>> score = utility_score(
    ...     table[:200], table[400:], table[200:400], 1, random_state=0)
    >>> score.synthetic > 0.6, score.real > 0.6
    (True, True)
    >>> score = utility_score(table[:200], table[400:], noise, 1, random_state=0)
    >>> score.synthetic < 0.1
    True
    """
    seen, unseen, drawn = align(
        real, holdout, synthetic, categorical_features=categorical_features
    )
    return aligned_utility(seen, unseen, drawn, target, random_state)


def aligned_utility(
    real: Table, holdout: Table, synthetic: Table, target: Any, random_state: Any
) -> UtilityScore:
    """Compute `utility_score` of aligned tables."""
    j = _position(real.names, target)
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    test = holdout.take(~np.isnan(holdout.values[:, j]))
    scores = []
    for table in (synthetic, real):
        train = table.take(~np.isnan(table.values[:, j]))
        score = _class_score if real.categorical[j] else _number_score
        scores.append(score(train, test, j, seed))
    return UtilityScore(*scores)


def _position(names: list[str], target: Any) -> int:
    # True would be taken for 1.
    if not isinstance(target, bool | np.bool_):
        if target in names:
            return names.index(target)
        if isinstance(target, int | np.integer) and 0 <= target < len(names):
            return int(target)
    raise ValueError(f"target={target!r} is not a column. Columns: {names}.")


def _features(
    table: Table, without: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return features for histogram boosting, and which of them are categories."""
    keep = [j for j in range(len(table.names)) if j != without]
    X = table.values[:, keep].copy()
    categorical = table.categorical[keep]
    X[:, categorical] = np.minimum(X[:, categorical], _MAX_LEVELS - 1)
    # A column without any known cell has no bins; nothing can be learned from it.
    X[:, np.isnan(X).all(axis=0)] = 0.0
    return X, categorical


def _number_score(train: Table, test: Table, j: int, seed: int) -> float:
    X, categorical = _features(train, without=j)
    if min(len(X), len(test)) < 2 or X.shape[1] == 0:
        return float("nan")
    model = HistGradientBoostingRegressor(
        categorical_features=categorical, random_state=seed
    )
    model.fit(X, train.values[:, j])
    predicted = model.predict(_features(test, without=j)[0])
    return float(r2_score(test.values[:, j], predicted))


def _class_score(train: Table, test: Table, j: int, seed: int) -> float:
    X, categorical = _features(train, without=j)
    y_train, y_test = (t.values[:, j].astype(np.int64) for t in (train, test))
    present = np.unique(y_test)
    if len(present) < 2 or X.shape[1] == 0:
        return float("nan")
    probability = np.zeros((len(test), int(train.n_levels[j])))
    if len(np.unique(y_train)) > 1:
        model = HistGradientBoostingClassifier(
            categorical_features=categorical, random_state=seed, **_stopping(y_train)
        )
        model.fit(X, y_train)
        X_test = _features(test, without=j)[0]
        probability[:, model.classes_] = model.predict_proba(X_test)
    if len(present) == 2:
        return float(roc_auc_score(y_test == present[1], probability[:, present[1]]))
    return float(
        np.mean([roc_auc_score(y_test == k, probability[:, k]) for k in present])
    )


def _stopping(y: np.ndarray) -> dict[str, Any]:
    """Return options that keep a class of one row from breaking early stopping."""
    return {"early_stopping": False} if np.bincount(y)[np.unique(y)].min() < 2 else {}


def detection_auc(
    holdout: Any,
    synthetic: Any,
    *,
    categorical_features: Iterable[Any] | None = None,
    n_splits: int = 5,
    random_state: Any = None,
) -> float:
    """Compute how well boosted trees tell synthetic rows from real ones.

    ``HistGradientBoostingClassifier`` with scikit-learn's defaults and native
    categories is cross-fitted over stratified, shuffled folds of all rows of both
    tables; the area under the ROC curve of every test fold is averaged. Give real rows
    the generator did *not* see: against its training rows, a generator that copies
    them looks better than reality.

    Parameters
    ----------
    holdout : {DataFrame, array-like} of shape (n_holdout, n_columns)
        Real rows.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask.
    n_splits : int, default=5
        Folds; at most the rows of the smaller table.
    random_state : int, RandomState instance or None, default=None
        Draws the folds and seeds the learners.

    Returns
    -------
    auc : float
        0.5 when nothing gives synthetic rows away, 1 when each is recognised.

    Raises
    ------
    ValueError
        If the tables differ in their columns, or one has fewer than 2 rows.

    References
    ----------
    .. [1] Lopez-Paz, Oquab (2017). Revisiting Classifier Two-Sample Tests.
       arXiv:1610.06545

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import detection_auc
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(2, 300, 2))
    >>> detection_auc(real, fake, random_state=0) < 0.6
    True
    >>> detection_auc(real, fake + 2, random_state=0) > 0.9
    True
    """
    unseen, drawn = align(holdout, synthetic, categorical_features=categorical_features)
    return aligned_detection(unseen, drawn, n_splits, random_state)


def aligned_detection(
    holdout: Table, synthetic: Table, n_splits: int, random_state: Any
) -> float:
    """Compute `detection_auc` of aligned tables."""
    n = min(len(holdout), len(synthetic))
    n_splits = min(n_splits, n)
    if n_splits < 2:
        raise ValueError(
            f"Found {n} row(s) in the smaller table and n_splits={n_splits}; "
            "at least 2 of both are needed."
        )
    rng = check_random_state(random_state)
    parts = [_features(table) for table in (holdout, synthetic)]
    X = np.vstack([X for X, _ in parts])
    categorical = parts[0][1]
    y = np.repeat([0, 1], [len(holdout), len(synthetic)])
    folds = StratifiedKFold(n_splits, shuffle=True, random_state=rng)
    aucs = []
    for train, test in folds.split(X, y):
        seed = int(rng.randint(np.iinfo(np.int32).max))
        model = HistGradientBoostingClassifier(
            categorical_features=categorical, random_state=seed
        )
        model.fit(X[train], y[train])
        aucs.append(roc_auc_score(y[test], model.predict_proba(X[test])[:, 1]))
    return float(np.mean(aucs))
