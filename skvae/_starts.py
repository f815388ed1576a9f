"""Where training begins: PCA, factor analysis, the column means, or random.

Every start sets the linear path of the encoder and the decoder; their MLPs end in
zeros, so at step 0 the network *is* the classical model.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning

from skvae._counts import CountFeatures

MAX_ROWS = 20_000
_MAX_CELLS = 40_000_000
# Norm of the rows of a tied encoder beyond the rank; the rows gain its square.
_TIED_SIZE = 1e-4


def sample_of_rows(n_rows: int, n_columns: int, rng: np.random.RandomState) -> Any:
    """Choose the rows a start looks at: all of them, or a sample of a large table."""
    limit = max(2, min(MAX_ROWS, _MAX_CELLS // max(n_columns, 1)))
    if n_rows <= limit:
        return slice(None)
    return np.sort(rng.choice(n_rows, size=limit, replace=False))


def start_at_pca(module: Any, X: np.ndarray, seed: int) -> None:
    """Set encoder and decoder to the principal components of scaled rows.

    z = V (x - mean),  x_hat = V' z + mean. Codes keep PCA's units; the decoder's
    MLP sees them divided by their standard deviation. Components beyond the rank
    start at random in the encoder and at zero in the decoder; near zero where the
    two share their weights.
    """
    encoder, decoder = module.encoder, module.decoder
    k, d = encoder.linear_weight.shape[0], X.shape[1]
    rank = min(k, *X.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        pca = PCA(n_components=rank, random_state=seed).fit(X)
    loadings = np.zeros((k, encoder.linear_weight.shape[1]))
    loadings[:rank, :d] = pca.components_
    if k > rank:
        rng = np.random.RandomState(seed)
        # Their transpose decodes too: nearly nothing. From zero it would never move.
        size = _TIED_SIZE if module.is_tied else 1.0
        loadings[rank:, :d] = size * rng.normal(size=(k - rank, d)) / np.sqrt(d)
    # The variance of a single row is not a number.
    sd = np.sqrt(np.maximum(np.nan_to_num(pca.explained_variance_), 0))
    spread = np.ones(k)
    spread[:rank] = np.where(sd > 1e-6 * max(sd.max(initial=0.0), 1e-300), sd, 1.0)
    in_scale = np.ones(len(decoder.in_scale))
    in_scale[:k] = 1 / spread
    with torch.no_grad():
        set_values(encoder.linear_weight, loadings)
        set_values(encoder.bias, -loadings[:, :d] @ pca.mean_)
        if not module.is_tied:
            back = np.zeros(tuple(decoder.linear_weight.shape))
            back[:d, :rank] = pca.components_.T
            set_values(decoder.linear_weight, back)
        set_values(decoder.bias, pca.mean_)
        set_values(decoder.in_scale, in_scale)


def start_at_factor_analysis(
    module: Any, X: np.ndarray, seed: int, condition: torch.Tensor | None = None
) -> None:
    """Set a variational module to the factor analysis of scaled rows.

    The loadings are rotated by the eigenvectors of W Psi^-1 W', which makes the
    exact posterior diagonal: mean (1 + l)^-1 W Psi^-1 (x - mean), variance
    (1 + l)^-1. The bound at step 0 then equals the model's log-likelihood.

    With conditions c the model is x = W z + S c + e, fitted by least squares and the
    factor analysis of what is left; the encoder does not see c and averages over it.
    """
    encoder, decoder, likelihood = module.encoder, module.decoder, module.likelihood
    k, d = encoder.linear_weight.shape[0], X.shape[1]
    slopes, shift, spread = _condition_slopes(X, condition)
    X = X - shift
    loadings, variance, mean = _factor_loadings(X, k, likelihood.noise, seed)
    if isinstance(likelihood.noise, str):
        likelihood.set_noise_variance(torch.as_tensor(variance))
    # The likelihood has a floor: the posterior must belong to the noise it allows.
    variance = likelihood.noise_variance().detach().double().cpu().numpy()
    values, vectors = np.linalg.eigh((loadings / variance) @ loadings.T)
    order = np.argsort(values)[::-1]
    values, loadings = np.maximum(values[order], 0), vectors[:, order].T @ loadings
    # A sign convention, so that reruns on other machines agree.
    signs = np.sign(loadings[np.arange(k), np.abs(loadings).argmax(axis=1)])
    loadings *= np.where(signs == 0, 1, signs)[:, None]
    recognition = np.zeros((k, encoder.linear_weight.shape[1]))
    recognition[:, :d] = loadings / variance / (1 + values)[:, None]
    log_var = -np.log1p(values)
    if spread is not None:
        total = loadings.T @ loadings + np.diag(variance) + spread
        recognition[:, :d] = np.linalg.solve(total, loadings.T).T
        left = 1 - np.einsum("kd,kd->k", recognition[:, :d], loadings)
        log_var = np.log(np.maximum(left, 1e-4))
    back = np.zeros(tuple(decoder.linear_weight.shape))
    back[:d, :k] = loadings.T
    if slopes is not None:
        back[:d, k:] = slopes.T
    with torch.no_grad():
        set_values(encoder.linear_weight, recognition)
        set_values(encoder.bias[:k], -recognition[:, :d] @ mean)
        set_values(encoder.bias[k:], log_var)
        set_values(decoder.linear_weight, back)
        decoder.bias.zero_()
        set_values(decoder.bias[:d], mean)


def _condition_slopes(
    X: np.ndarray, condition: torch.Tensor | None
) -> tuple[Any, Any, Any]:
    """Return slopes S of the rows on centred conditions, S c, and its covariance."""
    if condition is None:
        return None, 0.0, None
    c = condition.double().cpu().numpy()
    # Rows without a label sit at the average condition.
    mean = np.nan_to_num(np.nanmean(c, axis=0))
    centred = np.where(np.isnan(c), 0.0, c - mean)
    slopes, *_ = np.linalg.lstsq(centred, X - X.mean(axis=0), rcond=1e-6)
    explained = centred @ slopes
    # The bias of the decoder is for c = 0: hand the mean condition's part to it.
    return slopes, explained + mean @ slopes, explained.T @ explained / len(X)


def _factor_loadings(
    X: np.ndarray, k: int, noise: Any, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit factor analysis, or probabilistic PCA where the noise is shared."""
    X = X.astype(np.float64)
    mean = X.mean(axis=0)
    rank = min(k, *X.shape)
    loadings = np.zeros((k, X.shape[1]))
    if len(X) < 2:
        # One row has no covariance: the model is its mean and the noise.
        level = noise**2 if isinstance(noise, float) else 1.0
        return loadings, np.full(X.shape[1], level), mean
    if noise == "shared" or isinstance(noise, float):
        pca = PCA(n_components=rank, random_state=seed).fit(X)
        shared = (
            noise**2 if isinstance(noise, float) else max(pca.noise_variance_, 1e-4)
        )
        gain = np.sqrt(np.maximum(pca.explained_variance_ - shared, 0))
        loadings[:rank] = gain[:, None] * pca.components_
        return loadings, np.full(X.shape[1], shared), mean
    method = "lapack" if X.shape[1] <= 500 else "randomized"
    rows = _same_moments(X, mean)
    # Its tolerance is on the log-likelihood of all rows together.
    tol = 1e-3 * len(rows) / len(X)
    model = FactorAnalysis(
        rank, tol=tol, max_iter=2000, svd_method=method, random_state=seed
    )
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # Stopped short of convergence it is still a fine place to start; constant
        # columns have no likelihood to follow, but factors of zero all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows)
    loadings[:rank] = model.components_
    return loadings, model.noise_variance_, mean


