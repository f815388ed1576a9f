"""From a plain description of a model to its torch module.

The description holds nothing but numbers, strings and tuples, so that it can be
stored with an estimator and the same module rebuilt from it when it is loaded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from skvae._autoregressive import AutoregressiveLikelihood, ContextPenalty
from skvae._counts import CountFeatures
from skvae._learned_prior import PriorPenalty
from skvae._module import AutoencoderModule
from skvae._networks import LinearPlusMLP, TiedDecoder, build_network
from skvae._table_likelihood import TableLikelihood
from skvae._table_model import TableArchitecture, TableDecoder, TableFeatures
from skvae.corruptions import make_corruption
from skvae.likelihoods import LIKELIHOODS
from skvae.priors import (
    ConditionalMixturePrior,
    MixturePrior,
    NormalPrior,
    VampPrior,
)

# Below one, codes of a table carry more; the learned prior follows them. They need to
# carry less where columns tell each other something as well.
_BETA_TABLE, _BETA_CONTEXT = 0.7, 0.85


@dataclass
class Architecture:
    """Everything that decides the shape of a module.

    Parameters
    ----------
    n_features, n_components, n_conditions : int
        Columns of the rows, of the code, and of the condition.
    hidden_layer_sizes : tuple of int
        Hidden units of the encoder; the decoder mirrors them.
    activation : str
        Activation of the hidden units.
    dropout : float
        Share of hidden units dropped while training.
    linear_path : bool
        Whether network and linear model are added.
    likelihood, noise : str, float
        Family of p(x | z) and, for gaussian, what its scale depends on.
    variational : bool
        Whether the encoder gives a distribution.
    prior, n_mixture : str, int
        Family of p(z) and its number of components.
    code_activation : str or None
        Applied to the code of a deterministic model.
    tied : bool
        Whether decoder weights are the encoder's transposed.
    has_mask : bool
        Whether the encoder sees which cells are observed.
    n_importance_samples : int
        Draws of z per row while training.
    dtype : str
        Of the parameters.
    table : TableArchitecture or None
        What decides the heads of a table; None for numeric rows.
    """

    n_features: int
    n_components: int
    n_conditions: int = 0
    hidden_layer_sizes: tuple[int, ...] = (128, 64)
    activation: str = "silu"
    dropout: float = 0.0
    linear_path: bool = True
    likelihood: str = "gaussian"
    noise: str | float = 1.0
    variational: bool = False
    prior: str = "normal"
    n_mixture: int = 0
    code_activation: str | None = None
    tied: bool = False
    has_mask: bool = False
    n_importance_samples: int = 1
    dtype: str = "float64"
    table: TableArchitecture | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Architecture:
        """Make the description from plain values."""
        state = {**state, "hidden_layer_sizes": tuple(state["hidden_layer_sizes"])}
        if state["table"] is not None:
            state["table"] = TableArchitecture(**state["table"])
        return cls(**state)


def build_module(
    arch: Architecture,
    generator: torch.Generator,
    *,
    encoder: Any = None,
    decoder: Any = None,
) -> AutoencoderModule:
    """Build a module with random weights drawn from `generator` on the CPU."""
    dtype = getattr(torch, arch.dtype)
    likelihood = _likelihood(arch, generator)
    features = _features(arch, generator)
    n_in = arch.n_features * (2 if arch.has_mask else 1)
    if features is not None:
        n_in = features.n_out
    n_code = arch.n_components * (2 if arch.variational else 1)
    encoder_net: Any
    if encoder is None:
        encoder_net = _network(arch, n_in, n_code, arch.n_components, False, generator)
    else:
        encoder_net = _own_encoder(arch, encoder, n_in, n_code, generator)
    n_in_decoder = arch.n_components + arch.n_conditions
    n_out = likelihood.n_outputs
    if decoder is not None:
        decoder_net = build_network(
            decoder, n_in_decoder, n_out, generator=generator, name="decoder"
        )
    elif arch.table is not None:
        decoder_net = _table_decoder(arch, arch.table, n_in_decoder, n_out, generator)
    elif arch.tied:
        # The encoder may see a mask beside the columns; there is none to give back.
        decoder_net = TiedDecoder(encoder_net, n_out=n_out)
    else:
        decoder_net = _network(
            arch, n_in_decoder, n_out, arch.n_features, True, generator
        )
    module = AutoencoderModule(
        encoder_net,
        decoder_net,
        likelihood,
        prior=_prior(arch, n_in, generator) if arch.variational else None,
        features=features,
        code_activation=_code_activation(arch.code_activation),
        n_importance_samples=arch.n_importance_samples,
    )
    return module.to(dtype=dtype)


def _own_encoder(
    arch: Architecture, encoder: Any, n_in: int, n_out: int, generator: torch.Generator
) -> torch.nn.Module:
    try:
        return build_network(encoder, n_in, n_out, generator=generator, name="encoder")
    except ValueError as error:
        if not arch.has_mask:
            raise
        raise ValueError(
            f"{error}\nAs training rows have missing cells, the encoder gets {n_in} "
            f"numbers: {arch.n_features} columns, and which cells are observed."
        ) from error


def _network(
    arch: Architecture,
    n_in: int,
    n_out: int,
    n_linear: int,
    mirrored: bool,
    generator: torch.Generator,
) -> LinearPlusMLP:
    hidden = arch.hidden_layer_sizes
    return LinearPlusMLP(
        n_in,
        n_out,
        hidden[::-1] if mirrored else hidden,
        arch.activation,
        n_linear=n_linear,
        linear=arch.linear_path,
        dropout=arch.dropout,
        zero_last=arch.linear_path,
        generator=generator,
        dtype=getattr(torch, arch.dtype),
    )


def resolved_terms(recipe: Any, table: TableArchitecture | None) -> tuple[Any, ...]:
    """Return the terms of a recipe with a weight for each."""
    default = 1.0
    more: list[Any] = []
    if table is not None:
        default = _BETA_CONTEXT if table.entry_width else _BETA_TABLE
        if table.entry_width:
            more.append(ContextPenalty(table.context_penalty))
        if table.prior_penalty:
            more.append(PriorPenalty(table.prior_penalty))
    terms = [
        replace(term, weight=default) if term.weight == "auto" else term
        for term in recipe.terms
    ]
    return (*terms, *more)


def _features(arch: Architecture, generator: torch.Generator) -> Any:
    if arch.likelihood == "poisson":
        return CountFeatures(arch.n_features, arch.has_mask)
    if arch.table is None:
        return None
    features = TableFeatures(arch.table.sizes, arch.n_mixture, arch.n_components)
    with torch.no_grad():
        features.embedding.normal_(std=0.1, generator=generator)
    return features


def _table_decoder(
    arch: Architecture,
    table: TableArchitecture,
    n_in: int,
    n_out: int,
    generator: torch.Generator,
) -> TableDecoder:
    return TableDecoder(
        n_in,
        n_out,
        arch.hidden_layer_sizes[::-1],
        arch.activation,
        bin_runs=table.bin_runs,
        width=table.smoothing,
        gaussian=table.gaussian,
        scores=table.scores,
        dropout=arch.dropout,
        generator=generator,
        dtype=getattr(torch, arch.dtype),
    )


def _likelihood(arch: Architecture, generator: torch.Generator) -> Any:
    if arch.table is not None:
        return _table_likelihood(arch.table, getattr(torch, arch.dtype), generator)
    kind: Any = LIKELIHOODS[arch.likelihood]
    if arch.likelihood == "gaussian":
        return kind(arch.n_features, noise=arch.noise)
    return kind(arch.n_features)


def _table_likelihood(
    table: TableArchitecture, dtype: torch.dtype, generator: torch.Generator
) -> TableLikelihood:
    if not table.entry_width:
        return TableLikelihood(table.sizes, table.derived, dtype)
    return AutoregressiveLikelihood(
        table.sizes,
        width=table.entry_width,
        bin_runs=table.bin_runs,
        smoothing=table.smoothing,
        gaussian=table.gaussian,
        derived=table.derived,
        excluded=table.excluded,
        scores=table.scores,
        generator=generator,
        dtype=dtype,
    )


def _prior(arch: Architecture, width: int, generator: torch.Generator) -> Any:
    if arch.prior == "normal":
        return NormalPrior(arch.n_components)
    if arch.prior == "mixture" and arch.n_conditions:
        return ConditionalMixturePrior(
            arch.n_components, arch.n_conditions, n_mixture=arch.n_mixture
        )
    if arch.prior == "mixture":
        return MixturePrior(arch.n_components, n_mixture=arch.n_mixture)
    pseudo = torch.empty(arch.n_mixture, width, dtype=getattr(torch, arch.dtype))
    return VampPrior(arch.n_components, pseudo.normal_(generator=generator))


def _code_activation(name: str | None) -> Any:
    return {None: None, "logistic": torch.sigmoid, "relu": torch.relu}[name]


def corruption_of(
    spec: Any, level: float, low: Any = None, high: Any = None, n_codes: Any = None
) -> Any:
    """Make the corruption of a recipe; a level of zero is none."""
    if spec is None or (not callable(spec) and level == 0):
        return None
    return make_corruption(spec, level, low=low, high=high, n_codes=n_codes)
