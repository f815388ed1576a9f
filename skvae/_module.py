"""The autoencoder as a torch module: corrupt -> encode -> z -> decode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skvae._counts import CountFeatures
from skvae._jacobian import squared_jacobian_norm
from skvae._mixture_density import LOG_TAU
from skvae._networks import TiedDecoder
from skvae.priors import ConditionalMixturePrior, NormalPrior, normal_log_prob

LOG_VAR_RANGE = (-12.0, 6.0)


class Pass(NamedTuple):
    """What one forward pass leaves for the terms of the objective.

    Of variational models `kl` is the divergence of each component where it has a closed
    form, and `log_q` the log-density of the draw under its posterior where it has none.
    With several importance samples `z`, `log_q` and `raw` have a leading axis.
    """

    z: Tensor
    mean: Tensor
    log_var: Tensor | None
    kl: Tensor | None
    log_q: Tensor | None
    raw: Tensor
    target: Tensor
    encoder_input: Tensor
    mask: Tensor | None
    condition: Tensor | None
    label_prior: Tensor | None
    n_samples: int


class _Reparameterise(torch.autograd.Function):
    """Draw z and the KL divergence of each component as one autograd node.

    z = m + s * eps,   kl = (m^2 + s^2 - 1 - log s^2) / 2,   s = exp(log_var / 2)
    """

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, _, log_var, std = split_posterior(parameters)
        kl = torch.addcmul(std * std - log_var - 1, mean, mean).mul_(0.5)
        ctx.save_for_backward(parameters, noise)
        return torch.addcmul(mean, std, noise), kl

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_kl: Tensor) -> tuple[Tensor, None]:
        parameters, noise = ctx.saved_tensors
        mean, raw, log_var, std = split_posterior(parameters)
        to_mean, to_log_var = through_draw(grad_z, std, noise)
        to_mean = torch.addcmul(to_mean, grad_kl, mean)
        to_log_var = torch.addcmul(to_log_var, grad_kl, std * std - 1, value=0.5)
        return joined_gradient(to_mean, to_log_var, raw, log_var), None


class _Draw(torch.autograd.Function):
    """Draw z and its log-density under the posterior as one autograd node.

    z = m + s * eps,   log q = -sum(eps^2 + log s^2 + log 2 pi) / 2
    """

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, _, log_var, std = split_posterior(parameters)
        ctx.save_for_backward(parameters, noise)
        log_q = torch.addcmul(log_var + LOG_TAU, noise, noise).sum(-1).mul_(-0.5)
        return torch.addcmul(mean, std, noise), log_q

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_q: Tensor) -> tuple[Tensor, None]:
        parameters, noise = ctx.saved_tensors
        mean, raw, log_var, std = split_posterior(parameters)
        to_mean, to_log_var = through_draw(grad_z, std, noise)
        shared = grad_log_q.sum_to_size(mean.shape[:-1]).unsqueeze(-1)
        to_log_var = torch.sub(to_log_var, shared, alpha=0.5)
        return joined_gradient(to_mean, to_log_var, raw, log_var), None


def split_posterior(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, log-variance as it is and in its range, and standard deviation."""
    mean, raw = parameters.chunk(2, dim=-1)
    log_var = raw.clamp(*LOG_VAR_RANGE)
    return mean, raw, log_var, torch.exp(0.5 * log_var)


