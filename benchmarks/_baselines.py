"""Generators of synthetic tables to compare with, in the fewest honest lines.

Each takes a training frame and returns `n` new rows of the same columns and types.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor


@dataclass
class Synthesis:
    """Rows one method drew, what they cost, and what the method knows of its fit."""

    rows: pd.DataFrame
    fit_seconds: float
    sample_seconds: float
    log_likelihood: float | None = None


def timed(
    fit: Callable[[], Any], sample: Callable[[Any], pd.DataFrame]
) -> tuple[Any, Synthesis]:
    """Run both steps, counting the CPU seconds of this process."""
    start = time.process_time()
    model = fit()
    middle = time.process_time()
    rows = sample(model)
    end = time.process_time()
    return model, Synthesis(rows, middle - start, end - middle)


def independent(train: pd.DataFrame, n: int, seed: int) -> Synthesis:
    """Draw each column on its own, with replacement."""
    rng = np.random.default_rng(seed)

    def sample(_: None) -> pd.DataFrame:
        return _rows(train, [rng.integers(len(train), size=n) for _ in train.columns])

    return timed(lambda: None, sample)[1]


def resampled(train: pd.DataFrame, n: int, seed: int) -> Synthesis:
    """Draw training rows with replacement: what a finite sample alone costs."""
    rng = np.random.default_rng(seed)

    def sample(_: None) -> pd.DataFrame:
        chosen = rng.integers(len(train), size=n)
        return _rows(train, [chosen for _ in train.columns])

    return timed(lambda: None, sample)[1]


def gaussian_copula(train: pd.DataFrame, n: int, seed: int) -> Synthesis:
    """Correlate normal scores; give back the cells at their ranks.

    Levels are ordered by frequency, missing cells come last, ties break at random.
    """
    rng = np.random.default_rng(seed)

    def fit() -> tuple[np.ndarray, np.ndarray]:
        order = np.column_stack(
            [np.lexsort((rng.random(len(train)), _ranks(train[c]))) for c in train]
        )
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(len(train))[:, None], axis=0)
        scores = ndtri((ranks + 0.5) / len(train))
        return order, np.corrcoef(scores, rowvar=False)

    def sample(model: tuple[np.ndarray, np.ndarray]) -> pd.DataFrame:
        order, correlation = model
        mean = np.zeros(len(correlation))
        normal = rng.multivariate_normal(mean, correlation, size=n, method="eigh")
        places = (ndtr(normal) * len(train)).astype(np.int64).clip(0, len(train) - 1)
        return _rows(train, list(np.take_along_axis(order, places, axis=0).T))

    return timed(fit, sample)[1]


def sequential_cart(train: pd.DataFrame, n: int, seed: int) -> Synthesis:
    """Draw each column from the leaves of a tree on the columns before it.

    Leaves hold 5 training rows or more, and a cell is one of theirs, as in synthpop.
    Fitting and drawing go hand in hand, so all the time counts as fitting.
    """
    rng = np.random.default_rng(seed)
    codes = np.column_stack([_ranks(train[c]) for c in train])
    numeric = [_is_numeric(train[c]) for c in train]

    def fit() -> pd.DataFrame:
        donors = [rng.integers(len(train), size=n)]
        for j in range(1, codes.shape[1]):
            kind = DecisionTreeRegressor if numeric[j] else DecisionTreeClassifier
            tree = kind(min_samples_leaf=5, random_state=seed)
            leaves = tree.fit(codes[:, :j], codes[:, j]).apply(codes[:, :j])
            drawn = np.column_stack([codes[d, i] for i, d in enumerate(donors)])
            donors.append(_donors(leaves, tree.apply(drawn), rng))
        return _rows(train, donors)

    return timed(fit, lambda rows: rows)[1]


def _donors(leaves: np.ndarray, wanted: np.ndarray, rng: Any) -> np.ndarray:
    """Return a random training row of each wanted leaf."""
    order = np.argsort(leaves, kind="stable")
    ids, starts, counts = np.unique(
        leaves[order], return_index=True, return_counts=True
    )
    place = np.searchsorted(ids, wanted)
    return order[starts[place] + rng.integers(counts[place])]


def em_mixture(
    train: pd.DataFrame,
    n: int,
    seed: int,
    holdout: pd.DataFrame,
    categorical: list[str],
) -> Synthesis:
    """Fit a mixture of factorised columns over this library's own column codes."""
    from skvae._table import TableCodec, fit_mixture, mixture_log_prob

    rng = np.random.default_rng(seed)
    k = int(np.clip(len(train) // 50, 8, 128))

    def fit() -> tuple[Any, np.ndarray, np.ndarray]:
        codec = TableCodec(categorical_features=categorical or "from_dtype").fit(train)
        sizes = own_sizes(codec)
        codes = codec.encode(train)[:, : len(sizes)]
        parameters = fit_mixture(codes, sizes, k, bin_runs=codec.bin_runs, rng=rng)
        return codec, *parameters

    def own_sizes(codec: TableCodec) -> np.ndarray:
        # Patterns of several columns would say again what the columns say.
        return codec.sizes[: len(codec.columns)]

    def sample(model: tuple[Any, np.ndarray, np.ndarray]) -> pd.DataFrame:
        codec, log_weights, log_probs = model
        weights = np.exp(log_weights)
        component = rng.choice(len(weights), size=n, p=weights / weights.sum())
        sizes = own_sizes(codec)
        codes = np.empty((n, len(sizes)), dtype=np.int32)
        for j, (start, size) in enumerate(zip(codec.offsets, sizes, strict=False)):
            cumulative = np.cumsum(np.exp(log_probs[start : start + size]), axis=0)
            below = cumulative.T[component] < rng.random((n, 1)) * cumulative[-1, 0]
            codes[:, j] = np.minimum(below.sum(axis=1), size - 1)
        return codec.decode(codes, rng)

    (codec, *parameters), synthesis = timed(fit, sample)
    sizes = own_sizes(codec)
    held_out = codec.encode(known_levels(train, holdout))[:, : len(sizes)]
    log_prob = mixture_log_prob(held_out, sizes, *parameters)
    synthesis.log_likelihood = float(np.mean(log_prob))
    return synthesis


def known_levels(train: pd.DataFrame, holdout: pd.DataFrame) -> pd.DataFrame:
    """Return the hold-out rows that training could have named: no new level or gap."""
    from skvae._table import TableCodec

    keep = np.ones(len(holdout), dtype=bool)
    for name, column in zip(holdout, TableCodec().fit(train).columns, strict=False):
        missing = holdout[name].isna().to_numpy()
        if not train[name].isna().any():
            keep &= ~missing
        if column.kind == "category":
            keep &= holdout[name].isin(train[name].unique()).to_numpy() | missing
    return holdout[keep]


def _is_numeric(column: pd.Series) -> bool:
    return column.dtype.kind in "iuf"


def _ranks(column: pd.Series) -> np.ndarray:
    """Return numbers, or codes of levels by frequency; missing is above all."""
    if not _is_numeric(column):
        levels = column.value_counts().index
        codes = column.map(dict(zip(levels, range(len(levels)), strict=True)))
        return codes.astype(np.float64).fillna(len(levels)).to_numpy()
    values = column.to_numpy(dtype=np.float64)
    return np.where(np.isnan(values), np.nanmax(values) + np.nanstd(values), values)


def _rows(train: pd.DataFrame, places: list[np.ndarray]) -> pd.DataFrame:
    columns = {
        name: train[name].iloc[place].reset_index(drop=True)
        for name, place in zip(train.columns, places, strict=True)
    }
    return pd.DataFrame(columns)
