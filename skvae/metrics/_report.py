"""All measures of one synthetic table, side by side with those of a real hold-out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skvae.metrics._association import mean_of_pairs, pair_distances
from skvae.metrics._columns import Table, align
from skvae.metrics._coverage import coverage
from skvae.metrics._prediction import aligned_detection, aligned_utility
from skvae.metrics._privacy import aligned_copies, aligned_share
from skvae.metrics._shape import column_distances, mean_of_columns

# Attribute, label, whether it is printed in percent, what would be ideal.
_ROWS = (
    ("shape_error", "shape error, mean of columns", True, "hold-out"),
    ("association_error", "association error, mean of pairs", True, "hold-out"),
    ("utility", "utility: trained on it, tested on real", False, "hold-out"),
    ("detection_auc", "detection AUC against the hold-out", False, "0.5"),
    ("alpha_precision", "alpha-precision", False, "hold-out"),
    ("beta_recall", "beta-recall", False, "hold-out"),
    ("dcr_share", "closer to training than to unseen rows", False, "0.5"),
    ("exact_copies", "exact copies of training rows", True, "hold-out"),
    ("missing_rate_error", "missing rate, worst column", True, "0"),
    ("out_of_range", "numbers outside the training range", True, "0"),
    ("unseen_levels", "levels never seen in training", True, "0"),
)
_LABEL_WIDTH = max(len(label) for _, label, _, _ in _ROWS)


class QualityReport:
    """Judge a synthetic table: fidelity, utility, coverage and privacy.

    Every figure stands beside the same figure of a real hold-out, which is what a
    perfect generator would reach on so many rows. Use the hold-out's rows nowhere in
    fitting the generator.

    Parameters
    ----------
    real : {DataFrame, array-like} of shape (n_real, n_columns)
        Real rows the generator was fitted on.
    holdout : {DataFrame, array-like} of shape (n_holdout, n_columns)
        Real rows it never saw.
    synthetic : {DataFrame, array-like} of shape (n_synthetic, n_columns)
        Synthetic rows; best as many as `real` has.
    target : str or int, default=None
        Column to predict for the utility; without it there is none.
    categorical_features : array-like of str, int or bool, default=None
        Numeric columns that are categories: names, indices or a boolean mask.
    max_rows : int, default=10_000
        Rows drawn for the distances between rows; their time grows with its square.
    random_state : int, RandomState instance or None, default=None
        Draws rows and folds, and seeds the learners.

    Attributes
    ----------
    shape_error : float
        See :func:`shape_error`.
    association_error : float
        See :func:`association_error`.
    utility, utility_real : float or None
        Score on the hold-out after training on synthetic and on real rows, see
        :func:`utility_score`; None without a target.
    utility_ratio : float or None
        Their ratio; None unless `utility_real` is above 0, as it says nothing below.
    detection_auc : float
        See :func:`detection_auc`.
    alpha_precision, beta_recall : float
        See :func:`alpha_precision` and :func:`beta_recall`.
    dcr_share : float
        See :func:`distance_to_closest_record_share`.
    exact_copies : float
        See :func:`exact_copies`.
    missing_rate_error : float
        Largest difference, over columns, of the share of missing cells.
    out_of_range : float
        Share of known numeric cells outside the range of the training rows.
    unseen_levels : float
        Share of known categorical cells whose level the training rows lack.
    holdout_scores : dict of str to float
        The same measures of the hold-out against the training rows, where they exist.
    column_errors : dict of str to float
        Shape error of each column.
    pair_errors : ndarray of shape (n_columns, n_columns)
        Association error of each pair.
    feature_names : list of str
        Columns, in the order of `pair_errors`.

    Raises
    ------
    ValueError
        If the tables differ in their columns, have fewer than 2 rows, or `target` is
        no column.

    See Also
    --------
    shape_error, association_error, utility_score, detection_auc : Parts of it.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import QualityReport
    >>> rng = np.random.default_rng(0)
    >>> cov = [[1.0, 0.9], [0.9, 1.0]]
    >>> rows = rng.multivariate_normal([0, 0], cov, size=600)
    >>> independent = rng.permuted(rows[:300], axis=0)
    >>> report = QualityReport(
    ...     rows[:300], rows[300:], independent, target=1, random_state=0)
    >>> report.shape_error, bool(report.association_error > 0.3)
    (0.0, True)
    >>> print(report)  # doctest: +ELLIPSIS
    Quality of 300 synthetic rows (300 training, 300 hold-out rows, 2 columns)
                                              synthetic  hold-out     ideal
    shape error, mean of columns                 0.00 %    ...
    """

    def __init__(
        self,
        real: Any,
        holdout: Any,
        synthetic: Any,
        target: Any = None,
        *,
        categorical_features: Iterable[Any] | None = None,
        max_rows: int = 10_000,
        random_state: Any = None,
    ):
        seen, unseen, drawn = align(
            real, holdout, synthetic, categorical_features=categorical_features
        )
        rng = check_random_state(random_state)
        self.feature_names = [str(name) for name in seen.names]
        self.n_rows = tuple(len(table) for table in (seen, unseen, drawn))
        self._compare(seen, unseen, drawn)
        self._predict(seen, unseen, drawn, target, rng)
        self._locate(seen, unseen, drawn, max_rows, rng)

    def _compare(self, real: Table, holdout: Table, synthetic: Table) -> None:
        """Measure what needs no randomness."""
        self.column_errors = column_distances(real, synthetic)
        self.pair_errors = pair_distances(real, synthetic)
        self.shape_error = mean_of_columns(self.column_errors)
        self.association_error = mean_of_pairs(self.pair_errors)
        self.exact_copies = aligned_copies(real, synthetic)
        self.missing_rate_error = _missing_rate_error(real, synthetic)
        self.out_of_range = _out_of_range(real, synthetic)
        self.unseen_levels = _unseen_levels(real, synthetic)
        self.holdout_scores: dict[str, float] = {
            "shape_error": mean_of_columns(column_distances(real, holdout)),
            "association_error": mean_of_pairs(pair_distances(real, holdout)),
            "exact_copies": aligned_copies(real, holdout),
            "missing_rate_error": _missing_rate_error(real, holdout),
            "out_of_range": _out_of_range(real, holdout),
            "unseen_levels": _unseen_levels(real, holdout),
        }

    def _predict(
        self, real: Table, holdout: Table, synthetic: Table, target: Any, rng: Any
    ) -> None:
        """Measure what boosted trees make of the rows."""
        self.utility: float | None = None
        self.utility_real: float | None = None
        if target is not None:
            score = aligned_utility(real, holdout, synthetic, target, rng)
            self.utility, self.utility_real = score.synthetic, score.real
            self.holdout_scores["utility"] = score.real
        self.detection_auc = aligned_detection(holdout, synthetic, 5, rng)

    def _locate(
        self, real: Table, holdout: Table, synthetic: Table, max_rows: int, rng: Any
    ) -> None:
        """Measure distances between rows."""
        precision, recall = coverage(real, synthetic, max_rows, rng)
        self.alpha_precision, self.beta_recall = precision, recall
        precision, recall = coverage(real, holdout, max_rows, rng)
        self.holdout_scores |= {"alpha_precision": precision, "beta_recall": recall}
        self.dcr_share = aligned_share(real, holdout, synthetic, max_rows, rng)

    @property
    def utility_ratio(self) -> float | None:
        """Share of the real rows' utility that the synthetic rows keep."""
        if self.utility is None or self.utility_real is None:
            return None
        return self.utility / self.utility_real if self.utility_real > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON.

        Returns
        -------
        figures : dict
            Every measure by its attribute name, with ``holdout_scores`` and
            ``column_errors`` as dictionaries; pairs are left out. None stands for
            what could not be measured.
        """
        figures = {name: getattr(self, name) for name, *_ in _ROWS}
        figures["utility_real"] = self.utility_real
        figures["utility_ratio"] = self.utility_ratio
        return _without_nan(figures) | {
            "holdout_scores": _without_nan(self.holdout_scores),
            "column_errors": {str(k): v for k, v in self.column_errors.items()},
        }

    def __str__(self) -> str:
        """Return the figures as a text table."""
        n_real, n_holdout, n_synthetic = self.n_rows
        lines = [
            f"Quality of {n_synthetic} synthetic rows ({n_real} training, {n_holdout} "
            f"hold-out rows, {len(self.feature_names)} columns)",
            f"{'':{_LABEL_WIDTH}} {'synthetic':>11} {'hold-out':>9} {'ideal':>9}",
        ]
        for name, label, percent, ideal in _ROWS:
            if getattr(self, name) is None:
                continue
            ours = _figure(getattr(self, name), percent)
            theirs = _figure(self.holdout_scores.get(name), percent)
            lines.append(f"{label:{_LABEL_WIDTH}} {ours:>11} {theirs:>9} {ideal:>9}")
        worst = max(self.column_errors, key=lambda name: self.column_errors[name])
        lines.append(
            f"worst column: {worst} ({self.column_errors[worst]:.2%} shape error)"
        )
        if len(self.feature_names) > 1:
            rows, columns = np.triu_indices(len(self.feature_names), 1)
            worst_pair = self.pair_errors[rows, columns].argmax()
            i, j = rows[worst_pair], columns[worst_pair]
            lines.append(
                f"worst pair: {self.feature_names[i]}, {self.feature_names[j]} "
                f"({self.pair_errors[i, j]:.2%} association error)"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Return the figures that matter most, on one line."""
        return (
            f"QualityReport(shape_error={self.shape_error:.4f}, "
            f"association_error={self.association_error:.4f}, "
            f"detection_auc={self.detection_auc:.3f})"
        )

    def plot(self, *, axes: Any = None) -> Any:
        """Draw the error of every column and of every pair.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, default=None
            Where to draw; a new figure by default.

        Returns
        -------
        display : QualityReportDisplay
            Holds the drawing: ``figure_`` and ``axes_``.
        """
        from skvae.inspection import QualityReportDisplay

        return QualityReportDisplay.from_report(self, axes=axes)


def _without_nan(figures: dict[str, Any]) -> dict[str, Any]:
    # JSON knows no NaN.
    return {k: None if v is None or np.isnan(v) else v for k, v in figures.items()}


def _figure(value: float | None, percent: bool) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if percent else f"{value:.3f}"


def _missing_rate_error(real: Table, other: Table) -> float:
    rates = [np.isnan(table.values).mean(axis=0) for table in (real, other)]
    return float(np.abs(rates[0] - rates[1]).max())


def _out_of_range(real: Table, other: Table) -> float:
    ours, theirs = (table.values[:, ~table.categorical] for table in (real, other))
    known = ~np.isnan(theirs)
    if not known.any():
        return 0.0
    low = np.where(np.isnan(ours), np.inf, ours).min(axis=0)
    high = np.where(np.isnan(ours), -np.inf, ours).max(axis=0)
    return float(((theirs < low) | (theirs > high))[known].mean())


def _unseen_levels(real: Table, other: Table) -> float:
    codes = other.values[:, other.categorical]
    known = ~np.isnan(codes)
    if not known.any():
        return 0.0
    return float((codes >= real.n_known[real.categorical])[known].mean())
