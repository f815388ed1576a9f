"""Codes of rows that are known in part: where to look for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skvae._mixture_density import ConditionalMixture
from skvae.priors import normal_log_prob

# Times the standard deviations, so that no tail is missed.
_WIDENED = 2 * math.log(1.2)
# Parts of the draws; those of the prior alone bound the weights.
_POSTERIOR, _GUIDED, _PRIOR = 0.6, 0.3, 0.1


class Proposals:
    """Distributions to draw the codes of rows from, to be weighted by p / q.

    Each is a mixture of what the encoder says of the row, of the normals of the prior
    by how well they tell the known cells, and of the prior.

    Parameters
    ----------
    prior : distribution
        Of the code.
    fit : callable or None
        Nats of the known cells given codes, (n, 1, n_components) to (n, n_rows); None
        where they need more than the code.
    like : Tensor of shape (n_rows, n_components)
        Of the shape and the type of codes.
    posterior : tuple of Tensor or None, default=None
        Means and log-variances from the encoder, each of shape (n_rows, n_components).
    """

    def __init__(
        self,
        prior: Any,
        fit: Callable[[Tensor], Tensor] | None,
        like: Tensor,
        posterior: tuple[Tensor, Tensor] | None = None,
    ):
        # Where the prior depends on a condition, each draw has its own.
        self.prior = _OfDraws(prior) if hasattr(prior, "shift") else prior
        self.like = like
        parts: list[tuple[float, Any]] = []
        if posterior is not None:
            mean, log_var = posterior
            parts.append((_POSTERIOR, _Normals(mean, log_var + _WIDENED)))
        if fit is not None and hasattr(prior, "means"):
            fits = fit(prior.means.unsqueeze(1))
            parts.append((_GUIDED, _Guided(prior, fits, like)))
        parts.append((_PRIOR, _Everywhere(self.prior)))
        total = sum(share for share, _ in parts)
        self.parts = [(share / total, part) for share, part in parts]

    def draw(
        self, n: int, generator: torch.Generator, *, alike: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Draw n codes for each row.

        Parameters
        ----------
        n : int
            Draws of each row.
        generator : torch.Generator
            Seeds the draws.
        alike : bool, default=False
            Whether rows share the noise, and do not depend on each other so.

        Returns
        -------
        z : Tensor of shape (n, n_rows, n_components)
            Codes.
        log_ratio : Tensor of shape (n, n_rows)
            log p(z) - log q(z), in nats.
        """
        rows, width = self.like.shape
        noise = self.like.new_empty(n, 1 if alike else rows, width)
        noise.normal_(generator=generator)
        ends = [0]
        for share, _ in self.parts[:-1]:
            ends.append(ends[-1] + int(n * share))
        drawn = [
            part.draw(noise[first:last], generator)
            for (_, part), first, last in zip(
                self.parts, ends, [*ends[1:], n], strict=True
            )
        ]
        z = torch.cat([codes.expand(-1, rows, -1) for codes in drawn])
        densities = [part.log_prob(z) + math.log(share) for share, part in self.parts]
        log_q = torch.logsumexp(torch.stack(densities), dim=0)
        return z, self.prior.log_prob(z) - log_q


class _Normals:
    """One normal for each row."""

    def __init__(self, mean: Tensor, log_var: Tensor):
        self.mean = mean
        self.log_var = log_var

    def draw(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return torch.addcmul(self.mean, noise, torch.exp(0.5 * self.log_var))

    def log_prob(self, z: Tensor) -> Tensor:
        return normal_log_prob(z, self.mean, self.log_var)


class _Guided:
    """The normals of a prior, for each row by how well they tell what is known."""

    def __init__(self, prior: Any, fits: Tensor, like: Tensor):
        log_weights = torch.log_softmax(prior.log_weights.unsqueeze(1) + fits, dim=0)
        wide = prior.log_vars + _WIDENED
        nowhere = torch.zeros_like(like)
        self.mixture = ConditionalMixture(log_weights.T, nowhere, prior.means, wide)

    def draw(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Draw components evenly by their weights, and a code from each."""
        mixture = self.mixture
        running = mixture.log_weights.double().exp().cumsum(-1)
        n, rows = noise.shape[:2]
        start = torch.rand((1, rows), generator=generator, device=running.device)
        order = torch.randperm(n, generator=generator, device=running.device)
        places = ((order.unsqueeze(1) + start) / n).to(running).T
        places = places.expand(len(running), -1) * running[:, -1:]
        chosen = torch.searchsorted(running, places.contiguous())
        chosen = chosen.clamp_max(running.shape[1] - 1).T
        spread = torch.exp(0.5 * mixture.log_vars[chosen])
        return torch.addcmul(mixture.means[chosen], noise, spread)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.mixture.log_prob(z)


class _Everywhere:
    """The prior, the same draws for all rows."""

    def __init__(self, prior: Any):
        self.prior = prior

    def draw(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        return self.prior.draw(len(noise), generator).to(noise).unsqueeze(1)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.prior.log_prob(z)


class _OfDraws:
    """A prior that differs from draw to draw, of which the last ones are drawn from."""

    def __init__(self, prior: Any):
        self.prior = prior

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        codes = self.prior.draw(len(self.prior.shift), generator)
        return codes[len(codes) - n :]

    def log_prob(self, z: Tensor) -> Tensor:
        return self.prior.log_prob(z.transpose(0, 1)).T
