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
