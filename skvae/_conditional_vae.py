"""A variational autoencoder whose decoder is told the class or condition of a row."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils import ClassifierTags, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skvae._classes import ClassesMixin
from skvae._compat import fit_context
from skvae._conditions import Conditions, spread_labels
from skvae._docs import estimator
from skvae._fitting import Fitting
from skvae._passes import check_count
from skvae._random import draw_torch_generator
from skvae._vae import VAE


@estimator
class ConditionalVAE(ClassesMixin, VAE):
    r"""Model rows given a class, a number or several conditions.

    Prior and decoder are told the condition :math:`y` of a row, the encoder is not:
    training maximises

    .. math:: E_{q(z \mid x)}[\log p(x \mid z, y)]
              - \beta \, KL(q(z \mid x) \,\|\, p(z \mid y))

    so codes need no labels, ``transform(X)`` equals ``fit_transform(X, y)``, and
    rows are drawn for any condition exactly, without rejection. The prior is a mixture
    learned with the model, whose normals belong to classes or move with a number; it
    is the same for all conditions with ``prior="normal"`` or ``"vamp"``. Rows without
    a label take part through :math:`\log \sum_y p(y) \, p(z \mid y) \,
    p(x \mid z, y)` [2]_, with shares :math:`p(y)` that follow the labels of similar
    rows.

    What ``transform`` gives holds what the condition does not say of a row, and is poor
    as features for telling its class: take codes of :class:`VAE`, or `predict_proba`.
    Codes of tables keep more of the class.

    Conditions may be numbers, so to scikit-learn the model is no classifier: give
    `cross_val_score` and `GridSearchCV` a ``StratifiedKFold`` as `cv`, and
    ``"accuracy"`` as scoring; ``"roc_auc"`` asks for a classifier.

    Parameters
    ----------
    %(n_components)s
    %(hidden_layer_sizes)s
    %(activation)s
    %(batch_size)s
    %(learning_rate_init)s
    %(max_iter)s
    %(early_stopping)s
    %(validation_fraction)s
    %(n_iter_no_change)s
    %(warm_start)s
    %(random_state)s
    %(verbose)s
    %(weight_decay)s
    %(dropout)s
    %(init)s
    %(encoder)s
    %(decoder)s
    %(scale)s
    %(categorical_features)s
    %(missing_values)s
    %(device)s
    %(callbacks)s
    %(net_params)s
    %(likelihood)s
    %(noise)s
    %(beta)s
    %(kl_warmup)s
    %(free_bits)s
    %(n_importance_samples)s
    %(prior)s

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or None
        Classes seen in ``fit``, or named in the first ``partial_fit``; None for other
        conditions.
    class_prior_ : ndarray of shape (n_classes,) or None
        Share of each class among the labelled rows.
    %(n_components_)s
    %(net_)s
    %(n_iter_)s
    %(loss_curve_)s
    %(validation_loss_curve_)s
    %(best_loss_)s
    %(baseline_loss_)s
    %(noise_variance_)s
    %(kl_per_component_)s
    %(n_active_components_)s
    %(n_features_in_)s
    %(feature_names_in_)s
    %(batch_size_)s
    %(max_iter_)s
    %(input_noise_)s
    %(learning_rate_)s
    %(center_)s
    %(scale_)s
    %(likelihood_)s
    %(noise_)s
    %(device_)s

    See Also
    --------
    VAE : Without conditions.

    References
    ----------
    .. [1] Sohn, Lee, Yan (2015). Learning Structured Output Representation using
       Deep Conditional Generative Models. NeurIPS.
    .. [2] Kingma, Rezende, Mohamed, Welling (2014). Semi-Supervised Learning with
       Deep Generative Models, section 3 (M2). arXiv:1406.5298

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import ConditionalVAE
    >>> X, y = load_wine(return_X_y=True)
    >>> model = ConditionalVAE(3, max_iter=50, random_state=0).fit(X, y)
    >>> X_new, y_new = model.sample(3, y=2, random_state=0)
    >>> X_new.shape, y_new
    ((3, 13), array([2, 2, 2]))
    >>> bool((model.predict(X) == y).mean() > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **VAE._parameter_constraints
    }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        # Not a classifier, but it has `predict_proba`, and for any number of classes.
        tags.classifier_tags = ClassifierTags()
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model to rows and their conditions.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Training rows.
        y : array-like or DataFrame of shape (n_samples,) or (n_samples, n_conditions)
            Conditions of the rows, which must be given: classes, numbers, or several
            columns. Integers are classes. Rows whose class is marked -1 (beside two or
            more labels from 0 on), NaN or None have no label.

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
        return super().fit(X, y)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> Self:
        """Train on rows for one epoch, from where training stands.

        The first call decides scaling, start, network and classes; the step size stays
        constant and no rows are held out. Shares of classes, and the conditions that
        `sample` draws, are those of all labelled rows so far. Diagnostics
        (`kl_per_component_` and `n_active_components_`) are of the last rows.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Training rows.
        y : array-like or DataFrame of shape (n_samples,) or (n_samples, n_conditions)
            Conditions of the rows, which must be given: classes, numbers, or several
            columns. Integers are classes. Rows whose class is marked -1 (beside two or
            more labels from 0 on), NaN or None have no label.
        classes : array-like of shape (n_classes,), default=None
            Classes across all calls to partial_fit, of a single condition; `y` doesn't
            need to contain all labels in `classes`. It can be omitted in the subsequent
            calls. None in the first call is the labels in `y`.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data or the loss are not finite, or a label is not among the classes;
            the estimator stays as it was.
        """
        go_on = hasattr(self, "net_")
        with self._all_or_nothing():
            Fitting(self, X, y, go_on=go_on, partial=True, classes=classes).run()
        return self

    # -- conditions --------------------------------------------------------------------
    @property
    def _n_conditions(self) -> int:  # type: ignore[override]
        return self._conditions.width

    def _condition_arrays(
        self, y: Any, rows: Any, *, go_on: bool, partial: bool, classes: Any
    ) -> dict[str, Any]:
        """Learn and encode the conditions of the training rows."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        if go_on:
            self._check_same_classes(classes)
            conditions = self._conditions
        else:
            conditions = Conditions.fit(y, classes)
        condition = conditions.encode(y)
        check_consistent_length(rows["x"], condition)
        conditions = conditions.following(y, condition, more=go_on and partial)
        self._conditions: Conditions = conditions
        self.classes_ = conditions.classes
        self.class_prior_ = conditions.class_prior
        if not np.isnan(condition).any():
            return {"condition": condition}
        assert self.class_prior_ is not None
        shares = spread_labels(self._columns, rows["x"], condition, self.class_prior_)
        return {"condition": condition, "label_prior": shares}

    def _check_same_classes(self, classes: Any) -> None:
        known = self.classes_
        if classes is None:
            return
        if known is not None and np.array_equal(known, np.unique(classes)):
            return
        raise ValueError(
            f"`classes={classes!r}` is not the same as on last call to partial_fit, "
            f"was: {known!r}"
        )

    def _likely_condition(self, X: Any) -> np.ndarray:
        """Encode the most probable class of each row, or the average condition."""
        y = None if self.classes_ is None else self._likely_classes(X)
        return self._condition_or_mean(y, X.shape[0])

    def _drawn_conditions(self, n: int, generator: torch.Generator) -> torch.Tensor:
        rng = np.random.RandomState(generator.initial_seed() % 2**32)
        condition = self._encoded_condition(self._conditions.draw(n, rng), n)
        return self._to_device(condition)

    def _encoded_condition(self, y: Any, n: int) -> np.ndarray:
        """Encode the conditions asked for, one or one for each of n rows."""
        condition = self._conditions.encode(self._conditions.rows(y, n))
        if len(condition) != n:
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: "
                f"[{n}, {len(condition)}]"
            )
        if np.isnan(condition).any():
            raise ValueError("y contains unlabelled rows; give a label for each.")
        return condition

    # -- drawing and decoding ----------------------------------------------------------
    def sample(  # type: ignore[override]
        self, n_samples: int = 1, y: Any = None, random_state: Any = None
    ) -> tuple[Any, Any]:
        """Draw new rows, for given conditions or for conditions as in training.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to draw.
        y : scalar, dict, array-like or DataFrame, default=None
            Condition of all rows, or of each; None draws conditions from those of the
            training rows. Several conditions of all rows are a dict such as
            ``{"age": 30, "group": "a"}`` or a frame of one row. Columns of a frame go
            by name where the model was fitted with a frame, others by position.
        random_state : int, RandomState instance or None, default=None
            Seeds the draw; an int gives the same rows at every call.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Rows in the units, and the container, seen in `fit`.
        y : ndarray or DataFrame of shape (n_samples,) or (n_samples, n_conditions)
            Their conditions: those asked for, or drawn ones in the container seen in
            `fit`.

        Raises
        ------
        ValueError
            If a label is not among `classes_`, or names of conditions are not those
            seen in `fit`.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        n = int(n_samples)
        rng = check_random_state(random_state)
        if y is None:
            y = self._conditions.draw(n, rng)
        y = self._conditions.rows(y, n)
        encoded = self._encoded_condition(y, n)
        condition = self._to_device(encoded)
        generator = draw_torch_generator(rng, condition.device)
        with self._inference():
            n_drawn = self._columns.n_to_draw(n)
            condition = condition.repeat(n_drawn // n, 1)
            z = self._draw_codes(n_drawn, generator, condition)
            groups = self._conditions.groups(encoded) if n_drawn > n else None
            rows = self._draw_rows(torch.cat([z, condition], 1), generator, n, groups)
        return self._restored(rows), y

    def inverse_transform(self, X: Any, y: Any = None) -> Any:
        """Decode codes into rows of given conditions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.
        y : scalar, dict, array-like or DataFrame, default=None
            Condition of all rows, or of each, as in `sample`. None is the average
            condition of the training rows.

        Returns
        -------
        X_original : ndarray or DataFrame of shape (n_samples, n_features)
            Rows in the units, and the container, seen in `fit`; a pandas frame has
            the index of that of the codes.
        """
        check_is_fitted(self)
        Z = self._validate_codes(X)
        condition = self._condition_or_mean(y, len(Z))
        rows = self._decode_points(self._beside(Z, condition))
        return self._restored(rows, X)

    def reconstruct(self, X: Any, y: Any = None) -> Any:
        """Encode rows and decode their codes, under another condition if asked for.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.
        y : scalar, dict, array-like or DataFrame, default=None
            Condition to decode with, as in `sample`: what the rows would be like under
            it. None is the most probable class of each row, or the average of other
            conditions.

        Returns
        -------
        X_reconstructed : ndarray or DataFrame of shape (n_samples, n_features)
            Deterministic reconstructions.
        """
        check_is_fitted(self)
        rows = self._validate(X, reset=False)
        points = self._beside(self._encode(rows), self._condition_or_likely(y, rows))
        return self._in_container(self._decode_points(points), X, rows)

    def interpolate(
        self, X_from: Any, X_to: Any, n_steps: int = 10, y: Any = None
    ) -> Any:
        """Walk from rows to others along straight lines between their codes.

        Parameters
        ----------
        X_from, X_to : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows to start from and to end at, pairwise.
        n_steps : int, default=10
            Steps of each walk, both ends included; at least 2.
        y : scalar, dict, array-like or DataFrame, default=None
            Condition to decode with, of all walks or of each, as in `sample`. None
            goes from the most probable class of the first row to that of the other, so
            that a walk begins and ends at what `reconstruct` gives, or takes the
            average of other conditions.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples * n_steps, n_features)
            Decoded rows, one walk after the other.
        """
        return self._walk(X_from, X_to, n_steps, y)

    def traverse(
        self, component: int, values: Any, X: Any = None, y: Any = None
    ) -> Any:
        """Decode codes in which one component takes given values.

        Parameters
        ----------
        component : int
            Index of the component.
        values : array-like of shape (n_values,)
            Values it takes, in the units of the code.
        X : {array-like, DataFrame} of shape (n_samples, n_features), default=None
            Rows whose codes give the other components; None is a code of zeros.
        y : scalar, dict, array-like or DataFrame, default=None
            Condition to decode with, of all rows or of each, as in `sample`. None is
            the most probable class of each row; without rows, and of other conditions,
            it is the average one of the training rows.

        Returns
        -------
        X_decoded : ndarray or DataFrame of shape (n_samples * n_values, n_features)
            Decoded rows, for each row all values in turn.
        """
        return self._traversal(component, values, X, y)

    def impute(
        self,
        X: Any,
        n_samples: int | None = None,
        random_state: Any = None,
        y: Any = None,
    ) -> Any:
        """Fill the missing cells of rows; observed cells come back untouched.

        The model averages over codes that are drawn near those that the observed cells
        tell of, weighted by importance. Nothing is known of a column without any
        observed cell in `fit`: in a table its cells stay missing, with a warning, among
        numbers they are filled arbitrarily.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows; NaN and None are missing.
        n_samples : int, default=None
            Number of completed copies to draw (multiple imputation). None fills in
            expected values: means of numbers, most probable levels of categories.
        random_state : int, RandomState instance or None, default=None
            Seeds the draws; an int gives the same copies at every call.
        y : scalar, dict, array-like or DataFrame, default=None
            Condition of all rows, or of each, as in `sample`. None averages over
            conditions as in training too, weighted by what the observed cells tell.

        Returns
        -------
        X_filled : {ndarray, DataFrame} of shape (n_samples, n_features), or list
            Completed rows in the container of `X`; a list of copies where
            `n_samples` is given.
        """
        return self._completed(X, n_samples, random_state, y)

    def cell_losses(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute how unexpected each cell is given the code of its row.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.
        y : scalar, array-like or DataFrame, default=None
            Conditions of the rows. None is the most probable class of each row, or
            the average of other conditions.

        Returns
        -------
        losses : ndarray of shape (n_samples, n_features)
            Minus the log-likelihood of each scaled cell at the mean of the code, in
            nats. Zero for missing cells.
        """
        check_is_fitted(self)
        rows = self._validate(X, reset=False)
        return self._cell_losses(rows, self._condition_or_likely(y, rows))

    def _condition_or_likely(self, y: Any, X: Any) -> np.ndarray:
        """Encode the conditions asked for, or likely ones of validated rows."""
        if y is None:
            return self._likely_condition(X)
        return self._condition_or_mean(y, X.shape[0])

    def _condition_or_mean(self, y: Any, n: int) -> np.ndarray:
        """Encode the conditions asked for, or the average one of the training rows."""
        if y is None:
            return np.repeat(self._conditions.mean[None], n, axis=0)
        return self._encoded_condition(y, n)

    # -- scores and classes ------------------------------------------------------------
    def score_samples(
        self, X: Any, y: Any = None, *, n_importance_samples: int = 32
    ) -> np.ndarray:
        """Compute a lower bound of the log-likelihood of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.
        y : array-like or DataFrame, default=None
            Conditions of the rows: the bound is of log p(x | y). None averages over
            the classes by their shares, for a bound of log p(x), or takes the average
            of other conditions.
        n_importance_samples : int, default=32
            Draws of the code per row.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row in the units of the data.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        if y is None and self.classes_ is not None:
            joint = self._class_bounds(X, n_importance_samples)
            return np.logaddexp.reduce(joint, axis=1)
        condition = self._condition_or_mean(y, X.shape[0])
        return self._bounds(X, n_importance_samples, condition=condition)

    def score(self, X: Any, y: Any = None) -> float:
        """Compute the mean of `score_samples` over rows; higher is better.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.
        y : array-like or DataFrame, default=None
            Conditions of the rows.

        Returns
        -------
        score : float
            Nats per row.
        """
        return float(np.mean(self.score_samples(X, y)))
