"""Activations, and the closed-form training pass of a network.

On small networks autograd's bookkeeping costs more than the matrix products. Here a
whole network is one node of the graph, whose backward adds the gradients of the
weights in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ACTIVATIONS", "Activation", "BoundNetwork", "get_activation"]

_aten = torch.ops.aten
_LEAKY_SLOPE = 0.01

# Tells, inside a backward pass, whether the engine was asked for a node's gradient.
_engine_runs: Callable[[Any], bool] = getattr(
    torch._C, "_will_engine_execute_node", lambda node: True
)

_FEW_OUTPUTS = 1 << 15


@dataclass(frozen=True)
class Activation:
    """An elementwise function with its derivative in closed form.

    Parameters
    ----------
    name : str
        Name in the registry.
    forward : callable
        Maps a tensor of pre-activations to outputs of the same shape.
    derivative : callable
        Maps pre-activations to the derivative there. Written in differentiable
        operations, so second derivatives follow by autograd.
    backward : callable
        ``backward(grad, saved)``: gradient of the pre-activations in one kernel.
    in_place : callable or None, default=None
        Overwrites pre-activations by outputs, where `backward` works from outputs;
        None where it needs the pre-activations.
    inference : callable or None, default=None
        Overwrites pre-activations where only outputs are wanted; `in_place` if None.

    Examples
    --------
    >>> import torch
    >>> from skvae._fused import get_activation
    >>> get_activation("relu").derivative(torch.tensor([-1.0, 2.0]))
    tensor([0., 1.])
    """

    name: str
    forward: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor] | None = None
    inference: Callable[[Tensor], Tensor] | None = None

    def __call__(self, pre: Tensor) -> Tensor:
        """Apply the function to pre-activations."""
        return self.forward(pre)

    @property
    def overwrite(self) -> Callable[[Tensor], Tensor]:
        """Function that overwrites pre-activations, with nothing kept for later."""
        function = self.in_place or self.inference
        return function or (lambda pre: pre.copy_(self.forward(pre)))

    def __reduce__(self) -> tuple[Any, ...]:
        return get_activation, (self.name,)


def _silu_derivative(pre: Tensor) -> Tensor:
    gate = torch.sigmoid(pre)
    return gate * (1 + pre * (1 - gate))


def _logistic_derivative(pre: Tensor) -> Tensor:
    out = torch.sigmoid(pre)
    return out * (1 - out)


def _gelu_derivative(pre: Tensor) -> Tensor:
    density = torch.exp(-0.5 * pre.square()) / math.sqrt(2 * math.pi)
    return torch.special.ndtr(pre) + pre * density


def _elu_derivative(pre: Tensor) -> Tensor:
    # Clamped so that the branch not taken stays finite under autograd.
    return torch.where(pre > 0, torch.ones_like(pre), torch.exp(pre.clamp(max=0)))


def _leaky_derivative(pre: Tensor) -> Tensor:
    # From two numbers `where` would make float32, and round the slope to it.
    return torch.where(pre > 0, torch.ones_like(pre), _LEAKY_SLOPE)


ACTIVATIONS: dict[str, Activation] = {
    item.name: item
    for item in (
        Activation(
            "identity",
            forward=lambda pre: pre,
            derivative=torch.ones_like,
            backward=lambda grad, out: grad,
            in_place=lambda pre: pre,
        ),
        Activation(
            "relu",
            forward=torch.relu,
            derivative=lambda pre: (pre > 0).to(pre.dtype),
            backward=lambda grad, out: _aten.threshold_backward.default(grad, out, 0),
            in_place=torch.relu_,
        ),
        Activation(
            "silu",
            forward=F.silu,
            derivative=_silu_derivative,
            backward=_aten.silu_backward.default,
            inference=lambda pre: F.silu(pre, inplace=True),
        ),
        Activation(
            "tanh",
            forward=torch.tanh,
            derivative=lambda pre: 1 - torch.tanh(pre).square(),
            backward=_aten.tanh_backward.default,
            in_place=torch.tanh_,
        ),
        Activation(
            "logistic",
            forward=torch.sigmoid,
            derivative=_logistic_derivative,
            backward=_aten.sigmoid_backward.default,
            in_place=torch.sigmoid_,
        ),
        Activation(
            "gelu",
            forward=F.gelu,
            derivative=_gelu_derivative,
            backward=_aten.gelu_backward.default,
        ),
        Activation(
            "elu",
            forward=F.elu,
            derivative=_elu_derivative,
            backward=lambda grad, out: _aten.elu_backward.default(
                grad, 1, 1, 1, True, out
            ),
            in_place=lambda pre: F.elu(pre, inplace=True),
        ),
        Activation(
            "leaky_relu",
            forward=lambda pre: F.leaky_relu(pre, _LEAKY_SLOPE),
            derivative=_leaky_derivative,
            backward=lambda grad, out: _aten.leaky_relu_backward.default(
                grad, out, _LEAKY_SLOPE, True
            ),
            in_place=lambda pre: F.leaky_relu(pre, _LEAKY_SLOPE, inplace=True),
        ),
        Activation(
            "softplus",
            forward=F.softplus,
            derivative=torch.sigmoid,
            backward=lambda grad, pre: _aten.softplus_backward.default(
                grad, pre, 1, 20
            ),
        ),
    )
}


def get_activation(name: str) -> Activation:
    """Look up an activation by name.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS`.

    Returns
    -------
    activation : Activation
        The function and its derivative.

    Raises
    ------
    ValueError
        If there is no such activation.

    Examples
    --------
    >>> from skvae._fused import get_activation
    >>> get_activation("silu").name
    'silu'
    """
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    raise ValueError(
        f"The 'activation' parameter must be a str among {sorted(ACTIVATIONS)}. "
        f"Got {name!r} instead."
    )


class BoundNetwork:
    """Views of one network's parameters and gradients, ready for the fused pass.

    Parameters
    ----------
    net : nn.Module
        A network with `linear_weight`, `bias`, `weights`, `biases`, `in_scale`,
        `activation`; every parameter has its `.grad`.
    """

    def __init__(self, net: Any):
        self.anchor = net.bias
        self.buffers = net._buffers
        self.activation = net.activation
        self.plain = net.plain_forward
        self.bias = net.bias.detach()
        self.weights = [w.detach() for w in net.weights]
        self.weights_t = [w.t() for w in self.weights]
        self.weight_grads = [w.grad for w in net.weights]
        self.biases = [b.detach() for b in net.biases]
        self.bias_grads = [b.grad for b in (*net.biases, net.bias)]
        linear = net.linear_weight
        self.linear = None if linear is None else linear.detach()
        self.linear_t = None if linear is None else linear.detach().t()
        self.linear_grad = None if linear is None else linear.grad
        self.n_linear = 0 if linear is None else len(linear)
        self.partial = self.n_linear < len(net.bias)
        # Factors of one, as every encoder has, need no product.
        self.is_scaled = bool((net._buffers["in_scale"] != 1).any())
        self._ones: Tensor | None = None

    def ones(self, like: Tensor) -> Tensor:
        """Return ones, one per row of a matrix: sums over rows become products."""
        n = like.shape[0]
        if self._ones is None or n != self._ones.shape[0]:
            self._ones = torch.ones(n, dtype=like.dtype, device=like.device)
        return self._ones

    def add_gradients(
        self, layer: int, grad: Tensor, rows: Tensor, beta: float
    ) -> None:
        """Add a layer's gradients to `beta` times those of its weights and bias."""
        turned, ones = grad.t(), self.ones(grad)
        weights, bias = self.weight_grads[layer], self.bias_grads[layer]
        if beta:
            weights.addmm_(turned, rows, beta=beta)
            bias.addmv_(turned, ones, beta=beta)
        else:
            torch.mm(turned, rows, out=weights)
            torch.mv(turned, ones, out=bias)

    def run(self, x: Tensor) -> Tensor:
        """Apply the network as one node of the graph; x : Tensor (..., n_in)."""
        return _Fused.apply(x, self.anchor, self)


def forward_saving(net: BoundNetwork, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Apply a bound network and keep what its closed-form backward needs.

    Parameters
    ----------
    net : BoundNetwork
        The network.
    x : Tensor of shape (..., n_in)
        Inputs.

    Returns
    -------
    out : Tensor of shape (n_rows, n_out)
        Outputs, leading axes flattened.
    saved : list of Tensor
        For `backward_in_place`.
    """
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    activation = net.activation
    saved: list[Tensor] = []
    if net.weights:
        hidden = rows * net.buffers["in_scale"] if net.is_scaled else rows
        saved.append(hidden)
        for weight_t, bias in zip(net.weights_t, net.biases, strict=False):
            hidden = _affine(bias, hidden, weight_t)
            if activation.in_place is not None:
                hidden = activation.in_place(hidden)
            else:
                saved.append(hidden)
                hidden = activation.forward(hidden)
            saved.append(hidden)
        out = _affine(net.bias, hidden, net.weights_t[-1])
    else:
        out = net.bias.repeat(len(rows), 1)
    if net.linear_t is not None:
        head = out[:, : net.n_linear] if net.partial else out
        head.addmm_(rows, net.linear_t)
    return out, saved


class _Fused(torch.autograd.Function):
    """The network as one node; the gradients of its weights are added in place.

    Only the bias is an input beside x: it makes the output require a gradient. Its
    own gradient is added in place as well, so the engine gets None for it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, net: BoundNetwork) -> Tensor:
        out, saved = forward_saving(net, x)
        ctx.net = net
        ctx.save_for_backward(x, *saved)
        return out if x.dim() == 2 else out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        net, needs_x = ctx.net, ctx.needs_input_grad[0]
        x, *saved = ctx.saved_tensors
        # autograd.grad(out, x) must leave the gradients of the weights alone.
        adds = _engine_runs(ctx.next_functions[1][0])
        if not torch.is_grad_enabled():
            return _closed_form(net, x, saved, grads[0], adds, needs_x), None, None
        # create_graph=True: the ordinary operations can be differentiated again.
        with torch.no_grad():
            _closed_form(net, x, saved, grads[0], adds, False)
        if not needs_x:
            return None, None, None
        out = net.plain(x)
        (grad_x,) = torch.autograd.grad(out, x, grads[0], create_graph=True)
        return grad_x, None, None


def backward_in_place(
    net: BoundNetwork,
    x: Tensor,
    saved: list[Tensor],
    grad: Tensor,
    needs_x: bool,
    extra: Any = None,
) -> Tensor:
    """Write the gradients of a bound network's parameters over those of the last step.

    Parameters
    ----------
    net : BoundNetwork
        The network.
    x : Tensor of shape (n_rows, n_in)
        Inputs.
    saved : list of Tensor
        What `forward_saving` kept; used up.
    grad : Tensor of shape (n_rows, n_out)
        Gradient of the outputs.
    needs_x : bool
        Whether the gradient of the inputs is wanted.
    extra : list or None, default=None
        For each hidden layer what its pre-activations receive from elsewhere: the
        rows (None is all) and their gradient.

    Returns
    -------
    grad_x : Tensor of shape (n_rows, n_in)
        Gradient of the inputs; `grad` itself where none is wanted.
    """
    grad_x = _closed_form(net, x, saved, grad, True, needs_x, beta=0.0, extra=extra)
    return grad if grad_x is None else grad_x


def _closed_form(
    net: BoundNetwork,
    x: Tensor,
    saved: list[Tensor],
    grad: Tensor,
    adds: bool,
    needs_x: bool,
    beta: float = 1.0,
    extra: Any = None,
) -> Tensor | None:
    """Add the gradients of the parameters to `beta` times what their buffers hold.

    Returns the gradient of x if it is needed.
    """
    if not (adds or needs_x):
        return None
    if x.dim() != 2:
        grad = grad.reshape(-1, grad.shape[-1])
    head = grad[:, : net.n_linear] if net.partial else grad
    if adds:
        if not net.weights:
            net.bias_grads[-1].addmv_(grad.t(), net.ones(grad), beta=beta)
        if net.linear_grad is not None:
            rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
            net.linear_grad.addmm_(head.t(), rows, beta=beta)
    if net.weights:
        grad = _through_hidden(net, saved, grad, adds, beta, extra)
    return _input_gradient(net, head, grad).view(x.shape) if needs_x else None


def _affine(bias: Tensor, rows: Tensor, weight_t: Tensor) -> Tensor:
    """Return rows times weights plus bias."""
    if rows.shape[0] * bias.shape[0] > _FEW_OUTPUTS:
        return torch.addmm(bias, rows, weight_t)
    # Of few outputs adding the bias costs less than beginning with it.
    return torch.mm(rows, weight_t).add_(bias)


def _through_hidden(
    net: BoundNetwork,
    saved: list[Tensor],
    grad: Tensor,
    adds: bool,
    beta: float,
    extra: Any = None,
) -> Tensor:
    """Return the gradient of the first layer's pre-activations."""
    from_outputs = net.activation.in_place is not None
    for layer in range(len(net.weights) - 1, -1, -1):
        hidden = saved.pop()
        if adds:
            net.add_gradients(layer, grad, hidden, beta)
        if not layer:
            break
        grad = torch.mm(grad, net.weights[layer])
        kept = hidden if from_outputs else saved.pop()
        grad = net.activation.backward(grad, kept)
        if extra is not None:
            rows, more = extra[layer - 1]
            grad = grad.add_(more) if rows is None else grad.index_add_(0, rows, more)
    return grad


def _input_gradient(net: BoundNetwork, head: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of the inputs, by the MLP and by the linear path."""
    if not net.weights:
        assert net.linear is not None
        return torch.mm(head, net.linear)
    through = torch.mm(grad, net.weights[0])
    if net.is_scaled:
        through.mul_(net.buffers["in_scale"])
    return through if net.linear is None else through.addmm_(head, net.linear)
