"""Convolutional networks for rows that are flattened images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skvae._fused import get_activation

__all__ = ["ConvDecoder", "ConvEncoder", "Drawer"]


class Drawer:
    """Draws initial parameters from one explicit generator, on its device."""

    def __init__(
        self,
        generator: torch.Generator | None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        self.generator = generator or torch.Generator().manual_seed(0)
        self.dtype, self.device = dtype, device

    def normal(self, shape: Sequence[int], std: float) -> nn.Parameter:
        values = torch.empty(tuple(shape), dtype=self.dtype, device=self.generator.device)
        values.normal_(0.0, std, generator=self.generator)
        return nn.Parameter(values.to(self.device or "cpu"))

    def he(self, n_out: int, n_in: int) -> nn.Parameter:
        return self.normal((n_out, n_in), math.sqrt(2 / n_in))

    def xavier(self, n_out: int, n_in: int) -> nn.Parameter:
        return self.normal((n_out, n_in), math.sqrt(2 / (n_in + n_out)))

    def zeros(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(shape, dtype=self.dtype, device=self.device))

    def fill(self, layer: nn.Module, fan_in: int, gain: float = 2.0) -> nn.Module:
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


def _uninitialised(kind: Callable[..., nn.Module], *args: int, **kwargs: Any) -> nn.Module:
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
    >>> from skvae._networks import ConvEncoder
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
    >>> from skvae._networks import ConvDecoder
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
        depth, height, width = shape = _shape(self.image_shape)
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
