"""Fixed terms of the logits for codes of a table that never come together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ExcludedPairs(nn.Module):
    """Fixed terms of the logits, which training need not find out.

    Parameters
    ----------
    pairs : sequence of (int, int, float)
        Positions of two codes among all codes, the first one further left, and nats
        that the second one loses where a row has the first.
    n_outputs : int
        Codes of all columns.
    dtype : torch.dtype
        Type of the logits.
    """

    place: Tensor
    terms: Tensor

    def __init__(self, pairs: Any, n_outputs: int, dtype: Any):
        super().__init__()
        table = np.asarray(pairs, dtype=np.float64).reshape(-1, 3)
        first, second = table[:, :2].astype(np.int64).T
        sources, row = np.unique(first, return_inverse=True)
        # Row 0 is that of all codes that exclude nothing.
        place = torch.zeros(n_outputs, dtype=torch.int64)
        place[torch.as_tensor(sources)] = torch.arange(1, len(sources) + 1)
        terms = np.zeros((len(sources) + 1, n_outputs))
        terms[row + 1, second] = -table[:, 2]
        self.register_buffer("place", place, persistent=False)
        self.register_buffer(
            "terms", torch.as_tensor(terms, dtype=dtype), persistent=False
        )

    def terms_of(self, first: int, last: int) -> Tensor:
        """Return the terms of each code between two positions."""
        return self.terms[self.place[first:last]]

    def forward(self, positions: Tensor) -> Tensor:
        """Return the sum of the terms of all columns.

        Parameters
        ----------
        positions : Tensor of shape (..., n_columns)
            Positions of the codes of rows.

        Returns
        -------
        terms : Tensor of shape (..., n_outputs)
            To be added to the logits.
        """
        flat = self.place[positions].flatten(0, -2)
        terms = nn.functional.embedding_bag(flat, self.terms, mode="sum")
        return terms.view(*positions.shape[:-1], -1)
