"""What the deterministic autoencoders share: R2, samples, rows that stand for all."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils.validation import check_is_fitted

from skvae._random import torch_generator
from skvae._refilling import learn_to_fill
from skvae._rows import RowDataset, column_means, dense_rows

_SAMPLE_COMPONENTS = 10
_MAX_CODES = 1000
# Cells of the rows that `partial_fit` keeps; of wider rows fewer are kept.
_KEPT_CELLS = 1 << 22
# What decoded rows lack of squared distances: to reconstructions, to the mean.
_OF_ERROR, _OF_SPREAD = 0, 1
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
            of the negative log-likelihood of a table's cells. The mean is that of the
            observed cells; 0 where there are none.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        error, _ = self._squared_errors(X)
        if not self._columns.has_missing or sp.issparse(X):
            return -error / self.n_features_in_
        observed = (~np.isnan(X)).sum(axis=1)
        return -error / np.maximum(observed, 1).astype(error.dtype)

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
    def _learn_rows(self: Any, dataset: Any, *, partial: bool, go_on: bool) -> None:
        """Keep what scores and `partial_fit` need to know of the rows seen so far."""
        more = partial and go_on
        self._keep_some(dataset, partial=partial, more=more)
        columns = self._columns
        if columns.kind == "table":
            return
        self.center_, self.scale_ = columns.center, columns.scale
        mean, count = column_means(dataset).cpu().numpy(), _observed(dataset)
        if more:
            total = np.maximum(self._row_count + count, 1)
            share = (count / total).astype(mean.dtype)
            mean = self._row_mean + share * (mean - self._row_mean)
            count = count + self._row_count
        self._row_mean, self._row_count = mean, count

    def _keep_some(self: Any, dataset: Any, *, partial: bool, more: bool) -> None:
        """Keep rows that stand for all that were seen, each as likely as another.

        Rows of a fit are not kept with the model: what its codes decode to stands for
        them once more come, and the variance that this lacks is remembered.
        """
        new = len(dataset)
        if not partial:
            self._n_seen, self._kept, self._n_decoded = new, None, 0
            return
        most = int(np.clip(_KEPT_CELLS // self.n_features_in_, 1, _MAX_CODES))
        if not more:
            self._n_seen, self._n_decoded = new, 0
            self._kept = _stored(dataset, self._some_rows(new, most))
            return
        if self._kept is None:
            self._keep_decoded()
        rng = np.random.RandomState((self.evaluation_seed_, self._n_seen % 2**32))
        # How many of a draw from all rows seen are among the new ones.
        n = min(most, self._n_seen + new)
        n_new = rng.hypergeometric(new, self._n_seen, n)
        left = np.sort(rng.choice(len(self._kept["x"]), n - n_new, replace=False))
        added = _stored(dataset, np.sort(rng.choice(new, n_new, replace=False)))
        self._n_seen += new
        # Decoded rows come first.
        self._n_decoded = int((left < self._n_decoded).sum())
        self._kept = {
            name: np.concatenate([rows[left], added[name]])
            for name, rows in self._kept.items()
        }

    def _keep_decoded(self: Any) -> None:
        """Put rows decoded from the codes of a fit in place of those it was given."""
        self._n_decoded = len(self._codes)
        if self._columns.kind == "table":
            z = self._to_device(self._codes)
            generator = torch_generator(self.evaluation_seed_, z.device)
            with self._inference():
                drawn = self._draw_rows(z, generator)
            self._kept = self._columns.to_rows(drawn, self._dtype)
            return
        means = self._decode_points(self._codes)
        self._kept = self._columns.to_rows(means, self._dtype)
        had = np.stack([self._residual_variance, self._row_variance])
        self._lacking = np.zeros_like(had)
        with self._inference():
            batch = self._kept_rows()
            self._measure_variances(batch, self._module(**batch))
        have = np.stack([self._residual_variance, self._row_variance])
        self._lacking = np.maximum(had - have, 0)

    def _kept_rows(self: Any) -> dict[str, torch.Tensor]:
        like = next(self._module.parameters())
        kept = RowDataset(self._columns, self._kept, like.dtype, like.device)
        return kept.take(slice(None))

    def _finish(self: Any, dataset: Any) -> None:
        """Keep what samples need: residual variance, some codes."""
        columns, module = self._columns, self._module
        if self._kept is None:
            batch = dataset.take(self._some_rows(len(dataset), _MAX_CODES))
        else:
            batch = self._kept_rows()
        module.eval()
        out = module(**batch)
        self._codes = out.mean.cpu().numpy()
        if columns.kind == "table":
            return
        self._measure_variances(batch, out)
        self.noise_variance_ = columns.squared_units(self._residual_variance)
        self._measure_components(batch, out.mean)
        learn_to_fill(self, batch)

    def _squares(
        self: Any,
        x: Any,
        guess: Any,
        seen: Any,
        lacks: int = _OF_ERROR,
        step: int = 1,
    ) -> torch.Tensor:
        """Return the squared distance of each observed cell to a guess.

        Decoded rows, which come first, lack a part of it.
        """
        squares = (x - guess).square_()
        if self._n_decoded:
            first = -(-self._n_decoded // step)
            squares[:first] += self._to_device(self._lacking[lacks])
        return squares if seen is None else squares.mul_(seen)

    def _measure_variances(self: Any, batch: Any, out: Any) -> None:
        """Keep the variance of scaled columns around reconstruction and mean."""
        x, seen = batch["x"], batch.get("mask")

        def variance(guess: Any, lacks: int) -> np.ndarray:
            squares = self._squares(x, guess, seen, lacks)
            if seen is None:
                return squares.mean(0).cpu().numpy()
            return (squares.sum(0) / seen.sum(0).clamp(min=1)).cpu().numpy()

        guess = self._within_bounds(self._module.likelihood.mean(out.raw))
        self._residual_variance = variance(guess, _OF_ERROR)
        self._row_variance = variance(self._to_device(self._row_mean), _OF_SPREAD)

    def _measure_components(self: Any, batch: Any, codes: Any) -> None:
        """Keep what each component explains on top of those before it."""
        module, x, seen = self._module, batch["x"], batch.get("mask")
        step = -(-x.numel() * codes.shape[1] // _MEASURED_CELLS)
        x, codes = x[::step], codes[::step]
        seen = None if seen is None else seen[::step]

        def distance(guess: Any, lacks: int) -> Any:
            return self._squares(x, guess, seen, lacks, step).sum()

        spread = distance(self._to_device(self._row_mean), _OF_SPREAD)
        z = codes.mean(0).repeat(len(codes), 1)
        # Without a code rows are at their mean, for a linear model exactly.
        left = [spread]
        for j in range(z.shape[1]):
            z[:, j] = codes[:, j]
            guess = module.likelihood.mean(module.decode(z))
            left.append(distance(self._within_bounds(guess), _OF_ERROR))
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
        groups: np.ndarray | None = None,
    ) -> Any:
        """Decode codes and draw cells, numbers with each column's residual noise."""
        if self._columns.kind == "table":
            return super()._draw_rows(z, generator, n, groups)  # type: ignore[misc]
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


def _stored(dataset: RowDataset, index: Any) -> dict[str, np.ndarray]:
    """Return some rows as they are stored, dense and off the device."""
    rows = {}
    for name, array in dataset.arrays.items():
        if isinstance(array, torch.Tensor):
            rows[name] = array[index].cpu().numpy()
        else:
            rows[name] = dense_rows(array, index)
    return rows


def _observed(dataset: RowDataset) -> Any:
    """Return how many cells of each column are not missing."""
    x = dataset.arrays["x"]
    if not dataset.columns.has_missing:
        return np.full(x.shape[1], len(dataset))
    seen = (x == x).sum(0)
    return seen.cpu().numpy() if isinstance(seen, torch.Tensor) else seen
