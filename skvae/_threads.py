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


class _Scoped:
    """A setting of torch that is global to the process, held while anybody needs it.

    Entries are counted: the first one to enter saves the setting, the last one to
    leave restores it, whatever thread they run in.
    """

    def __init__(self, name: str):
        self.name, self.depth = name, 0
        self.before: Any = None

    def enter(self, torch: Any, value: Any) -> None:
        with _lock:
            if self.depth == 0:
                self.before = getattr(torch, f"get_{self.name}")()
                if self.before != value:
                    getattr(torch, f"set_{self.name}")(value)
            self.depth += 1

    def leave(self, torch: Any, value: Any) -> None:
        with _lock:
            self.depth -= 1
            if self.depth == 0 and self.before != value:
                getattr(torch, f"set_{self.name}")(self.before)


_n_threads, _dtype = _Scoped("num_threads"), _Scoped("default_dtype")


@contextmanager
def limited_threads(multiply_adds: float = 0.0) -> Iterator[None]:
    """Run small work on one torch thread.

    Parameters
    ----------
    multiply_adds : float, default=0.0
        Multiply-adds of one step; above 2e7 the setting is left alone.
    """
    import torch

    if multiply_adds > _WORTH_THREADS:
        yield
        return
    _n_threads.enter(torch, 1)
    try:
        yield
    finally:
        _n_threads.leave(torch, 1)


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
    _dtype.enter(torch, torch.float32)
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
        _dtype.leave(torch, torch.float32)
