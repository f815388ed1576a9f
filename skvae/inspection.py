"""Drawings of what was measured; matplotlib is imported by the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["QualityReportDisplay"]


class QualityReportDisplay:
    """Draw where a synthetic table differs from the real one.

    On the left the shape error of every column, largest first; on the right the
    association error of every pair. Make one with
    :meth:`~skvae.metrics.QualityReport.plot` or :meth:`from_report`.

    Parameters
    ----------
    column_errors : mapping of str to float
        Shape error of each column.
    pair_errors : ndarray of shape (n_columns, n_columns)
        Association error of each pair of columns.
    feature_names : sequence of str
        Columns, in the order of `pair_errors`.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure drawn on.
    axes_ : ndarray of shape (2,)
        Axes of the columns and of the pairs.

    See Also
    --------
    skvae.metrics.QualityReport : Measures what is drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.inspection import QualityReportDisplay
    >>> display = QualityReportDisplay(
    ...     {"age": 0.02, "city": 0.01}, np.array([[0, 0.03], [0.03, 0]]),
    ...     ["age", "city"])
    >>> display.column_errors["age"]
    0.02
    """

    def __init__(
        self,
        column_errors: Mapping[str, float],
        pair_errors: np.ndarray,
        feature_names: Any,
    ):
        self.column_errors = column_errors
        self.pair_errors = pair_errors
        self.feature_names = feature_names

    @classmethod
    def from_report(cls, report: Any, *, axes: Any = None) -> QualityReportDisplay:
        """Draw a quality report.

        Parameters
        ----------
        report : QualityReport
            Measured errors.
        axes : sequence of two matplotlib Axes, default=None
            Where to draw; a new figure by default.

        Returns
        -------
        display : QualityReportDisplay
            The drawing.
        """
        display = cls(report.column_errors, report.pair_errors, report.feature_names)
        return display.plot(axes=axes)

    def plot(self, *, axes: Any = None) -> QualityReportDisplay:
        """Draw both panels.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, default=None
            Where to draw; a new figure by default.

        Returns
        -------
        self : QualityReportDisplay
            With `figure_` and `axes_` set.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                "This needs matplotlib: pip install 'skvae[plot]'."
            ) from error
        if axes is None:
            _, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
        columns, pairs = axes
        names = sorted(self.column_errors, key=lambda name: self.column_errors[name])
        columns.barh(
            [str(name) for name in names],
            [100 * self.column_errors[name] for name in names],
        )
        columns.set(xlabel="shape error, %", title="Columns")
        errors = 100 * np.asarray(self.pair_errors)
        # Without any error the scale would be centred on zero.
        highest = np.nanmax(errors) or 1.0
        image = pairs.imshow(errors, cmap="viridis", vmin=0, vmax=highest)
        places = np.arange(len(self.feature_names))
        pairs.set_xticks(places, self.feature_names, rotation=90)
        pairs.set_yticks(places, self.feature_names)
        pairs.set(title="Pairs of columns")
        pairs.figure.colorbar(image, ax=pairs, label="association error, %")
        self.axes_ = np.array([columns, pairs])
        self.figure_ = columns.figure
        return self