def through_draw(grad_z: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return what mean and log-variance receive from z; draws of a row add up."""
    to_log_var = (grad_z * noise).sum_to_size(std.shape) * (0.5 * std)
    return grad_z.sum_to_size(std.shape), to_log_var


def joined_gradient(
    to_mean: Tensor, to_log_var: Tensor, raw: Tensor, log_var: Tensor
) -> Tensor:
    """Return the gradient of both; a clamped log-variance has no slope."""
    return torch.cat([to_mean, to_log_var * (raw == log_var)], dim=-1)


class AutoencoderModule(nn.Module):
    """An encoder, a decoder, a likelihood and, for variational models, a prior.

    Parameters
    ----------
    encoder : nn.Module
        Maps a row to its code, or to the mean and log-variance of its posterior.
    decoder : nn.Module
        Maps a code (and a condition) to the parameters of the likelihood.
    likelihood : nn.Module
        See :mod:`skvae.likelihoods`.
    prior : nn.Module or None, default=None
        See :mod:`skvae.priors`; None for a deterministic autoencoder.
    features : nn.Module or None, default=None
        Turns stored rows into the input of the encoder; None uses them as they are.
    code_activation : callable or None, default=None
        Applied to the code of a deterministic autoencoder.
    n_importance_samples : int, default=1
        Draws of z per row while training.
    """

    noise: torch.Generator
    encoder: Any
    decoder: Any
    likelihood: Any
    prior: Any
    features: Any

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        *,
        prior: nn.Module | None = None,
        features: nn.Module | None = None,
        code_activation: Callable[[Tensor], Tensor] | None = None,
        n_importance_samples: int = 1,
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.features = features
        # Where set, applied to the encoder's input while training.
        self.corruption: Callable[[Tensor, torch.Generator], Tensor] | None = None
        self.code_activation = code_activation
        self.n_importance_samples = n_importance_samples
        # In validation every row sees the same frozen noise.
        self.frozen_noise: Tensor | None = None
        # Where set, held-out rows are corrupted while training looks at them.
        self.held_out_seed: int | None = None
        self.held_out_noise: torch.Generator | None = None

    @property
    def is_tied(self) -> bool:
        """Whether the decoder uses the encoder's weights."""
        return isinstance(self.decoder, TiedDecoder)

    def size_of_code(self, n_outputs: int) -> int:
        """Return how many outputs of the encoder are the code, or its mean."""
        return n_outputs if self.prior is None else n_outputs // 2

    # -- the way there ---------------------------------------------------------------
    def encoder_input(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        values: Tensor | None = None,
        **ignored: Any,
    ) -> Tensor:
        """Return what the encoder sees of stored rows, uncorrupted."""
        return self._seen(x, mask, values)

    def _seen(
        self, x: Tensor, mask: Tensor | None, values: Tensor | None, *corruption: Any
    ) -> Tensor:
        """Return the inputs that stand for rows, and for what is there of them."""
        if self.features is not None:
            x = self.features(x, values, *corruption)
            x = x if mask is None else x * mask
        return x if mask is None else torch.cat([x, mask], dim=-1)

    def input_slopes(
        self, x: Tensor, mask: Tensor | None = None, **ignored: Any
    ) -> Tensor | None:
        """Return the derivatives of what the encoder sees in the columns of rows.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_features)
            Stored rows.
        mask : Tensor of shape (n_rows, n_features) or None, default=None
            One where a cell is observed.
        **ignored : Tensor
            What else a batch carries.

        Returns
        -------
        slopes : Tensor of shape (n_rows, n_features) or None
            None where the encoder sees the columns themselves, or tables.
        """
        if not isinstance(self.features, CountFeatures):
            return None
        slopes = self.features.slope(x)
        return slopes if mask is None else slopes * mask

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and log-variance of the posterior, or the code and None."""
        parameters = self.encoder(inputs).to(inputs.dtype)
        if self.prior is None:
            if self.code_activation is not None:
                parameters = self.code_activation(parameters)
            return parameters, None
        k = self.size_of_code(parameters.shape[-1])
        return parameters[..., :k], parameters[..., k:].clamp(*LOG_VAR_RANGE)

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the raw parameters of the likelihood."""
        if condition is None:
            return self.decoder(z)
        condition = condition.expand(*z.shape[:-1], condition.shape[-1])
        return self.decoder(torch.cat([z, condition], dim=-1))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
        values: Tensor | None = None,
        label_prior: Tensor | None = None,
    ) -> Pass:
        """Push rows through; the terms read the result."""
        inputs = self._corrupted_input(x, mask, values)
        if self.prior is None:
            z, _ = self.posterior(inputs)
            mean, log_var, kl, log_q, n_samples = z, None, None, None, 1
        else:
            # Autocast may have left half precision, too little for a divergence.
            parameters = self.encoder(inputs).to(inputs.dtype)
            n_samples = self.n_importance_samples
            noise, kl, log_q = self._noise_like(parameters), None, None
            if n_samples > 1 or not isinstance(self.prior, NormalPrior):
                z, log_q = _Draw.apply(parameters, noise)
            else:
                z, kl = _Reparameterise.apply(parameters, noise)
            mean, log_var = parameters.chunk(2, dim=-1)
        raw = self.decode(z, self.known(condition))
        return Pass(
            z=z,
            mean=mean,
            log_var=log_var,
            kl=kl,
            log_q=log_q,
            raw=raw,
            target=x,
            encoder_input=inputs,
            mask=mask,
            condition=condition,
            label_prior=label_prior,
            n_samples=n_samples,
        )

    def _corrupted_input(
        self, x: Tensor, mask: Tensor | None, values: Tensor | None
    ) -> Tensor:
        if self.corruption is None or not (self.training or self.held_out_noise):
            return self.encoder_input(x, mask, values)
        noise: Any = self.noise if self.training else self.held_out_noise
        if self.features is not None:
            return self._seen(x, mask, values, self.corruption, noise)
        corrupted = self.corruption(x, noise)
        return self.encoder_input(corrupted, mask)

    def _noise_like(self, parameters: Tensor) -> Tensor:
        *rows, width = parameters.shape
        samples = self.n_importance_samples
        leading = (samples,) if samples > 1 else ()
        if self.training:
            noise = torch.empty(
                *leading,
                *rows,
                width // 2,
                dtype=parameters.dtype,
                device=parameters.device,
            )
            return noise.normal_(generator=self.noise)
        assert self.frozen_noise is not None
        frozen = self.frozen_noise[: max(samples, 1)].to(parameters)
        if samples > 1:
            return frozen.unsqueeze(1).expand(-1, rows[0], -1)
        # Rows cycle through the frozen draws, so the same rows see the same noise.
        index = torch.arange(rows[0], device=frozen.device)
        return self.frozen_noise.to(parameters)[index % len(self.frozen_noise)]

    # -- what the terms ask for --------------------------------------------------------
    def known(self, condition: Tensor | None) -> Tensor | None:
        """Return conditions with zeros for rows that have no label."""
        return None if condition is None else torch.nan_to_num(condition, nan=0.0)

    def log_likelihood(self, out: Pass) -> Tensor:
        """Return log p(x | z) of each row, in nats.

        A row without a label gets log sum_y p(y) p(x | z, y), with the shares p(y)
        that the batch gives for it.
        """
        values = self.likelihood.log_prob(out.target, out.raw, out.mask)
        if out.label_prior is None or out.condition is None:
            return values
        unlabelled = torch.isnan(out.condition[:, 0]).nonzero().squeeze(1)
        if not len(unlabelled):
            return values
        mask = None if out.mask is None else out.mask[unlabelled]
        z, target = out.z[..., unlabelled, :], out.target[unlabelled]
        shares = torch.log_softmax(self._log_joint_prior(out, unlabelled), dim=0)
        joint = [
            self.likelihood.log_prob(target, self.decode(z, one_hot), mask) + share
            for one_hot, share in zip(
                torch.eye(len(shares)).to(values), shares, strict=True
            )
        ]
        marginal = torch.logsumexp(torch.stack(joint), dim=0)
        return values.index_copy(-1, unlabelled, marginal)

    def _log_joint_prior(self, out: Pass, unlabelled: Tensor) -> Tensor:
        """Return log p(y) p(z | y) of rows without a label, (n_classes, ..., n_rows).

        What does not depend on y is left out where the prior is the same for all.
        """
        assert out.label_prior is not None
        shares = torch.log(out.label_prior[unlabelled].clamp_min(1e-12)).T
        z = out.z[..., unlabelled, :]
        if not isinstance(self.prior, ConditionalMixturePrior):
            shape = (len(shares), *(1,) * (z.dim() - 2), shares.shape[1])
            return shares.reshape(shape).expand(-1, *z.shape[:-1])
        densities = [
            self.prior_distribution(one_hot.expand(len(unlabelled), -1)).log_prob(z)
            for one_hot in torch.eye(len(shares)).to(z)
        ]
        return torch.stack(
            [d + share for d, share in zip(densities, shares, strict=True)]
        )

    def prior_distribution(self, condition: Tensor | None = None) -> Any:
        """Return the prior with its `log_prob` and `draw`."""
        assert self.prior is not None
        return self.prior.distribution(self._encode_for_prior, condition)

    def log_prior(self, out: Pass) -> Tensor:
        """Return log p(z) of the draws, of log p(z | y) where the prior asks for y.

        A row without a label gets log sum_y p(y) p(z | y).
        """
        condition = self.known(out.condition)
        values = self.prior_distribution(condition).log_prob(out.z)
        conditional = isinstance(self.prior, ConditionalMixturePrior)
        if not conditional or out.label_prior is None or out.condition is None:
            return values
        unlabelled = torch.isnan(out.condition[:, 0]).nonzero().squeeze(1)
        if not len(unlabelled):
            return values
        marginal = torch.logsumexp(self._log_joint_prior(out, unlabelled), dim=0)
        return values.index_copy(-1, unlabelled, marginal)

    def _encode_for_prior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.posterior(inputs)
        assert log_var is not None
        return mean, log_var

    def sampled_kl(self, out: Pass) -> Tensor:
        """Return log q(z | x) - log p(z) of each draw, in nats."""
        assert out.log_q is not None
        return out.log_q - self.log_prior(out)

    def squared_jacobian_norm(self, out: Pass, method: str) -> Tensor:
        """Return the squared Frobenius norm of the encoder's Jacobian of each row."""
        return squared_jacobian_norm(self, out.encoder_input, method)

    # -- scoring -----------------------------------------------------------------------
    def log_weights(
        self,
        noise: Tensor,
        x: Tensor,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
        **rows: Any,
    ) -> Tensor:
        """Return log p(x, z) - log q(z | x) of draws from the posteriors.

        Parameters
        ----------
        noise : Tensor of shape (n_draws, n_components)
            Standard normal draws, shared by all rows.
        x : Tensor of shape (n_rows, n_columns)
            Stored rows.
        mask : Tensor of shape (n_rows, n_columns) or None
            One where a cell is observed.
        condition : Tensor of shape (n_rows, n_conditions) or None
            Conditions of the rows.
        **rows : Tensor
            What else a batch carries.

        Returns
        -------
        log_weights : Tensor of shape (n_draws, n_rows)
            In nats.
        """
        mean, log_var = self.posterior(self.encoder_input(x, mask, **rows))
        assert log_var is not None
        z = mean + torch.exp(0.5 * log_var) * noise.unsqueeze(1)
        fit = self.likelihood.log_prob(x, self.decode(z, condition), mask)
        log_prior = self.prior_distribution(condition).log_prob(z)
        # In this order: the last bit of a score depends on it.
        return fit + (log_prior - normal_log_prob(z, mean, log_var))


def log_mean_exp(values: Tensor) -> Tensor:
    """Return log(mean(exp(values))) over the first axis."""
    return torch.logsumexp(values, dim=0) - math.log(len(values))
