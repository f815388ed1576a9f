"""What other versions have or lack: private names of scikit-learn, and warnings."""

import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples as num_samples

# What may stand between a user's line and a warning.
_LIBRARIES = {"skvae", "sklearn", "skorch", "joblib", "contextlib"}
_F = TypeVar("_F", bound=Callable[..., Any])


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_F], _F]:
    """Check parameters before a method runs, and keep its signature."""
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user, however many frames of libraries are between.

    From Python 3.12 on ``skip_file_prefixes`` of `warnings.warn` does this.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _library(frame) in _LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _library(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


__all__ = ["HasMethods", "Interval", "StrOptions", "fit_context", "num_samples", "warn"]
