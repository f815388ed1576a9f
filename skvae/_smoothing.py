"""Logits that neighbouring bins share: smoothed outputs, or smoothed weights.

Smoothing is linear, so smoothing the outputs of a network equals smoothing the weights
of its last layer. A step of training smooths the weights, which are fewer numbers than
the outputs of a batch; elsewhere the outputs are smoothed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skvae._fused import BoundNetwork


class Smooth(torch.autograd.Function):
    """Replace the logits of each run of bins by a weighted mean of its neighbours."""

    @staticmethod
    def forward(ctx: Any, free: Tensor, places: list, kernels: list) -> Tensor:
        ctx.places, ctx.kernels = places, kernels
        return _smoothed(free, places, kernels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        transposed = [kernel.t() for kernel in ctx.kernels]
        return _smoothed(grads[0], ctx.places, transposed), None, None


class BinSmoother(nn.Module):
    """Smoothing of values that belong to codes, over the codes that are neighbours.

    Parameters
    ----------
    runs : sequence of sequence of int
        Positions of codes that are neighbours.
    width : float
        Standard deviation of the smoothing, in bins; 0 is none.
    dtype : torch.dtype
        Type of the values.
    """

    def __init__(self, runs: Any, width: float, dtype: Any):
        super().__init__()
        runs = [np.asarray(r) for r in runs] if width > 0 else []
        self.places = [place_of(run) for run in runs]
        for i, run in enumerate(runs):
            kernel = torch.as_tensor(kernel_of(len(run), width), dtype=dtype)
            self.register_buffer(f"kernel{i}", kernel, persistent=False)

    @property
    def kernels(self) -> list[Tensor]:
        """Weights of the neighbours within each run."""
        return [getattr(self, f"kernel{i}") for i in range(len(self.places))]

    def forward(self, values: Tensor) -> Tensor:
        """Smooth values of shape (..., n_codes)."""
        if not self.places:
            return values
        return Smooth.apply(values, self.places, self.kernels)

    def variances(self, values: Tensor) -> Tensor:
        """Compute the variances of smoothed independent values, from theirs."""
        squares = [kernel.square() for kernel in self.kernels]
        return _smoothed(values, self.places, squares)


class SmoothedNetwork(BoundNetwork):
    """A bound MLP with smoothed last weights and a linear path beside it, as one node.

    Parameters
    ----------
    mlp, linear : LinearPlusMLP
        The smoothed network and the linear map that is added, their gradients bound.
    places : list
        Positions of the runs of bins among the outputs.
    kernels : list of Tensor
        Weights of the neighbours within each run.
    plain : callable
        The same function, differentiable any number of times.
    """

    def __init__(self, mlp: Any, linear: Any, places: list, kernels: list, plain: Any):
        vars(self).update(vars(mlp.grad_buffers))
        # What these views belong to: a network bound anew needs new ones.
        self.sources = (mlp.grad_buffers, linear.grad_buffers)
        other = linear.grad_buffers
        self.plain, self.places, self.kernels = plain, places, kernels
        self.own_bias, self.other_bias = self.bias, other.bias
        self.other_bias_grad = other.bias_grads[-1]
        self.linear, self.linear_t = other.linear, other.linear_t
        self.linear_grad, self.n_linear = other.linear_grad, other.n_linear
        self.partial = False
        self.own_weight = self.weights[-1]
        smooth = torch.empty_like(self.own_weight)
        self.weights = [*self.weights[:-1], smooth]
        self.weights_t = [*self.weights_t[:-1], smooth.t()]

    def run(self, x: Tensor) -> Tensor:
        """Smooth the weights as they are now, and apply the network."""
        with torch.no_grad():
            _mix(self.own_weight, self.places, self.kernels, self.weights[-1])
            bias = torch.empty_like(self.own_bias).unsqueeze(-1)
            _mix(self.own_bias.unsqueeze(-1), self.places, self.kernels, bias)
            self.bias = bias.squeeze(-1).add_(self.other_bias)
        return super().run(x)

    def add_gradients(
        self, layer: int, grad: Tensor, rows: Tensor, beta: float
    ) -> None:
        """Add a layer's gradients to `beta` times those of its weights and bias."""
        if layer < len(self.weights) - 1:
            super().add_gradients(layer, grad, rows, beta)
            return
        turned = grad.t()
        sums = torch.mv(turned, self.ones(grad))
        totals = (torch.mm(turned, rows), sums.unsqueeze(-1))
        kernels = [kernel.t() for kernel in self.kernels]
        for total, own in zip(
            totals, (self.weight_grads[-1], self.bias_grads[-1]), strict=True
        ):
            mixed = _mix(total, self.places, kernels, torch.empty_like(total))
            own.mul_(beta).add_(mixed.view_as(own))
        self.other_bias_grad.mul_(beta).add_(sums)


def _mix(values: Tensor, places: list, kernels: list, out: Tensor) -> Tensor:
    """Write rows, those of each run mixed by its kernel, into `out`."""
    out.copy_(values)
    for place, kernel in zip(places, kernels, strict=True):
        out[place] = kernel.t() @ values[place]
    return out


def _smoothed(values: Tensor, places: list, kernels: list) -> Tensor:
    out = values.clone(memory_format=torch.contiguous_format)
    for place, kernel in zip(places, kernels, strict=True):
        out[..., place] = values[..., place] @ kernel
    return out


def place_of(run: np.ndarray) -> Any:
    """Return the positions of a run, as a slice where they follow each other."""
    first, last = int(run[0]), int(run[-1])
    if last - first + 1 == len(run):
        return slice(first, last + 1)
    return torch.as_tensor(run)


def kernel_of(length: int, width: float) -> np.ndarray:
    """Return the weights of neighbours; each column sums to one."""
    steps = np.arange(length)
    weights = np.exp(-0.5 * (np.subtract.outer(steps, steps) / width) ** 2)
    # Products with the denormal numbers far out would cost thirty times more.
    weights[weights < 1e-9] = 0.0
    return weights / weights.sum(axis=0)
