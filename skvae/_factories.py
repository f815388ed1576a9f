"""Networks from factories: a user's own modules, convolutions for images."""

from __future__ import annotations

import copy
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skvae._fused import get_activation

__all__ = ["ConvDecoder", "ConvEncoder", "Drawer", "build_network"]


class Drawer:
    """Draws initial parameters, on the CPU, from one explicit generator."""

    def __init__(
        self,
        generator: torch.Generator | None,
        dtype: torch.dtype | None = None,
    ):
        self.generator = generator or torch.Generator().manual_seed(0)
        self.dtype = dtype

    def normal(self, shape: Sequence[int], std: float) -> nn.Parameter:
        values = torch.empty(
            tuple(shape), dtype=self.dtype, device=self.generator.device
        )
        values.normal_(0.0, std, generator=self.generator)
        return nn.Parameter(values.to("cpu"))

    def he(self, n_out: int, n_in: int) -> nn.Parameter:
        return self.normal((n_out, n_in), math.sqrt(2 / n_in))

    def xavier(self, n_out: int, n_in: int) -> nn.Parameter:
        return self.normal((n_out, n_in), math.sqrt(2 / (n_in + n_out)))

    def zeros(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(shape, dtype=self.dtype))

    def fill(self, layer: Any, fan_in: int, gain: float = 2.0) -> nn.Module:
        """Draw the weight of an uninitialised layer, set its bias to zero."""
        layer.weight = self.normal(layer.weight.shape, math.sqrt(gain / fan_in))
        layer.bias = self.zeros(*layer.bias.shape)
        return layer


