"""What a fit decides where rows are a table: columns, heads, start and corruption."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from skvae._defaults import context_penalty, entry_width, prior_penalty
from skvae._table import TableCodec, fit_mixture
from skvae._table_effects import start_at_effects
from skvae._table_heads import chosen_heads, gaussian_heads, with_categories
from skvae._table_model import TableArchitecture, TableColumns
from skvae._table_starts import (
    has_context,
    start_at_classes,
    start_at_mixture,
    start_at_regressions,
)
from skvae.corruptions import Masking

# Posterior standard deviation, and that of the smoothing kernel over bins, in the
# mixture that training starts at and in the decoder.
_SPREAD = 0.5
_SMOOTHING_START, _SMOOTHING_DECODER = 1.0, 3.0
# Rounds of that mixture: later ones fit it to the training rows, not to others.
_START_ROUNDS = 30


def table_columns(est: Any, X: Any) -> tuple[TableColumns, dict[int, str]]:
    """Learn the columns of a table, and which heads were asked for by name."""
    heads: dict[int, str] = {}
    if isinstance(getattr(est, "likelihood", None), dict):
        names = list(getattr(X, "columns", []))
        heads = chosen_heads(est.likelihood, names or _numbered(X.shape[1]))
    declared = with_categories(est.categorical_features, heads)
    return TableColumns(TableCodec(categorical_features=declared).fit(X)), heads


def _numbered(d: int) -> list[str]:
    return [f"x{j}" for j in range(d)]


def table_architecture(
    est: Any, recipe: Any, heads: dict[int, str], n: int
) -> TableArchitecture:
    """Resolve the heads of a table of n training rows."""
    codec = est._columns.codec
    gaussian = gaussian_heads(codec, heads)
    if gaussian and est.decoder is not None:
        raise ValueError(
            "likelihood={...: 'gaussian'} needs decoder=None: an own decoder says "
            "itself what the logits are."
        )
    # A head that was asked for is learned.
    derived = [entry.to_dict() for entry in codec.derived if entry.child not in heads]
    return TableArchitecture(
        sizes=[int(s) for s in codec.sizes],
        bin_runs=[[int(c) for c in run] for run in codec.bin_runs],
        smoothing=_SMOOTHING_DECODER,
        gaussian=gaussian,
        derived=derived,
        excluded=_excluded(codec, gaussian),
        entry_width=entry_width(est, recipe),
        context_penalty=context_penalty(n),
        prior_penalty=prior_penalty(est, recipe, n),
        scores=codec.code_values.tolist(),
    )


def _excluded(
    codec: TableCodec, gaussian: list[dict[str, Any]]
) -> list[tuple[int, int, float]]:
    """Return pairs of codes that never come together; normal heads stay normal."""
    normal = {
        head["first"] + i for head in gaussian for i in range(len(head["scores"]))
    }
    return [pair for pair in codec.exclusions if pair[1] not in normal]


def start_table(est: Any, module: Any, batch: dict[str, Tensor], seed: int) -> None:
    """Start a table at a mixture of factorised columns, or at the margins."""
    codes = batch["x"].cpu().numpy()
    codec = est._columns.codec
    frequencies = np.asarray(codec.code_frequencies, dtype=np.float64)
    log_weights, log_probs = fit_mixture(
        codes,
        codec.sizes,
        est._architecture.n_mixture,
        bin_runs=codec.bin_runs,
        smoothing=_SMOOTHING_START,
        n_iter=_START_ROUNDS,
        rng=np.random.default_rng(seed),
    )
    start_at_mixture(
        module,
        np.asarray(log_weights, dtype=np.float64),
        np.asarray(log_probs, dtype=np.float64),
        frequencies,
        codec.code_values,
        _SPREAD,
    )
    if "condition" in batch:
        start_at_classes(module, codes, batch["condition"].cpu().numpy())
    if est.init == "auto" and has_context(module):
        rng = np.random.default_rng(seed)
        start_at_regressions(module, codes, codec, _SPREAD, rng)
        start_at_effects(module, batch, codec, _SPREAD, np.random.default_rng(seed))


def hidden_cells(recipe: Any, level: float) -> Masking | None:
    """Return what hides cells of codes from the encoder; None leaves it to the recipe.

    A masked cell is one that is not known. Codes have no gaussian noise: the default of
    a variational model hides cells instead.
    """
    if recipe.corruption == "salt_and_pepper":
        raise ValueError(
            "corruption='salt_and_pepper' needs numeric columns without "
            "categories. Use 'masking' or 'swap'."
        )
    own = recipe.variational and recipe.corruption == "gaussian"
    if level and (own or recipe.corruption == "masking"):
        return Masking(level, fill=-1)
    return None
