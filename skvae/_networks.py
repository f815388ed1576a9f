"""Networks: a linear path plus an MLP, and the decoder tied to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skvae._factories import ConvDecoder, ConvEncoder, Drawer, build_network
from skvae._flat import FlatParameters
from skvae._fused import (
    ACTIVATIONS,
    Activation,
    BoundNetwork,
    get_activation,
)

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ConvDecoder",
    "ConvEncoder",
    "FlatParameters",
    "LinearPlusMLP",
    "TiedDecoder",
    "build_network",
    "get_activation",
]


class LinearPlusMLP(nn.Module):
    r"""A linear path plus an MLP whose last layer starts at zero.

    .. math:: y = x A^\top + b + f(x \odot c)

    with :math:`f` the MLP and :math:`c` the scale of its inputs. At the start
    :math:`f = 0`, so the network equals whatever linear model is written into
    :math:`A` and :math:`b`.

    Parameters
    ----------
    n_in : int
        Number of inputs.
    n_out : int
        Number of outputs.
    hidden_layer_sizes : sequence of int, default=(128, 64)
        Units of the hidden layers. Empty: only the linear path, or without it an
        ordinary affine map.
    activation : str, default="silu"
        Activation of the hidden layers, see `ACTIVATIONS`.
    n_linear : int or None, default=None
        The linear path feeds the first `n_linear` outputs; None feeds all.
    linear : bool, default=True
        Whether there is a linear path.
    dropout : float, default=0.0
        Share of hidden units dropped in training, in [0, 1). Needs
        `dropout_generator`.
    zero_last : bool, default=True
        Whether the last layer of the MLP starts at zero, else Xavier normal.
    generator : torch.Generator or None, default=None
        Draws the initial weights: He normal for hidden layers, Xavier normal for the
        linear path. None draws from a generator seeded with 0.
    dtype : torch.dtype or None, default=None
        Of the parameters; None takes torch's default dtype.

    Attributes
    ----------
    linear_weight : nn.Parameter of shape (n_linear, n_in) or None
        The linear path A.
    bias : nn.Parameter of shape (n_out,)
        The bias b of all outputs.
    weights : nn.ParameterList
        Weights of the MLP, shapes (n_units, n_inputs) layer by layer.
    biases : nn.ParameterList
        Biases of the hidden layers (that of the last layer is `bias`).
    in_scale : Tensor of shape (n_in,)
        Buffer: factor of the inputs of the MLP, ones.
    dropout_generator : torch.Generator or None
        Draws the dropped units; not copied with the module.

    Raises
    ------
    ValueError
        If a size, `dropout` or an activation is not allowed.

    See Also
    --------
    FlatParameters : Turns on the fused training pass of its networks.

    Notes
    -----
    While its gradients are bound (`FlatParameters.bind`), the forward pass in
    training is one autograd node whose backward adds the gradients of the parameters
    into their ``.grad``. ``autograd.grad`` then works for x, not for the parameters,
    and ``torch.func`` needs `unbind_gradients` first.

    Examples
    --------
    >>> import torch
    >>> from skvae._networks import LinearPlusMLP
    >>> net = LinearPlusMLP(3, 2, (8,))
    >>> x = torch.ones(4, 3)
    >>> bool(torch.equal(net(x), x @ net.linear_weight.T + net.bias))
    True
    """

    in_scale: Tensor

    def __init__(
        self,
        n_in: int,
        n_out: int,
        hidden_layer_sizes: Sequence[int] = (128, 64),
        activation: str = "silu",
        *,
        n_linear: int | None = None,
        linear: bool = True,
        dropout: float = 0.0,
        zero_last: bool = True,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        hidden = tuple(hidden_layer_sizes)
        n_linear = n_out if n_linear is None else n_linear
        if not 1 <= n_linear <= n_out:
            raise ValueError(
                f"n_linear must be in [1, {n_out}]. Got {n_linear} instead."
            )
        if any(units < 1 for units in hidden):
            raise ValueError(f"hidden_layer_sizes must be >= 1. Got {hidden} instead.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1). Got {dropout} instead.")
        self.n_in, self.n_out, self.dropout = n_in, n_out, dropout
        self.activation = get_activation(activation)
        self.dropout_generator: torch.Generator | None = None
        self.grad_buffers: BoundNetwork | None = None
        draw = Drawer(generator, dtype)
        self.linear_weight = draw.xavier(n_linear, n_in) if linear else None
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        sizes = [n_in, *hidden]
        for fan_in, units in zip(sizes, hidden, strict=False):
            self.weights.append(draw.he(units, fan_in))
            self.biases.append(draw.zeros(units))
        if hidden or not linear:
            last = draw.zeros if zero_last else draw.xavier
            self.weights.append(last(n_out, sizes[-1]))
        self.bias = draw.zeros(n_out)
        self.register_buffer("in_scale", torch.ones_like(draw.zeros(n_in).data))

    def extra_repr(self) -> str:
        """Return the sizes for the printed module."""
        sizes = [self.n_in, *(len(w) for w in self.weights)]
        path = "none" if self.linear_weight is None else tuple(self.linear_weight.shape)
        return f"linear={path}, mlp={sizes}, activation={self.activation.name!r}"

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network.

        Parameters
        ----------
        x : Tensor of shape (..., n_in)
            Inputs.

        Returns
        -------
        y : Tensor of shape (..., n_out)
            Outputs.
        """
        bound = self.grad_buffers
        if (
            bound is None
            or not torch.is_grad_enabled()
            or (self.training and self.dropout > 0)
            or torch.is_autocast_enabled(x.device.type)
        ):
            return self.plain_forward(x)
        return bound.run(x)

    def plain_forward(self, x: Tensor) -> Tensor:
        """Apply the network by ordinary operations, differentiable any number of times.

        Parameters
        ----------
        x : Tensor of shape (..., n_in)
            Inputs.

        Returns
        -------
        y : Tensor of shape (..., n_out)
            Outputs.
        """
        linear = self.linear_weight
        rest = 0 if linear is None else self.n_out - len(linear)
        if len(self.weights):
            hidden = x * self.in_scale
            for weight, bias in zip(self.weights, self.biases, strict=False):
                hidden = self._drop(self.activation(F.linear(hidden, weight, bias)))
            out = F.linear(hidden, self.weights[-1], self.bias)
            path = None if linear is None else F.linear(x, linear)
        else:
            assert linear is not None
            if not rest:
                return F.linear(x, linear, self.bias)
            out, path = self.bias, F.linear(x, linear)
        if path is not None:
            out = out + (F.pad(path, (0, rest)) if rest else path)
        return out

    def pre_activations(self, x: Tensor) -> list[Tensor]:
        """Compute what enters the activations, without dropout.

        Parameters
        ----------
        x : Tensor of shape (..., n_in)
            Inputs.

        Returns
        -------
        pre : list of Tensor of shape (..., n_units)
            One per hidden layer, differentiable.
        """
        found, hidden = [], x * self.in_scale
        for weight, bias in zip(self.weights, self.biases, strict=False):
            found.append(F.linear(hidden, weight, bias))
            hidden = self.activation(found[-1])
        return found

    def _drop(self, hidden: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return hidden
        generator = self.dropout_generator
        if generator is None:
            raise RuntimeError(
                "dropout in training needs an explicit torch.Generator; set the "
                "'dropout_generator' attribute of the network."
            )
        keep = torch.empty(hidden.shape, dtype=hidden.dtype, device=generator.device)
        keep.bernoulli_(1 - self.dropout, generator=generator)
        return hidden * (keep.to(hidden.device) / (1 - self.dropout))

    def bind_gradients(self) -> None:
        """Turn the fused pass on, if every parameter has a gradient to add to."""
        if self.grad_buffers is not None:
            return
        if all(p.requires_grad and p.grad is not None for p in self.parameters()):
            self.grad_buffers = BoundNetwork(self)

    def unbind_gradients(self) -> None:
        """Turn the fused pass off."""
        self.grad_buffers = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Moving the module makes new tensors, so the bound views would be stale.
        self.grad_buffers = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "grad_buffers": None, "dropout_generator": None}