def _same_moments(X: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return few rows with the mean and covariance of many.

    Factor analysis sees its data through these two alone, so 2d rows at the
    plus and minus of a root of the covariance give the same fit at a cost that
    does not grow with the rows.
    """
    n, d = X.shape
    if n <= 2 * d:
        return X
    centred = X - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / n)
    root = np.sqrt(np.maximum(values, 0) * d)[:, None] * vectors.T
    return np.concatenate([mean + root, mean - root])


def start_at_means(module: Any, X: np.ndarray) -> None:
    """Set the decoder's bias to the column means in the likelihood's parameters."""
    if isinstance(module.features, CountFeatures):
        module.features.learn(X)
        # A rate is the exponential of what the decoder says: it starts at the means.
        slopes = getattr(module.decoder, "linear_weight", None)
        if isinstance(slopes, torch.Tensor):
            with torch.no_grad():
                slopes.zero_()
    level = module.likelihood.raw_at_mean(X.mean(axis=0, dtype=np.float64))
    bias = getattr(module.decoder, "bias", None)
    if isinstance(bias, torch.Tensor) and bias.numel() >= len(level):
        with torch.no_grad():
            set_values(bias[: len(level)], level)


def set_values(parameter: torch.Tensor, value: np.ndarray) -> None:
    """Write values into a parameter, in its dtype and on its device."""
    parameter.copy_(torch.as_tensor(np.asarray(value), dtype=parameter.dtype))
