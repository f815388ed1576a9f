"""Encoding and drawing of numeric rows by one product a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skvae._networks import LinearPlusMLP
from skvae._rows import dense_chunks
from skvae.likelihoods import Gaussian

_ROWS = 1024  # Rows whose layers stay in the cache.
_FEW = 64  # Rows whose layers are worth keeping.


class FoldedEncoder:
    """An encoder with the scalings of its columns folded into its matrices.

    Only rows minus their centre enter it: folding that in as well would cancel
    digits in columns far from zero. Half of a variational encoder, the log-variances,
    is left out.

    Parameters
    ----------
    module : AutoencoderModule
        A trained module whose encoder is a plain network.
    columns : NumericColumns
        Scaling of the columns.
    """

    def __init__(self, module: Any, columns: Any):
        encoder = module.encoder
        self.sources = [*encoder.parameters(), encoder.in_scale]
        self.versions = [p._version for p in self.sources]
        self.module = module
        like = encoder.bias.detach()
        k = module.size_of_code(len(like))
        center = torch.tensor(np.asarray(columns.center)).to(like)
        inverse = torch.tensor(1 / np.asarray(columns.scale)).to(like)
        self.center = center if bool(center.any()) else None
        self.k, self.dtype = k, like.numpy().dtype
        self.products = _Products(encoder, k, inverse)
        self.activation = module.code_activation

    @classmethod
    def of(cls, module: Any, columns: Any) -> FoldedEncoder | None:
        """Fold the encoder of a module, None where rows need more than products."""
        plain = _is_plain(module.encoder, columns) and module.features is None
        if not plain or columns.has_missing:
            return None
        with torch.no_grad():
            return cls(module, columns)

    def is_current(self, module: Any) -> bool:
        """Tell whether the weights are those that were folded."""
        return module is self.module and all(
            p._version == v for p, v in zip(self.sources, self.versions, strict=True)
        )

    def __call__(self, X: Any) -> np.ndarray:
        """Encode validated rows, dense or sparse."""
        codes = np.empty((X.shape[0], self.k), dtype=self.dtype)
        outs, blocks = torch.from_numpy(codes).split(_ROWS), self.products.blocks
        for layers, rows, out in zip(
            blocks(len(codes)), self._blocks(X), outs, strict=True
        ):
            if self.center is None:
                layers.rows.copy_(rows)
            else:
                torch.sub(rows, self.center, out=layers.rows)
            z = layers(out)
            if self.activation is not None:
                z.copy_(self.activation(z))
        return codes

    def _blocks(self, X: Any) -> Iterable[Tensor]:
        """Yield rows by the block, as tensors that share their memory if they can."""
        if isinstance(X, np.ndarray) and X.dtype == self.dtype and X.flags.writeable:
            # torch knows no rows or columns in reverse.
            X = X if min(X.strides) >= 0 else np.ascontiguousarray(X)
            return torch.from_numpy(X).split(_ROWS)
        blocks = dense_chunks(X, _ROWS)
        return (torch.from_numpy(np.require(b, self.dtype, ["W"])) for b in blocks)


class FoldedDecoder:
    """A decoder that draws gaussian rows in the units of the data.

    The units of the columns are in its matrices; its noise is drawn in place.

    Parameters
    ----------
    module : AutoencoderModule
        A trained module whose decoder is a plain network.
    columns : NumericColumns
        Scaling of the columns.
    """

    def __init__(self, module: Any, columns: Any):
        decoder, likelihood = module.decoder, module.likelihood
        like = decoder.bias.detach()
        scale, center = (
            torch.tensor(np.asarray(v)).to(like)
            for v in (columns.scale, columns.center)
        )
        self.d, self.n_outputs = len(scale), len(like)
        self.products = _Products(decoder, self.n_outputs)
        matrix = self.products.matrices[-1]
        matrix[:, : self.d] *= scale
        matrix[-1, : self.d] += center
        self.sd: Tensor | None = None
        if likelihood.noise == "heteroscedastic":
            # exp(softplus(a)) is 1 + exp(a): a floored deviation is a sum.
            self.floor = likelihood.noise_floor * scale
            matrix[-1, self.d :] += likelihood.log_scale + scale.log()
        else:
            self.sd = likelihood.noise_variance().sqrt().to(like) * scale
        self.bounds = None
        if columns.low is not None:
            self.bounds = (columns.low * scale + center, columns.high * scale + center)

    @classmethod
    def of(cls, module: Any, columns: Any) -> FoldedDecoder | None:
        """Fold the decoder of a module, None where rows need more than products."""
        plain = type(module.likelihood) is Gaussian and _is_plain(
            module.decoder, columns
        )
        if not plain:
            return None
        with torch.no_grad():
            return cls(module, columns)

    def draw(self, z: Tensor, generator: torch.Generator) -> np.ndarray:
        """Draw the row of each code."""
        rows = torch.empty((len(z), self.d), dtype=z.dtype)
        size = min(len(z), _ROWS)
        outputs = rows.new_empty(size, self.n_outputs)
        noises = rows.new_empty(size, self.d)
        for layers, codes, row in zip(
            self.products.blocks(len(z)), z.split(_ROWS), rows.split(_ROWS), strict=True
        ):
            layers.rows.copy_(codes)
            raw, sd = layers(outputs[: layers.n]), self.sd
            if sd is None:
                sd = raw[:, self.d :].exp_().add_(self.floor)
            noise = noises[: layers.n].normal_(generator=generator)
            torch.addcmul(raw[:, : self.d], noise, sd, out=row)
            if self.bounds is not None:
                row.clamp_(*self.bounds)
        return rows.numpy()


class _Products:
    """A network as one product a layer.

    A bias is the last row of a matrix, met by a last input that is 1; the linear path
    is part of the last matrix, whose inputs are the last hidden layer and the rows.

    Parameters
    ----------
    network : LinearPlusMLP
        The network.
    n_out : int
        Outputs to keep.
    gain : Tensor of shape (n_in,), default=None
        Factor of the inputs.
    """

    def __init__(self, network: Any, n_out: int, gain: Tensor | None = None):
        weights = [w.detach() for w in network.weights]
        linear = network.linear_weight
        if linear is not None:
            linear = linear.detach()[:n_out]
            linear = F.pad(linear, (0, 0, 0, n_out - len(linear)))
        if weights:
            weights[0] = weights[0] * network.in_scale
            weights[-1] = weights[-1][:n_out]
        if len(weights) == 1:
            # Without hidden layers the two paths are one.
            single = weights.pop()
            linear = single if linear is None else linear + single
        if gain is not None:
            linear = None if linear is None else linear * gain
            weights[:1] = [w * gain for w in weights[:1]]
        self.activation = network.activation
        self.shares_rows = linear is not None and bool(weights)
        paths = [*weights[-1:], *([] if linear is None else [linear])]
        biases = [b.detach() for b in network.biases]
        layers = [[w, b[:, None]] for w, b in zip(weights[:-1], biases, strict=True)]
        layers.append([*paths, network.bias.detach()[:n_out, None]])
        self.matrices = [torch.cat(layer, 1).t().contiguous() for layer in layers]
        # Taken and put back whole, so that two threads never share one.
        self._spare: list[_Layers] = []

    def blocks(self, n: int) -> Iterator[_Layers]:
        """Yield the layers of each block of n rows; memory that nobody else uses."""
        layers = None
        for start in range(0, n, _ROWS):
            size = min(n - start, _ROWS)
            if layers is None or layers.n != size:
                layers = self._taken(size)
            yield layers
        # Making the layers of few rows costs as much as their products.
        if layers is not None and layers.n <= _FEW and not self._spare:
            self._spare.append(layers)

    def _taken(self, n: int) -> _Layers:
        try:
            spare = self._spare.pop()
        except IndexError:
            return _Layers(self, n)
        return spare if spare.n == n else _Layers(self, n)


class _Layers:
    """The products of a block of rows in memory of their own.

    Parameters
    ----------
    products : _Products
        The matrices.
    n : int
        Rows of the block.
    """

    def __init__(self, products: _Products, n: int):
        self.n = n
        matrices = products.matrices
        inputs = [matrices[0].new_ones(n, len(m)) for m in matrices]
        if products.shares_rows:
            inputs[0] = inputs[-1][:, -len(matrices[0]) :]
        self.rows = inputs[0][:, :-1]
        self.overwrite = products.activation.overwrite
        self.last = inputs.pop(), matrices[-1]
        outputs = [*inputs[1:], self.last[0]]
        self.hidden = [
            (rows, matrix, out[:, : matrix.shape[1]])
            for rows, matrix, out in zip(inputs, matrices, outputs, strict=False)
        ]

    def __call__(self, out: Tensor) -> Tensor:
        """Compute the outputs of `rows`."""
        for rows, matrix, hidden in self.hidden:
            self.overwrite(torch.mm(rows, matrix, out=hidden))
        return torch.mm(*self.last, out=out)


def _is_plain(network: Any, columns: Any) -> bool:
    plain = type(network) is LinearPlusMLP and network.bias.device.type == "cpu"
    return plain and columns.kind == "numeric"
