"""Walks through the code space and what single cells contribute to a score."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae._jacobian import squared_jacobian_norm


class LatentMixin:
    """Interpolation, traversal and cell-wise losses of every autoencoder."""

    def interpolate(self: Any, X_from: Any, X_to: Any, n_steps: int = 10) -> Any:
        """Walk from rows to others along straight lines between their codes.

        Parameters
        ----------
        X_from, X_to : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows to start from and to end at, pairwise.
        n_steps : int, default=10
            Steps of each walk, both ends included; at least 2.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples * n_steps, n_features)
            Decoded rows, one walk after the other.
        """
        return self._walk(X_from, X_to, n_steps)

    def _walk(self: Any, X_from: Any, X_to: Any, n_steps: int, y: Any = None) -> Any:
        """Decode straight lines between codes, and between conditions."""
        check_is_fitted(self)
        if not isinstance(n_steps, Integral) or n_steps < 2:
            raise ValueError(f"n_steps must be an integer >= 2. Got {n_steps!r}.")
        start, end = self._points(X_from, y), self._points(X_to, y)
        if len(start) != len(end):
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"[{len(start)}, {len(end)}]"
            )
        share = np.linspace(0.0, 1.0, n_steps, dtype=start.dtype)[:, None]
        walks = start[:, None] + share * (end - start)[:, None]
        return self._restored(self._decode_points(walks.reshape(-1, start.shape[1])))

    def traverse(self: Any, component: int, values: Any, X: Any = None) -> Any:
        """Decode codes in which one component takes given values.

        Parameters
        ----------
        component : int
            Index of the component.
        values : array-like of shape (n_values,)
            Values it takes, in the units of the code.
        X : {array-like, DataFrame} of shape (n_samples, n_features), default=None
            Rows whose codes give the other components; None is a code of zeros.

        Returns
        -------
        X_decoded : ndarray or DataFrame of shape (n_samples * n_values, n_features)
            Decoded rows, for each row all values in turn.
        """
        return self._traversal(component, values, X)

    def _traversal(
        self: Any, component: int, values: Any, X: Any, y: Any = None
    ) -> Any:
        """Decode codes in which one component takes given values, under conditions."""
        check_is_fitted(self)
        k = self.n_components_
        if not isinstance(component, Integral) or not -k <= component < k:
            raise ValueError(
                f"component must be an integer in [0, {k - 1}]. Got {component!r}."
            )
        if X is None:
            points = self._beside(
                np.zeros((1, k), self._dtype), self._condition_or_mean(y, 1)
            )
        else:
            points = self._points(X, y)
        values = np.asarray(values, dtype=points.dtype).ravel()
        walks = np.repeat(points[:, None], len(values), axis=1)
        walks[:, :, component % k] = values
        return self._restored(self._decode_points(walks.reshape(-1, points.shape[1])))

    def _points(self: Any, X: Any, y: Any = None) -> np.ndarray:
        """Return what rows are decoded from: codes, and beside them conditions."""
        rows = self._validate(X, reset=False)
        return self._beside(self._encode(rows), self._condition_or_likely(y, rows))

    @staticmethod
    def _beside(codes: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
        if condition is None:
            return codes
        return np.concatenate([codes, condition], axis=1)

    def cell_losses(self: Any, X: Any) -> np.ndarray:
        """Compute how unexpected each cell is given the code of its row.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.

        Returns
        -------
        losses : ndarray of shape (n_samples, n_features)
            Minus the log-likelihood of each scaled cell at the mean of the code, in
            nats; for numbers in a deterministic autoencoder half the squared error
            plus log(2 pi) / 2. Zero for missing cells.
        """
        check_is_fitted(self)
        rows = self._validate(X, reset=False)
        return self._cell_losses(rows, self._condition_or_likely(None, rows))

    def _cell_losses(self: Any, X: Any, condition: np.ndarray | None) -> np.ndarray:
        """Return what each cell of validated rows costs under their conditions."""
        dataset, module, parts = self._dataset(X), self._module, []
        with self._inference():
            for part, batch in self._chunks(dataset):
                mean, _ = module.posterior(module.encoder_input(**batch))
                own = None if condition is None else self._to_device(condition[part])
                raw = module.decode(mean, own)
                x = self._columns.own_cells(batch["x"])
                cells = -module.likelihood.log_prob_columns(x, raw)
                if "mask" in batch:
                    cells = cells * batch["mask"]
                parts.append(cells[:, : self.n_features_in_].cpu().numpy())
        return np.concatenate(parts)

    def jacobian_norm(self: Any, X: Any) -> np.ndarray:
        r"""Compute how strongly the code of each row reacts to small changes of it.

        .. math:: \|J(x)\|_F = \sqrt{\sum_{kj} (\partial z_k / \partial x_j)^2}

        with :math:`z` the code that `transform` gives and :math:`x` the scaled row
        (for tables with categories, what the encoder sees of it). Exact, whatever
        the estimator was trained with.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.

        Returns
        -------
        norms : ndarray of shape (n_samples,)
            Frobenius norms, in units of the code per unit of the scaled columns.
        """
        check_is_fitted(self)
        dataset = self._dataset(self._validate(X, reset=False))
        module = self._module
        norms = np.empty(len(dataset), dtype=self._dtype)
        with self._inference():
            for part, batch in self._chunks(dataset):
                inputs = module.encoder_input(**batch)
                slopes = module.input_slopes(**batch)
                squares = squared_jacobian_norm(module, inputs, "product", slopes)
                norms[part] = squares.clamp(min=0).sqrt().cpu().numpy()
        return norms

    def _likely_condition(self: Any, X: Any) -> Any:
        """Return likely conditions of validated rows, None for no conditions."""
        return None

    def _condition_or_likely(self: Any, y: Any, X: Any) -> Any:
        """Return the conditions asked for, or likely ones of validated rows."""
        return self._likely_condition(X)

    def _condition_or_mean(self: Any, y: Any, n: int) -> Any:
        """Return the conditions asked for, or the average one, None for none."""
        return None

    def _drawn_conditions(self: Any, n: int, generator: Any) -> Any:
        """Return conditions as in training, None where there are none."""
        return None
