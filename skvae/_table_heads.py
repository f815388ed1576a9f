"""Heads of chosen columns of a table: normal densities, and columns that follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Highest coefficient of the squared score: a variance of ten in normal scores.
_MOST_CURVED = 0.45
_CHOICES = ("categorical", "gaussian")
# Nats that a code of the parent loses where a known child rules it out.
_EXCLUDED = -50.0


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
        if codec.columns[j].kind not in ("numeric", "time"):
            raise ValueError(
                f"likelihood='gaussian' was asked for column {codec.names[j]!r}, which "
                "holds categories. Use 'categorical', or leave it out."
            )
        known = codec.places(j)[1]
        heads.append(
            {
                "first": known.start,
                "scores": [float(v) for v in values[known]],
                "shares": [float(v) for v in frequencies[known]],
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


class _Replace(torch.autograd.Function):
    """Put values in some places of the last axis, as one node."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, told: list[tuple[slice, Tensor]]) -> Tensor:
        ctx.places = [place for place, _ in told]
        logits = logits.clone()
        for place, values in told:
            logits[..., place] = values
        return logits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        grad = grads[0].clone()
        for place in ctx.places:
            grad[..., place] = 0.0
        return grad, None


class DerivedHeads(nn.Module):
    r"""Heads of columns that another column determines.

    The code of the child is :math:`f(c)` where the parent has code c, but for a small
    share :math:`\epsilon` of exceptions: :math:`p(f(c) \mid c) = 1 - \epsilon`. Nothing
    is learned. A child that is known tells, in turn, what its parent can be.

    Parameters
    ----------
    derived : list of dict
        "child", "parent", "codes" of the child by code of the parent, "exceptions".
    sizes : sequence of int
        Codes of each column.
    dtype : torch.dtype
        Type of the logits.
    """

    def __init__(self, derived: list[dict[str, Any]], sizes: Any, dtype: Any):
        super().__init__()
        sizes = [int(s) for s in sizes]
        ends = np.cumsum(sizes)
        self.places = [
            slice(int(e) - s, int(e)) for e, s in zip(ends, sizes, strict=True)
        ]
        self.families: dict[int, list[int]] = {}
        for entry in derived:
            child, codes = entry["child"], torch.as_tensor(entry["codes"])
            self.families.setdefault(entry["parent"], []).append(child)
            rest, others = entry["exceptions"], max(sizes[child] - 1, 1)
            follows = nn.functional.one_hot(codes, sizes[child]).bool()
            nats = {
                "table": (np.log1p(-rest), np.log(rest / others)),
                # Who asks for a level does not want exceptions nobody has seen.
                "rule": (0.0, _EXCLUDED),
            }
            self.register_buffer(f"codes{child}", codes, persistent=False)
            for name, (yes, no) in nats.items():
                values = torch.full(follows.shape, no).masked_fill(follows, yes)
                self.register_buffer(
                    f"{name}{child}", values.to(dtype), persistent=False
                )

    def predict(self, x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Say what children are, given the known cells.

        Parameters
        ----------
        x : Tensor of shape (..., n_columns)
            Codes; -1 is a cell that is not known.
        logits : Tensor of shape (..., n_outputs)
            Logits of the columns that are not derived.

        Returns
        -------
        before : Tensor of shape (..., n_outputs)
            Logits of each column before it is seen itself: the known cells' density.
        after : Tensor of shape (..., n_outputs)
            Logits after all known cells are seen: what to draw the others from.
        """
        before, after = logits.clone(), logits.clone()
        for parent in self.families:
            self.predict_family(parent, x, before, after)
        return before, after

    def follow(self, x: Tensor, logits: Tensor) -> Tensor:
        """Say what children are, their parents known; see `predict`."""
        told = [
            (self.places[child], getattr(self, f"table{child}")[x[..., parent]])
            for parent, children in self.families.items()
            for child in children
        ]
        return _Replace.apply(logits, told)

    def predict_family(
        self, parent: int, x: Tensor, before: Tensor, after: Tensor
    ) -> None:
        """Write the logits of a parent and its children into those of `predict`.

        By Bayes' rule known children change what is believed of their parent.
        """
        place, code = self.places[parent], x[..., parent]
        known = (code >= 0).unsqueeze(-1)
        belief = torch.log_softmax(before[..., place], dim=-1)
        for child in self.families[parent]:
            table, cell = getattr(self, f"table{child}"), x[..., child]
            before[..., self.places[child]] = self._child(belief, known, code, table)
            rule = getattr(self, f"rule{child}").t()[cell.clamp_min(0)]
            posterior = torch.log_softmax(belief + rule, dim=-1)
            belief = torch.where((cell >= 0).unsqueeze(-1), posterior, belief)
        after[..., place] = belief
        for child in self.families[parent]:
            table = getattr(self, f"table{child}")
            after[..., self.places[child]] = self._child(belief, known, code, table)

    @staticmethod
    def _child(belief: Tensor, known: Tensor, code: Tensor, table: Tensor) -> Tensor:
        """Return a child's log-probabilities, by what is known of its parent."""
        shares = belief.exp() @ table.exp().to(belief.dtype)
        usual = shares.clamp_min(1e-30).log()
        follows = table[code.clamp_min(0)].to(belief.dtype)
        return torch.where(known, follows, usual)

    def complete(self, x: Tensor, codes: Tensor) -> Tensor:
        """Return codes in which children that are not known follow their parents."""
        codes = codes.clone()
        for parent, children in self.families.items():
            for child in children:
                follows = getattr(self, f"codes{child}")[codes[..., parent]]
                codes[..., child] = torch.where(
                    x[..., child] < 0, follows, x[..., child]
                )
        return codes
