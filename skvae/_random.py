"""Seeds and generators: one ``random_state`` in, explicit generators out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state

if TYPE_CHECKING:
    import torch

_MAX_SEED = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Seeds:
    """Independent seeds of one fit, drawn from ``random_state`` in this order."""

    init: int
    split: int
    shuffle: int
    noise: int
    evaluation: int


def draw_seeds(random_state: Any) -> Seeds:
    """Draw the seeds of one fit; an int gives the same seeds at every call."""
    random_state = check_random_state(random_state)
    return Seeds(*(int(s) for s in random_state.randint(_MAX_SEED, size=5)))


def torch_generator(seed: int, device: Any = "cpu") -> torch.Generator:
    """Make a seeded generator on a device; torch's global state is not touched."""
    import torch

    return torch.Generator(device=device).manual_seed(seed)


def draw_torch_generator(random_state: Any, device: Any = "cpu") -> torch.Generator:
    """Make a generator from anything `random_state` may be."""
    seed = int(check_random_state(random_state).randint(_MAX_SEED))
    return torch_generator(seed, device)


def even_normals(n: int, d: int, seed: int) -> torch.Tensor:
    """Return n normal draws of dimension d that cover the space evenly, in float64.

    A scrambled Sobol sequence: each draw is normal, their averages have less error
    than those of independent draws, and the first k of n are those of k. Dimensions
    beyond the 21 201 of the sequence are independent.
    """
    import torch

    engine = torch.quasirandom.SobolEngine
    width = min(d, engine.MAXDIM)
    places = engine(width, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    # The ends of [0, 1] are no normal number.
    half = 0.5**engine.MAXBIT / 2
    even = torch.special.ndtri(places.clamp(half, 1 - half))
    rest = torch.empty((d - width, n), dtype=torch.float64)
    return torch.cat([even, rest.normal_(generator=torch_generator(seed)).T], dim=1)


def stratified(n: int, d: int, generator: torch.Generator) -> torch.Tensor:
    """Draw uniform numbers spread evenly over the columns of consecutive rows.

    A randomly shifted Kronecker sequence with the square roots of the primes: each
    number is uniform, and consecutive rows cover [0, 1] evenly in every column.
    """
    import torch

    place: Any = {"dtype": torch.float64, "device": generator.device}
    steps = torch.as_tensor(np.sqrt(_primes(d)) % 1.0, **place)
    shift = torch.rand(d, generator=generator, **place)
    return (torch.arange(n, **place)[:, None] * steps + shift) % 1.0


def _primes(n: int) -> np.ndarray:
    """Return the first n primes."""
    limit = int(max(15, n * (np.log(n + 1) + np.log(np.log(n + 3)) + 2)))
    is_prime = np.ones(limit, dtype=bool)
    is_prime[:2] = False
    for i in range(2, int(limit**0.5) + 1):
        if is_prime[i]:
            is_prime[i * i :: i] = False
    return np.flatnonzero(is_prime)[:n].astype(np.float64)
