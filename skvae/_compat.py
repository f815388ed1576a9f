"""Names that scikit-learn does not promise to keep, imported in this one place."""

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples as num_samples

_F = TypeVar("_F", bound=Callable[..., Any])


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_F], _F]:
    """Check parameters before a method runs, and keep its signature."""
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)


__all__ = ["HasMethods", "Interval", "StrOptions", "fit_context", "num_samples"]
