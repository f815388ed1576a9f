"""Stacked pre-training: each layer first learns to give back what it is fed.

The greedy scheme of Vincent et al. (2010): a layer is trained as an autoencoder of
one layer on the output of the layer before, from corrupted inputs where the model
has a corruption, and then copied into the encoder and, mirrored, the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skvae._networks import FlatParameters, LinearPlusMLP, TiedDecoder
from skvae._optimizer import FlatAdamW
from skvae._plan import TrainingPlan
from skvae.corruptions import GaussianNoise, SaltAndPepper

_CHUNK = 4096
# Optimiser steps of all layers together, as a share of those of the fit.
SHARE = 0.25


class _Layer(nn.Module):
    """One layer there and back: act(x W' + b), then its outputs by V (or W) and c."""

    def __init__(
        self,
        parameters: tuple[Tensor, Tensor, Tensor | None, Tensor],
        code: Callable[[Tensor], Tensor],
        back: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        there, bias, home, home_bias = parameters
        self.there = nn.Parameter(there.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())
        self.home = None if home is None else nn.Parameter(home.detach().clone())
        self.home_bias = nn.Parameter(home_bias.detach().clone())
        self.code, self.back = code, back

    def encode(self, x: Tensor) -> Tensor:
        return self.code(F.linear(x, self.there, self.bias))

    def forward(self, x: Tensor) -> Tensor:
        home = self.there.t() if self.home is None else self.home
        # The encoder may see a mask beside the columns; there is none to give back.
        home = home[: len(self.home_bias)]
        return self.back(F.linear(self.encode(x), home, self.home_bias))


def check_stackable(module: Any) -> None:
    """Raise unless encoder and decoder are stacks of layers.

    Parameters
    ----------
    module : AutoencoderModule
        The module.

    Raises
    ------
    ValueError
        If one of them is a module of one's own, or has the heads of a table.
    """
    if type(module.encoder) is LinearPlusMLP and isinstance(
        module.decoder, (LinearPlusMLP, TiedDecoder)
    ):
        return
    raise ValueError(
        "init='layerwise' trains the layers of hidden_layer_sizes one by one: it needs "
        "numeric columns and cannot be combined with an 'encoder' or 'decoder' of "
        "one's own. Use init='random'."
    )


def start_layerwise(
    module: Any,
    take: Callable[[Any], dict[str, Tensor]],
    index: Any,
    plan: TrainingPlan,
    generator: torch.Generator,
) -> None:
    """Pre-train the layers of a module without linear path, one after the other.

    Parameters
    ----------
    module : AutoencoderModule
        Its encoder and decoder are changed in place.
    take : callable
        Returns the batch of given row numbers, with "x" and maybe "mask".
    index : ndarray of int
        Numbers of the training rows.
    plan : TrainingPlan
        Of the fit; a quarter of its steps is spent here, shared by the layers.
    generator : torch.Generator
        Draws batches and corruption, on the device of the rows.
    """
    encoder = module.encoder
    depth = len(encoder.weights)
    steps = math.ceil(len(index) / plan.batch_size) * plan.max_iter
    steps = math.ceil(SHARE * steps / depth)
    batches = [
        take(index[start : start + _CHUNK]) for start in range(0, len(index), _CHUNK)
    ]
    rows = torch.cat([module.encoder_input(**batch) for batch in batches])
    target = torch.cat([batch["x"] for batch in batches])
    seen = None
    if "mask" in batches[0]:
        seen = torch.cat([batch["mask"] for batch in batches])
    for number in range(depth):
        layer = _layer(module, number)
        corruption = _corruption(module, rows, number)
        _train(layer, rows, target, seen, corruption, steps, plan, generator)
        _copy(layer, module, number)
        with torch.no_grad():
            parts = [layer.encode(part) for part in rows.split(_CHUNK)]
        rows = target = torch.cat(parts)
        seen = None


def _places(module: Any, number: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return weight and bias of a layer, and those of the way back."""
    encoder, decoder = module.encoder, module.decoder
    last = len(encoder.weights) - 1
    mirrored = last - number
    bias = encoder.bias if number == last else encoder.biases[number]
    home_bias = decoder.bias if number == 0 else decoder.biases[mirrored]
    home = None if module.is_tied else decoder.weights[mirrored]
    return encoder.weights[number], bias, home, home_bias


def _layer(module: Any, number: int) -> _Layer:
    activation = module.encoder.activation
    is_code = number == len(module.encoder.weights) - 1
    code = activation
    if is_code:
        code = module.code_activation or (lambda x: x)
    back = activation if number else (lambda x: x)
    return _Layer(_places(module, number), code, back)


def _corruption(module: Any, rows: Tensor, number: int) -> Any:
    """Return the model's corruption in the units of the inputs of a layer."""
    corruption = module.corruption
    if number == 0 or corruption is None:
        return corruption
    if isinstance(corruption, GaussianNoise):
        return GaussianNoise(corruption.level * float(rows.std(correction=0)))
    if isinstance(corruption, SaltAndPepper):
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        return SaltAndPepper(corruption.level, low, high)
    # A function of one's own is for rows, not for hidden units.
    return None if hasattr(corruption, "function") else corruption


def _train(
    layer: _Layer,
    rows: Tensor,
    target: Tensor,
    seen: Tensor | None,
    corruption: Any,
    steps: int,
    plan: TrainingPlan,
    generator: torch.Generator,
) -> None:
    flat = FlatParameters(layer)
    optimizer = FlatAdamW([flat.all], lr=plan.learning_rate, weight_decay=0.0)
    n, d = len(rows), target.shape[1]
    order = torch.empty(0, dtype=torch.long, device=rows.device)
    for step in range(steps):
        if len(order) < plan.batch_size:
            order = torch.randperm(n, generator=generator, device=rows.device)
        chosen, order = order[: plan.batch_size], order[plan.batch_size :]
        x = rows[chosen]
        if corruption is not None:
            # Beside the columns there may be a mask, which stays as it is.
            x = torch.cat([corruption(x[:, :d], generator), x[:, d:]], dim=1)
        error = (layer(x) - target[chosen]).square()
        if seen is not None:
            error = error * seen[chosen]
        flat.zero_grad()
        (0.5 * error.sum() / len(chosen)).backward()
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step / steps)
        norm = torch.linalg.vector_norm(flat.grad).float()
        optimizer.quick_step(norm.div_(plan.clip).clamp_(min=1.0))
    flat.release()


def _copy(layer: _Layer, module: Any, number: int) -> None:
    there, bias, home, home_bias = _places(module, number)
    pairs = [(there, layer.there), (bias, layer.bias), (home_bias, layer.home_bias)]
    if home is not None and layer.home is not None:
        pairs.append((home, layer.home))
    with torch.no_grad():
        for place, value in pairs:
            place.copy_(value)
