"""What the deterministic autoencoders share: R2, and samples from fitted codes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils.validation import check_is_fitted

from skvae._rows import column_means

_SAMPLE_COMPONENTS = 10
_MAX_CODES = 1000
# Squared distance to the mean, in scaled units a cell, up to which rows are the same.
_NO_SPREAD = 1e-12
# Cells decoded to measure what components explain; more rows are thinned out.
_MEASURED_CELLS = 1 << 23
# What codes can be behind their activation.
_CODE_RANGES: dict[str | None, tuple[float, float | None]] = {
    "logistic": (0.0, 1.0),
    "relu": (0.0, None),
}


class DeterministicMixin:
    """Scores by reconstruction error and sampling for models without a prior."""

    net_: Any

    def score(self: Any, X: Any, y: Any = None) -> float:
        r"""Compute the :math:`R^2` of the reconstruction of scaled rows.

        .. math:: 1 - \sum_{ij} (x_{ij} - \hat x_{ij})^2
                  / \sum_{ij} (x_{ij} - \bar x_j)^2

        with :math:`\bar x_j` the mean of the training rows. For tables with categories
        it is the share of the code's negative log-likelihood explained, with the
        column margins in the denominator. No penalty takes part, so scores compare
        across penalties and their strengths.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.
        y : None
            Ignored, present for API consistency.

        Returns
        -------
        score : float
            At most 1; 0 is what the column means reach.
        """
        check_is_fitted(self)
        error, spread = self._squared_errors(self._validate(X, reset=False))
        total = float(spread.sum())
        return 1.0 - float(error.sum()) / total if total > 0 else 0.0

    def score_samples(self: Any, X: Any) -> np.ndarray:
        """Compute minus the squared reconstruction error of each row.

        A row far from anything seen in training reconstructs badly; but a model that
        reconstructs well reconstructs anomalies well too. To rank rows by how typical
        they are, prefer the likelihood of a :class:`VAE`.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Minus the mean over the columns of the squared error in scaled units, or
            of the negative log-likelihood of a table's cells.
        """
        check_is_fitted(self)
        error, _ = self._squared_errors(self._validate(X, reset=False))
        return -error / self.n_features_in_

    def _squared_errors(self: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return squared error and squared distance to the mean, for each row."""
        dataset = self._dataset(X)
        if self._columns.kind == "table":
            return self._table_errors(dataset)
        module = self._module
        error = np.empty(len(dataset), dtype=self._dtype)
        spread = np.empty_like(error)
        mean = self._to_device(self._row_mean)
        with self._inference():
            for part, batch in self._chunks(dataset):
                out = module(**batch)
                x, seen = batch["x"], batch.get("mask", 1.0)
                guess = self._within_bounds(module.likelihood.mean(out.raw))
                error[part] = ((x - guess).square() * seen).sum(1).cpu().numpy()
                spread[part] = ((x - mean).square() * seen).sum(1).cpu().numpy()
        return error, spread

    def _table_errors(self: Any, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return negative log-likelihoods given the code, and under the margins."""
        module, likelihood = self._module, self._module.likelihood
        error = np.empty(len(dataset), dtype=self._dtype)
        spread = np.empty_like(error)
        shares = np.maximum(self._columns.codec.code_frequencies, 1e-12)
        margins = self._to_device(np.log(shares))[None]
        with self._inference():
            for part, batch in self._chunks(dataset):
                out = module(**batch)
                error[part] = -module.log_likelihood(out).cpu().numpy()
                base = likelihood.log_prob(batch["x"], margins.expand(out.raw.shape))
                spread[part] = -base.cpu().numpy()
        return error, spread

    def _within_bounds(self: Any, x: torch.Tensor) -> torch.Tensor:
        low, high = self._columns.low, self._columns.high
        return x if low is None else x.clamp(low, high)

    # -- fitted attributes and sampling ------------------------------------------------
    def _learn_rows(self: Any, dataset: Any) -> None:
        """Keep what scores need: the mean of the training rows."""
        columns = self._columns
        if columns.kind == "table":
            return
        self.center_, self.scale_ = columns.center, columns.scale
        self._row_mean = column_means(dataset).cpu().numpy()

    def _finish(self: Any, dataset: Any) -> None:
        """Keep what samples need: residual variance, some codes."""
        columns, module = self._columns, self._module
        batch = dataset.take(self._some_rows(len(dataset), _MAX_CODES))
        module.eval()
        out = module(**batch)
        self._codes = out.mean.cpu().numpy()
        if columns.kind == "table":
            return
        x, seen = batch["x"], batch.get("mask")
        guess = self._within_bounds(module.likelihood.mean(out.raw))
        squares = (x - guess).square_()
        if seen is None:
            variance = squares.mean(0)
        else:
            variance = (squares.mul_(seen)).sum(0) / seen.sum(0).clamp(min=1)
        self._residual_variance = variance.cpu().numpy()
        self.noise_variance_ = columns.squared_units(self._residual_variance)
        step = -(-x.numel() * out.mean.shape[1] // _MEASURED_CELLS)
        seen = None if seen is None else seen[::step]
        self._measure_components(x[::step], seen, out.mean[::step])

    def _measure_components(self: Any, x: Any, seen: Any, codes: Any) -> None:
        """Keep what each component explains on top of those before it."""
        module = self._module

        def distance(guess: Any) -> Any:
            squares = (x - guess).square_()
            return (squares if seen is None else squares.mul_(seen)).sum()

        spread = distance(self._to_device(self._row_mean))
        z = codes.mean(0).repeat(len(codes), 1)
        # Without a code rows are at their mean, for a linear model exactly.
        left = [spread]
        for j in range(z.shape[1]):
            z[:, j] = codes[:, j]
            guess = module.likelihood.mean(module.decode(z))
            left.append(distance(self._within_bounds(guess)))
        errors = torch.stack(left).double().cpu().numpy()
        # Rows that do not differ have nothing to explain.
        varies = float(spread) > _NO_SPREAD * x.numel()
        share = -np.diff(errors) / (float(spread) if varies else np.inf)
        self.explained_variance_ratio_ = share

    def _draw_codes(self: Any, n: int, generator: torch.Generator) -> torch.Tensor:
        """Draw from a Gaussian mixture fitted to the codes of training rows.

        What lies beyond the range of the activation is moved to its end.
        """
        weights, means, roots = self._code_mixture()
        device = generator.device
        which = torch.multinomial(
            torch.as_tensor(weights, device=device), n, True, generator=generator
        )
        noise = torch.empty(n, means.shape[1], dtype=torch.float64, device=device)
        noise.normal_(generator=generator)
        means_, roots_ = (torch.as_tensor(a, device=device) for a in (means, roots))
        z = means_[which] + (roots_[which] @ noise.unsqueeze(-1)).squeeze(-1)
        if self._architecture.code_activation in _CODE_RANGES:
            z = z.clamp(*_CODE_RANGES[self._architecture.code_activation])
        return z.to(next(self._module.parameters()).dtype)

    def _code_mixture(self: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        codes = self._codes.astype(np.float64)
        spread = np.maximum(codes.std(axis=0), 1e-12)
        n_mixture = max(1, min(_SAMPLE_COMPONENTS, len(codes) // 20))
        mixture = GaussianMixture(
            n_mixture, reg_covar=1e-6, random_state=self.evaluation_seed_
        )
        if len(codes) < 2:
            k = codes.shape[1]
            return np.ones(1), codes, np.zeros((1, k, k))
        # k-means has no array-API version; these are NumPy arrays whatever X was.
        with warnings.catch_warnings(), config_context(array_api_dispatch=False):
            # Fewer distinct codes than components are drawn from all the same.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(codes / spread)
        roots = np.linalg.cholesky(mixture.covariances_) * spread[:, None]
        return mixture.weights_, mixture.means_ * spread, roots

    def _draw_rows(
        self: Any,
        z: torch.Tensor,
        generator: torch.Generator,
        n: int | None = None,
        told: np.ndarray | None = None,
    ) -> Any:
        """Decode codes and draw cells, numbers with each column's residual noise."""
        if self._columns.kind == "table":
            return super()._draw_rows(z, generator, n, told)  # type: ignore[misc]
        module = self._module
        sd = np.sqrt(self._residual_variance)
        scale = torch.as_tensor(sd, dtype=z.dtype, device=z.device)
        parts = []
        for chunk in z.split(self._chunk_rows()):
            mean = module.likelihood.mean(module.decode(chunk))
            noise = torch.empty_like(mean).normal_(generator=generator)
            rows = (mean + scale * noise).cpu().numpy()
            parts.append(self._columns.from_scaled(rows))
        return np.concatenate(parts)
