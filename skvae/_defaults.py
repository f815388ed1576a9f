"""What "auto" stands for, from the rows at hand: every default that is a figure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skvae._plan import TrainingPlan
from skvae.objectives import KLDivergence

SMALL = 50  # Rows below which none are held out.
_STEPS, _STEPS_SMALL, _STEPS_VARIATIONAL, _STEPS_TABLE = 3000, 500, 2000, 2250
# Steps of a generator of a small table, at least and a row: more learn its rows by
# heart, and hardly more of the dependence between columns.
_STEPS_TABLE_SMALL, _STEPS_PER_ROW = 1250, 2 / 3
# Epochs of a table at most: a hundred rows have no more to tell.
_EPOCHS_TABLE = 1000
_RATE, _RATE_VARIATIONAL, _RATE_TABLE, _RATE_MANY = 1e-3, 2e-3, 3e-3, 6e-3
_MANY = 10_000  # Rows from which on a table takes larger batches and steps.
_PRIOR_COMPONENTS = 32
# Noise on the encoder's input by default: sqrt(10 / n) sd, at most 0.3, and none from
# 2000 rows on; sqrt(5 / n) for a variational model.
_INPUT_NOISE_ROWS, _INPUT_NOISE_ROWS_VAE = 10, 5
_MAX_INPUT_NOISE, _ROWS_WITHOUT_NOISE = 0.3, 2000
# Share of cells hidden from the encoder: sqrt(30 / n), none of many rows.
_MASKING_ROWS = 30
# Training rows from which on a noise that changes with the code pays.
_ROWS_FOR_NOISE = 270
# What a generator of rows learns late, the dependence between columns, hardly shows in
# the bound of few held-out rows: a standard error of it is not held against it.
_STANDARD_ERRORS = 1.0
# Components of the mixture a table starts at.
_TABLE_COMPONENTS = 128
# Length of the embedding of a code of a table, at most and at least; of those of all
# columns together, and number of context weights, at most.
_ENTRY, _MIN_ENTRY, _CONTEXT, _CONTEXT_WEIGHTS = 8, 2, 512, 1 << 20
# Squares of context weights cost (320 / n)^2 nats a row. A prior of one
# variance would cost 1 / n, which either lets a few hundred rows be learned by heart or
# blurs what thousands of them say in detail.
_CONTEXT_ROWS = 320
# Squares of the means and log-variances of a table's prior cost 10 / n nats a row: with
# less, normals close in on few rows. Where rows are many they cost (150 / n)^2, so that
# the prior can follow the codes in detail.
_PRIOR_ROWS, _PRIOR_MANY = 10, 150


def training_plan(est: Any, recipe: Any, n: int, *, partial: bool) -> TrainingPlan:
    """Resolve how n rows are trained on; one constant epoch if partial."""
    table = est.likelihood_ == "table"
    batch_size = est.batch_size
    if batch_size == "auto":
        batch_size = _batch_size(table, n)
    batch_size = int(min(batch_size, n))
    max_iter = est.max_iter
    if max_iter == "auto":
        steps = max(1, math.ceil(n / batch_size))
        max_iter = _epochs(table, recipe.variational, n, steps)
    if partial:
        max_iter = 1
    patience = est.n_iter_no_change
    if patience == "auto":
        patience = max(5, math.ceil(max_iter / 5))
    rate = est.learning_rate_init
    if rate == "auto":
        rate = _learning_rate(est, recipe, n)
    return TrainingPlan(
        max_iter=int(max_iter),
        batch_size=batch_size,
        learning_rate=rate,
        weight_decay=est.weight_decay,
        schedule="constant" if partial else "cosine",
        clip=math.sqrt(est.n_features_in_),
        patience=patience,
        standard_errors=_STANDARD_ERRORS if table else 0.0,
    )


def _batch_size(table: bool, n: int) -> int:
    """Resolve `batch_size`."""
    if table and n > _MANY:
        return 512
    return 256 if n > 50_000 else 128


def _learning_rate(est: Any, recipe: Any, n: int) -> float:
    """Resolve `learning_rate_init`."""
    if est.likelihood_ == "table":
        if n > _MANY:
            return _RATE_MANY
        if not entry_width(est, recipe):
            return _RATE_TABLE
    return _RATE_VARIATIONAL if recipe.variational else _RATE


def _epochs(table: bool, variational: bool, n: int, steps: int) -> int:
    """Resolve `max_iter`, epochs of so many steps."""
    if table:
        budget: float = _STEPS_TABLE if n > _MANY else _STEPS_VARIATIONAL
        if variational:
            budget = min(budget, max(_STEPS_TABLE_SMALL, _STEPS_PER_ROW * n))
        return min(max(5, math.ceil(budget / steps)), _EPOCHS_TABLE)
    budget = _STEPS_VARIATIONAL if variational else _STEPS
    return max(5, math.ceil((budget if n >= SMALL else _STEPS_SMALL) / steps))


def code_width(est: Any, recipe: Any, table_sizes: list[int]) -> int:
    """Resolve `n_components`; a prior switches off components that are not needed."""
    if est.n_components != "auto":
        return int(est.n_components)
    d = est.n_features_in_
    if table_sizes:
        return min(10, max(2, sum(table_sizes) - d))
    return min(10, max(1, d - 1 if recipe.variational else d // 2))


def noise_family(est: Any, recipe: Any, n: int, *, unlabelled: bool = False) -> Any:
    """Resolve the noise of a gaussian likelihood.

    Rows without a label find their class by the likelihood, which tells classes apart
    better while its noise does not follow them.
    """
    if recipe.noise != "auto":
        return recipe.noise
    if unlabelled:
        return "feature"
    trained = est.max_iter != 0 and not has_own_network(est)
    return "heteroscedastic" if n >= _ROWS_FOR_NOISE and trained else "feature"


def prior_family(est: Any, recipe: Any) -> str:
    """Learn the prior from a classical start, not beside textbook regularisers."""
    if recipe.prior != "auto":
        return str(recipe.prior)
    kl = [t for t in recipe.terms if isinstance(t, KLDivergence)]
    if est.init != "auto" or any(t.free_bits > 0 for t in kl):
        return "normal"
    # Without a divergence nothing teaches the prior.
    plain = bool(kl) and all(t.weight in ("auto", 1) for t in kl)
    follows = plain and est.max_iter != 0 and not has_own_network(est)
    return "mixture" if follows or est.likelihood_ == "table" else "normal"


def has_own_network(est: Any) -> bool:
    """Tell whether the user brought an encoder or a decoder."""
    return not (est.encoder is None and est.decoder is None)


def prior_components(n: int) -> int:
    """Resolve the components of a mixture prior."""
    return max(1, min(_PRIOR_COMPONENTS, n // 20))


def table_components(est: Any, n: int) -> int:
    """Resolve the components of the mixture a table starts at."""
    return int(np.clip(n // 40, 1, _TABLE_COMPONENTS if est.init == "auto" else 1))


def entry_width(est: Any, recipe: Any) -> int:
    """Resolve the width of embeddings in the context of columns; 0 is no context.

    Only a density gains by it: what columns know of each other by the context is
    missing in the code, and a deterministic model has nothing else.
    """
    d = est.n_features_in_
    if not recipe.variational or est.decoder is not None or d < 2:
        return 0
    if d * _MIN_ENTRY > _CONTEXT:
        return 0
    weights = d * int(est._columns.codec.sizes.sum())
    return int(
        np.clip(_CONTEXT_WEIGHTS // weights, _MIN_ENTRY, min(_ENTRY, _CONTEXT // d))
    )


def context_penalty(n: int) -> float:
    """Resolve the weight of `ContextPenalty`, a prior that n rows outweigh."""
    return (_CONTEXT_ROWS / n) ** 2


def prior_penalty(est: Any, recipe: Any, n: int) -> float:
    """Resolve the weight of `PriorPenalty`; 0 of a prior that is not a mixture."""
    mixture = recipe.variational and prior_family(est, recipe) == "mixture"
    return min(_PRIOR_ROWS / n, (_PRIOR_MANY / n) ** 2) if mixture else 0.0


def input_noise(est: Any, recipe: Any, n: int) -> float:
    """Resolve the noise on the encoder's input: what n rows leave uncertain.

    It is a standard deviation for gaussian rows, and for a table the share of cells
    that are hidden.
    """
    if recipe.variational and est.likelihood_ == "table":
        masks = n <= _MANY
        return min(_MAX_INPUT_NOISE, math.sqrt(_MASKING_ROWS / n)) if masks else 0.0
    if est.likelihood_ != "gaussian" or n >= _ROWS_WITHOUT_NOISE:
        return 0.0
    rows = _INPUT_NOISE_ROWS_VAE if recipe.variational else _INPUT_NOISE_ROWS
    return min(_MAX_INPUT_NOISE, math.sqrt(rows / n))
