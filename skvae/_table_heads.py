"""Heads of chosen columns of a table: which, and a normal density over codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Highest coefficient of the squared score: a variance of ten in normal scores.
_MOST_CURVED = 0.45
_CHOICES = ("categorical", "gaussian")


def chosen_heads(likelihood: dict[Any, str], names: list[str]) -> dict[int, str]:
    """Return the head asked for of each column, by position.

    Parameters
    ----------
    likelihood : dict
        Head of columns by name or position.
    names : list of str
        Columns of the table.

    Raises
    ------
    ValueError
        If there is no such column or head.
    """
    chosen = {}
    for column, head in likelihood.items():
        is_position = isinstance(column, (int, np.integer))
        if column in names:
            j = names.index(column)
        elif is_position and 0 <= column < len(names):
            j = int(column)
        else:
            raise ValueError(
                f"likelihood names the unknown column {column!r}. Known columns are "
                f"{names}."
            )
        if head not in _CHOICES:
            raise ValueError(
                f"The likelihood of column {names[j]!r} must be a str among "
                f"{list(_CHOICES)}. Got {head!r} instead."
            )
        chosen[j] = head
    return chosen


def with_categories(categorical_features: Any, chosen: dict[int, str]) -> Any:
    """Return `categorical_features` with the columns whose head is categorical."""
    more = [j for j, head in chosen.items() if head == "categorical"]
    if not more:
        return categorical_features
    if isinstance(categorical_features, str):
        return more
    declared = np.asarray(categorical_features)
    if declared.dtype == bool:
        return [*np.flatnonzero(declared).tolist(), *more]
    return np.array([*declared.tolist(), *more], dtype=object)


def gaussian_heads(codec: Any, chosen: dict[int, str]) -> list[dict[str, Any]]:
    """Describe the normal heads of a fitted codec in plain values.

    Raises
    ------
    ValueError
        If a column holds categories.
    """
    heads = []
    values, frequencies = codec.code_values, codec.code_frequencies
    for j, head in chosen.items():
        if head != "gaussian":
            continue
        column, first = codec.columns[j], int(codec.offsets[j])
        if column.kind not in ("numeric", "time"):
            raise ValueError(
                f"likelihood='gaussian' was asked for column {codec.names[j]!r}, which "
                "holds categories. Use 'categorical', or leave it out."
            )
        last = first + int(codec.sizes[j]) - int(column.missing_code >= 0)
        heads.append(
            {
                "first": first,
                "scores": [float(v) for v in values[first:last]],
                "shares": [float(v) for v in frequencies[first:last]],
            }
        )
    return heads


class GaussianHeads(nn.Module):
    r"""Confine the logits of chosen columns to normal densities over their codes.

    With :math:`c_i` the normal score of code i and :math:`f_i` its share of the
    training rows,

    .. math:: p(i \mid z) \propto f_i \exp(a(z)\, c_i + b(z)\, c_i^2), \quad b < 1/2,

    is the normal density with variance :math:`1 / (1 - 2 b)` and mean
    :math:`a / (1 - 2 b)` in normal scores, spread over the codes. The coefficients are
    those of the weighted least-squares fit to the logits. The code of a missing cell
    keeps its logit.

    Parameters
    ----------
    heads : list of dict
        As `gaussian_heads` returns.
    dtype : torch.dtype
        Type of the logits.
    """

    def __init__(self, heads: list[dict[str, Any]], dtype: Any):
        super().__init__()
        self.places = []
        for i, head in enumerate(heads):
            scores, shares = np.asarray(head["scores"]), np.asarray(head["shares"])
            self.places.append(slice(head["first"], head["first"] + len(scores)))
            design = np.stack([np.ones_like(scores), scores, scores**2], axis=1)
            root = np.sqrt(np.maximum(shares, 1e-12))[:, None]
            fit = np.linalg.pinv(design * root) * root.T
            parts = {"design": design, "fit": fit, "base": np.log(shares)}
            for name, value in parts.items():
                tensor = torch.as_tensor(value, dtype=dtype)
                self.register_buffer(f"{name}{i}", tensor, persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Return logits of which the chosen columns are normal."""
        logits = logits.clone()
        for i, place in enumerate(self.places):
            design, fit, base = (
                getattr(self, f"{name}{i}") for name in ("design", "fit", "base")
            )
            level, slope, curve = ((logits[..., place] - base) @ fit.t()).unbind(-1)
            curve = curve.clamp(max=_MOST_CURVED)
            tilt = torch.stack([level, slope, curve], dim=-1) @ design.t()
            logits[..., place] = base + tilt
        return logits

    def shifts(self, terms: Tensor) -> Tensor:
        """Return terms of the logits that move the mean of the chosen columns alone."""
        terms = terms.clone()
        for i, place in enumerate(self.places):
            design, fit = getattr(self, f"design{i}"), getattr(self, f"fit{i}")
            slope = terms[..., place] @ fit[1]
            terms[..., place] = slope.unsqueeze(-1) * design[:, 1]
        return terms
