"""Devices by their names, and whether this machine has them."""

from __future__ import annotations

from typing import Any

import torch


def is_available(kind: str) -> bool:
    """Tell whether a kind of device is here; of unknown kinds torch will tell."""
    if kind == "cuda":
        return torch.cuda.is_available()
    return kind != "mps" or torch.backends.mps.is_available()


def device_of(name: Any) -> torch.device:
    """Resolve the `device` parameter, or say what is wrong with it."""
    if name == "auto":
        kinds = [kind for kind in ("cuda", "mps") if is_available(kind)]
        return torch.device(kinds[0] if kinds else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"Invalid device={name!r}: it must be 'auto', 'cpu', 'cuda', 'cuda:1', "
            "'mps' or another name torch.device takes."
        ) from error
    if not is_available(device.type):
        raise ValueError(
            f"device={name!r} was requested but {device.type.upper()} is not "
            "available on this machine. Use device='cpu' or device='auto'."
        )
    return device
