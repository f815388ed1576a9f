"""What users may tell the skorch net, and what the estimator says itself."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn.base import clone

from skvae._optimizer import FlatAdamW

# What skorch calls some parameters of the estimators, and what has no effect here.
_SAID_ELSEWHERE = {
    "lr": "learning_rate_init",
    "optimizer__lr": "learning_rate_init",
    "max_epochs": "max_iter",
    "batch_size": "batch_size of the estimator",
    "device": "device of the estimator",
    "verbose": "verbose of the estimator",
    "module": "the estimator, by encoder and decoder,",
    "criterion": "the estimator",
    "plan": "the estimator",
    "shuffle_generator": "random_state of the estimator",
    "train_split": "validation_fraction of the estimator",
    "warm_start": "warm_start of the estimator",
    "dataset": "the estimator",
    # All parameters are one flat tensor, which has no groups.
    "optimizer__param_groups": "the estimator, by its callbacks (such as Freezer),",
}
_ITERATORS = ("iterator_train", "iterator_valid")


def checked(net_params: dict[str, Any] | None) -> dict[str, Any]:
    """Return a copy of what users tell the net.

    Raises
    ------
    ValueError
        If the estimator says it, or if nothing would come of it.
    """
    extra = dict(net_params or {})
    for name in extra:
        root = name.partition("__")[0]
        key = root if root in ("module", "criterion", "dataset") else name
        if key in _SAID_ELSEWHERE:
            raise ValueError(
                f"net_params may not hold {name!r}: {_SAID_ELSEWHERE[key]} says that."
            )
        if name != root and root in _ITERATORS and root not in extra:
            raise ValueError(
                f"net_params may not hold {name!r} without {root!r}: the batches of "
                f"the estimator take no such setting. Give an {root!r} of your own, "
                "such as torch.utils.data.DataLoader."
            )
    return extra


def decay_of(weight_decay: float, extra: dict[str, Any]) -> dict[str, float]:
    """Return the setting that tells an own optimiser the estimator's weight decay."""
    own, name = extra.get("optimizer", FlatAdamW), "optimizer__weight_decay"
    if own is FlatAdamW or not weight_decay or name in extra:
        return {}
    if "weight_decay" not in inspect.signature(own).parameters:
        raise ValueError(
            f"weight_decay={weight_decay} needs an optimizer that takes weight_decay. "
            f"net_params has {own!r}, which does not. Use weight_decay=0.0."
        )
    return {name: weight_decay}


def cloned(callback: Any) -> Any:
    """Return a copy of a callback, which training may change, or of a named one."""
    if isinstance(callback, tuple) and len(callback) == 2:
        return (callback[0], cloned(callback[1]))
    if not (isinstance(callback, type) or hasattr(callback, "set_params")):
        raise TypeError(
            "callbacks must hold skorch callbacks, or pairs of a name and one. "
            f"Got {callback!r}."
        )
    return clone(callback, safe=False)
