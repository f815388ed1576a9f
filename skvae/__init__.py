"""Autoencoders and variational autoencoders as scikit-learn estimators.

Nothing heavy is imported before it is used: torch comes with the first estimator.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AutoencoderTransformer": "skvae._autoencoder",
    "ConditionalVAE": "skvae._conditional_vae",
    "ContractiveAutoencoder": "skvae._contractive",
    "ConvDecoder": "skvae._factories",
    "ConvEncoder": "skvae._factories",
    "DenoisingAutoencoder": "skvae._denoising",
    "Recipe": "skvae._base",
    "VAE": "skvae._vae",
}

_SUBMODULES = (
    "corruptions",
    "imputation",
    "inspection",
    "likelihoods",
    "metrics",
    "objectives",
    "outliers",
    "persistence",
    "priors",
)

__all__ = [
    "VAE",
    "AutoencoderTransformer",
    "ConditionalVAE",
    "ContractiveAutoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "DenoisingAutoencoder",
    "Recipe",
    "__version__",
]

if TYPE_CHECKING:
    from skvae._autoencoder import AutoencoderTransformer
    from skvae._base import Recipe
    from skvae._conditional_vae import ConditionalVAE
    from skvae._contractive import ContractiveAutoencoder
    from skvae._denoising import DenoisingAutoencoder
    from skvae._factories import ConvDecoder, ConvEncoder
    from skvae._vae import VAE


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"skvae.{name}")
    raise AttributeError(f"module 'skvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
