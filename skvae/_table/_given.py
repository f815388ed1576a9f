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
    codes, values = {}, {}
    for name, value in given.items():
        if name not in codec.names:
            raise ValueError(
                f"given names the unknown column {name!r}. Known columns are "
                f"{codec.names}."
            )
        if pd.api.types.is_list_like(value):
            raise ValueError(
                f"given must hold one value for column {name!r}. Got {value!r}; "
                "a frame of one row each asks for several."
            )
        j = codec.names.index(name)
        codes[j] = codec.column_as_it_came(j).codes_of(value)
        values[j] = value
    beside = codec.gap_columns
    if beside.isdisjoint(values):
        return codes
    row = _row(codec, {j: v for j, v in values.items() if j in beside})
    started = codec.with_starts(row)
    for j in beside:
        asked = j in values and pd.isna(codec.column_as_it_came(j).exact(values[j]))
        cells = codec.cells(started, j)
        code = codec.columns[j].encode(cells)
        codes.pop(j, None)
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
