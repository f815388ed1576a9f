"""What the encoder sees of counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class CountFeatures(nn.Module):
    """Standardised log(1 + x): counts of any size are numbers of one size.

    Parameters
    ----------
    n_features : int
        Number of columns of a row.
    has_mask : bool
        Whether the encoder sees beside each column if it is there.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, n_features: int, has_mask: bool):
        super().__init__()
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        self.n_out = n_features * (1 + has_mask)

    def learn(self, X: np.ndarray) -> None:
        """Set mean and standard deviation of training rows, the latter if not 0."""
        logs = np.log1p(X.astype(np.float64))
        sd = logs.std(axis=0)
        self.center.copy_(torch.as_tensor(logs.mean(axis=0)))
        self.spread.copy_(torch.as_tensor(np.where(sd > 0, sd, 1.0)))

    def forward(
        self,
        x: Tensor,
        values: Tensor | None = None,
        corruption: Any = None,
        noise: Any = None,
    ) -> Tensor:
        """Return what stands for the rows, corrupted if asked for."""
        x = x if corruption is None else corruption(x, noise)
        return (torch.log1p(x.clamp(min=0.0)) - self.center) / self.spread

    def slope(self, x: Tensor) -> Tensor:
        """Return the derivative of each feature in its column.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        slope : Tensor of shape (n_rows, n_features)
            d/dx (log(1 + x) - center) / spread = 1 / ((1 + x) spread).
        """
        return 1 / ((1 + x.clamp(min=0.0)) * self.spread)
