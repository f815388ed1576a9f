"""The stored form of an estimator: parameters, NumPy arrays, plain dictionaries.

The skorch net and its torch module are rebuilt on loading, so that a pickle is
small and does not depend on the torch or skorch version, nor on the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skvae._build import Architecture, build_module, resolved_terms
from skvae._compat import warn
from skvae._conditions import Conditions
from skvae._devices import is_available
from skvae._inference import FoldedEncoder
from skvae._plan import TrainingPlan
from skvae._random import torch_generator
from skvae._rows import NumericColumns
from skvae._table import Container
from skvae._table_model import TableColumns
from skvae._training import make_net
from skvae.objectives import Objective

_VERSION = "_skvae_version"


def plain_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an estimator without torch objects."""
    from skvae import __version__

    state = {**state, _VERSION: __version__}
    net = state.pop("net_", None)
    state.pop("_folded", None)
    if net is None:
        return state
    columns = state["_columns"]
    state["_columns"] = {"kind": columns.kind, "state": columns.get_state()}
    state["_container"] = state["_container"].get_state()
    state["_architecture"] = state["_architecture"].to_dict()
    if "_conditions" in state:
        state["_conditions"] = state["_conditions"].get_state()
    state["_net"] = net.get_plain_state()
    return state


def load_state(estimator: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Rebuild the torch objects of a stored state."""
    from skvae import __version__

    state = dict(state)
    version = state.pop(_VERSION, None)
    if version is not None and version != __version__:
        warn(
            f"This {type(estimator).__name__} was stored by skvae {version} and is "
            f"loaded by {__version__}: results may differ.",
            UserWarning,
        )
    stored = state.pop("_net", None)
    if stored is None:
        return state
    columns = state["_columns"]
    if columns["kind"] == "table":
        state["_columns"] = TableColumns.from_state(columns["state"])
    else:
        state["_columns"] = NumericColumns(**columns["state"])
    state["_container"] = Container.from_state(state["_container"])
    state["_architecture"] = Architecture.from_dict(state["_architecture"])
    if "_conditions" in state:
        state["_conditions"] = Conditions.from_state(state["_conditions"])
    state["net_"] = _rebuilt_net(type(estimator), state, stored)
    state["_folded"] = FoldedEncoder.of(state["net_"].module_, state["_columns"])
    return state


def _rebuilt_net(kind: type, state: dict[str, Any], stored: dict[str, Any]) -> Any:
    device = _available(stored["device"])
    # Of the fit: parameters may have been set since.
    fitted = state.get("_network_parameters", state)
    module = build_module(
        state["_architecture"],
        torch_generator(0),
        encoder=fitted["encoder"],
        decoder=fitted["decoder"],
    )
    module.load_state_dict(
        {name: torch.as_tensor(np.array(a)) for name, a in stored["weights"].items()}
    )
    parameters: Any = object.__new__(kind)
    parameters.__dict__.update(state)
    net = make_net(
        module.to(device),
        Objective(resolved_terms(parameters._recipe(), state["_architecture"].table)),
        TrainingPlan(**stored["plan"]),
        device=device,
        shuffle_generator=torch_generator(0),
        net_params=_without_accelerator(state["net_params"]),
    )
    net.load_plain_state(stored)
    return net


def _without_accelerator(net_params: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what a net that is not trained needs: an accelerator would wrap it."""
    if net_params is None:
        return None
    return {k: v for k, v in net_params.items() if k != "accelerator"}


def _available(device: str) -> str:
    if is_available(torch.device(device).type):
        return device
    warn(
        f"The model was trained on device={device!r}, which is not available here: "
        "it is loaded on the CPU.",
        UserWarning,
    )
    return "cpu"
