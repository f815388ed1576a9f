"""Likelihoods p(x | z): what the decoder's numbers say about a row.

A likelihood turns the decoder's raw outputs into log-densities (nats), means, modes
and draws, one column at a time. The columns are independent given the code, so the
log-likelihood of a row is a sum. Raw outputs may carry leading axes, such as one of
importance samples, which broadcast against the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skvae._densities import (
    HALF_LOG_TAU,
    ContinuousBernoulliLogProb,
    GaussianLogProb,
    PoissonLogProb,
    continuous_bernoulli_mean,
    softly_floored,
)

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "ContinuousBernoulli",
    "Gaussian",
    "Likelihood",
    "Poisson",
]

# At the floor itself the soft floor has no inverse and no gradient.
_FLOOR_MARGIN = 1.02
# Where log rates are clipped, and how sharply: those of a million stay as they are.
_MAX_LOG_RATE, _SHARPNESS = 20.0, 10.0


class Likelihood(nn.Module):
    """Density of a row given the decoder's raw outputs; base of the likelihoods.

    A subclass gives `log_prob_columns`, `mean`, `mode` and `draw`, and `raw_at_mean`
    where raw outputs are something else than means.

    Parameters
    ----------
    n_features : int
        Number of columns of a row.

    Attributes
    ----------
    n_outputs : int
        Number of raw outputs the decoder has to give for a row.
    support : tuple of (float, float)
        Lowest and highest value a column can take.

    See Also
    --------
    skvae.priors.Prior : Density of the codes.

    Examples
    --------
    >>> from skvae.likelihoods import LIKELIHOODS
    >>> sorted(LIKELIHOODS)
    ['bernoulli', 'continuous_bernoulli', 'gaussian', 'poisson']
    """

    support: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    def __init__(self, n_features: int) -> None:
        super().__init__()
        if n_features < 1:
            raise ValueError(f"n_features must be at least 1. Got {n_features!r}.")
        self.n_features = int(n_features)
        self.n_outputs = self.n_features

    def log_prob_columns(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute the log-density of each cell.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_features)
            Rows, floating point, within `support`.
        raw : Tensor of shape (..., n_rows, n_outputs)
            Raw outputs of the decoder.

        Returns
        -------
        log_prob : Tensor of shape (..., n_rows, n_features)
            Log-density of each cell, in nats.
        """
        raise NotImplementedError

    def log_prob(self, x: Tensor, raw: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the log-density of each row, the sum over its columns.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_features)
            Rows, floating point; any finite number within `support` where `mask` is 0.
        raw : Tensor of shape (..., n_rows, n_outputs)
            Raw outputs of the decoder.
        mask : Tensor of shape (n_rows, n_features), default=None
            1 for cells that count, 0 for cells left out. By default all count.

        Returns
        -------
        log_prob : Tensor of shape (..., n_rows)
            Log-density of each row, in nats.
        """
        columns = self.log_prob_columns(x, raw)
        if mask is not None:
            columns = columns * mask
        return columns.sum(-1)

    def mean(self, raw: Tensor) -> Tensor:
        """Compute the mean of each column.

        Parameters
        ----------
        raw : Tensor of shape (..., n_rows, n_outputs)
            Raw outputs of the decoder.

        Returns
        -------
        mean : Tensor of shape (..., n_rows, n_features)
            Mean of each column.
        """
        raise NotImplementedError

    def mode(self, raw: Tensor) -> Tensor:
        """Compute the most likely value of each column.

        Parameters
        ----------
        raw : Tensor of shape (..., n_rows, n_outputs)
            Raw outputs of the decoder.

        Returns
        -------
        mode : Tensor of shape (..., n_rows, n_features)
            Value of the highest density.
        """
        raise NotImplementedError

    def draw(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Draw each column.

        Parameters
        ----------
        raw : Tensor of shape (..., n_rows, n_outputs)
            Raw outputs of the decoder.
        generator : torch.Generator
            Source of randomness, on the device of `raw`.

        Returns
        -------
        x : Tensor of shape (..., n_rows, n_features)
            Independent draws, without gradient.
        """
        raise NotImplementedError

    def raw_at_mean(self, mean: np.ndarray) -> np.ndarray:
        """Compute raw outputs of about the given means, for training to start at.

        Parameters
        ----------
        mean : ndarray of shape (n_features,)
            Means of the columns, within `support`.

        Returns
        -------
        raw : ndarray of shape (n_features,)
            Finite, also where a mean lies at the end of `support`.
        """
        return mean


