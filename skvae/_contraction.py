"""The contraction penalty in closed form: value and gradients without a graph.

Written for `_step.py`, for encoders that are plain networks: what the pre-activations
of the hidden layers receive is handed back, so that the backward pass of the
reconstruction carries it on to the weights at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skvae._jacobian import (
    PENALTY_METHODS,
    random_signs,
    resolved_method,
    subset_of_rows,
)

# Rows of a matrix from which on half of its products is worth the bookkeeping.
_LARGE, _BLOCK = 512, 128
Extra = list[tuple[Tensor | None, Tensor] | None]

# Derivatives of the derivative, from what the forward pass keeps (outputs, or the
# pre-activations of silu, gelu and softplus) and from the derivative; None is zero.
_CURVATURE: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "identity": None,
    "relu": None,
    "leaky_relu": None,
    "tanh": lambda out, slope: torch.mul(out, slope).mul_(-2),
    "logistic": lambda out, slope: torch.addcmul(slope, slope, out, value=-2),
    "elu": lambda out, slope: torch.where(out > 0, torch.zeros_like(out), slope),
    "silu": lambda pre, slope: _silu_curvature(pre, slope),
    "gelu": lambda pre, slope: (
        torch.exp(-0.5 * pre.square()) * (2 - pre.square()) / math.sqrt(2 * math.pi)
    ),
    "softplus": lambda pre, slope: slope * (1 - slope),
}


def _silu_curvature(pre: Tensor, slope: Tensor) -> Tensor:
    # With the gate g and the derivative s it is g + s - 2 g s.
    gate = torch.sigmoid(pre)
    return torch.addcmul(slope, gate, slope, value=-2).add_(gate)


def has_closed_form(module: Any, method: str) -> bool:
    """Tell whether `ContractionStep` covers the encoder of a module.

    Parameters
    ----------
    module : AutoencoderModule
        Its encoder is a plain network with bound gradients.
    method : str
        See :func:`skvae._jacobian.squared_jacobian_norm`.
    """
    return (
        method in PENALTY_METHODS
        and module.code_activation is None
        and bool(module.encoder.biases)
        and not module.encoder.grad_buffers.is_scaled
    )


class ContractionStep:
    """Value and gradients of the mean squared norm of the encoder's Jacobian.

    Parameters
    ----------
    module : AutoencoderModule
        See `has_closed_form`.
    method : {"auto", "exact", "subset", "hutchinson"}
        As for :func:`skvae._jacobian.squared_jacobian_norm`.
    """

    def __init__(self, module: Any, method: str):
        self.module = module
        net = self.net = module.encoder.grad_buffers
        depth = len(net.biases)
        self.projects = method == "hutchinson"
        self.exact = resolved_method(method, depth) != "subset"
        self.gram = self.exact and depth == 1 and not self.projects
        self.k = module.size_of_code(len(net.bias))
        # From the code to the columns, as the Jacobian multiplies them.
        self.matrices = [
            m[: self.k] if m is net.weights[-1] else m for m in reversed(net.weights)
        ]
        self.grads = [
            g[: self.k] if g is net.weight_grads[-1] else g
            for g in reversed(net.weight_grads)
        ]
        self.linear, self.linear_grad = net.linear, net.linear_grad
        self.curvature = _CURVATURE[net.activation.name]
        self.ones: list[Tensor] = [net.bias[:0]]
        self.zero = net.bias.new_zeros(1)
        self.rank = min(self.k, self.matrices[-1].shape[1])

    def __call__(self, x: Tensor, kept: list[Tensor], weight: float) -> Any:
        """Compute the penalty of a batch.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_columns)
            Inputs of the encoder.
        kept : list of Tensor
            What `forward_saving` kept.
        weight : float
            Factor of the penalty in the loss.

        Returns
        -------
        value : Tensor of shape ()
            The mean squared norm.
        extra : list
            For each hidden layer the rows and the gradient of their pre-activations,
            for `backward_in_place`.
        add : callable
            Adds the gradients of the weights, to call after `backward_in_place`.
        """
        net = self.net
        per_layer = 1 if net.activation.in_place is not None else 2
        saved = kept[1::per_layer][: len(net.biases)]
        rows = None if self.exact else subset_of_rows(self.module, x, self.rank)
        if rows is not None:
            saved = [s[rows] for s in saved]
        ones = self._ones_like(saved)
        gates = [
            net.activation.backward(o, s) for o, s in zip(ones, saved, strict=True)
        ]
        share = weight / len(saved[0])
        run = self._hadamard_gram if self.gram else self._product
        value, to_gates, add = run(gates[::-1], share)
        if self.curvature is None:
            return value, None, add
        extra: Extra = []
        for grad, s, gate in zip(to_gates[::-1], saved, gates, strict=True):
            extra.append((rows, grad.mul_(self.curvature(s, gate))))
        return value, extra, add

    def _ones_like(self, saved: list[Tensor]) -> list[Tensor]:
        """Return ones for the backward pass of the activations, made once."""
        if len(self.ones[0]) != len(saved[0]):
            self.ones = [torch.ones_like(s) for s in saved]
        return self.ones

    def _hadamard_gram(self, gates: list[Tensor], share: float) -> Any:
        """Take |A|^2 + 2 sum_h D_h q_h + D' (V'V * UU') D over all rows."""
        (v, u), (grad_v, grad_u), (gate,) = self.matrices, self.grads, gates
        n = len(gate)
        inner, outer = v.t() @ v, _outer_gram(u)
        gram = inner * outer
        moment = gate.t() @ gate
        value = torch.dot(gram.view(-1), moment.view(-1)) / n
        sums: Any = None
        crossing: Any = None
        crossed: Any = self.zero
        linear = self.linear
        if linear is not None:
            crossing = linear @ u.t()
            crossed = (v * crossing).sum(dim=0)
            sums = gate.sum(dim=0)
            value = value + torch.dot(sums, crossed) * (2 / n) + _squares(linear)
        to_gate = None
        if self.curvature is not None:
            to_gate = torch.addmm(crossed, gate, gram, beta=2 * share, alpha=2 * share)

        def add() -> None:
            grad_v.addmm_(v, outer.mul_(moment), alpha=2 * share)
            grad_u.addmm_(inner.mul_(moment), u, alpha=2 * share)
            if linear is None:
                return
            scaled = v * sums
            grad_v.add_(crossing.mul_(sums), alpha=2 * share)
            grad_u.addmm_(scaled.t(), linear, alpha=2 * share)
            self.linear_grad.addmm_(scaled, u, alpha=2 * share)
            self.linear_grad.add_(linear, alpha=2 * share * n)

        return value, [to_gate], add

    def _product(self, gates: list[Tensor], share: float) -> Any:
        """Multiply the factors for each row, and go back through the product."""
        flip = self.k > self.matrices[-1].shape[1]
        matrices, grads = self.matrices, self.grads
        linear, linear_grad = self.linear, self.linear_grad
        if flip:
            matrices = [m.t() for m in reversed(matrices)]
            grads = [g.t() for g in reversed(grads)]
            gates = gates[::-1]
            linear = None if linear is None else linear.t()
            linear_grad = None if linear is None else linear_grad.t()
        first, path, probe = matrices[0].unsqueeze(0), linear, None
        if self.projects:
            # One row v' J instead of all of J.
            like = gates[0][:, :1].expand(-1, len(matrices[0]))
            probe = random_signs(self.module, like)
            first = (probe @ matrices[0]).unsqueeze(1)
            path = None if linear is None else (probe @ linear).unsqueeze(1)
        # J = M_0 D_1 M_1 ... : before and after each gate.
        before: list[Tensor] = [first]
        after = []
        for matrix, gate in zip(matrices[1:], gates, strict=True):
            after.append(before[-1] * gate.unsqueeze(1))
            before.append(after[-1] @ matrix)
        jacobian = before.pop()
        if path is not None:
            jacobian = jacobian.add_(path)
        flat = jacobian.view(-1)
        value = torch.dot(flat, flat) / len(jacobian)
        upstream = jacobian.mul_(2 * share)
        to_gates: list[Tensor] = []
        pairs = []
        total = None if linear is None else _over_rows(upstream, probe)
        for layer in range(len(gates) - 1, -1, -1):
            pairs.append((grads[layer + 1], after[layer], upstream))
            through = upstream @ matrices[layer + 1].t()
            to_gates.append((through * before[layer]).sum(dim=1))
            upstream = through.mul_(gates[layer].unsqueeze(1))
        outermost = _over_rows(upstream, probe)

        def add() -> None:
            for grad, left, right in pairs:
                grad.addmm_(left.flatten(0, 1).t(), right.flatten(0, 1))
            grads[0].add_(outermost)
            if linear_grad is not None:
                linear_grad.add_(total)

        to_gates.reverse()
        return value, to_gates[::-1] if flip else to_gates, add


def _over_rows(upstream: Tensor, probe: Tensor | None) -> Tensor:
    """Return the gradient of a factor that all rows share."""
    if probe is None:
        return upstream.sum(dim=0)
    return probe.t() @ upstream.squeeze(1)


def _outer_gram(matrix: Tensor) -> Tensor:
    """Return M M', of large matrices only one half by products."""
    n = len(matrix)
    if n < _LARGE or matrix.shape[1] < n:
        return matrix @ matrix.t()
    gram = matrix.new_empty(n, n)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        rows, below = matrix[start:stop], gram[start:stop, :stop]
        torch.mm(rows, matrix[:stop].t(), out=below)
        gram[:start, start:stop].copy_(below[:, :start].t())
    return gram


def _squares(matrix: Tensor) -> Tensor:
    flat = matrix.reshape(-1)
    return torch.dot(flat, flat)
