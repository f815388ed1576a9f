"""Logits smoothed over neighbouring bins: smoothed outputs, or smoothed weights.

The smoothing kernel is normal over the bins of a column; levels are left alone.
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

# Widths from which on an unbroken run is long: such columns learn better when all of
# their weights are smoothed.
_LONG = 6


class _Smooth(torch.autograd.Function):
    """Replace the values of each run of bins by a weighted mean of its neighbours."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, smoother: BinSmoother, back: bool) -> Tensor:
        ctx.smoother, ctx.back = smoother, back
        return smoother.mixed(values, back=back)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        return ctx.smoother(grads[0], back=not ctx.back), None, None


class BinSmoother(nn.Module):
    """Smoothing of values that belong to codes, over the codes that are neighbours.

    Parameters
    ----------
    runs : sequence of sequence of int
        Positions of codes that are neighbours; runs do not interleave.
    width : float
        Standard deviation of the smoothing, in bins; 0 is none.
    n_codes : int
        Number of codes.
    dtype : torch.dtype
        Type of the values.
    scores : sequence of float, default=()
        Normal score of each code, for runs that are short or have codes in between;
        see `kernel_of`.
    """

    def __init__(
        self, runs: Any, width: float, n_codes: int, dtype: Any, scores: Any = ()
    ):
        super().__init__()
        runs = [np.asarray(r) for r in runs] if width > 0 else []
        self.runs = [torch.as_tensor(run) for run in runs]
        self.places = [slice(int(run[0]), int(run[-1]) + 1) for run in runs]
        self.rest = _between(self.places, n_codes)
        for i, run in enumerate(runs):
            bends = len(scores) and _bends(run, width)
            own = np.asarray(scores)[run] if bends else None
            kernel = kernel_of(run - run[0], width, own)
            self.register_buffer(
                f"kernel{i}", torch.as_tensor(kernel, dtype=dtype), persistent=False
            )

    @property
    def kernels(self) -> list[Tensor]:
        """Weights of the neighbours within each run; codes between stay themselves."""
        return [getattr(self, f"kernel{i}") for i in range(len(self.places))]

    def forward(self, values: Tensor, *, back: bool = False) -> Tensor:
        """Smooth values of shape (..., n_codes), or their gradients on the way back."""
        return _Smooth.apply(values, self, back) if self.places else values

    def mixed(self, values: Tensor, *, back: bool = False) -> Tensor:
        """Smooth values, or their gradients, outside of autograd's graph."""
        kernels = [kernel.t() for kernel in self.kernels] if back else self.kernels
        return self._with(kernels, values)

    def variances(self, values: Tensor) -> Tensor:
        """Compute the variances of smoothed independent values, from theirs."""
        return self._with([kernel.square() for kernel in self.kernels], values)

    def _with(self, kernels: list[Tensor], values: Tensor) -> Tensor:
        rows = values.reshape(-1, values.shape[-1])
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
        for place, kernel in zip(self.places, kernels, strict=True):
            torch.mm(rows[:, place], kernel, out=out[:, place])
        for place in self.rest:
            out[:, place] = rows[:, place]
        return out.view(values.shape)