def _shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (C, H, W); two numbers mean one channel."""
    shape = tuple(int(n) for n in image_shape)
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            "image_shape must be (height, width) or (channels, height, width), all "
            f">= 1. Got {tuple(image_shape)} instead."
        )
    return shape


def _check_columns(image_shape: Sequence[int], n_columns: int) -> None:
    expected = math.prod(image_shape)
    if n_columns != expected:
        raise ValueError(
            f"image_shape={tuple(image_shape)} means rows of {expected} columns, but X "
            f"has {n_columns}."
        )


class _ConvNet(nn.Module):
    """A stack of layers between rows of any leading shape."""

    def __init__(self, layers: Sequence[nn.Module], n_in: int, n_out: int):
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(x.reshape(-1, self.n_in))
        return out.reshape(*x.shape[:-1], self.n_out)


class _Elementwise(nn.Module):
    """An activation of the registry as a layer."""

    def __init__(self, name: str):
        super().__init__()
        self.function = get_activation(name)

    def extra_repr(self) -> str:
        return self.function.name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _uninitialised(
    kind: Callable[..., nn.Module], *args: int, **kwargs: Any
) -> nn.Module:
    # torch's own initialisation would draw from its global generator.
    return nn.utils.skip_init(kind, *args, **kwargs)


@dataclass(frozen=True)
class ConvEncoder:
    """Factory of a convolutional encoder for rows that are flattened images.

    Each stage is a 3 x 3 convolution of stride 2, which halves the image (rounding
    up), and an activation; a dense layer follows. Pass it as ``encoder=``.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width) or (channels, height, width): how a row is laid out.
    channels : tuple of int, default=(32, 64)
        Channels of the stages.
    activation : str, default="silu"
        Activation of the stages.

    See Also
    --------
    ConvDecoder : The way back.

    Examples
    --------
    >>> import torch
    >>> from skvae import ConvEncoder
    >>> encoder = ConvEncoder((8, 8), channels=(4,))(64, 10)
    >>> encoder(torch.zeros(3, 64)).shape
    torch.Size([3, 10])
    """

    image_shape: tuple[int, ...]
    channels: tuple[int, ...] = (32, 64)
    activation: str = "silu"

    def __call__(
        self, n_in: int, n_out: int, generator: torch.Generator | None = None
    ) -> nn.Module:
        """Make the network.

        Parameters
        ----------
        n_in : int
            Columns of X, which `image_shape` must multiply to.
        n_out : int
            Number of outputs.
        generator : torch.Generator or None, default=None
            Draws the initial weights; None draws from one seeded with 0.

        Returns
        -------
        network : nn.Module
            Maps (..., n_in) to (..., n_out).

        Raises
        ------
        ValueError
            If `image_shape` does not fit `n_in`.
        """
        depth, height, width = shape = _shape(self.image_shape)
        _check_columns(shape, n_in)
        draw = Drawer(generator)
        layers: list[nn.Module] = [nn.Unflatten(1, shape)]
        for channels in self.channels:
            conv = _uninitialised(nn.Conv2d, depth, channels, 3, stride=2, padding=1)
            layers += [draw.fill(conv, depth * 9), _Elementwise(self.activation)]
            depth, height, width = channels, -(-height // 2), -(-width // 2)
        units = depth * height * width
        dense = draw.fill(_uninitialised(nn.Linear, units, n_out), units, gain=1.0)
        return _ConvNet([*layers, nn.Flatten(), dense], n_in, n_out)


@dataclass(frozen=True)
class ConvDecoder:
    """Factory of a convolutional decoder that gives flattened images.

    A dense layer, then for each stage an activation and a 3 x 3 transposed
    convolution of stride 2, which doubles the image. Pass it as ``decoder=``.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width) or (channels, height, width): how a row is laid out.
    channels : tuple of int, default=(64, 32)
        Channels before each stage.
    activation : str, default="silu"
        Activation of the stages.

    See Also
    --------
    ConvEncoder : The way there.

    Examples
    --------
    >>> import torch
    >>> from skvae import ConvDecoder
    >>> decoder = ConvDecoder((8, 8), channels=(4,))(10, 64)
    >>> decoder(torch.zeros(3, 10)).shape
    torch.Size([3, 64])
    """

    image_shape: tuple[int, ...]
    channels: tuple[int, ...] = (64, 32)
    activation: str = "silu"

    def __call__(
        self, n_in: int, n_out: int, generator: torch.Generator | None = None
    ) -> nn.Module:
        """Make the network.

        Parameters
        ----------
        n_in : int
            Number of components of the code.
        n_out : int
            Number of outputs: the columns of X, or a multiple where the likelihood
            takes several numbers a column; the last layer then has as many channels.
        generator : torch.Generator or None, default=None
            Draws the initial weights; None draws from one seeded with 0.

        Returns
        -------
        network : nn.Module
            Maps (..., n_in) to (..., n_out).

        Raises
        ------
        ValueError
            If `image_shape` does not fit `n_out`.
        """
        shape = _shape(self.image_shape)
        height, width = shape[1:]
        pixels = height * width
        if n_out % math.prod(shape):
            _check_columns(shape, n_out)
        draw = Drawer(generator)
        sizes = [(height, width)]
        for _ in self.channels:
            height, width = -(-height // 2), -(-width // 2)
            sizes.append((height, width))
        channels = [*self.channels, n_out // pixels]
        units = channels[0] * height * width
        dense = draw.fill(_uninitialised(nn.Linear, n_in, units), n_in)
        layers: list[nn.Module] = [dense, nn.Unflatten(1, (channels[0], height, width))]
        for i, size in enumerate(reversed(sizes[:-1])):
            # An even side needs one more row than stride 2 gives.
            extra = tuple(1 - side % 2 for side in size)
            pair = channels[i], channels[i + 1]
            up = _uninitialised(
                nn.ConvTranspose2d, *pair, 3, stride=2, padding=1, output_padding=extra
            )
            last = i == len(self.channels) - 1
            # At stride 2 an output pixel sees 9 / 4 of the kernel's taps on average.
            fan_in = round(channels[i] * 9 / 4)
            layers += [
                _Elementwise(self.activation),
                draw.fill(up, fan_in, gain=1.0 if last else 2.0),
            ]
        return _ConvNet([*layers, nn.Flatten()], n_in, n_out)


NetworkSpec = nn.Module | Callable[..., nn.Module]

_default_generator_lock = threading.RLock()


@contextmanager
def lent_default_generator(generator: torch.Generator | None) -> Iterator[None]:
    """Let foreign code draw from torch's global generator, seeded by ours, restored."""
    if generator is None:
        yield
        return
    seed = torch.empty((), dtype=torch.int64, device=generator.device)
    seed.random_(0, 2**31, generator=generator)
    lent = torch.Generator().manual_seed(int(seed))
    with _default_generator_lock:
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(lent.get_state())
        try:
            yield
        finally:
            torch.default_generator.set_state(before)


