"""Numeric rows: scaled on the way in, restored on the way out, gathered by batch.

A `NumericColumns` object holds what was learned about the columns (plain NumPy
state); `RowDataset` holds the rows of one call in memory and hands out batches as
dictionaries of tensors, scaling them as they are gathered, so that the input is
never copied whole. Sparse rows are made dense batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

_CHUNK = 4096
# How far most columns of data in [0, 1] reach if they share these units.
_FAR = 0.25
# A column below this share of the maximum has units of its own, unless it is mostly
# zero, as pixels at the edge are; among fewer columns than these, also then.
_NEAR, _PIXELS = 0.25, 16


def dense_chunks(X: Any, size: int = _CHUNK) -> Iterator[np.ndarray]:
    """Yield consecutive dense blocks of rows."""
    for start in range(0, X.shape[0], size):
        yield dense_rows(X, slice(start, start + size))


def dense_rows(X: Any, index: Any) -> np.ndarray:
    """Return the rows `index` as a dense C-contiguous array."""
    rows = X[index]
    return rows.toarray() if sp.issparse(rows) else np.ascontiguousarray(rows)


class NumericColumns:
    """Location, scale and bounds of numeric columns.

    Parameters
    ----------
    center : ndarray of shape (n_features,)
        Subtracted from every column.
    scale : ndarray of shape (n_features,)
        Divides every column.
    low, high : float or None
        Bounds of the scaled data, where it has common ones.
    has_missing : bool
        Whether training rows had missing cells; the encoder then sees a mask.
    """

    kind = "numeric"
    tolerates_missing = False

    def __init__(
        self,
        center: np.ndarray,
        scale: np.ndarray,
        low: float | None = None,
        high: float | None = None,
        has_missing: bool = False,
    ):
        self.center = center
        self.scale = scale
        self.low = low
        self.high = high
        self.has_missing = has_missing

    @classmethod
    def fit(
        cls, X: Any, scale: str | None, has_missing: bool = False
    ) -> NumericColumns:
        """Learn the scaling of `X`; ``scale=None`` leaves the data alone."""
        d = X.shape[1]
        zeros, ones = np.zeros(d, dtype=X.dtype), np.ones(d, dtype=X.dtype)
        low, high = _ranges(X)
        if scale is None:
            if _largest_square(low, high) > float(np.finfo(X.dtype).max) / X.shape[0]:
                _standardisation(X)
                raise ValueError(
                    f"The squares of X overflow {X.dtype}: the input data contains "
                    "large values and needs to be preprocessed. Use scale='auto', or "
                    "rescale the columns."
                )
            return cls(zeros, ones, has_missing=has_missing)
        common = _common_range(X, low, high)
        if common is not None:
            return cls(zeros, ones * X.dtype.type(common), 0.0, 1.0, has_missing)
        center, sd = _standardisation(X)
        return cls(center.astype(X.dtype), sd.astype(X.dtype), has_missing=has_missing)

    @property
    def is_identity(self) -> bool:
        """Whether the columns are left as they are."""
        return not self.center.any() and bool(np.all(self.scale == 1))

    @property
    def log_jacobian(self) -> np.ndarray:
        """Log-derivative of the scaling of each column, in nats."""
        return -np.log(self.scale.astype(np.float64))

    def to_rows(self, X: Any, dtype: Any) -> dict[str, Any]:
        """Return validated rows as they are stored: not copied, not scaled."""
        return {"x": X.astype(dtype, copy=False)}

    @staticmethod
    def own_cells(x: torch.Tensor) -> torch.Tensor:
        """Return scaled rows as they are: all cells are those of a column."""
        return x

    def point(self, likelihood: Any, raw: Tensor) -> np.ndarray:
        """Return the mean of the likelihood in the units of the training data."""
        return self.from_scaled(likelihood.mean(raw).cpu().numpy())

    def draw(
        self, likelihood: Any, raw: Tensor, generator: torch.Generator
    ) -> np.ndarray:
        """Draw rows from the likelihood, in the units of the training data."""
        return self.from_scaled(likelihood.draw(raw, generator).cpu().numpy())

    @staticmethod
    def order(z: Tensor) -> Tensor | None:
        """Return the order to draw rows in: None, as they come."""
        return None

    @staticmethod
    def n_to_draw(n: int) -> int:
        """Return how many rows to draw for n of them."""
        return n

    def drawn(
        self,
        rows: np.ndarray,
        generator: torch.Generator,
        n: int | None = None,
        **ignored: Any,
    ) -> np.ndarray:
        """Return drawn rows; they are in the units of the training data already."""
        return rows

    def joined(self, parts: list[np.ndarray]) -> np.ndarray:
        """Join blocks of restored rows."""
        return np.concatenate(parts)

    @staticmethod
    def in_container(rows: np.ndarray, container: Any, like: Any = None) -> Any:
        """Return restored rows in a container, in the type of the rows `like`."""
        if like is not None:
            rows = rows.astype(like.dtype, copy=False)
        return container.restore(rows)

    def get_state(self) -> dict[str, Any]:
        """Return the learned state as plain values."""
        return dict(vars(self))

    def from_scaled(self, x: np.ndarray) -> np.ndarray:
        """Return scaled rows in the units of the training data, within its bounds."""
        if self.low is not None:
            x = np.clip(x, self.low, self.high)
        return x * self.scale + self.center

    def squared_units(self, variance: np.ndarray) -> np.ndarray:
        """Return variances of scaled columns in the squared units of the data."""
        # In float64: the square of a large float32 unit overflows.
        return variance * np.square(self.scale, dtype=np.float64)


def _ranges(X: Any) -> tuple[np.ndarray, np.ndarray]:
    d = X.shape[1]
    low, high = np.full(d, np.inf), np.full(d, -np.inf)
    for block in dense_chunks(X):
        # fmin and fmax pass over missing cells without a warning.
        low = np.fmin(low, np.fmin.reduce(block, axis=0))
        high = np.fmax(high, np.fmax.reduce(block, axis=0))
    return low, high


def _largest_square(low: np.ndarray, high: np.ndarray) -> float:
    with np.errstate(over="ignore"):
        return float(np.max(np.square(np.stack([low, high])), initial=0.0))


def _common_range(X: Any, low: np.ndarray, high: np.ndarray) -> float | None:
    """Return the constant that maps the data into [0, 1], if the columns share one.

    Data already in [0, 1] keeps its units if most columns reach far into it, as pixels
    do and small shares do not. Non-negative integers whose columns
    mostly reach the same order of maximum (pixels, ratings) share one constant:
    scaling each column by itself would blow up the nearly constant ones. Not so beside
    a column with units of its own, such as years of school beside the age.
    """
    if not np.all(low >= 0):
        return None
    top = float(np.max(high, initial=0.0))
    varying = high > low
    if top <= 1.0:
        far = not varying.any() or np.median(high[varying]) >= _FAR
        return 1.0 if far else None
    if varying.sum() < 2 or np.median(high[varying]) < 0.5 * top or top > 65535:
        return None
    whole = all(np.all((b == np.round(b)) | np.isnan(b)) for b in dense_chunks(X))
    return top if whole and not _has_own_units(X, varying, high, top) else None


def _has_own_units(X: Any, varying: np.ndarray, high: np.ndarray, top: float) -> bool:
    """Tell whether a column stays far below the maximum without being mostly zero."""
    low = np.flatnonzero(varying & (high < _NEAR * top))
    if not len(low) or varying.sum() < _PIXELS:
        return bool(len(low))
    blocks = (block[:, low] for block in dense_chunks(X))
    balance = sum((b > 0).sum(axis=0) - (b == 0).sum(axis=0) for b in blocks)
    return bool(np.any(balance > 0))


def _standardisation(X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column, ones where constant.

    A spread that the digits of the mean may have made is none, unless it is above one:
    unscaled, the column would be all that a model sees.
    """
    d = X.shape[1]
    count, total = np.zeros(d), np.zeros(d)
    for block in dense_chunks(X):
        seen = ~np.isnan(block)
        count += seen.sum(axis=0)
        total += np.where(seen, block, 0).sum(axis=0, dtype=np.float64)
    count = np.maximum(count, 1)
    mean = total / count
    squares = np.zeros(d)
    with np.errstate(over="ignore", invalid="ignore"):
        for block in dense_chunks(X):
            squares += np.nansum(np.square(block - mean), axis=0)
    sd = np.sqrt(squares / count)
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(sd))):
        column = int(np.flatnonzero(~(np.isfinite(mean) & np.isfinite(sd)))[0])
        raise ValueError(
            f"The variance of column {column} is not finite: the input data may "
            "contain large values and need to be preprocessed."
        )
    limits = np.finfo(X.dtype)
    # One over a subnormal spread overflows.
    constant = sd <= np.maximum(10 * limits.eps * np.abs(mean), limits.tiny)
    return mean, np.where(constant, np.maximum(sd, 1.0), sd)


