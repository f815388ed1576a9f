"""Outlier detection by the score of an autoencoder."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from skvae._compat import HasMethods, Interval, StrOptions, fit_context, num_samples
from skvae._inner import InnerMixin
from skvae._table import has_categories, has_integers, has_missing
from skvae._vae import VAE

__all__ = ["AutoencoderOutlierDetector"]

# Scores this many (normal-consistent) median deviations below the median are outliers.
_FENCE = 3.5
# Training of the default model: it stops before it has learned rare clusters of rows.
_STEPS, _BATCH = 300, 128


class AutoencoderOutlierDetector(
    InnerMixin, OutlierMixin, MetaEstimatorMixin, BaseEstimator
):
    r"""Detect outliers by the score of an autoencoder's rows.

    Rows are ranked by ``score_samples`` of the fitted estimator: a bound of the
    log-likelihood for a :class:`VAE`, minus the reconstruction error for a
    deterministic autoencoder. The likelihood is the better score, since a good
    autoencoder reconstructs outliers too.

    The training rows hold outliers themselves, and the better a model is, the more
    of them it learns. The default is therefore stiffer than ``VAE()``: one noise
    variance a column, a standard normal prior, and about 300 optimiser steps.

    Parameters
    ----------
    estimator : object, default=None
        Autoencoder to fit; cloned. None is ``VAE(noise="feature", prior="normal")``
        with epochs for about 300 optimiser steps, and ``likelihood="gaussian"`` for
        data frames with integers and without missing cells; ``VAE()`` for rows with
        categories.
    contamination : float or "auto", default="auto"
        Share of outliers among the training rows, in (0, 0.5]. ``"auto"`` puts the
        threshold 3.5 median absolute deviations (scaled to a normal) below the
        median score.
    random_state : int, RandomState instance or None, default=None
        Given to the estimator, where it has a `random_state` that is None.

    Attributes
    ----------
    estimator_ : object
        The fitted autoencoder.
    offset_ : float
        Score below which a row is an outlier.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns seen in ``fit``, where all of them are strings.

    See Also
    --------
    VAE : The model behind the default score.
    sklearn.ensemble.IsolationForest : Outliers by random partitions.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae import VAE
    >>> from skvae.outliers import AutoencoderOutlierDetector
    >>> rng = np.random.RandomState(0)
    >>> X = rng.normal(size=(200, 1)) * [1.0, 2.0, 3.0]
    >>> detector = AutoencoderOutlierDetector(VAE(1, max_iter=20, random_state=0))
    >>> detector.fit(X).predict([[0.1, 0.2, 0.3], [2.0, -4.0, 6.0]])
    array([ 1, -1])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "score_samples"]), None],
        "contamination": [
            StrOptions({"auto"}),
            Interval(Real, 0, 0.5, closed="right"),
        ],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        contamination: float | str = "auto",
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.contamination = contamination
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(VAE() if self.estimator is None else self.estimator)
        tags.input_tags.sparse = inner.input_tags.sparse
        tags.input_tags.allow_nan = inner.input_tags.allow_nan
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "offset_")

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> AutoencoderOutlierDetector:
        """Fit the autoencoder and the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Training rows.
        y : None
            Ignored, present for API consistency.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            If `estimator` requires y, as :class:`ConditionalVAE` does.
        """
        estimator = self._fitted_inner(X)
        scores = estimator.score_samples(X)
        self._keep(estimator)
        if self.contamination == "auto":
            median = np.median(scores)
            deviation = np.median(np.abs(scores - median)) / 0.6745
            self.offset_ = float(median - _FENCE * deviation)
        else:
            self.offset_ = float(np.quantile(scores, float(self.contamination)))
        return self

    @staticmethod
    def _default(X: Any) -> VAE:
        """Return a model too stiff to learn the outliers it is trained on."""
        if has_categories(X):
            return VAE()
        # An epoch takes a step at least, however few the rows.
        rows = max(num_samples(X), _BATCH)
        epochs = max(1, round(_STEPS * _BATCH / rows))
        # A density of numbers, whatever their type; a table only where one must be.
        numbers = has_integers(X) and not has_missing(X)
        return VAE(
            likelihood="gaussian" if numbers else "auto",
            noise="feature",
            prior="normal",
            batch_size=_BATCH,
            max_iter=epochs,
        )

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the score of each row; the lower, the more of an outlier.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            As `score_samples` of the autoencoder. In a table with categories, 2 log(1 +
            d / s) nats less for each number or date a distance d beyond those of
            training, s their standard deviation.
        """
        check_is_fitted(self)
        return self.estimator_.score_samples(X) - self._beyond(X).sum(axis=1)

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute how far each row lies above the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``; negative for outliers.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Tell outliers from inliers.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for inliers.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def feature_scores(self, X: Any) -> np.ndarray:
        """Compute what each cell contributes to a row being an outlier.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_features)
            Minus the log-likelihood of each cell given the code of its row, in nats,
            and what `score_samples` takes off for it; the higher, the less the model
            expected it.
        """
        check_is_fitted(self)
        return self.estimator_.cell_losses(X) + self._beyond(X)

    def _beyond(self, X: Any) -> np.ndarray:
        """Return what cells of a table lose that the model takes for its last code."""
        columns = getattr(self.estimator_, "_columns", None)
        if columns is None or columns.kind != "table":
            return np.zeros((1, 1))
        return columns.codec.beyond(self.estimator_._validate(X, reset=False))
