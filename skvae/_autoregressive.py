r"""Heads of a table that depend on the columns before them.

Given the code alone, columns are independent: whatever they share has to pass through
the code, the fine structure of a table too. Here the logits of a column also depend on
the columns to its left,

.. math:: \log p(x \mid z) = \sum_j \log \mathrm{softmax}\Big(r_j(z)
          + \sum_{i < j} e_i(x_i) W_{ij}\Big)_{x_j}

with :math:`e_i` an embedding, a short vector for each code of column i, and :math:`W`
the context weights. What is local goes this way, what concerns many columns stays in
the code [1]_. The context weights have a normal prior: few rows hardly move them. Pairs
of codes that never come together, though each is frequent, have fixed terms beside
them.

References
----------
.. [1] Chen et al. (2017). Variational Lossy Autoencoder. arXiv:1611.02731
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from skvae._embedding import embedding_gradient
from skvae._excluded import ExcludedPairs
from skvae._smoothing import BinSmoother
from skvae._table_heads import GaussianHeads
from skvae._table_likelihood import TableLikelihood, is_complete
from skvae.objectives import ParameterPenalty

# Effective draws at which counts of drawn codes have half of the weight.
_ENOUGH = 15
# Size of the random embedding; that of bins is small beside their normal score.
SPREAD, _SPREAD_BINS = 0.3, 0.1


class _ContextMatrices(torch.autograd.Function):
    """Embedding and context weights, masked and smoothed, as one node."""

    @staticmethod
    def forward(
        ctx: Any, entries: Tensor, weight: Tensor, mask: Tensor, smoother: BinSmoother
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(mask)
        ctx.smoother, width = smoother, len(entries)
        both = smoother.mixed(torch.cat([entries, weight * mask]))
        return both[:width].t().contiguous(), both[width:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (mask,), (to_entries, to_weight) = ctx.saved_tensors, grads
        total = ctx.smoother(torch.cat([to_entries.t(), to_weight]), back=True)
        width = to_entries.shape[1]
        return total[:width], total[width:] * mask, None, None


class _WeightedSquares(torch.autograd.Function):
    """Weighted sum of squared differences, as one node."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, start: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, start, weights)
        away = values - start
        return torch.dot(away.view(-1), (away * weights).view(-1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        values, start, weights = ctx.saved_tensors
        return (values - start) * (2 * grads[0] * weights), None, None


class _AddContext(torch.autograd.Function):
    """Logits plus embeddings of the columns before times weights, as one node."""

    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, entries: Tensor, weight: Tensor, index: Tensor
    ) -> Tensor:
        context = nn.functional.embedding(index, entries).flatten(-2)
        ctx.save_for_backward(entries, weight, index, context)
        # Whatever runs in half precision around it.
        with torch.autocast(raw.device.type, enabled=False):
            if raw.dim() == context.dim() == 2:
                return torch.addmm(raw.to(context.dtype), context, weight)
            return raw + context @ weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        entries, weight, index, context = ctx.saved_tensors
        (grad,) = grads
        # Importance samples share the codes.
        total = grad.sum_to_size(*context.shape[:-1], grad.shape[-1]).flatten(0, -2)
        with torch.autocast(grad.device.type, enabled=False):
            to_weight = context.flatten(0, -2).t() @ total
            to_context = (total @ weight.t()).view(-1, entries.shape[1])
        to_entries = embedding_gradient(to_context, index.flatten(), len(entries))
        return grad, to_entries, to_weight, None


@dataclass(frozen=True)
class ContextPenalty(ParameterPenalty):
    r"""Squared change of the context weights since their start.

    With the weight :math:`\lambda` it is, up to a constant, a row's share of the
    negative log-density of a normal prior around this start, in which smoothed weights
    have the variance :math:`1 / 2 \lambda n`. Rows held out judge the model without it.
    """

    name: ClassVar[str] = "context"

    def size(self, model: Any) -> Tensor:
        """Compute the penalty."""
        return model.likelihood.squared_norm()


class AutoregressiveLikelihood(TableLikelihood):
    """Categorical likelihood of each column given the code and the columns before it.

    Parameters
    ----------
    sizes : sequence of int
        Codes of each column.
    width : int
        Length of the embedding of a code.
    bin_runs : sequence of sequence of int
        Positions of codes that are neighbouring bins, whose embeddings and context
        weights are smoothed.
    smoothing : float
        Standard deviation of the smoothing kernel, in bins.
    gaussian : sequence of dict
        Columns whose logits are normal, of which the mean alone depends on the columns
        before; see `GaussianHeads`.
    derived : list of dict
        Columns that another one determines, which are no context and have none.
    excluded : sequence of (int, int, float)
        Codes that never come together; see `ExcludedPairs`.
    scores : sequence of float
        Normal score of each code; see `skvae._smoothing.kernel_of`.
    generator : torch.Generator
        Draws the first embedding.
    dtype : torch.dtype
        Type of the weights.
    """

    mask: Tensor
    start: Tensor
    stiffness: Tensor

    def __init__(
        self,
        sizes: Any,
        *,
        width: int,
        bin_runs: Any,
        smoothing: float,
        gaussian: Any = (),
        derived: Any = (),
        excluded: Any = (),
        scores: Any = (),
        generator: torch.Generator,
        dtype: Any,
    ):
        super().__init__(sizes, derived, dtype)
        self.width = width
        of_code = np.repeat(np.arange(len(sizes)), sizes)
        of_entry = np.repeat(np.arange(len(sizes)), width)
        apart = self.followers
        before = of_entry[:, None] < of_code
        before &= ~np.isin(of_entry, apart)[:, None] & ~np.isin(of_code, apart)
        mask = torch.as_tensor(before, dtype=dtype)
        self.register_buffer("mask", mask, persistent=False)
        self.heads = GaussianHeads(gaussian, dtype) if gaussian else None
        self.excluding = {int(of_code[first]) for first, _, _ in excluded}
        self.excluded = ExcludedPairs(excluded, self.n_outputs, dtype)
        self.smoother = BinSmoother(bin_runs, smoothing, self.n_outputs, dtype, scores)
        # Smoothed weights vary less: those of bins are to vary as those of levels do.
        unit = torch.ones(self.n_outputs, dtype=dtype)
        stiffness = self.smoother.variances(unit)
        self.register_buffer("stiffness", stiffness, persistent=False)
        entries = torch.empty(width, self.n_outputs, dtype=dtype)
        entries.normal_(std=SPREAD, generator=generator)
        for run in self.smoother.runs:
            entries[:, run] *= _SPREAD_BINS / SPREAD
        self.entries = nn.Parameter(entries)
        # At first logits depend on the code alone.
        self.weight = nn.Parameter(torch.zeros_like(self.mask))
        self.register_buffer("start", torch.zeros_like(self.mask))

    def start_at(self, weight: Tensor) -> None:
        """Begin at weights, which the penalty then draws back to."""
        with torch.no_grad():
            self.start.copy_(weight * self.mask)
            self.weight.copy_(self.start)

    def probabilities(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute the probability of every code given the codes before; see `mean`."""
        return self._shares(self._given(x, raw, is_complete(x)))

    def margins(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the probability of every code, given draws of the codes before."""
        return self.probabilities(self.draw(raw, generator), raw)

    def expected(self, codes: Tensor, logits: Tensor, share: Tensor) -> Tensor:
        """Compute the probability of every code; see `TableLikelihood`.

        Counts of the drawn codes know how a cell fits those to its right, but may rest
        on few draws; the probabilities they were drawn by are smooth, but depend on the
        cells to the left only. The more draws carry the weight, the more counts count.
        """
        smooth = super().expected(codes, logits, share)
        effective = 1 / share.square().sum(0).unsqueeze(1)
        trust = effective / (effective + _ENOUGH)
        return torch.lerp(smooth, self.counts(codes, share), trust)

    def counts(self, codes: Tensor, share: Tensor) -> Tensor:
        """Add up the weights of each code, over draws of shape (n_draws, n_rows)."""
        index = (codes + self.offsets).transpose(0, 1).flatten(1)
        weights = share.t().unsqueeze(-1).expand(-1, -1, codes.shape[-1]).flatten(1)
        counts = share.new_zeros(len(index), self.n_outputs)
        return counts.scatter_add_(1, index, weights)

    def squared_norm(self) -> Tensor:
        """Compute the sum of squares of what was learned, in units of its variance."""
        return _WeightedSquares.apply(self.weight, self.start, self.stiffness)

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """Return the embedding (n_codes, width) and weights, masked and smoothed."""
        inputs = (self.entries, self.weight, self.mask, self.smoother)
        entries, weight = _ContextMatrices.apply(*inputs)
        return entries, weight if self.heads is None else self.heads.shifts(weight)

    def _given(self, x: Tensor, raw: Tensor, complete: bool) -> Tensor:
        """Return the logits of every column given the cells before it.

        Of a cell that is not known the embedding is averaged by its probabilities.
        """
        if not complete:
            return self._visit(x, raw)[0]
        if self.excluding:
            raw = raw + self.excluded(x + self.offsets)
        logits = _AddContext.apply(raw, *self._matrices(), x + self.offsets)
        return logits if self.derived is None else self.derived.follow(x, logits)

    def _fill(
        self, x: Tensor, raw: Tensor, ranks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw each cell given those before it; see `TableLikelihood`."""
        return self._visit(x, raw, ranks.expand(*raw.shape[:-1], -1))

    def _visit(
        self, x: Tensor, raw: Tensor, ranks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Go through the columns in order, filling in the cells that are not known.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_columns)
            Codes; -1 is a cell that is not known.
        raw : Tensor of shape (..., n_rows, n_outputs)
            Logits by the code alone.
        ranks : Tensor of shape (..., n_rows, n_columns) or None, default=None
            Uniform numbers to draw cells by; None averages embeddings instead.

        Returns
        -------
        before : Tensor of shape (..., n_rows, n_outputs)
            Logits given the cells before.
        after : Tensor of shape (..., n_rows, n_outputs)
            The same, but of a parent also given the columns that follow from it.
        codes : Tensor of shape (..., n_rows, n_columns)
            Codes, those of drawn cells filled in.
        """
        entries, weight = self._matrices()
        before = raw.to(weight.dtype, copy=True)
        after = before if self.derived is None else before.clone()
        codes = x.expand(*raw.shape[:-1], self.n_features).clone()
        x = codes.clone()
        context = before.new_zeros(*raw.shape[:-1], len(weight))
        places = torch.stack([self.offsets, self.ends], dim=1).tolist()
        apart = self.followers
        for j, (first, last) in enumerate(places):
            if j in apart:
                continue
            start, stop = j * self.width, (j + 1) * self.width
            before[..., first:last] += context[..., :start] @ weight[:start, first:last]
            own = before[..., first:last]
            if self.derived is not None:
                after[..., first:last] = own
                if j in self.derived.families:
                    self.derived.predict_family(j, x, before, after)
                own = after[..., first:last]
            share = torch.softmax(own, dim=-1)
            weights: Tensor | None = share
            if ranks is not None:
                drawn, weights = _at_rank(share, ranks[..., j]), None
                codes[..., j] = torch.where(x[..., j] >= 0, x[..., j], drawn)
            own_entries, own_codes = entries[first:last], codes[..., j]
            context[..., start:stop] = _looked_up(own_entries, own_codes, weights)
            if j in self.excluding:
                terms = self.excluded.terms_of(first, last)[:, last:]
                before[..., last:] += _looked_up(terms, own_codes, weights)
        if self.derived is not None and ranks is not None:
            codes = self.derived.complete(x, codes)
        return before, after, codes


def _looked_up(table: Tensor, codes: Tensor, share: Tensor | None) -> Tensor:
    """Return the row of a table for each code, the mean row by shares where it is -1.

    Without shares all codes are known.
    """
    if share is None:
        return table[codes]
    of_code = table[codes.clamp_min(0)]
    return torch.where((codes < 0).unsqueeze(-1), share @ table, of_code)


def _at_rank(share: Tensor, rank: Tensor) -> Tensor:
    """Return the code at which the running sum of the shares passes the rank."""
    running = share.double().cumsum(dim=-1)
    passed = rank.unsqueeze(-1) * running[..., -1:]
    found = torch.searchsorted(running, passed, right=True).squeeze(-1)
    return found.clamp_max(share.shape[-1] - 1)
