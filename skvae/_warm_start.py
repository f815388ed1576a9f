"""What a network was made from, and whether the parameters still say so."""

from __future__ import annotations

from typing import Any

import numpy as np

# Of these an estimator has its own; "auto" and "from_dtype" follow from the rows.
_NAMES = (
    "n_components",
    "hidden_layer_sizes",
    "activation",
    "dropout",
    "init",
    "encoder",
    "decoder",
    "scale",
    "categorical_features",
    "penalty",
    "code_activation",
    "tied_weights",
    "likelihood",
    "noise",
    "n_importance_samples",
    "prior",
)
_FROM_ROWS = ("auto", "from_dtype")


def network_parameters(est: Any) -> dict[str, Any]:
    """Return the parameters of an estimator that decide its network."""
    return {name: getattr(est, name) for name in _NAMES if hasattr(est, name)}


def check_same_network(est: Any) -> None:
    """Refuse to go on from weights of a network that the parameters no longer describe.

    Parameters
    ----------
    est : BaseAutoencoder
        A fitted estimator.

    Raises
    ------
    ValueError
        If a parameter that decides the network has changed.
    """
    now = network_parameters(est)
    fitted = getattr(est, "_network_parameters", now)
    changed = [name for name in now if _differs(est, name, fitted[name], now[name])]
    if changed:
        was = ", ".join(f"{name}={_short(fitted[name])}" for name in changed)
        new = ", ".join(f"{name}={_short(now[name])}" for name in changed)
        raise ValueError(
            f"{type(est).__name__} was fitted with {was}, and its weights do not fit "
            f"{new}. Use warm_start=False in fit, or a new estimator."
        )


def _differs(est: Any, name: str, fitted: Any, new: Any) -> bool:
    """Tell whether a new value describes another network than the fitted one."""
    if name in ("encoder", "decoder"):
        return fitted is not new
    if name == "init":  # What it decides of a network is the linear path.
        return (fitted == "auto") != (new == "auto")
    if name == "penalty":  # And this, the activation of the code.
        return (fitted == "kl") != (new == "kl")
    if _is_from_rows(new) or _same(fitted, new):
        return False
    return not (_is_from_rows(fitted) and _same(_resolved(est, name), new))


def _is_from_rows(value: Any) -> bool:
    return isinstance(value, str) and value in _FROM_ROWS


def _resolved(est: Any, name: str) -> Any:
    """Return what a value was resolved to, for the rows of the fit."""
    if name != "scale":
        return getattr(est._architecture, name, None)
    return None if est._columns.is_identity else "auto"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) or isinstance(b, dict):
        return bool(a == b)
    return np.array_equal(np.ravel(a), np.ravel(b))


def _short(value: Any) -> str:
    """Return a value for a message; a module would fill a page."""
    is_object = callable(value) and not isinstance(value, type)
    return f"<{type(value).__name__}>" if is_object else repr(value)
