"""Names that scikit-learn does not promise to keep, imported in this one place."""

from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples as num_samples

__all__ = ["HasMethods", "Interval", "StrOptions", "fit_context", "num_samples"]