class Gaussian(Likelihood):
    r"""Normal columns with a learned noise variance.

    .. math:: \log p(x \mid z) = -\tfrac12 \sum_j \left[
        \frac{(x_j - \mu_j(z))^2}{\sigma_j^2} + \log 2 \pi \sigma_j^2 \right]

    The standard deviation is floored softly, :math:`\log\sigma = \log c +
    \mathrm{softplus}(s - \log c)`, so that a column fitted perfectly cannot send the
    density to infinity [1]_. Training starts at :math:`\sigma = 1`.

    Parameters
    ----------
    n_features : int
        Number of columns of a row.
    noise : {"feature", "shared", "heteroscedastic"} or float, default="feature"
        Noise that is learned: one variance a column, one for all columns, or one a
        column that changes with the code (the decoder's second half of outputs,
        added to the column's level of `log_scale`). A float is a fixed standard
        deviation in the units of the scaled columns.
    noise_floor : float, default=0.01
        Lowest standard deviation that can be learned, in the same units.

    Attributes
    ----------
    log_scale : Tensor of shape (n_features,) or (1,)
        Log standard deviation before the floor; a parameter unless `noise` is a float.

    Raises
    ------
    ValueError
        If `noise` or `noise_floor` is invalid.

    See Also
    --------
    Poisson : For counts.

    References
    ----------
    .. [1] Rybkin, O., Daniilidis, K. and Levine, S. (2021). "Simple and effective VAE
           training with calibrated decoders." ICML.

    Examples
    --------
    >>> import torch
    >>> from skvae.likelihoods import Gaussian
    >>> likelihood = Gaussian(2)
    >>> likelihood.set_noise_variance(torch.tensor([0.25, 4.0]))
    >>> likelihood.log_prob(torch.zeros(1, 2), torch.zeros(1, 2)).round(decimals=3)
    tensor([-1.8380], grad_fn=<RoundBackward1>)
    """

    log_scale: Tensor

    def __init__(
        self,
        n_features: int,
        noise: str | float = "feature",
        noise_floor: float = 0.01,
    ) -> None:
        super().__init__(n_features)
        if not 0.0 < noise_floor < math.inf:
            raise ValueError(f"noise_floor must be positive. Got {noise_floor!r}.")
        learned = isinstance(noise, str)
        if learned and noise not in {"feature", "shared", "heteroscedastic"}:
            raise ValueError(
                "noise must be 'feature', 'shared', 'heteroscedastic' or a float. "
                f"Got {noise!r}."
            )
        if not isinstance(noise, str) and not 0.0 < noise < math.inf:
            raise ValueError(f"noise must be positive and finite. Got {noise!r}.")
        self.noise = noise
        self.noise_floor = float(noise_floor)
        self._log_floor = math.log(noise_floor)
        if noise == "heteroscedastic":
            self.n_outputs = 2 * self.n_features
        if not isinstance(noise, str):
            self.register_buffer("log_scale", torch.full((1,), math.log(noise)))
            return
        n_scales = 1 if noise == "shared" else self.n_features
        self.log_scale = nn.Parameter(torch.zeros(n_scales))
        self.set_noise_variance(torch.ones(self.n_features))

    @torch.no_grad()
    def set_noise_variance(self, variance: Tensor) -> None:
        """Set the noise variance, or its level where it changes with the code.

        Parameters
        ----------
        variance : Tensor of shape (n_features,)
            Variances in the units of the scaled columns; their mean is taken where
            the noise is shared. Raised to just above the floor where lower.

        Raises
        ------
        ValueError
            If the noise is fixed, or `variance` has another shape or a value that is
            negative or not finite.
        """
        if not isinstance(self.noise, str):
            raise ValueError(
                f"noise={self.noise!r} fixes the noise. Use noise='feature' to learn "
                "or to set it."
            )
        variance = torch.as_tensor(variance).to(self.log_scale.device, torch.float64)
        if variance.shape != (self.n_features,):
            raise ValueError(
                f"variance must have shape ({self.n_features},). "
                f"Got {tuple(variance.shape)}."
            )
        if not bool(((variance >= 0) & variance.isfinite()).all()):
            raise ValueError("variance must be finite and non-negative.")
        if self.noise == "shared":
            variance = variance.mean(0, keepdim=True)
        variance = variance.clamp_min(_FLOOR_MARGIN * self.noise_floor**2)
        above = 0.5 * variance.log() - self._log_floor
        # The inverse of softplus, in the form that does not overflow.
        level = above + torch.log(-torch.expm1(-above)) + self._log_floor
        self.log_scale.copy_(level)

    def noise_variance(self, raw: Tensor | None = None) -> Tensor:
        """Compute the noise variance of each column.

        Parameters
        ----------
        raw : Tensor of shape (..., n_rows, n_outputs), default=None
            Raw outputs of the decoder, used where the noise changes with the code.
            Without them its level is given.

        Returns
        -------
        variance : Tensor of shape (n_features,) or (..., n_rows, n_features)
            Variances, in the squared units of the scaled columns.
        """
        variance = torch.exp(2.0 * self._log_sd(raw))
        return variance.expand(*variance.shape[:-1], self.n_features)

    def log_prob_columns(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute the log-density of each cell; see `Likelihood`."""
        log_sd = self._log_sd(raw)
        standardised = (self.mean(raw) - x) * torch.exp(-log_sd)
        return -0.5 * standardised.square() - log_sd - HALF_LOG_TAU

    def log_prob(self, x: Tensor, raw: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the log-density of each row; see `Likelihood`."""
        plain = mask is not None or self.noise == "heteroscedastic" or x.requires_grad
        if plain or raw.dim() < x.dim():
            return super().log_prob(x, raw, mask)
        fused: Callable[..., Tensor] = GaussianLogProb.apply
        if isinstance(self.noise, str):
            return fused(raw, x, self.log_scale, self._log_floor)
        return fused(raw, x, self._log_sd(None), None)

    def mean(self, raw: Tensor) -> Tensor:
        """Compute the mean of each column; see `Likelihood`."""
        return raw[..., : self.n_features]

    def mode(self, raw: Tensor) -> Tensor:
        """Compute the mode of each column, its mean; see `Likelihood`."""
        return self.mean(raw)

    @torch.no_grad()
    def draw(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Draw each column; see `Likelihood`."""
        mean = self.mean(raw)
        noise = torch.randn(
            mean.shape, generator=generator, dtype=mean.dtype, device=mean.device
        )
        return torch.addcmul(mean, noise, torch.exp(self._log_sd(raw)))

    def _log_sd(self, raw: Tensor | None) -> Tensor:
        if not isinstance(self.noise, str):
            # The buffer may have been rounded to float32 on its way.
            return torch.full_like(self.log_scale, math.log(self.noise))
        level = self.log_scale
        if self.noise == "heteroscedastic" and raw is not None:
            level = level + raw[..., self.n_features :]
        return softly_floored(level, self._log_floor)


class Bernoulli(Likelihood):
    r"""Columns that are 0 or 1; the raw outputs are logits.

    .. math:: \log p(x \mid z) = \sum_j x_j a_j(z) - \log(1 + e^{a_j(z)})

    Values between 0 and 1 are taken as probabilities, the usual cross-entropy; for
    those `ContinuousBernoulli` is the density.

    Parameters
    ----------
    n_features : int
        Number of columns of a row.

    See Also
    --------
    ContinuousBernoulli : A density on [0, 1].

    Examples
    --------
    >>> import torch
    >>> from skvae.likelihoods import Bernoulli
    >>> Bernoulli(1).log_prob(torch.ones(1, 1), torch.zeros(1, 1))
    tensor([-0.6931])
    """

    support = (0.0, 1.0)

    def log_prob_columns(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute the log-probability of each cell; see `Likelihood`."""
        return -functional.binary_cross_entropy_with_logits(
            raw, x.expand_as(raw), reduction="none"
        )

    def mean(self, raw: Tensor) -> Tensor:
        """Compute the probability of a 1; see `Likelihood`."""
        return torch.sigmoid(raw)

    def mode(self, raw: Tensor) -> Tensor:
        """Compute the likelier of 0 and 1; see `Likelihood`."""
        return (raw > 0).to(raw.dtype)

    @torch.no_grad()
    def draw(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Draw zeros and ones; see `Likelihood`."""
        return torch.bernoulli(torch.sigmoid(raw), generator=generator)

    def raw_at_mean(self, mean: np.ndarray) -> np.ndarray:
        """Compute logits; see `Likelihood`."""
        p = np.clip(mean, 0.01, 0.99)
        return np.log(p) - np.log1p(-p)


class ContinuousBernoulli(Likelihood):
    r"""Columns in [0, 1] with an exponential density, such as pixels [1]_.

    .. math:: \log p(x \mid z) = \sum_j x_j a_j(z) -
        \log \frac{e^{a_j(z)} - 1}{a_j(z)}

    The raw outputs are the slopes :math:`a_j` of the log-density, the logits of [1]_.

    Parameters
    ----------
    n_features : int
        Number of columns of a row.

    See Also
    --------
    Bernoulli : Zeros and ones.

    References
    ----------
    .. [1] Loaiza-Ganem, G. and Cunningham, J. P. (2019). "The continuous Bernoulli:
           fixing a pervasive error in variational autoencoders." NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skvae.likelihoods import ContinuousBernoulli
    >>> ContinuousBernoulli(3).mean(torch.tensor([[-50.0, 0.0, 50.0]]))
    tensor([[0.0200, 0.5000, 0.9800]])
    """

    support = (0.0, 1.0)

    def log_prob_columns(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute the log-density of each cell; see `Likelihood`."""
        log_prob: Callable[..., Tensor] = ContinuousBernoulliLogProb.apply
        return log_prob(raw, x)

    def mean(self, raw: Tensor) -> Tensor:
        """Compute the mean of each column; see `Likelihood`."""
        return continuous_bernoulli_mean(raw)

    def mode(self, raw: Tensor) -> Tensor:
        """Compute the end of [0, 1] the density rises to; see `Likelihood`."""
        return (raw > 0).to(raw.dtype)

    @torch.no_grad()
    def draw(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Draw each column by the inverse distribution function; see `Likelihood`."""
        uniform = torch.rand(
            raw.shape, generator=generator, dtype=raw.dtype, device=raw.device
        )
        # The falling density at rate |a|, turned round where it should rise.
        slope = raw.abs().clamp_min(1e-8)
        falling = -torch.log1p(uniform * torch.expm1(-slope)) / slope
        return torch.where(raw > 0, 1.0 - falling, falling).clamp(0.0, 1.0)

    def raw_at_mean(self, mean: np.ndarray) -> np.ndarray:
        """Compute logits, whose means are closer to a half; see `Likelihood`."""
        p = np.clip(mean, 0.01, 0.99)
        return np.log(p) - np.log1p(-p)


class Poisson(Likelihood):
    r"""Columns of counts; the raw outputs are log rates.

    .. math:: \log p(x \mid z) = \sum_j x_j a_j(z) - e^{a_j(z)} - \log x_j!

    Log rates are clipped softly at 20 (a rate of 5e8), so that an untrained decoder
    cannot overflow.

    Parameters
    ----------
    n_features : int
        Number of columns of a row.

    See Also
    --------
    Gaussian : For real numbers.

    Examples
    --------
    >>> import torch
    >>> from skvae.likelihoods import Poisson
    >>> Poisson(1).log_prob(torch.tensor([[2.0]]), torch.zeros(1, 1))
    tensor([-1.6931])
    """

    support = (0.0, math.inf)

    def log_prob_columns(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute the log-probability of each cell; see `Likelihood`."""
        log_prob: Callable[..., Tensor] = PoissonLogProb.apply
        dtype = torch.promote_types(raw.dtype, x.dtype)
        return log_prob(self._log_rate(raw).to(dtype), x)

    def mean(self, raw: Tensor) -> Tensor:
        """Compute the rate of each column; see `Likelihood`."""
        return torch.exp(self._log_rate(raw))

    def mode(self, raw: Tensor) -> Tensor:
        """Compute the likeliest count; see `Likelihood`."""
        return torch.floor(self.mean(raw))

    @torch.no_grad()
    def draw(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Draw counts; see `Likelihood`."""
        return torch.poisson(self.mean(raw), generator=generator)

    def raw_at_mean(self, mean: np.ndarray) -> np.ndarray:
        """Compute log rates; see `Likelihood`."""
        return np.log(np.maximum(mean, 1e-3))

    def _log_rate(self, raw: Tensor) -> Tensor:
        return raw - functional.softplus(raw - _MAX_LOG_RATE, beta=_SHARPNESS)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "poisson": Poisson,
}
