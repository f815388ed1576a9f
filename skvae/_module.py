"""The autoencoder as a torch module: corrupt -> encode -> z -> decode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skvae._jacobian import squared_jacobian_norm
from skvae._networks import TiedDecoder
from skvae.priors import ConditionalMixturePrior, NormalPrior, normal_log_prob

LOG_VAR_RANGE = (-12.0, 6.0)


class Pass(NamedTuple):
    """What one forward pass leaves for the terms of the objective.

    With several importance samples `z` and `raw` have a leading axis.
    """

    z: Tensor
    mean: Tensor
    log_var: Tensor | None
    kl: Tensor | None
    raw: Tensor
    target: Tensor
    encoder_input: Tensor
    mask: Tensor | None
    condition: Tensor | None
    label_prior: Tensor | None
    weight: Tensor | None
    n_samples: int


class _Reparameterise(torch.autograd.Function):
    """Draw z and the KL divergence of each component as one autograd node.

    z = m + s * eps,   kl = (m^2 + s^2 - 1 - log s^2) / 2,   s = exp(log_var / 2)
    """

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        k = parameters.shape[-1] // 2
        mean, raw = parameters[..., :k], parameters[..., k:]
        log_var = raw.clamp(*LOG_VAR_RANGE)
        std = torch.exp(0.5 * log_var)
        z = torch.addcmul(mean, std, noise)
        variance = std * std
        kl = torch.addcmul(variance - log_var - 1, mean, mean).mul_(0.5)
        ctx.save_for_backward(mean, raw, std, noise, variance)
        return z, kl

    @staticmethod
    def backward(
        ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None
    ) -> tuple[Tensor, None]:
        mean, raw, std, noise, variance = ctx.saved_tensors
        gradient = mean.new_zeros(*mean.shape[:-1], 2 * mean.shape[-1])
        k = mean.shape[-1]
        to_mean, to_log_var = gradient[..., :k], gradient[..., k:]
        if grad_z is not None:
            # Importance samples share the posterior's parameters.
            extra = grad_z.dim() - mean.dim()
            by_noise = grad_z * noise
            for _ in range(extra):
                grad_z, by_noise = grad_z.sum(0), by_noise.sum(0)
            to_mean += grad_z
            to_log_var.addcmul_(by_noise, std, value=0.5)
        if grad_kl is not None:
            to_mean.addcmul_(grad_kl, mean)
            to_log_var.addcmul_(grad_kl, variance - 1, value=0.5)
        low, high = LOG_VAR_RANGE
        to_log_var.mul_((raw > low) & (raw < high))
        return gradient, None


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
    corruption : callable or None, default=None
        Applied to the encoder's input while training, ``(x, generator) -> x``.
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
        corruption: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        code_activation: Callable[[Tensor], Tensor] | None = None,
        n_importance_samples: int = 1,
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.features = features
        self.corruption = corruption
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

    # -- the way there ---------------------------------------------------------------
    def encoder_input(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        values: Tensor | None = None,
        **ignored: Any,
    ) -> Tensor:
        """Return what the encoder sees of stored rows, uncorrupted."""
        if self.features is not None:
            return self.features(x, values)
        if mask is None:
            return x
        return torch.cat([x, mask], dim=-1)

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and log-variance of the posterior, or the code and None."""
        parameters = self.encoder(inputs).to(inputs.dtype)
        if self.prior is None:
            if self.code_activation is not None:
                parameters = self.code_activation(parameters)
            return parameters, None
        k = parameters.shape[-1] // 2
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
        weight: Tensor | None = None,
        values: Tensor | None = None,
        label_prior: Tensor | None = None,
    ) -> Pass:
        """Push rows through; the terms read the result."""
        inputs = self._corrupted_input(x, mask, values)
        if self.prior is None:
            z, _ = self.posterior(inputs)
            mean, log_var, kl, n_samples = z, None, None, 1
        else:
            # Autocast may have left half precision, too little for a divergence.
            parameters = self.encoder(inputs).to(inputs.dtype)
            n_samples = self.n_importance_samples
            z, kl = _Reparameterise.apply(parameters, self._noise_like(parameters))
            k = z.shape[-1]
            mean, log_var = parameters[..., :k], parameters[..., k:]
            if n_samples > 1 or not isinstance(self.prior, NormalPrior):
                kl = None
        raw = self.decode(z, self.known(condition))
        return Pass(
            z=z,
            mean=mean,
            log_var=log_var,
            kl=kl,
            raw=raw,
            target=x,
            encoder_input=inputs,
            mask=mask,
            condition=condition,
            label_prior=label_prior,
            weight=weight,
            n_samples=n_samples,
        )

    def _corrupted_input(
        self, x: Tensor, mask: Tensor | None, values: Tensor | None
    ) -> Tensor:
        if self.corruption is None or not (self.training or self.held_out_noise):
            return self.encoder_input(x, mask, values)
        noise: Any = self.noise if self.training else self.held_out_noise
        if self.features is not None:
            return self.features(x, values, self.corruption, noise)
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
        assert out.log_var is not None
        log_var = out.log_var.clamp(*LOG_VAR_RANGE)
        log_q = normal_log_prob(out.z, out.mean, log_var)
        return log_q - self.log_prior(out)

    def squared_jacobian_norm(self, out: Pass, method: str) -> Tensor:
        """Return the squared Frobenius norm of the encoder's Jacobian of each row."""
        return squared_jacobian_norm(self, out.encoder_input, method)

    # -- scoring -----------------------------------------------------------------------
    def proposals(
        self,
        noise: Tensor,
        x: Tensor,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
        **rows: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return draws of z from the posteriors, the noise shared by all rows.

        Parameters
        ----------
        noise : Tensor of shape (n_draws, n_components)
            Standard normal draws.
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
        z : Tensor of shape (n_draws, n_rows, n_components)
            The draws.
        log_ratio : Tensor of shape (n_draws, n_rows)
            log p(z) - log q(z | x), in nats.
        """
        mean, log_var = self.posterior(self.encoder_input(x, mask, **rows))
        assert log_var is not None
        z = mean + torch.exp(0.5 * log_var) * noise.unsqueeze(1)
        log_q = normal_log_prob(z, mean, log_var)
        return z, self.prior_distribution(condition).log_prob(z) - log_q

    def log_weights(
        self,
        noise: Tensor,
        x: Tensor,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
        **rows: Any,
    ) -> Tensor:
        """Return log p(x, z) - log q(z | x) of such draws, (n_draws, n_rows) nats."""
        z, log_ratio = self.proposals(noise, x, mask, condition, **rows)
        raw = self.decode(z, condition)
        return self.likelihood.log_prob(x, raw, mask) + log_ratio


def log_mean_exp(values: Tensor) -> Tensor:
    """Return log(mean(exp(values))) over the first axis."""
    return torch.logsumexp(values, dim=0) - math.log(len(values))
