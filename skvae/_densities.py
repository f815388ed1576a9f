"""Log-densities with closed-form gradients, one autograd node each."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)
# Below this slope the closed forms of the continuous Bernoulli cancel.
_SERIES_BELOW = 0.1


def softly_floored(log_scale: Tensor, log_floor: float | None) -> Tensor:
    """Return a log standard deviation above a floor, if there is one."""
    if log_floor is None:
        return log_scale
    return functional.softplus(log_scale - log_floor) + log_floor


class GaussianLogProb(torch.autograd.Function):
    """Gaussian log-density of rows: three passes forward, three backward."""

    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, x: Tensor, log_scale: Tensor, log_floor: float | None
    ) -> Tensor:
        log_sd = softly_floored(log_scale, log_floor)
        n_features = x.shape[-1]
        difference = raw - x
        squares = difference.square()
        precision = torch.exp(log_sd * -2.0)
        n_per_scale = n_features // log_sd.numel()
        constant = log_sd.sum().mul_(n_per_scale).add_(n_features * HALF_LOG_TAU)
        ctx.save_for_backward(raw, x, log_scale, difference, squares, precision)
        ctx.log_floor = log_floor
        quadratic = torch.matmul(squares, precision.expand(n_features))
        return quadratic.mul_(-0.5).sub_(constant)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raw, x, log_scale, difference, squares, precision = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A second derivative needs the way back to the inputs.
            difference = raw - x
            squares = difference.square()
            precision = torch.exp(softly_floored(log_scale, ctx.log_floor) * -2.0)
        grad_raw = grad_scale = None
        if ctx.needs_input_grad[0]:
            grad_raw = (difference * precision).mul_(grad.neg().unsqueeze(-1))
        if ctx.needs_input_grad[2]:
            total = grad.reshape(-1) @ squares.reshape(-1, squares.shape[-1])
            grad_scale = total.mul_(precision).sub_(grad.sum())
            if log_scale.numel() == 1:
                grad_scale = grad_scale.sum().reshape(1)
            if ctx.log_floor is not None:
                grad_scale = grad_scale.mul_(torch.sigmoid(log_scale - ctx.log_floor))
        return grad_raw, None, grad_scale, None


def continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """Compute 1 / (1 - exp(-a)) - 1 / a, by its series where that cancels."""
    small = logits.abs() < _SERIES_BELOW
    safe = torch.where(small, torch.ones_like(logits), logits)
    closed = -1.0 / torch.expm1(-safe) - 1.0 / safe
    square = logits.square()
    series = 1 / 12 + square * (-1 / 720 + square * (1 / 30240 - square / 1209600))
    return torch.where(small, 0.5 + logits * series, closed)


class ContinuousBernoulliLogProb(torch.autograd.Function):
    """Log-density of cells; its gradient in the logits is x minus the mean."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(raw, x)
        slope = raw.abs().clamp_min(torch.finfo(raw.dtype).tiny)
        # Written around the larger end of [0, 1], where nothing overflows.
        log_norm = torch.log(-torch.expm1(-slope) / slope)
        return torch.addcmul(-raw.clamp_min(0.0), x, raw) - log_norm

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raw, x = ctx.saved_tensors
        grad_raw = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_raw = grad * (x - continuous_bernoulli_mean(raw))
        if ctx.needs_input_grad[1]:
            grad_x = (grad * raw).sum_to_size(x.shape)
        return grad_raw, grad_x


class PoissonLogProb(torch.autograd.Function):
    """Log-probability of counts; its gradient in the log rate is x minus the rate."""

    @staticmethod
    def forward(ctx: Any, log_rate: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(log_rate, x)
        # Large terms nearly cancel: their rounding in float32 may exceed the rest.
        wide = x.dtype if x.device.type == "mps" else torch.float64
        a, n = log_rate.to(wide), x.to(wide)
        log_prob = torch.mul(n, a).sub_(torch.exp(a)).sub_(torch.lgamma(n + 1.0))
        return log_prob.to(log_rate.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        log_rate, x = ctx.saved_tensors
        to_rate = (grad * (x - torch.exp(log_rate))).sum_to_size(log_rate.shape)
        if not ctx.needs_input_grad[1]:
            return to_rate, None
        slope = log_rate - torch.digamma(x + 1.0)
        return to_rate, (grad * slope).sum_to_size(x.shape)