class TiedDecoder(nn.Module):
    r"""A decoder that uses the weights of an encoder, transposed.

    .. math:: \hat x = z A + b + o \odot g(z \odot c)

    with :math:`A` the encoder's linear path and :math:`g` its MLP backwards: weights
    transposed, in reverse order, with biases of its own.

    The encoder's last layer starts at zero and is here the first. Hidden units are
    centred, :math:`\phi(u) - \phi(0)`, and the biases start at zero, so the MLP starts
    at exactly zero for every activation and the decoder equals its linear path (PCA,
    if the rows of A are orthonormal). Training is not stuck there: the zero layer
    receives gradients from its use in the encoder, and here through
    :math:`\phi'(0)`. A zero gate at the output instead would receive none, since the
    MLP behind it is zero as well.

    Parameters
    ----------
    encoder : LinearPlusMLP
        The encoder. It is shared, not copied, and is not registered as a submodule:
        its parameters are listed by the encoder alone.
    n_out : int or None, default=None
        Outputs, the first so many inputs of the encoder; None is all of them.

    Attributes
    ----------
    bias : nn.Parameter of shape (n_out,)
        The bias b of the outputs.
    biases : nn.ParameterList
        Biases of the hidden layers.
    output_scale : nn.Parameter of shape (n_out,)
        The scale o of the MLP's outputs, ones.
    in_scale : Tensor of shape (n_in,)
        Buffer: the factor c of the codes, ones.

    Examples
    --------
    >>> import torch
    >>> from skvae._networks import LinearPlusMLP, TiedDecoder
    >>> encoder = LinearPlusMLP(5, 2, (8,))
    >>> decoder = TiedDecoder(encoder)
    >>> z = torch.ones(3, 2)
    >>> bool(torch.allclose(decoder(z), z @ encoder.linear_weight))
    True
    """

    in_scale: Tensor

    def __init__(
        self,
        encoder: LinearPlusMLP,
        n_out: int | None = None,
    ):
        super().__init__()
        self._encoder = (encoder,)  # in a tuple, so that torch does not register it
        linear = encoder.linear_weight
        self.n_in = encoder.n_out if linear is None else len(linear)
        self.n_out = encoder.n_in if n_out is None else n_out
        like = encoder.bias.detach()
        zeros = [like.new_zeros(len(b)) for b in reversed(list(encoder.biases))]
        self.biases = nn.ParameterList([nn.Parameter(b) for b in zeros])
        self.bias = nn.Parameter(like.new_zeros(self.n_out))
        self.output_scale = nn.Parameter(like.new_ones(self.n_out))
        self.register_buffer("in_scale", like.new_ones(self.n_in))

    def forward(self, z: Tensor) -> Tensor:
        """Decode.

        Parameters
        ----------
        z : Tensor of shape (..., n_in)
            Codes.

        Returns
        -------
        x : Tensor of shape (..., n_out)
            Outputs.
        """
        (encoder,) = self._encoder
        out: Tensor = self.bias
        if encoder.linear_weight is not None:
            out = F.linear(z, encoder.linear_weight.t()[: self.n_out], out)
        if len(encoder.weights):
            weights: list[Tensor] = list(reversed(list(encoder.weights)))
            # An encoder of a VAE has more outputs than there are codes.
            weights[0] = weights[0][: self.n_in]
            hidden, phi = z * self.in_scale, encoder.activation
            centre = phi(z.new_zeros(()))
            for weight, bias in zip(weights, self.biases, strict=False):
                hidden = phi(F.linear(hidden, weight.t(), bias)) - centre
            last = weights[-1].t()[: self.n_out]
            out = out + F.linear(hidden, last) * self.output_scale
        return out
