"""What a fit decided and reached, as text a person can act on."""

from __future__ import annotations

from typing import Any

import numpy as np

# Losses closer than this share of their size count as equal.
_EQUAL = 1e-3
_NEARLY_UNUSED = 0.5


def summarize(model: Any) -> str:
    """Return the summary of a fitted estimator, see `BaseAutoencoder.summary`."""
    lines = [f"{type(model).__name__}: {model.n_features_in_} columns"]
    for title, entries in (
        ("Resolved", _resolved(model)),
        ("Training", _training(model)),
        ("Model", _model(model)),
    ):
        width = max(len(name) for name, _ in entries)
        lines += ["", title, *(f"  {n:<{width}}  {_text(v)}" for n, v in entries)]
    hints = _hints(model)
    if hints:
        lines += ["", "Hints", *(f"  - {hint}" for hint in hints)]
    return "\n".join(lines)


def _resolved(model: Any) -> list[tuple[str, Any]]:
    layers = model._architecture.hidden_layer_sizes
    entries = [
        ("n_components", model.n_components_),
        ("hidden_layer_sizes", tuple(layers)),
        ("likelihood", model.likelihood_),
        ("noise", getattr(model, "noise_", None)),
        ("input_noise", getattr(model, "input_noise_", None)),
        ("scale", _scaling(model)),
        ("batch_size", model.batch_size_),
        ("learning_rate_init", model.learning_rate_),
        ("max_iter", model.max_iter_),
        ("device", model.device_),
    ]
    return [(name, value) for name, value in entries if value is not None]


def _scaling(model: Any) -> str | None:
    columns = model._columns
    if columns.kind != "numeric":
        return None
    if columns.low is not None:
        return "left in [0, 1]" if columns.is_identity else "common constant"
    return "none" if columns.is_identity else "standardised columns"


def _training(model: Any) -> list[tuple[str, Any]]:
    entries: list[tuple[str, Any]] = [("epochs run", model.n_iter_)]
    if model.best_loss_ is None:
        entries.append(("held-out rows", "none"))
        if model.loss_curve_:
            entries.append(("training loss, nats a row", model.loss_curve_[-1]))
        return entries
    entries += [
        ("epoch kept", _epoch_kept(model)),
        ("held-out loss at the start, nats a row", model.baseline_loss_),
        ("held-out loss kept, nats a row", model.best_loss_),
        ("gain, nats a row", model.baseline_loss_ - model.best_loss_),
    ]
    return entries


def _epoch_kept(model: Any) -> int:
    """Return the epoch of the weights kept, 0 for the start."""
    if model.best_loss_ == model.baseline_loss_:
        return 0
    curve = model.validation_loss_curve_ or []
    return curve.index(model.best_loss_) + 1 if model.best_loss_ in curve else 0


def _still_fell(model: Any) -> bool:
    """Tell whether the lowest held-out loss is that of the last epochs."""
    lowest = model.best_loss_ <= min(model.validation_loss_curve_)
    return lowest and _epoch_kept(model) >= 0.99 * model.max_iter_


def _model(model: Any) -> list[tuple[str, Any]]:
    entries: list[tuple[str, Any]] = []
    ratio = getattr(model, "explained_variance_ratio_", None)
    if ratio is not None:
        entries.append(("explained variance", float(ratio.sum())))
    if hasattr(model, "kl_per_component_"):
        used = f"{model.n_active_components_} of {model.n_components_}"
        entries += [
            ("active components", used),
            ("divergence a component, nats", model.kl_per_component_),
        ]
    variance = getattr(model, "noise_variance_", None)
    if variance is not None:
        share = np.asarray(variance, dtype=float) / np.square(
            model.scale_.astype(float)
        )
        entries.append(("noise sd in scaled units, median", np.sqrt(np.median(share))))
    return entries or [("components", model.n_components_)]


def _hints(model: Any) -> list[str]:
    hints = []
    if model.best_loss_ is None and model.n_iter_:
        hints.append(
            "No rows were held out, so nothing guards against overfitting: lower "
            "max_iter or raise weight_decay if new rows fare worse."
        )
    if model.best_loss_ is not None and model.n_iter_:
        gain = model.baseline_loss_ - model.best_loss_
        if gain <= _EQUAL * abs(model.baseline_loss_):
            hints.append(
                "Training did not improve on its start: the classical model may be all "
                "these rows support. Try other n_components, or a smaller "
                "learning_rate_init."
            )
        elif _still_fell(model):
            hints.append(
                "The loss still fell at the last epoch: raise "
                f"max_iter={model.max_iter_}."
            )
    active = getattr(model, "n_active_components_", None)
    if active is not None and active < _NEARLY_UNUSED * model.n_components_:
        hints.append(
            f"Only {active} of {model.n_components_} components are in use: lower "
            "n_components, or lower beta or set free_bits to use more."
        )
    constant = _constant_components(model)
    if constant:
        hints.append(
            f"{constant} of {model.n_components_} components are the same for all "
            "rows: use code_activation='logistic' or None, init='layerwise', or lower "
            "n_components."
        )
    return hints


def _constant_components(model: Any) -> int:
    """Count components that an activation of the code holds at zero."""
    codes = getattr(model, "_codes", None)
    if model._architecture.code_activation != "relu" or codes is None:
        return 0
    return int((np.ptp(codes, axis=0) == 0).sum()) if len(codes) > 1 else 0


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return " ".join(f"{v:.2f}" for v in value)
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value)
