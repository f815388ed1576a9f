"""The squared norm of an encoder's Jacobian."""

from typing import Any

from torch import Tensor


def squared_jacobian_norm(module: Any, x: Tensor, method: str) -> Tensor:
    """Return the squared Frobenius norm of d code / d x of each row."""
    raise NotImplementedError
