"""Categorical likelihood of a table: one block of logits that holds every head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvae._random import stratified
from skvae._table_heads import DerivedHeads
from skvae.likelihoods import Likelihood


class _TableLogProb(torch.autograd.Function):
    """Sum over columns of the log-softmax at each column's code, as one node."""

    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, index: Tensor, known: Tensor | None, member: Tensor
    ) -> Tensor:
        highest = raw.amax(dim=-1, keepdim=True)
        # A head 80 nats below another one in the same row still does not underflow.
        powers = (raw - highest).clamp_min_(-80.0).exp_()
        sums = powers @ member
        cells = raw.gather(-1, index) - torch.log(sums) - highest
        if known is not None:
            cells = cells * known
        ctx.save_for_backward(powers, sums, index, member, known)
        return cells.sum(dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        powers, sums, index, member, known = ctx.saved_tensors
        (grad,) = grads
        share = grad.unsqueeze(-1) if known is None else grad.unsqueeze(-1) * known
        share = share.expand(sums.shape).contiguous()
        # Whatever runs in half precision around it.
        with torch.autocast(powers.device.type, enabled=False):
            gradient = (share / -sums) @ member.t()
        gradient.mul_(powers).scatter_add_(-1, index, share)
        return gradient, None, None, None


def is_complete(x: Tensor) -> bool:
    """Tell whether all cells of coded rows are known."""
    return not bool((x < 0).any())


class TableLikelihood(Likelihood):
    r"""Categorical likelihood of every column, evaluated as one block.

    .. math:: \log p(x \mid z) = \sum_j \log \mathrm{softmax}(r_j(z))_{x_j}

    Parameters
    ----------
    sizes : sequence of int
        Codes of each column.
    derived : list of dict
        Columns that another one determines; see `DerivedHeads`.
    dtype : torch.dtype
        Type of their logits.
    """

    offsets: Tensor
    member: Tensor

    def __init__(self, sizes: Any, derived: Any = (), dtype: Any = torch.float32):
        sizes = np.asarray(sizes, dtype=np.int64)
        super().__init__(len(sizes))
        self.n_outputs = int(sizes.sum())
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.register_buffer("offsets", torch.as_tensor(offsets))
        member = np.repeat(np.eye(len(sizes)), sizes, axis=0)
        self.register_buffer("member", torch.as_tensor(member, dtype=torch.float32))
        self.derived = DerivedHeads(derived, sizes, dtype) if derived else None

    @property
    def ends(self) -> Tensor:
        """Position after the last code of each column, among all codes."""
        return self.offsets + self.member.sum(0).long()

    @property
    def followers(self) -> list[int]:
        """Columns that another one determines."""
        if self.derived is None:
            return []
        return [j for children in self.derived.families.values() for j in children]

    def log_prob(self, x: Tensor, raw: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute log p(x | z) of each row, in nats over the codes.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_columns)
            Codes; -1 is a cell that is not known and left out. In training mode there
            must be none.
        raw : Tensor of shape (..., n_rows, n_outputs)
            Logits.
        mask : None
            Unused: cells that are not known have the code -1.

        Returns
        -------
        log_prob : Tensor of shape (..., n_rows)
            Nats per row.
        """
        # In training all cells are known: looking would wait for the device.
        complete = self.training or is_complete(x)
        return self._log_prob(x, self._given(x, raw, complete), complete)

    def _log_prob(self, x: Tensor, raw: Tensor, complete: bool) -> Tensor:
        known = None if complete else (x >= 0).to(raw.dtype)
        index = x.clamp_min(0) + self.offsets
        index = index.expand(*raw.shape[:-1], index.shape[-1])
        if known is not None:
            known = known.expand(index.shape)
        return _TableLogProb.apply(raw, index, known, self.member.to(raw.dtype))

    def log_prob_columns(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute log p(x_j | z) of each cell, in nats; see `log_prob`."""
        raw = self._given(x, raw, is_complete(x))
        highest = raw.amax(dim=-1, keepdim=True)
        powers = torch.exp((raw - highest).clamp_min(-80.0))
        normaliser = torch.log(powers @ self.member.to(raw.dtype)) + highest
        index = (x.clamp_min(0) + self.offsets).expand(*raw.shape[:-1], x.shape[-1])
        return (raw.gather(-1, index) - normaliser) * (x >= 0)

    def mean(self, raw: Tensor) -> Tensor:
        """Compute the probability of every code of every column.

        Parameters
        ----------
        raw : Tensor of shape (..., n_rows, n_outputs)
            Logits.

        Returns
        -------
        probabilities : Tensor of shape (..., n_rows, n_outputs)
            They sum to one over the codes of each column.
        """
        return self._shares(self._given(torch.full_like(self.offsets, -1), raw, False))

    def _shares(self, logits: Tensor) -> Tensor:
        highest = logits.amax(dim=-1, keepdim=True)
        powers = torch.exp((logits - highest).clamp_min(-80.0))
        member = self.member.to(logits.dtype)
        return powers / ((powers @ member) @ member.t())

    def _given(self, x: Tensor, raw: Tensor, complete: bool) -> Tensor:
        """Return the logits of every column given the cells that come before it."""
        if self.derived is None:
            return raw
        if complete:
            return self.derived.follow(x, raw)
        return self.derived.predict(x, raw)[0]

    def margins(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Compute probabilities whose sum over rows is what draws come to; see `mean`.

        Parameters
        ----------
        raw : Tensor of shape (n_rows, n_outputs)
            Logits.
        generator : torch.Generator
            Source of randomness, where a column needs those before it.

        Returns
        -------
        probabilities : Tensor of shape (n_rows, n_outputs)
            They sum to one over the codes of each column.
        """
        return self.mean(raw)

    def mode(self, raw: Tensor) -> Tensor:
        """Compute the most probable code of each column.

        Parameters
        ----------
        raw : Tensor of shape (..., n_rows, n_outputs)
            Logits.

        Returns
        -------
        codes : Tensor of shape (..., n_rows, n_columns)
            Codes.
        """
        sizes = self.member.sum(0).long().tolist()
        shares = self.mean(raw).split(sizes, dim=-1)
        return torch.stack([share.argmax(-1) for share in shares], dim=-1)

    def draw(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a code for each column.

        Parameters
        ----------
        raw : Tensor of shape (n_rows, n_outputs)
            Logits.
        generator : torch.Generator
            Source of randomness.

        Returns
        -------
        codes : Tensor of shape (n_rows, n_columns)
            Codes.
        """
        unknown = torch.full_like(self.offsets, -1)
        ranks = stratified(len(raw), self.n_features, generator)
        return self._fill(unknown, raw, ranks)[-1]

    def complete(
        self, x: Tensor, raw: Tensor, ranks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the cells that are not known.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_columns)
            Codes; -1 is a cell to draw.
        raw : Tensor of shape (..., n_rows, n_outputs)
            Logits.
        ranks : Tensor of shape (..., n_rows, n_columns)
            Uniform numbers, double precision, to draw the cells by.

        Returns
        -------
        codes : Tensor of shape (..., n_rows, n_columns)
            Codes, the known ones as they are.
        log_prob : Tensor of shape (..., n_rows)
            Nats of the known cells, given those drawn before them.
        logits : Tensor of shape (..., n_rows, n_outputs)
            What the cells were drawn from.
        """
        before, after, codes = self._fill(x, raw, ranks)
        return codes, self._log_prob(x, before, is_complete(x)), after

    def _fill(
        self, x: Tensor, raw: Tensor, ranks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits before and after cells are known, and the completed rows."""
        before = after = raw
        if self.derived is not None:
            before, after = self.derived.predict(x, raw)
        # All heads share one running sum: a rank in a head's part is a code.
        running = self._shares(after).double().cumsum(dim=-1)
        last = running[..., self.ends - 1]
        first = torch.cat([torch.zeros_like(last[..., :1]), last[..., :-1]], dim=-1)
        found = torch.searchsorted(running, first + ranks * (last - first), right=True)
        drawn = torch.minimum(torch.maximum(found, self.offsets), self.ends - 1)
        codes = torch.where(x < 0, drawn - self.offsets, x)
        if self.derived is not None:
            codes = self.derived.complete(x, codes)
        return before, after, codes

    def expected(self, codes: Tensor, logits: Tensor, share: Tensor) -> Tensor:
        """Compute the probability of every code over weighted draws of `complete`.

        Parameters
        ----------
        codes : Tensor of shape (n_draws, n_rows, n_columns)
            Completed rows.
        logits : Tensor of shape (n_draws, n_rows, n_outputs)
            What they were drawn from.
        share : Tensor of shape (n_draws, n_rows)
            Weights, which sum to one over the draws of a row.

        Returns
        -------
        probabilities : Tensor of shape (n_rows, n_outputs)
            They sum to one over the codes of each column.
        """
        return torch.einsum("kb,kbl->bl", share, self._shares(logits))
