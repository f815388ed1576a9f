"""Tables: data frames to codes and tensors, and exactly back."""

from skvae._table._codec import TableCodec
from skvae._table._frames import (
    Container,
    concat_rows,
    fill_cells,
    has_categories,
    has_integers,
    has_missing,
    missing_cells,
)
from skvae._table._mixture import fit_mixture, mixture_log_prob, one_hot

__all__ = [
    "Container",
    "TableCodec",
    "concat_rows",
    "fill_cells",
    "fit_mixture",
    "has_categories",
    "has_integers",
    "has_missing",
    "missing_cells",
    "mixture_log_prob",
    "one_hot",
]
