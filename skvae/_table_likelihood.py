"""Categorical likelihood of a table: one block of logits that holds every head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvae.likelihoods import Likelihood


class _TableLogProb(torch.autograd.Function):
    """Sum over columns of the log-softmax at each column's code, as one node."""

    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, index: Tensor, known: Tensor | None, member: Tensor
    ) -> Tensor:
        highest = raw.amax(dim=-1, keepdim=True)
        # A head 80 nats below another one in the same row still does not underflow.
        powers = torch.exp((raw - highest).clamp_min_(-80.0))
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
        share = share.expand(sums.shape)
        # Whatever runs in half precision around it.
        with torch.autocast(powers.device.type, enabled=False):
            gradient = (share / sums) @ member.t()
        gradient.mul_(powers).neg_()
        gradient.scatter_add_(-1, index, share.contiguous())
        return gradient, None, None, None


class TableLikelihood(Likelihood):
    r"""Categorical likelihood of every column, evaluated as one block.

    .. math:: \log p(x \mid z) = \sum_j \log \mathrm{softmax}(r_j(z))_{x_j}

    Parameters
    ----------
    sizes : sequence of int
        Codes of each column.
    """

    offsets: Tensor
    member: Tensor

    def __init__(self, sizes: Any):
        sizes = np.asarray(sizes, dtype=np.int64)
        super().__init__(len(sizes))
        self.n_outputs = int(sizes.sum())
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.register_buffer("offsets", torch.as_tensor(offsets))
        member = np.repeat(np.eye(len(sizes)), sizes, axis=0)
        self.register_buffer("member", torch.as_tensor(member, dtype=torch.float32))

    def log_prob(self, x: Tensor, raw: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute log p(x | z) of each row, in nats over the codes.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_columns)
            Codes; -1 is a cell that is not known and left out.
        raw : Tensor of shape (..., n_rows, n_outputs)
            Logits.
        mask : None
            Unused: codes say themselves what is not known.

        Returns
        -------
        log_prob : Tensor of shape (..., n_rows)
            Nats per row.
        """
        unknown = x < 0
        known = (~unknown).to(raw.dtype) if bool(unknown.any()) else None
        index = x.clamp_min(0) + self.offsets
        index = index.expand(*raw.shape[:-1], index.shape[-1])
        if known is not None:
            known = known.expand(index.shape)
        return _TableLogProb.apply(raw, index, known, self.member.to(raw.dtype))

    def log_prob_columns(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute log p(x_j | z) of each cell, in nats; see `log_prob`."""
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
        highest = raw.amax(dim=-1, keepdim=True)
        powers = torch.exp((raw - highest).clamp_min(-80.0))
        member = self.member.to(raw.dtype)
        return powers / ((powers @ member) @ member.t())

    def probabilities(self, x: Tensor, raw: Tensor) -> Tensor:
        """Compute the probability of every code in rows whose codes are known.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_columns)
            Codes.
        raw : Tensor of shape (..., n_rows, n_outputs)
            Logits.

        Returns
        -------
        probabilities : Tensor of shape (..., n_rows, n_outputs)
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
        return torch.stack([r.argmax(-1) for r in raw.split(sizes, dim=-1)], dim=-1)

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
        # All heads share one running sum: a rank in a head's part is a code.
        running = self.mean(raw).double().cumsum(dim=-1)
        ends = self.offsets + self.member.sum(0).long()
        last = running[..., ends - 1]
        first = torch.cat([torch.zeros_like(last[..., :1]), last[..., :-1]], dim=-1)
        rank = stratified(last, generator)
        found = torch.searchsorted(running, first + rank * (last - first), right=True)
        return (
            torch.minimum(torch.maximum(found, self.offsets), ends - 1) - self.offsets
        )

    def complete(
        self, x: Tensor, raw: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw the cells that are not known.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_columns)
            Codes; -1 is a cell to draw.
        raw : Tensor of shape (..., n_rows, n_outputs)
            Logits.
        generator : torch.Generator
            Source of randomness.

        Returns
        -------
        codes : Tensor of shape (..., n_rows, n_columns)
            Codes, the known ones as they are.
        log_prob : Tensor of shape (..., n_rows)
            Nats of the known cells, given those drawn before them.
        """
        flat = self.draw(raw.reshape(-1, raw.shape[-1]), generator)
        drawn = flat.view(*raw.shape[:-1], x.shape[-1])
        return torch.where(x < 0, drawn, x), self.log_prob(x, raw)

    def expected(self, codes: Tensor, raw: Tensor, share: Tensor) -> Tensor:
        """Compute the probability of every code over weighted draws of `complete`.

        Parameters
        ----------
        codes : Tensor of shape (n_draws, n_rows, n_columns)
            Completed rows.
        raw : Tensor of shape (n_draws, n_rows, n_outputs)
            Logits they were drawn from.
        share : Tensor of shape (n_draws, n_rows)
            Weights, which sum to one over the draws of a row.

        Returns
        -------
        probabilities : Tensor of shape (n_rows, n_outputs)
            They sum to one over the codes of each column.
        """
        return torch.einsum("kb,kbl->bl", share, self.mean(raw))


def stratified(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw uniform numbers spread evenly over the columns of consecutive rows.

    A randomly shifted Kronecker sequence with the square roots of the primes: each
    number is uniform, and consecutive rows cover [0, 1] evenly in every column. Rows
    come ordered along a curve through the codes, so a sample's margins hold little
    noise.
    """
    n, d = like.shape
    steps = torch.as_tensor(np.sqrt(_primes(d)) % 1.0, device=like.device)
    shift = torch.rand(d, generator=generator, dtype=torch.float64, device=like.device)
    rows = torch.arange(n, dtype=torch.float64, device=like.device)[:, None]
    return ((rows * steps + shift) % 1.0).to(like.dtype)


def _primes(n: int) -> np.ndarray:
    """Return the first n primes."""
    limit = int(max(15, n * (np.log(n + 1) + np.log(np.log(n + 3)) + 2)))
    is_prime = np.ones(limit, dtype=bool)
    is_prime[:2] = False
    for i in range(2, int(limit**0.5) + 1):
        if is_prime[i]:
            is_prime[i * i :: i] = False
    return np.flatnonzero(is_prime)[:n].astype(np.float64)
