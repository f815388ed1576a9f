"""What estimators around an autoencoder share: the clone they fit, and its names."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from sklearn.utils import get_tags


class InnerMixin:
    """An estimator with an autoencoder inside."""

    def _fitted_inner(self: Any, X: Any) -> Any:
        """Return a clone of the inner estimator, or the default, fitted to rows."""
        inner = self._default(X) if self.estimator is None else clone(self.estimator)
        if get_tags(inner).target_tags.required:
            raise ValueError(
                f"{type(self).__name__} is fitted to rows alone, but "
                f"estimator={type(inner).__name__} requires y. Use VAE."
            )
        own = inner.get_params(deep=False).get("random_state", 0)
        if self.random_state is not None and own is None:
            inner.set_params(random_state=self.random_state)
        # FrozenEstimator has no default for y.
        return inner.fit(X, None)

    def _keep(self: Any, inner: Any) -> None:
        """Keep a fitted estimator, and what it learned of the features."""
        self.estimator_ = inner
        self.n_features_in_ = inner.n_features_in_
        if hasattr(inner, "feature_names_in_"):
            self.feature_names_in_ = inner.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
