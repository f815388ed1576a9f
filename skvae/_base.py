"""What all autoencoders share: the scikit-learn contract and the way of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skvae._compat import Interval, StrOptions, fit_context
from skvae._defaults import SMALL
from skvae._docs import estimator
from skvae._fitting import Fitting
from skvae._fused import ACTIVATIONS
from skvae._imputing import imputed
from skvae._latent import LatentMixin
from skvae._passes import PassesMixin, check_count
from skvae._random import draw_torch_generator
from skvae._state import load_state, plain_state
from skvae._summary import summarize
from skvae._table import (
    Container,
    columns_of_no_numbers,
    dense_columns,
    has_categories,
    has_integers,
    has_missing,
    missing_cells,
)
from skvae._threads import own_settings
from skvae.objectives import NegativeLogLikelihood, Term

# Columns of a frame up to which integers make it a table of a variational model.
_MAX_INTEGER_COLUMNS = 64


@dataclass(frozen=True)
class Recipe:
    """What one estimator adds to the shared machinery.

    Parameters
    ----------
    terms : tuple of Term
        Terms of the loss.
    corruption : str, callable or None
        Corruption of the encoder's input while training, see
        :mod:`skvae.corruptions`.
    corruption_level : float or "auto"
        Its strength.
    corrupts_held_out : bool
        Whether held-out rows are corrupted too, the same way in every epoch.
    variational : bool
        Whether the encoder gives a distribution.
    code_activation : {None, "logistic", "relu"}
        Applied to the code of a deterministic model.
    tied : bool
        Whether the decoder shares the encoder's weights.
    likelihood : str
        Family of p(x | z), or "auto".
    noise : str or float
        What the scale of a gaussian likelihood depends on; 1.0 is squared error.
    prior : str
        Family of p(z).
    n_importance_samples : int
        Draws of z per row while training.

    See Also
    --------
    skvae.objectives.Term : Base of the terms.

    Examples
    --------
    >>> from skvae import Recipe
    >>> Recipe().variational
    False
    """

    terms: tuple[Term, ...] = (NegativeLogLikelihood(),)
    corruption: str | Callable[..., Any] | None = None
    corruption_level: float | str = 0.0
    corrupts_held_out: bool = False
    variational: bool = False
    code_activation: str | None = None
    tied: bool = False
    likelihood: str = "auto"
    noise: str | float = 1.0
    prior: str = "normal"
    n_importance_samples: int = 1


@estimator
class BaseAutoencoder(
    LatentMixin,
    PassesMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    CallbackSupportMixin,
    BaseEstimator,
):
    """Base of the estimators; a subclass declares fields and `_recipe`."""

    n_components: int | str = field(default="auto", kw_only=False)
    hidden_layer_sizes: tuple[int, ...] | str = "auto"
    activation: str = "silu"
    batch_size: int | str = "auto"
    learning_rate_init: float | str = "auto"
    max_iter: int | str = "auto"
    early_stopping: bool = True
    validation_fraction: float = 0.1
    n_iter_no_change: int | str = "auto"
    warm_start: bool = False
    random_state: Any = None
    verbose: int = 0
    weight_decay: float = 0.0
    dropout: float = 0.0
    init: str = "auto"
    encoder: Any = None
    decoder: Any = None
    scale: str | None = "auto"
    categorical_features: Any = "from_dtype"
    missing_values: str = "mask"
    device: str | torch.device = "auto"
    callbacks: Any = None
    net_params: dict[str, Any] | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "hidden_layer_sizes": ["array-like", StrOptions({"auto"})],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "learning_rate_init": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "max_iter": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "init": [StrOptions({"auto", "random"})],
        "encoder": [callable, None],
        "decoder": [callable, None],
        "scale": [StrOptions({"auto"}), None],
        "categorical_features": [StrOptions({"from_dtype"}), "array-like"],
        "missing_values": [StrOptions({"mask", "error"})],
        "device": [str, torch.device],
        "callbacks": ["array-like", None],
        "net_params": [dict, None],
    }

    # -- what a subclass declares ------------------------------------------------------
    def _recipe(self) -> Recipe:
        """Return what this estimator adds; a pure function of the parameters."""
        raise NotImplementedError

    # -- scikit-learn's contract -------------------------------------------------------
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing_values == "mask"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __getstate__(self) -> dict[str, Any]:
        return plain_state(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        with own_settings():
            super().__setstate__(load_state(self, state))

    def _validate(self, X: Any, *, reset: bool) -> Any:
        """Validate rows; a table passes as it is, its codec checks the cells."""
        self._refuse_array(X)
        X = dense_columns(X, keep_matrix=True)
        allow_nan = self.missing_values == "mask"
        table = self._is_table(X) if reset else self._columns.kind == "table"
        self._refuse_sparse(X, table=table)
        if table and Container.of(X).is_frame:
            validate_data(self, X, skip_check_array=True, reset=reset)
            self._refuse_empty(X)
            if not allow_nan:
                self._refuse_gaps(X)
            return X
        try:
            return validate_data(
                self,
                X,
                dtype=[np.float64, np.float32],
                accept_sparse="csr",
                ensure_all_finite="allow-nan" if allow_nan else True,
                reset=reset,
            )
        except (TypeError, ValueError) as error:
            self._refuse_text(X, reset=reset)
            if reset and "could not convert string" in str(error):
                raise ValueError(
                    f"{error}. Rows with text or categories are data frames, of "
                    "pandas or polars: pass one, or encode the columns."
                ) from error
            raise

    def _refuse_empty(self, X: Any) -> None:
        """Refuse a frame without rows or columns."""
        for size, what in zip(X.shape, ("sample", "feature"), strict=True):
            if not size:
                raise ValueError(
                    f"Found array with 0 {what}(s) (shape={X.shape}) while a "
                    f"minimum of 1 is required by {type(self).__name__}."
                )

    @staticmethod
    def _refuse_array(X: Any) -> None:
        """Refuse arrays whose cells would be read as other numbers than meant."""
        if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
            raise TypeError(
                "Masked arrays are not supported: cells under the mask would be read "
                "as numbers. Use X.filled(np.nan) if they are missing, or X.data."
            )
        if isinstance(X, np.ndarray) and X.dtype.kind in "mM":
            raise TypeError(
                f"An array of {X.dtype} would be read as numbers of its unit. Dates "
                "and durations are columns of a data frame: pass one, or "
                "X.astype(float)."
            )

    def _refuse_sparse(self, X: Any, *, table: bool) -> None:
        """Refuse a sparse matrix that holds more than numbers."""
        if not sp.issparse(X):
            return
        if table:
            raise TypeError(
                "Sparse data was passed for X, but a table of categories needs dense "
                "data. Use '.toarray()' to convert to a dense numpy array."
            )
        if self.missing_values == "mask" and has_missing(X):
            raise ValueError(
                "Sparse input X contains NaN: missing cells are read from dense rows "
                "only. Use '.toarray()' to convert to a dense numpy array."
            )

    def _refuse_text(self, X: Any, *, reset: bool) -> None:
        """Refuse columns of a frame that a model of numbers has no density for."""
        names = columns_of_no_numbers(X)
        if not names:
            return
        named = ", ".join([*map(repr, names[:10]), *["..."][: len(names) > 10]])
        if not reset:
            raise ValueError(
                f"{type(self).__name__} was fitted on columns of numbers. Columns of X "
                f"that are none: {named}."
            )
        raise ValueError(
            f"likelihood={self._recipe().likelihood!r} needs columns of numbers. "
            f"Columns of X that are none: {named}. Use likelihood='auto', which models "
            "them too, or encode or drop them."
        )

    def _refuse_gaps(self, X: Any) -> None:
        """Refuse missing cells of a frame, whatever marks them."""
        if not has_missing(X):
            return
        gaps = missing_cells(X).sum(axis=0)
        counts = [f"{c!r} ({n})" for c, n in zip(X.columns, gaps, strict=True) if n]
        named = ", ".join([*counts[:10], *(["..."] if len(counts) > 10 else [])])
        raise ValueError(
            f"Input X contains NaN.\n{type(self).__name__} does not accept missing "
            f"cells with missing_values='error'. Columns with missing cells: {named}. "
            "Use missing_values='mask', or impute them first."
        )

    def _is_table(self, X: Any) -> bool:
        """Tell from the content of training rows whether columns need heads."""
        recipe, declares = self._recipe(), self._declares_categories()
        if recipe.likelihood == "table":
            return True
        if declares:
            if recipe.likelihood == "auto":
                return True
            raise ValueError(
                f"categorical_features={self.categorical_features!r} needs "
                f"likelihood='auto' or 'table'. Got likelihood={recipe.likelihood!r}."
            )
        if recipe.likelihood != "auto" or sp.issparse(X):
            return False
        if has_categories(X):
            return True
        if not recipe.variational:
            return False
        # Integers are to come back as such; images and toy examples stay numbers.
        if has_integers(X):
            n, d = X.shape
            if n >= SMALL and d <= _MAX_INTEGER_COLUMNS:
                return True
        return self.missing_values == "mask" and has_missing(X)

    def _declares_categories(self) -> bool:
        """Tell whether `categorical_features` names a column."""
        declared = self.categorical_features
        if isinstance(declared, str):
            return False
        chosen = np.asarray(declared)
        if chosen.size and chosen.dtype.kind == "f":
            raise ValueError(
                "categorical_features must be an array-like of bool, int or str. "
                f"Got {declared!r}."
            )
        return bool(chosen.any() if chosen.dtype == bool else chosen.size)

    # -- training ----------------------------------------------------------------------
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model to rows.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Training rows.
        y : None
            Ignored, present for API consistency.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data are not finite, the loss is not finite twice, or a warm start
            finds parameters of another network than that of the last fit.
        """
        with self._all_or_nothing():
            warm = self.warm_start and hasattr(self, "net_")
            Fitting(self, X, y, go_on=warm).run()
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train on rows for one epoch, from where training stands.

        The first call decides scaling, start and network; the step size stays constant
        and no rows are held out. What scores and samples of deterministic models need
        to know of the rows is that of all of them so far, for which at most 1000 of the
        rows seen here are kept with the model. Diagnostics of variational models
        (`kl_per_component_` and `n_active_components_`) are of the last rows.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Training rows.
        y : None
            Ignored, present for API consistency.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data or the loss are not finite; the estimator stays as it was.
        """
        with self._all_or_nothing():
            Fitting(self, X, y, go_on=hasattr(self, "net_"), partial=True).run()
        return self

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Put every attribute back if a fit raises: bad input loses nothing."""
        before = dict(vars(self))
        try:
            # What surrounds a fit does not decide whether gradients are taken.
            with own_settings(), torch.inference_mode(False), torch.enable_grad():
                yield
        except BaseException:
            kept = {k: v for k, v in vars(self).items() if k.startswith("_callback")}
            kept |= {k: v for k, v in vars(self).items() if k.startswith("_skl")}
            self.__dict__.clear()
            self.__dict__.update({**before, **kept})
            raise

    # -- codes and rows ----------------------------------------------------------------
    def transform(self, X: Any) -> Any:
        """Encode rows: the code, or the mean of its posterior.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Codes, in the dtype of `X`.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return self._encode(X).astype(self._output_dtype(X), copy=False)

    def inverse_transform(self, X: Any) -> Any:
        """Decode codes into rows: the mean of the likelihood.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X_original : ndarray or DataFrame of shape (n_samples, n_features)
            Rows in the units, and the container, seen in `fit`; a pandas frame has
            the index of that of the codes.
        """
        check_is_fitted(self)
        return self._restored(self._decode_points(self._validate_codes(X)), X)

    def reconstruct(self, X: Any) -> Any:
        """Encode rows and decode their codes.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.

        Returns
        -------
        X_reconstructed : ndarray or DataFrame of shape (n_samples, n_features)
            Deterministic reconstructions, in the container of `X`; of a table, in
            that of the training rows.
        """
        check_is_fitted(self)
        rows = self._validate(X, reset=False)
        return self._in_container(self._decode_points(self._encode(rows)), X, rows)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draw new rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to draw.
        random_state : int, RandomState instance or None, default=None
            Seeds the draw; an int gives the same rows at every call.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Rows in the units, and the container, seen in `fit`.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        device = next(self._module.parameters()).device
        generator = draw_torch_generator(random_state, device)
        with self._inference():
            z = self._draw_codes(self._columns.n_to_draw(int(n_samples)), generator)
            rows = self._draw_rows(z, generator, int(n_samples))
        return self._restored(rows)

    def impute(
        self, X: Any, n_samples: int | None = None, random_state: Any = None
    ) -> Any:
        """Fill the missing cells of rows; observed cells come back untouched.

        A variational model averages over codes that are drawn near those that the
        observed cells tell of, weighted by importance; over conditions too, where it
        has any. A deterministic one takes its reconstruction; where it was fitted on
        rows without gaps, repeatedly, as often as did best on hidden cells of training
        rows. Its copies spread as far as these were off, each cell for itself.
        Nothing is known of a column without any observed cell in `fit`: in a table its
        cells stay missing, with a warning, among numbers they are filled arbitrarily.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows; NaN and None are missing.
        n_samples : int, default=None
            Number of completed copies to draw (multiple imputation). None fills in
            expected values: means of numbers, most probable levels of categories.
        random_state : int, RandomState instance or None, default=None
            Seeds the draws; an int gives the same copies at every call.

        Returns
        -------
        X_filled : {ndarray, DataFrame} of shape (n_samples, n_features), or list
            Completed rows in the container of `X`; a list of copies where
            `n_samples` is given.
        """
        return self._completed(X, n_samples, random_state)

    def _completed(
        self, X: Any, n_samples: int | None, random_state: Any, y: Any = None
    ) -> Any:
        """Fill the missing cells of rows, under conditions if any are asked for."""
        check_is_fitted(self)
        if n_samples is not None:
            check_count("n_samples", n_samples)
        return imputed(self, X, n_samples, random_state, y)

    def score(self, X: Any, y: Any = None) -> float:
        """Compute the mean of `score_samples` over rows; higher is better.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.
        y : None
            Ignored, present for API consistency.

        Returns
        -------
        score : float
            The mean score.
        """
        return float(np.mean(self.score_samples(X)))

    def summary(self) -> str:
        """Describe what the fit decided, what it reached, and what to try next.

        Returns
        -------
        summary : str
            What every "auto" became; held-out loss at the start (that of the
            classical model) and of the weights kept; noise and components in use;
            hints that name the parameter to change.
        """
        check_is_fitted(self)
        return summarize(self)

    # -- what a subclass does ----------------------------------------------------------
    def _draw_codes(self, n: int, generator: torch.Generator) -> torch.Tensor:
        raise NotImplementedError

    def _learn_rows(self, dataset: Any, *, partial: bool, go_on: bool) -> None:
        """Set what scores need to know of the training rows, before training."""

    def _finish(self, dataset: Any) -> None:
        """Set fitted attributes that need a pass over the training rows."""
        raise NotImplementedError

    _folded: ClassVar[Any] = None  # Set by a fit, for each instance.

    # A conditional model overrides these two.
    _n_conditions: ClassVar[int] = 0

    def _condition_arrays(
        self, y: Any, rows: Any, *, go_on: bool, partial: bool, classes: Any
    ) -> dict[str, Any]:
        """Return what training rows carry beside their columns."""
        return {}
