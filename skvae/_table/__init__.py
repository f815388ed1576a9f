"""Tables: data frames to codes and tensors, and exactly back."""

from skvae._table._codec import TableCodec
from skvae._table._frames import (
    Container,
    cells_as_floats,
    columns_of_no_numbers,
    concat_rows,
    dense_columns,
    fill_cells,
    has_categories,
    has_integers,
    has_missing,
    kind_of_cells,
    library_of,
    missing_cells,
    whole_within,
)
from skvae._table._given import codes_given
from skvae._table._known import Known
from skvae._table._mixture import fit_mixture, mixture_log_prob, one_hot
from skvae._table._objects import PLAIN_FORMS

__all__ = [
    "PLAIN_FORMS",
    "Container",
    "Known",
    "TableCodec",
    "cells_as_floats",
    "codes_given",
    "columns_of_no_numbers",
    "concat_rows",
    "dense_columns",
    "fill_cells",
    "fit_mixture",
    "has_categories",
    "has_integers",
    "has_missing",
    "kind_of_cells",
    "library_of",
    "missing_cells",
    "mixture_log_prob",
    "one_hot",
    "whole_within",
]
