"""Quality of synthetic tables, and diagnostics of latent codes.

Every measure is a function of plain tables - arrays, pandas or polars frames - so it
judges any generator, not only this library's. All shares and errors are fractions.
"""

from skvae.metrics._association import association_error, association_errors
from skvae.metrics._coverage import alpha_precision, beta_recall
from skvae.metrics._latent import (
    active_components,
    mutual_information_gap,
    reconstruction_r2_score,
)
from skvae.metrics._prediction import detection_auc, utility_score
from skvae.metrics._privacy import distance_to_closest_record_share, exact_copies
from skvae.metrics._report import QualityReport
from skvae.metrics._shape import shape_error, shape_errors

__all__ = [
    "QualityReport",
    "active_components",
    "alpha_precision",
    "association_error",
    "association_errors",
    "beta_recall",
    "detection_auc",
    "distance_to_closest_record_share",
    "exact_copies",
    "mutual_information_gap",
    "reconstruction_r2_score",
    "shape_error",
    "shape_errors",
    "utility_score",
]
