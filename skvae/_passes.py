"""Rows and codes through a fitted network, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.validation import check_array, check_is_fitted

from skvae._inference import FoldedDecoder
from skvae._rows import RowDataset
from skvae._table import Container, has_missing, library_of
from skvae._threads import limited_threads, own_settings
from skvae.likelihoods import LIKELIHOODS

# Floats a chunk of rows may occupy in the widest layer while predicting.
_CHUNK_FLOATS = 1 << 20
_NUMPY_DTYPE = {torch.float64: np.float64, torch.float32: np.float32}


def check_count(name: str, value: Any) -> None:
    """Check a number of rows or draws.

    Raises
    ------
    ValueError
        If it is not a positive integer.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1. Got {value!r}.")


def _with_index(rows: Any, like: Any) -> Any:
    """Return a pandas frame with the index of another one, if both are such."""
    if library_of(like) == "pandas" == library_of(rows):
        rows.index = like.index
    return rows


class PassesMixin:
    """Ways of rows into codes and of codes into rows."""

    @contextmanager
    def _inference(self: Any) -> Iterator[None]:
        with limited_threads(), own_settings(), torch.inference_mode():
            yield

    @property
    def _module(self: Any) -> Any:
        return self.net_.module_

    def _restored(self: Any, rows: Any, codes: Any = None) -> Any:
        """Return rows in the container of the training rows, under those of codes."""
        return _with_index(self._columns.in_container(rows, self._container), codes)

    def _in_container(self: Any, values: Any, X: Any, rows: Any) -> Any:
        """Return values in the container of `X`, in the type of its validated rows."""
        values = self._columns.in_container(values, Container.of(X), like=rows)
        return _with_index(values, X)

    def _some_rows(self: Any, n: int, most: int) -> Any:
        """Choose rows to look at, of n training rows: all of them, or so many."""
        if n <= most:
            return slice(None)
        rng = np.random.RandomState(self.evaluation_seed_)
        return np.sort(rng.choice(n, most, replace=False))

    def _encode_rows(self: Any, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._encode(self._validate(X, reset=False))

    def _validate_codes(self: Any, Z: Any) -> np.ndarray:
        Z = check_array(
            Z, dtype=[np.float64, np.float32], estimator=self, input_name="X"
        )
        if Z.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {Z.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_components_} components as input."
            )
        return Z

    def _dataset(self: Any, X: Any, rows: Any = None, **arrays: Any) -> RowDataset:
        """Return validated rows, or rows already coded, as a dataset."""
        parameter = next(self._module.parameters())
        if rows is None:
            self._refuse_missing(X)
            rows = self._columns.to_rows(X, _NUMPY_DTYPE[parameter.dtype])
        return RowDataset(
            self._columns, {**rows, **arrays}, parameter.dtype, parameter.device
        )

    def _refuse_missing(self: Any, X: Any) -> None:
        """Refuse missing cells if the model knows of none."""
        columns = self._columns
        known = columns.has_missing or columns.tolerates_missing
        if not known and self.missing_values == "mask" and has_missing(X):
            raise ValueError(
                f"Input X contains NaN, but the rows {type(self).__name__} was fitted "
                "on had no missing cells. Impute them first, or fit on rows that have "
                "some."
            )

    def _refuse_beyond_support(self: Any, X: Any) -> None:
        """Refuse numbers that have no likelihood: of these scores say nothing."""
        kind = LIKELIHOODS.get(self.likelihood_)
        if kind is None or not np.isfinite(kind.support).any():
            return
        values = X.data if sp.issparse(X) else X
        low = np.nanmin(values, initial=0.0)
        high = np.nanmax(values, initial=0.0)
        if low >= kind.support[0] and high <= kind.support[1]:
            return
        if self.likelihood_ == "poisson":
            raise ValueError(
                "Negative values in data passed to an estimator with "
                f"likelihood='poisson': counts are >= 0, got {low}."
            )
        raise ValueError(
            f"likelihood={self.likelihood_!r} needs data in [0, 1], got values in "
            f"[{low}, {high}]."
        )

    def _chunks(self: Any, dataset: RowDataset, repeats: int = 1) -> Iterator[tuple]:
        """Yield slices of rows and their batches, in bounded memory."""
        size = min(4096, self._chunk_rows(repeats))
        for start in range(0, len(dataset), size):
            part = slice(start, min(start + size, len(dataset)))
            yield part, dataset.take(part)

    def _chunk_rows(self: Any, repeats: int = 1) -> int:
        """Return how many rows go through the network at once."""
        return int(max(1, _CHUNK_FLOATS // (self._width * repeats)))

    @property
    def _width(self: Any) -> int:
        widths = self._architecture.hidden_layer_sizes
        n_out = self._module.likelihood.n_outputs
        return max(self.n_features_in_, self.n_components_, n_out, *widths)

    def _encode(self: Any, X: Any) -> np.ndarray:
        folded = self._folded
        if folded is not None and folded.is_current(self._module):
            with self._inference():
                codes = folded(X)
            # A missing cell makes its code missing: the fewer numbers are looked at.
            if np.isnan(codes).any():
                self._refuse_missing(X)
            return codes
        dataset = self._dataset(X)
        codes = np.empty((len(dataset), self.n_components_), dtype=self._dtype)
        module = self._module
        with self._inference():
            for part, batch in self._chunks(dataset):
                inputs = module.encoder_input(**batch)
                codes[part] = module.posterior(inputs)[0].cpu().numpy()
        return codes

    def _output_dtype(self: Any, X: Any) -> Any:
        return (
            X.dtype if isinstance(getattr(X, "dtype", None), np.dtype) else np.float64
        )

    @property
    def _dtype(self: Any) -> Any:
        return _NUMPY_DTYPE[next(self._module.parameters()).dtype]

    def _to_device(self: Any, array: np.ndarray) -> torch.Tensor:
        parameter = next(self._module.parameters())
        values = np.array(array, dtype=self._dtype)
        return torch.as_tensor(values, device=parameter.device)

    def _decode_points(self: Any, Z: np.ndarray) -> Any:
        """Return the point estimate of the rows of codes, in their units."""
        module, parts = self._module, []
        size = self._chunk_rows()
        with self._inference():
            for start in range(0, len(Z), size):
                raw = module.decode(self._to_device(Z[start : start + size]))
                parts.append(self._columns.point(module.likelihood, raw))
        return self._columns.joined(parts)

    def _draw_rows(
        self: Any,
        z: torch.Tensor,
        generator: torch.Generator,
        n: int | None = None,
        groups: np.ndarray | None = None,
    ) -> Any:
        """Draw the rows of codes from the likelihood, in their units, and keep n."""
        module, parts = self._module, []
        folded = FoldedDecoder.of(module, self._columns)
        if folded is not None:
            return folded.draw(z, generator)
        order = self._columns.order(z)
        z = z if order is None else z[order]
        for chunk in z.split(self._chunk_rows()):
            raw = module.decode(chunk)
            parts.append(self._columns.draw(module.likelihood, raw, generator))
        drawn = rows = np.concatenate(parts)
        if order is not None:
            rows = np.empty_like(drawn)
            rows[order.cpu().numpy()] = drawn
        return self._columns.drawn(rows, generator, n, groups=groups)
