"""Classes of rows by Bayes' rule on the bounds of a conditional model."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted


def _has_classes(model: Any) -> bool:
    conditions = getattr(model, "_conditions", None)
    if conditions is not None and conditions.classes is None:
        raise AttributeError(
            f"{type(model).__name__} predicts classes only, and was fitted with "
            "continuous or several conditions."
        )
    return True


class ClassesMixin:
    """Probabilities of classes, for models that were fitted with classes."""

    def _class_bounds(self: Any, X: Any, n_importance_samples: int) -> np.ndarray:
        """Return bounds of log p(x, y) for each row and class."""
        assert self.class_prior_ is not None
        with np.errstate(divide="ignore"):
            log_prior = np.log(self.class_prior_)
        n, classes = X.shape[0], len(log_prior)
        bounds = np.empty((n, classes))
        for c, one_hot in enumerate(np.eye(classes)):
            condition = np.repeat(one_hot[None], n, axis=0)
            bounds[:, c] = self._bounds(X, n_importance_samples, condition=condition)
        return bounds + log_prior

    @available_if(_has_classes)
    def predict_proba(self: Any, X: Any) -> np.ndarray:
        r"""Compute the probability of each class by Bayes' rule.

        .. math:: p(y \mid x) \propto p(y) \, p(x \mid y)

        with a bound in place of each :math:`\log p(x \mid y)`; no further network
        takes part.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        check_is_fitted(self)
        return self._class_shares(self._validate(X, reset=False))

    @available_if(_has_classes)
    def predict_log_proba(self: Any, X: Any) -> np.ndarray:
        """Compute the logarithm of what `predict_proba` gives.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        check_is_fitted(self)
        bounds = self._relative_bounds(self._validate(X, reset=False))
        return bounds - np.log(np.exp(bounds).sum(axis=1, keepdims=True))

    def _class_shares(self: Any, X: Any) -> np.ndarray:
        """Return the probabilities of the classes of validated rows."""
        weights = np.exp(self._relative_bounds(X))
        return weights / weights.sum(axis=1, keepdims=True)

    def _relative_bounds(self: Any, X: Any) -> np.ndarray:
        """Return bounds of log p(x, y) less the largest of each row."""
        bounds = self._class_bounds(X, 32)
        # Rows that are impossible under every class say nothing of it.
        lost = ~np.isfinite(bounds.max(axis=1))
        bounds[lost] = np.log(np.maximum(np.asarray(self.class_prior_), 1e-300))
        return bounds - bounds.max(axis=1, keepdims=True)

    @available_if(_has_classes)
    def predict(self: Any, X: Any) -> np.ndarray:
        """Predict the most probable class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Classes.
        """
        check_is_fitted(self)
        return self._likely_classes(self._validate(X, reset=False))

    def _likely_classes(self: Any, X: Any) -> np.ndarray:
        return np.asarray(self.classes_)[self._class_shares(X).argmax(axis=1)]
