"""Cells of a table that a user asks for, as codes and as what they tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from skvae._table._known import Known


def codes_given(codec: Any, given: dict[str, Any]) -> dict[int, np.ndarray]:
    """Return the codes that the given cells of a row admit.

    Parameters
    ----------
    codec : TableCodec
        Fitted codec.
    given : dict
        Levels or numbers by column name.

    Returns
    -------
    codes : dict of int to ndarray
        Admissible codes by column. The end of a gap tells where it starts.

    Raises
    ------
    ValueError
        If a column or a level is unknown, or not one value.
    """
    values = {_index_of(codec, name, value): value for name, value in given.items()}
    codes = {j: codec.column_as_it_came(j).codes_of(v) for j, v in values.items()}
    beside = codec.gap_columns
    if beside.isdisjoint(values):
        return codes
    # Of columns with a gap between them the difference is coded, not the value.
    codes = {j: code for j, code in codes.items() if j not in beside}
    return codes | _gap_codes(codec, {j: values[j] for j in beside & values.keys()})


def _index_of(codec: Any, name: Any, value: Any) -> int:
    """Return the index of a column for which one value is given."""
    if name not in codec.names:
        raise ValueError(
            f"given names the unknown column {name!r}. Known columns are {codec.names}."
        )
    if pd.api.types.is_list_like(value):
        raise ValueError(
            f"given must hold one value for column {name!r}. Got {value!r}; "
            "a frame of one row each asks for several."
        )
    return int(codec.names.index(name))


def _gap_codes(codec: Any, values: dict[int, Any]) -> dict[int, np.ndarray]:
    """Return the codes of columns with a gap between them, from values of some."""
    started = codec.with_starts(_row(codec, values))
    codes = {}
    for j in codec.gap_columns:
        asked = j in values and pd.isna(codec.column_as_it_came(j).exact(values[j]))
        cells = codec.cells(started, j)
        code = codec.columns[j].encode(cells)
        if code[0] >= 0 and (asked or not pd.isna(cells)[0]):
            codes[j] = code
    return codes


def known_of_fixed(
    codec: Any, codes: np.ndarray, fixed: list[tuple[slice, int, Any]]
) -> Known:
    """Return what given values tell beyond their codes.

    Parameters
    ----------
    codec : TableCodec
        Fitted codec.
    codes : ndarray of shape (n_rows, n_columns)
        Codes of drawn rows.
    fixed : list of (slice, int, object)
        Rows and column of cells whose value is given.
    """
    agreeing = codec.linked_columns | codec.rules.columns
    blocks = dict.fromkeys((rows.start, rows.stop) for rows, _, _ in fixed)
    if not blocks or not agreeing:
        return Known()
    # The last one knows nothing.
    place = np.full(len(codes), len(blocks))
    parts = []
    for k, (start, stop) in enumerate(blocks):
        place[start:stop] = k
        values = {
            j: value
            for rows, j, value in fixed
            if rows.start == start and j in agreeing
        }
        parts.append(codec.known(_row(codec, values), codes[start : start + 1]))
    parts.append(codec.known(_row(codec, {}), codes[:1]))
    return Known.joined(parts).rows(place)


def _row(codec: Any, values: dict[int, Any]) -> pd.DataFrame:
    """Return a row with the values of some columns, the others missing."""
    row = {}
    for j, name in enumerate(codec.names):
        cell = [codec.column_as_it_came(j).exact(values[j])] if j in values else [None]
        row[name] = pd.Series(cell, dtype=None if j in values else float)
    return pd.DataFrame(row)