class RowDataset(torch.utils.data.Dataset):
    """Rows of one call in memory, gathered and scaled batch by batch.

    Parameters
    ----------
    columns : object
        What was learned about the columns: `NumericColumns` or `TableColumns`.
    arrays : dict of str to array
        Arrays with one entry a row: "x" (ndarray or CSR), and where given
        "condition" and "label_prior".
    dtype : torch.dtype
        Type of the floating-point tensors.
    device : torch.device or str
        Where batches live; rows are moved there once if it is not the CPU.
    """

    def __init__(self, columns: Any, arrays: dict[str, Any], dtype: Any, device: Any):
        self.columns = columns
        self.arrays = {k: v for k, v in arrays.items() if v is not None}
        self.dtype = dtype
        self.device = torch.device(device)
        self.n_rows = arrays["x"].shape[0]
        self._affine: tuple[Tensor, Tensor] | None = None
        if not columns.is_identity:
            # Copied: arrays of a memory-mapped model cannot be written to.
            center, inverse = np.array(columns.center), 1 / columns.scale
            self._affine = (
                torch.as_tensor(center, dtype=dtype, device=self.device),
                torch.as_tensor(inverse, dtype=dtype, device=self.device),
            )
        if self.device.type != "cpu":
            self.arrays = {k: self._resident(v) for k, v in self.arrays.items()}

    def _resident(self, array: Any) -> Any:
        if sp.issparse(array):
            return array
        # In C order: sums over columns depend on the layout in their last bit.
        return torch.as_tensor(np.array(array, order="C"), device=self.device)

    def placed(self, order: np.ndarray) -> Any:
        """Return an order of the rows where these are: sparse ones stay on the host."""
        if self.device.type == "cpu" or sp.issparse(self.arrays["x"]):
            return order
        return torch.as_tensor(order, device=self.device)

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, i: int) -> tuple[dict[str, Tensor], Tensor]:
        batch = self.take(np.array([i]))
        row = {name: value[0] for name, value in batch.items()}
        return row, row["x"]

    def take(self, index: Any) -> dict[str, Tensor]:
        """Gather the rows `index` (an integer array or a slice) as tensors."""
        batch = {name: self._gather(a, index) for name, a in self.arrays.items()}
        x = batch["x"]
        if self.columns.has_missing:
            mask = ~torch.isnan(x)
            batch["mask"] = mask.to(x.dtype)
        if self._affine is not None:
            center, inverse = self._affine
            x = x.sub_(center).mul_(inverse)
        if self.columns.has_missing:
            x = torch.nan_to_num_(x, nan=0.0)
        batch["x"] = x
        return batch

    def _gather(self, array: Any, index: Any) -> Tensor:
        if isinstance(array, Tensor):
            rows = array[index]
            # A slice is a view: the stored rows must survive scaling in place.
            return rows.clone() if isinstance(index, slice) else rows
        if sp.issparse(array):
            return torch.from_numpy(array[index].toarray()).to(self.device)
        if isinstance(index, slice):
            # In C order: sums over columns depend on the layout in their last bit.
            return torch.from_numpy(np.array(array[index], order="C"))
        return torch.from_numpy(array.take(index, axis=0))


