"""Imputation of missing cells by an autoencoder, as a scikit-learn transformer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from skvae._compat import HasMethods, fit_context, num_samples, warn
from skvae._inner import InnerMixin
from skvae._table import Container, has_categories, missing_cells
from skvae._vae import VAE

__all__ = ["AutoencoderImputer"]

# Training of the default model.
_STEPS, _BATCH, _MAX_EPOCHS = 1300, 128, 150


class AutoencoderImputer(
    InnerMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
    """Fill missing cells with what an autoencoder expects of them.

    Observed cells come back untouched. Every missing cell gets its expected value
    (numbers) or its most probable level (categories) given the observed cells of its
    row; draws instead of expectations are given by ``estimator_.impute``. Nothing is
    known of a column without any observed cell: `fit` warns of it, in a table its cells
    stay missing, and among numbers they are filled arbitrarily.

    Parameters
    ----------
    estimator : object, default=None
        Autoencoder to fit; cloned. None is ``VAE()`` for rows with categories. For
        numbers it is a gaussian :class:`VAE` with one noise variance a column and a
        standard normal prior, trained for about 1300 optimiser steps (at most 150
        epochs) on the importance-weighted bound of 10 draws [1]_: half-empty rows
        leave the codes uncertain, and a posterior that is only normal costs most
        there. No rows are held out.
    random_state : int, RandomState instance or None, default=None
        Given to the estimator, where it has a `random_state` that is None.

    Attributes
    ----------
    estimator_ : object
        The fitted autoencoder.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns seen in ``fit``, where all of them are strings.

    See Also
    --------
    VAE.impute : Multiple imputation.
    sklearn.impute.IterativeImputer : Imputation by chained regressions.

    References
    ----------
    .. [1] Mattei, Frellsen (2019). MIWAE: Deep Generative Modelling and Imputation of
       Incomplete Data Sets. ICML. arXiv:1812.02633

    Examples
    --------
    >>> import numpy as np
    >>> from skvae import VAE
    >>> from skvae.imputation import AutoencoderImputer
    >>> x = np.linspace(-1, 1, 100)
    >>> X = np.column_stack([x, 2 * x, -x])
    >>> X[::5, 1] = np.nan
    >>> imputer = AutoencoderImputer(
    ...     VAE(1, likelihood="gaussian", max_iter=100, random_state=0)
    ... )
    >>> filled = imputer.fit_transform(X)
    >>> bool(abs(filled[0, 1] - -2.0) < 0.3)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "impute"]), None],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator: Any = None, *, random_state: Any = None):
        self.estimator = estimator
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = VAE() if self.estimator is None else self.estimator
        tags.input_tags.allow_nan = get_tags(inner).input_tags.allow_nan
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> AutoencoderImputer:
        """Fit the autoencoder to rows with missing cells.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Training rows; NaN and None are missing.
        y : None
            Ignored, present for API consistency.

        Returns
        -------
        self : object
            The fitted imputer.

        Raises
        ------
        ValueError
            If `estimator` requires y, as :class:`ConditionalVAE` does.
        """
        if issparse(X):
            raise TypeError(
                "Sparse data was passed for X, but dense data is required. Use "
                "'.toarray()' to convert to a dense numpy array."
            )
        self._keep(self._fitted_inner(X))
        unknown = np.asarray(missing_cells(X).all(axis=0))
        if unknown.any():
            names = X.columns if Container.of(X).is_frame else range(len(unknown))
            empty = [names[j] for j in np.flatnonzero(unknown)]
            warn(
                f"Features without any observed values: {empty}. At "
                "least one non-missing value is needed for imputation: in a table "
                "their cells stay missing, and numbers are filled arbitrarily."
            )
        return self

    @staticmethod
    def _default(X: Any) -> VAE:
        """Return a gaussian model for numbers, trained on a bound of ten draws."""
        if has_categories(X):
            return VAE()
        epochs = round(_STEPS * _BATCH / max(num_samples(X), 1))
        return VAE(
            likelihood="gaussian",
            noise="feature",
            prior="normal",
            n_importance_samples=10,
            batch_size=_BATCH,
            learning_rate_init=4e-3,
            max_iter=int(np.clip(epochs, 5, _MAX_EPOCHS)),
            early_stopping=False,
        )

    def transform(self, X: Any) -> Any:
        """Fill the missing cells of rows.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows; NaN and None are missing.

        Returns
        -------
        X_filled : ndarray or DataFrame of shape (n_samples, n_features)
            Rows without missing cells, in the container of `X`.
        """
        check_is_fitted(self)
        return self.estimator_.impute(X)
