"""How long and how to train, every "auto" resolved."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how to train, every "auto" resolved.

    Parameters
    ----------
    max_iter : int
        Epochs at most.
    batch_size : int
        Rows a step.
    learning_rate : float
        Peak step size.
    weight_decay : float
        Decoupled weight decay of matrices; biases and scales have none.
    schedule : {"cosine", "constant"}
        Course of the step size over the steps.
    warmup : float
        Fraction of the steps over which a cosine schedule rises.
    clip : float
        Largest norm of the gradient, divided by the square root of the columns.
    patience : int
        Epochs without a better held-out loss before training stops.
    standard_errors : float
        Held-out losses this many standard errors above the best count as no worse
        while they are not above the start's, so that of weights chance cannot tell
        apart those trained longest are kept.
    """

    max_iter: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float = math.inf
    patience: int = 10
    standard_errors: float = 0.0

    def rate(self, progress: float) -> float:
        """Return the step size after a fraction of the training."""
        if self.schedule == "constant":
            return self.learning_rate
        if progress < self.warmup:
            return self.learning_rate * max(progress, 1e-3) / self.warmup
        turn = (progress - self.warmup) / (1 - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(turn, 1.0)))