def column_means(dataset: RowDataset) -> Tensor:
    """Return the mean of the observed cells of each scaled column."""
    x, missing = dataset.arrays["x"], dataset.columns.has_missing
    as_stored = dataset._affine is None and not missing and isinstance(x, np.ndarray)
    total: Any = 0.0
    count: Any = 0.0
    for start in range(0, len(dataset), _CHUNK):
        part = slice(start, start + _CHUNK)
        if as_stored:
            batch = {
                "x": torch.from_numpy(np.require(x[part], requirements=["C", "W"]))
            }
        else:
            batch = dataset.take(part)
        # Missing cells are zero here, and not counted.
        total = total + batch["x"].sum(0)
        count = count + (batch["mask"].sum(0) if missing else len(batch["x"]))
    count = torch.as_tensor(count, dtype=total.dtype, device=total.device)
    return total / count.clamp(min=1)


def column_ranges(dataset: RowDataset, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest scaled value of each column over some rows."""
    lows, highs = [], []
    for start in range(0, len(index), _CHUNK):
        x = dataset.take(index[start : start + _CHUNK])["x"]
        lows.append(x.amin(dim=0))
        highs.append(x.amax(dim=0))
    return torch.stack(lows).amin(dim=0), torch.stack(highs).amax(dim=0)


class RowBatches:
    """Iterate over the batches of a `RowDataset` by one permutation an epoch.

    Parameters
    ----------
    dataset : RowDataset or torch.utils.data.Subset of one
        The rows.
    batch_size : int
        Rows a batch; a last batch of fewer than a quarter of that joins the one before.
    shuffle : bool, default=False
        Whether to permute the rows anew each epoch.
    generator : torch.Generator or None, default=None
        Draws the permutations.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
    ):
        self.index = None
        if isinstance(dataset, torch.utils.data.Subset):
            self.index = np.asarray(dataset.indices)
            dataset = dataset.dataset
        self.rows = dataset
        self.n_rows = len(dataset) if self.index is None else len(self.index)
        self.batch_size = max(1, min(batch_size, self.n_rows))
        self.shuffle = shuffle
        self.generator = generator

    def _bounds(self) -> list[tuple[int, int]]:
        starts = list(range(0, self.n_rows, self.batch_size))
        if len(starts) > 1 and 4 * (self.n_rows - starts[-1]) < self.batch_size:
            starts.pop()
        return list(zip(starts, [*starts[1:], self.n_rows], strict=True))

    def __len__(self) -> int:
        return len(self._bounds())

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield each batch as a dictionary of tensors."""
        order: Any = self.index
        if self.shuffle:
            permutation = torch.randperm(self.n_rows, generator=self.generator).numpy()
            order = permutation if order is None else order[permutation]
        if order is not None:
            order = self.rows.placed(order)
        for start, stop in self._bounds():
            part = slice(start, stop) if order is None else order[start:stop]
            yield self.rows.take(part)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for batch in self.batches():
            yield batch, batch["x"]