class SmoothedNetwork(BoundNetwork):
    """A bound MLP with smoothed last weights and a linear path beside it, as one node.

    Parameters
    ----------
    mlp, linear : LinearPlusMLP
        The smoothed network and the linear map that is added, their gradients bound.
    smoother : BinSmoother
        Smoothing of the outputs.
    plain : callable
        The same function, differentiable any number of times.
    """

    def __init__(self, mlp: Any, linear: Any, smoother: BinSmoother, plain: Any):
        vars(self).update(vars(mlp.grad_buffers))
        # What these views belong to: a network bound anew needs new ones.
        self.sources = (mlp.grad_buffers, linear.grad_buffers)
        other = linear.grad_buffers
        self.plain, self.other_bias = plain, other.bias
        self.other_bias_grad = other.bias_grads[-1]
        self.linear, self.linear_t = other.linear, other.linear_t
        self.linear_grad, self.n_linear = other.linear_grad, other.n_linear
        self.partial = False
        own = (self.weights[-1], self.bias.unsqueeze(-1))
        grads = (self.weight_grads[-1], self.bias_grads[-1].unsqueeze(-1))
        weight, bias = smooth = [torch.empty_like(values) for values in own]
        self.totals = [torch.empty_like(values) for values in own]
        self.weights = [*self.weights[:-1], weight]
        self.weights_t = [*self.weights_t[:-1], weight.t()]
        self.bias = bias.squeeze(-1)
        self.there = [_Mixer(*pair, smoother, True) for pair in zip(own, smooth)]
        self.back = [_Mixer(*pair, smoother, False) for pair in zip(self.totals, grads)]

    def run(self, x: Tensor) -> Tensor:
        """Smooth the weights as they are now, and apply the network."""
        with torch.no_grad():
            for mixer in self.there:
                mixer.write()
            self.bias.add_(self.other_bias)
        return super().run(x)

    def add_gradients(
        self, layer: int, grad: Tensor, rows: Tensor, beta: float
    ) -> None:
        """Add a layer's gradients to `beta` times those of its weights and bias."""
        if layer < len(self.weights) - 1:
            super().add_gradients(layer, grad, rows, beta)
            return
        turned, (weight, bias) = grad.t(), self.totals
        torch.mm(turned, rows, out=weight)
        torch.mv(turned, self.ones(grad), out=bias.squeeze(-1))
        for mixer in self.back:
            mixer.add(beta)
        self.other_bias_grad.mul_(beta).add_(bias.squeeze(-1))


class _Mixer:
    """Mixes the rows of one matrix, those of each run, into the rows of another.

    The views are made once: making them costs as much as the products.
    """

    def __init__(
        self, source: Tensor, target: Tensor, smoother: BinSmoother, turned: bool
    ):
        kernels = [kernel.t() if turned else kernel for kernel in smoother.kernels]
        self.mixed = [
            (kernel, source[place], target[place])
            for kernel, place in zip(kernels, smoother.places, strict=True)
        ]
        self.kept = [(source[place], target[place]) for place in smoother.rest]

    def write(self) -> None:
        """Write the mixed rows."""
        for kernel, source, target in self.mixed:
            torch.mm(kernel, source, out=target)
        for source, target in self.kept:
            target.copy_(source)

    def add(self, beta: float) -> None:
        """Add the mixed rows to `beta` times what is there."""
        for kernel, source, target in self.mixed:
            target.addmm_(kernel, source, beta=beta)
        for source, target in self.kept:
            target.mul_(beta).add_(source)


def _between(places: list[slice], n: int) -> list[slice]:
    """Return the parts of a range that no place covers."""
    edges = [0, *(edge for place in places for edge in (place.start, place.stop)), n]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return [slice(first, last) for first, last in gaps if first < last]


def _bends(run: np.ndarray, width: float) -> bool:
    """Tell whether smoothing bends lines by more than a little at the ends of a run."""
    return len(run) < _LONG * width or run[-1] - run[0] >= len(run)


def kernel_of(
    run: np.ndarray, width: float, scores: np.ndarray | None = None
) -> np.ndarray:
    """Return the weights of neighbours, of which each column sums to one.

    The log-ratio of two normal densities is a parabola. Smoothed, it would bend at the
    ends of a run, and where values between its bins are codes of their own.

    Parameters
    ----------
    run : ndarray of int
        Places of the neighbours, from 0 on; places left out stay themselves.
    width : float
        Standard deviation, in neighbours.
    scores : ndarray of shape (len(run),) or None, default=None
        Numbers whose parabolas stay as they are: the rest alone is smoothed.
    """
    steps = np.arange(len(run))
    weights = np.exp(-0.5 * (np.subtract.outer(steps, steps) / width) ** 2)
    # Products with the denormal numbers far out would cost thirty times more.
    weights[weights < 1e-9] = 0.0
    weights /= weights.sum(axis=0)
    if scores is not None:
        basis, _ = np.linalg.qr(np.vander(scores, 3))
        weights += basis @ (basis.T - basis.T @ weights)
    kernel = np.eye(int(run[-1]) + 1)
    kernel[np.ix_(run, run)] = weights
    return kernel
