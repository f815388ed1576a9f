"""The number of torch threads, scoped to a piece of work and always restored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Multiply-adds in a step above which a second thread pays for its synchronisation.
_WORTH_THREADS = 2e7

_lock = threading.Lock()
_depth = 0
_before = 1


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