def build_network(
    spec: NetworkSpec,
    n_in: int,
    n_out: int,
    *,
    generator: torch.Generator | None = None,
    name: str = "network",
) -> nn.Module:
    """Make a network from a user's module or factory and check its output width.

    Parameters
    ----------
    spec : nn.Module or callable
        A module is deep-copied, so it is never trained in place; its weights are kept.
        A callable is called as ``spec(n_in, n_out)``, with ``generator=`` too if it
        has such a parameter.
    n_in : int
        Number of inputs.
    n_out : int
        Number of outputs the network must have.
    generator : torch.Generator or None, default=None
        Makes the initial weights reproducible. A factory without such a parameter
        draws from torch's global generator, which is seeded from this one meanwhile
        and restored. None leaves that to the factory.
    name : str, default="network"
        Name of the parameter in error messages.

    Returns
    -------
    network : nn.Module
        The network, in the training or evaluation mode it came in.

    Raises
    ------
    TypeError
        If `spec` is no module and no callable, or the factory makes no module.
    ValueError
        If the network does not map (2, n_in) to (2, n_out).

    See Also
    --------
    ConvEncoder, ConvDecoder : Factories for images.

    Examples
    --------
    >>> from torch import nn
    >>> from skvae._factories import build_network
    >>> build_network(nn.Linear, 4, 2)
    Linear(in_features=4, out_features=2, bias=True)
    """
    if not callable(spec):
        raise TypeError(
            f"The {name!r} parameter must be a torch.nn.Module or a callable "
            f"(n_in, n_out) -> torch.nn.Module. Got {spec!r} instead."
        )
    is_module = isinstance(spec, nn.Module)
    passes = not is_module and _accepts_generator(spec)
    with lent_default_generator(None if passes else generator):
        if is_module:
            network = copy.deepcopy(spec)
        else:
            network = spec(n_in, n_out, **({"generator": generator} if passes else {}))
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"The callable given as {name!r} must return a torch.nn.Module. "
                f"Got {type(network).__name__} instead."
            )
        _check_width(network, n_in, n_out, name)
    return network


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each part back into its own mode."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _accepts_generator(spec: Callable[..., Any]) -> bool:
    try:
        parameter = inspect.signature(spec).parameters.get("generator")
    except (TypeError, ValueError):  # some built-in callables have no signature
        return False
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter is not None and parameter.kind in kinds


def _check_width(network: nn.Module, n_in: int, n_out: int, name: str) -> None:
    """Raise unless two rows of zeros give two rows of `n_out` numbers."""
    like = next((p for p in network.parameters() if p.is_floating_point()), None)
    zeros = torch.zeros(2, n_in)
    zeros = zeros if like is None else zeros.to(like.device, like.dtype)
    try:
        with in_evaluation(network), torch.no_grad():
            out = network(zeros)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"The network given as {name!r} does not take rows of {n_in} numbers: "
            f"{error}"
        ) from error
    got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if got != (2, n_out):
        raise ValueError(
            f"The network given as {name!r} must map an input of shape (2, {n_in}) to "
            f"an output of shape (2, {n_out}). Got {got} instead."
        )
