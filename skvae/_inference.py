"""Encoding of numeric rows by as few products as there are layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skvae._networks import LinearPlusMLP
from skvae._rows import dense_chunks


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
        k = len(like) if module.prior is None else len(like) // 2
        center = torch.tensor(np.asarray(columns.center)).to(like)
        inverse = torch.tensor(1 / np.asarray(columns.scale)).to(like)
        self.center = center if bool(center.any()) else None
        self.k, self.dtype = k, like.numpy().dtype
        self.activation = encoder.activation
        self.outputs = [encoder.output_activation]
        if module.code_activation is not None:
            self.outputs.append(module.code_activation)
        weights = [w.detach() for w in encoder.weights]
        self.hidden: list[tuple[Tensor, Tensor]] = []
        for i, bias in enumerate(encoder.biases):
            weight = weights[i] * (encoder.in_scale * inverse) if i == 0 else weights[i]
            self.hidden.append((weight.clone(), bias.detach().clone()))
        self.bias = like[:k].clone()
        last = weights[-1][:k].clone() if weights else None
        linear = encoder.linear_weight
        if linear is not None:
            linear = F.pad(
                linear.detach()[:k] * inverse, (0, 0, 0, k - len(linear[:k]))
            )
            linear = linear.t()
        if not self.hidden and last is not None:
            # Without hidden layers the two paths are one.
            single = last * (encoder.in_scale * inverse)
            linear = single.t() if linear is None else linear + single.t()
            last = None
        self.last, self.linear = last, linear

    @classmethod
    def of(cls, module: Any, columns: Any) -> FoldedEncoder | None:
        """Fold the encoder of a module, None where rows need more than products."""
        encoder = module.encoder
        plain = type(encoder) is LinearPlusMLP and encoder.bias.device.type == "cpu"
        if not plain or columns.kind != "numeric" or columns.has_missing:
            return None
        with torch.no_grad():
            return cls(module, columns)

    def is_current(self, module: Any) -> bool:
        """Tell whether the weights are those that were folded."""
        return module is self.module and all(
            p._version == v for p, v in zip(self.sources, self.versions, strict=True)
        )

    def __call__(self, X: Any, size: int) -> np.ndarray:
        """Encode validated rows, dense or sparse, so many at a time."""
        codes = np.empty((X.shape[0], self.k), dtype=self.dtype)
        start = 0
        for part in dense_chunks(X, size):
            # In C order: sums over columns depend on the layout in their last bit.
            rows = torch.from_numpy(np.require(part, self.dtype, ["C", "W"]))
            codes[start : start + size] = self._encode(rows).numpy()
            start += size
        return codes

    def _encode(self, x: Tensor) -> Tensor:
        if self.center is not None:
            x = x - self.center
        if self.last is None:
            out = torch.addmm(self.bias, x, self.linear)
        else:
            hidden = x
            for weight, bias in self.hidden:
                hidden = F.linear(hidden, weight, bias)
                in_place = self.activation.in_place
                hidden = (in_place or self.activation.forward)(hidden)
            out = F.linear(hidden, self.last, self.bias)
            if self.linear is not None:
                out.addmm_(x, self.linear)
        for activation in self.outputs:
            out = activation(out)
        return out
