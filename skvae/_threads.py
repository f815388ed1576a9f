"""Settings of torch, scoped to a piece of work and always restored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

# Multiply-adds in a step above which a second thread pays for its synchronisation.
_WORTH_THREADS = 2e7

# Devices on which a caller may compute in lower precision.
_AUTOCAST_DEVICES = ("cpu", "cuda", "mps")

_lock = threading.Lock()
_depth = 0
_before = 1
_dtype_depth = 0
_dtype_before: Any = None


@contextmanager
def limited_threads(multiply_adds: float = 0.0) -> Iterator[None]:
    """Run small work on one torch thread.

    torch's setting is global to the process, so entries are counted: the first
    one to enter saves it, the last one to leave restores it, whatever thread
    they run in.

    Parameters
    ----------
    multiply_adds : float, default=0.0
        Multiply-adds of one step; above 2e7 the setting is left alone.
    """
    import torch

    global _depth, _before
    if multiply_adds > _WORTH_THREADS:
        yield
        return
    with _lock:
        if _depth == 0:
            _before = torch.get_num_threads()
            if _before != 1:
                torch.set_num_threads(1)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _before != 1:
                torch.set_num_threads(_before)


@contextmanager
def own_settings() -> Iterator[None]:
    """Run work in the usual settings of torch, whatever the caller has set.

    A default type or device would decide what parts of a model are made of, and
    autocasting what it computes in.
    """
    import torch

    cast = [kind for kind in _AUTOCAST_DEVICES if torch.is_autocast_enabled(kind)]
    # Eight times as fast as torch.get_default_device().
    elsewhere = torch.empty(0).device.type != "cpu"
    _enter_single_precision(torch)
    try:
        # A call of one row pays for each context.
        if not (cast or elsewhere):
            yield
            return
        with ExitStack() as stack:
            if elsewhere:
                stack.enter_context(torch.device("cpu"))
            for kind in cast:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        _leave_single_precision(torch)


def _enter_single_precision(torch: Any) -> None:
    """Make float32 the default type: global to the process, as threads are."""
    global _dtype_depth, _dtype_before
    with _lock:
        if _dtype_depth == 0:
            _dtype_before = torch.get_default_dtype()
            if _dtype_before is not torch.float32:
                torch.set_default_dtype(torch.float32)
        _dtype_depth += 1


def _leave_single_precision(torch: Any) -> None:
    global _dtype_depth
    with _lock:
        _dtype_depth -= 1
        if _dtype_depth == 0 and _dtype_before is not torch.float32:
            torch.set_default_dtype(_dtype_before)
