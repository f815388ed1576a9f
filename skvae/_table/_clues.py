"""Which of the values that tell other columns goes best with a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

# Distance between groups of keys, in normal scores: beyond any within one.
_FAR = 100.0
DRAWN, KNOWN, SILENT = range(3)
# What rows and keys are compared by.
Pairs = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Clue:
    """What a column says of the key of a row.

    Parameters
    ----------
    codes, values, scores : tuple of ndarray
        Codes, distinct values and normal scores, of the rows and of the keys.
    is_graded : bool
        Whether codes are bins, of which a near one is as good.
    state : ndarray of shape (n_rows,)
        Whether the value of the row is drawn, known, or missing and says nothing.
    """

    codes: tuple[np.ndarray, np.ndarray]
    values: tuple[np.ndarray, np.ndarray]
    scores: tuple[np.ndarray, np.ndarray]
    is_graded: bool
    state: np.ndarray

    @classmethod
    def of(
        cls,
        column: Any,
        rows: np.ndarray,
        keys: np.ndarray,
        state: np.ndarray | None = None,
    ) -> Clue:
        """Read the clue from numbers of a column, those of rows and those of keys."""
        values = np.unique(np.concatenate([rows, keys]), return_inverse=True)[1]
        cells = [pd.Series(column.cells_of(own)) for own in (rows, keys)]
        codes = [column.encode(own) for own in cells]
        scores = [column.scores(*own) for own in zip(cells, codes, strict=True)]
        return cls(
            (codes[0], codes[1]),
            (values[: len(rows)], values[len(rows) :]),
            (scores[0], scores[1]),
            len(column.bins) > 0,
            np.full(len(rows), DRAWN) if state is None else state,
        )

    def weighed(self, worth: float) -> Clue:
        """Return the clue with distances of so much worth."""
        return replace(self, scores=(self.scores[0] * worth, self.scores[1] * worth))


def agreeing(
    places: np.ndarray,
    clues: list[Clue],
    weights: np.ndarray,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Return keys that agree with all that is known of rows, and most that is drawn.

    Where no key has all the drawn codes, those of numbers are only to be near, and
    those of columns of many values give way.
    """
    chosen = places.copy()
    states = np.column_stack([clue.state for clue in clues])
    for pattern in np.unique(states, axis=0):
        both = list(zip(clues, pattern.tolist(), strict=True))
        firm = [c.values for c, state in both if state == KNOWN]
        rest = [c for c, state in both if state == DRAWN]
        soft = [c.codes for c in rest if not c.is_graded]
        soft.sort(key=lambda pair: len(np.unique(pair[1])))
        near = [c.scores for c in rest if c.is_graded]
        trials: list[tuple[Pairs, Pairs]] = []
        if near:
            trials.append((firm + [c.codes for c in rest], []))
        trials += [(firm + soft[:used], near) for used in range(len(soft), -1, -1)]
        left = np.flatnonzero((states == pattern).all(axis=1))
        for equal, graded in trials:
            found = _matching(places, equal, graded, left, weights, rng)
            chosen[left[found >= 0]] = found[found >= 0]
            left = left[found < 0]
            if not len(left):
                break
    return chosen


def _matching(
    places: np.ndarray,
    equal: Pairs,
    near: Pairs,
    rows: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Return a key for some rows, -1 where none agrees in all that is to be equal.

    Of several the nearest; of those the one a row has, else one drawn by its weight.
    """
    n = len(weights)
    signs = np.zeros((n + len(rows), 1 + len(equal)), dtype=np.int64)
    for k, (of_rows, of_keys) in enumerate(equal):
        signs[:n, k], signs[n:, k] = of_keys, of_rows[rows]
    groups = np.unique(signs, axis=0, return_inverse=True)[1].ravel()
    is_there = np.isin(groups[n:], groups[:n])
    if near:
        groups = _nearest_points(groups, near, rows, n)
    drawn = _drawn(groups[:n], groups[n:], weights, rng)
    own = places[rows]
    keeps = (own >= 0) & (groups[:n][own] == groups[n:])
    return np.where(is_there, np.where(keeps, own, drawn), -1)


def _nearest_points(
    groups: np.ndarray, near: Pairs, rows: np.ndarray, n: int
) -> np.ndarray:
    """Return points in place of groups: of each row the nearest that keys have."""
    scores = [np.concatenate([of_keys, of_rows[rows]]) for of_rows, of_keys in near]
    points = np.column_stack([_FAR * groups, *scores])
    distinct, of_keys = np.unique(points[:n], axis=0, return_inverse=True)
    of_rows = KDTree(distinct).query(points[n:])[1]
    return np.concatenate([of_keys.ravel(), of_rows])


def _drawn(
    of_keys: np.ndarray,
    of_rows: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Return one of the keys of a group for each row, some key where there is none."""
    order = np.lexsort((-weights, of_keys))
    first, stop = (
        np.searchsorted(of_keys[order], of_rows, side=side)
        for side in ("left", "right")
    )
    running = np.concatenate([[0.0], np.cumsum(weights[order])])
    share = np.zeros(len(of_rows)) if rng is None else rng.random(len(of_rows))
    aim = running[first] + share * (running[stop] - running[first])
    place = np.searchsorted(running, aim, side="right") - 1
    place = np.clip(place, first, np.maximum(stop - 1, first))
    return order[np.minimum(place, len(order) - 1)]
