"""Mixtures of normals as densities of codes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LOG_TAU = math.log(2.0 * math.pi)
MIN_LOG_VAR = -12.0


class _LogProb(torch.autograd.Function):
    """Log-density of a mixture as one node; see `log_prob_saving`."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, log_weights: Tensor, means: Tensor, log_vars: Tensor
    ) -> Tensor:
        log_prob, parts = log_prob_saving(z, log_weights, means, log_vars)
        ctx.save_for_backward(z, log_weights, means, log_vars, *parts)
        return log_prob

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (z, *mixture), parts = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        if torch.is_grad_enabled():
            # create_graph=True: the ordinary operations can be differentiated again.
            return _again(ctx.needs_input_grad, grads[0], z, *mixture)
        weighted = weigh(grads[0], parts)
        to_z: Any = None
        to_mixture: tuple = (None, None, None)
        if ctx.needs_input_grad[0]:
            to_z = through_codes(weighted, parts).to(z.dtype).view(z.shape)
        if any(ctx.needs_input_grad[1:]):
            to_mixture = through_normals(weighted, parts, *mixture[1:])
        return to_z, *to_mixture


def log_prob_saving(
    z: Tensor, log_weights: Tensor, means: Tensor, log_vars: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    r"""Compute the log-density of codes and keep what its gradients need.

    With responsibilities :math:`r_m`, the gradients are averages over them of those of
    the normals, such as :math:`\sum_m r_m (\mu_m - z) / \sigma_m^2` for a code z.

    Parameters
    ----------
    z : Tensor of shape (..., n_components)
        Codes.
    log_weights : Tensor of shape (n_mixture,)
        Logarithms of the weights.
    means, log_vars : Tensor of shape (n_mixture, n_components)
        Means, and log-variances, floored at -12.

    Returns
    -------
    log_prob : Tensor of shape (...)
        Log-density, in nats.
    parts : tuple of Tensor
        For `weigh`, `through_codes` and `through_normals`.
    """
    precisions, slopes, constants = _coefficients(log_weights, means, log_vars)
    powers = _powers(z.reshape(-1, z.shape[-1]), slopes)
    joint = torch.addmm(constants, powers, _factors(precisions, slopes)).to(z.dtype)
    highest = joint.amax(dim=1, keepdim=True)
    # Where all are -inf so is the density; inf - inf would be no number.
    highest.masked_fill_(highest.isinf(), 0.0)
    shares = joint.sub_(highest).exp_()
    sums = shares.sum(dim=1, keepdim=True)
    log_prob = torch.log(sums).add_(highest).view(z.shape[:-1])
    return log_prob, (precisions, slopes, powers, shares, sums)


def weigh(grad: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
    """Return responsibilities times the gradient of each log-density."""
    _, _, powers, shares, sums = parts
    return (shares * (grad.reshape(-1, 1) / sums)).to(powers.dtype)


def through_codes(weighted: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
    """Return what codes receive, (n_rows, n_components)."""
    precisions, slopes, powers, *_ = parts
    squares, firsts = (weighted @ _factors(precisions, slopes).t()).chunk(2, 1)
    return torch.addcmul(firsts, squares, powers.chunk(2, 1)[1], value=2)


def through_normals(
    weighted: Tensor, parts: tuple[Tensor, ...], means: Tensor, log_vars: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what log-weights, means and log-variances receive."""
    precisions, _, powers, *_ = parts
    total = weighted.sum(dim=0)
    squares, firsts = (weighted.t() @ powers).chunk(2, 1)
    centres, count = means.to(powers.dtype), total.unsqueeze(1)
    away = firsts - centres * count
    # Sum of r (z - mean)^2, from moments about zero.
    spread = squares - centres * (firsts + away)
    to_log_vars = (precisions * spread - count).mul_(0.5) * (log_vars >= MIN_LOG_VAR)
    to_means = precisions * away
    return total.to(means.dtype), to_means.to(means.dtype), to_log_vars.to(means.dtype)


def _again(needed: Any, grad: Tensor, *inputs: Tensor) -> tuple:
    """Return the gradients by operations that can be differentiated again."""
    value = torch.logsumexp(_joint(*inputs), dim=-1)
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(value, wanted, grad, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


class DiagonalMixture:
    """Mixture of normals with independent components.

    Parameters
    ----------
    log_weights : Tensor of shape (n_mixture,)
        Logarithms of the weights.
    means, log_vars : Tensor of shape (n_mixture, n_components)
        Means, and log-variances, floored at -12.
    """

    def __init__(self, log_weights: Tensor, means: Tensor, log_vars: Tensor) -> None:
        self.log_weights = log_weights
        self.means = means
        self.log_vars = log_vars

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute the log-density of codes, (..., n_components) to (...)."""
        return _LogProb.apply(z, self.log_weights, self.means, self.log_vars)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n codes."""
        weights = torch.softmax(self.log_weights, dim=0)
        # One systematic draw: the shares of the components carry no noise of their own.
        start = torch.rand(1, generator=generator, device=weights.device)
        places = (torch.arange(n, device=weights.device) + start) / n
        running = weights.cumsum(0) / weights.sum()
        chosen = torch.searchsorted(running, places.to(running)).clamp_max(
            len(weights) - 1
        )
        order = torch.randperm(n, generator=generator, device=generator.device)
        chosen = chosen[order.to(chosen.device)]
        means = self.means.index_select(0, chosen)
        log_vars = self.log_vars.clamp_min(MIN_LOG_VAR)
        spread = torch.exp(0.5 * log_vars).index_select(0, chosen)
        noise = torch.randn(
            means.shape, generator=generator, dtype=means.dtype, device=means.device
        )
        return means.addcmul_(noise, spread)


class ConditionalMixture:
    """Mixtures whose weights and place differ from row to row.

    Parameters
    ----------
    log_weights : Tensor of shape (n_rows, n_mixture)
        Logarithms of the weights.
    shift : Tensor of shape (n_rows, n_components)
        Added to the means.
    means, log_vars : Tensor of shape (n_mixture, n_components)
        As in `DiagonalMixture`.
    """

    def __init__(
        self, log_weights: Tensor, shift: Tensor, means: Tensor, log_vars: Tensor
    ) -> None:
        self.log_weights = log_weights
        self.shift = shift
        self.means = means
        self.log_vars = log_vars

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute the log-density of codes, (..., n_rows, n_components) to (...)."""
        even = self.means.new_zeros(len(self.means))
        joint = _joint(z - self.shift, even, self.means, self.log_vars)
        return torch.logsumexp(joint + self.log_weights, dim=-1)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw one code for each of n rows."""
        running = torch.softmax(self.log_weights, dim=-1).cumsum(-1)
        place = torch.rand((n, 1), generator=generator, device=running.device)
        place = place.to(running) * running[:, -1:]
        chosen = torch.searchsorted(running, place).clamp_max(running.shape[1] - 1)
        means = self.means[chosen[:, 0]] + self.shift
        noise = torch.randn(
            means.shape, generator=generator, dtype=means.dtype, device=means.device
        )
        log_vars = self.log_vars.clamp_min(MIN_LOG_VAR)
        spread = torch.exp(0.5 * log_vars[chosen[:, 0]])
        return means.addcmul_(noise, spread)


def _joint(z: Tensor, log_weights: Tensor, means: Tensor, log_vars: Tensor) -> Tensor:
    """Return the log of weight times density of each normal, (..., n_mixture)."""
    precisions, slopes, constants = _coefficients(log_weights, means, log_vars)
    return (_powers(z, slopes) @ _factors(precisions, slopes) + constants).to(z.dtype)


def _coefficients(
    log_weights: Tensor, means: Tensor, log_vars: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return p, p mu and the constant of log w N(z) = -p z^2 / 2 + p mu z + constant.

    The expanded square cancels where a normal is narrow and far from 0, hence the type.
    """
    wide = means.dtype if means.device.type == "mps" else torch.float64
    centres, log_vars = means.to(wide), log_vars.clamp_min(MIN_LOG_VAR).to(wide)
    precisions = torch.exp(-log_vars)
    slopes = centres * precisions
    level = (centres * slopes + log_vars).sum(-1) + means.shape[-1] * LOG_TAU
    return precisions, slopes, log_weights.to(wide) - 0.5 * level


def _factors(precisions: Tensor, slopes: Tensor) -> Tensor:
    """Return what powers are multiplied by, (2 n_components, n_mixture)."""
    return torch.cat([-0.5 * precisions, slopes], dim=-1).mT


def _powers(z: Tensor, like: Tensor) -> Tensor:
    """Return squares and codes side by side."""
    codes = z.to(like.dtype)
    return torch.cat([codes.square(), codes], dim=-1)
