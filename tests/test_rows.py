"""Numeric rows: scaling, its inverse and Jacobian, batches."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import StandardScaler

from skvae import VAE, AutoencoderTransformer
from skvae._rows import NumericColumns, RowBatches, RowDataset, dense_chunks


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(50, 3)) * [1, 10, 1e3] + [0, 5, -7]


def _dataset(X, columns, **extra):
    rows = columns.to_rows(X, X.dtype.name)
    dtype = torch.float64 if X.dtype == np.float64 else torch.float32
    return RowDataset(columns, {**rows, **extra}, dtype, "cpu")


# -- scaling -------------------------------------------------------------------------
@pytest.mark.parametrize("make", [np.asarray, sp.csr_array], ids=["dense", "csr"])
def test_columns_are_standardised_as_by_scikit_learn(X, make):
    columns = NumericColumns.fit(make(X), "auto")
    scaler = StandardScaler().fit(X)
    np.testing.assert_allclose(columns.center, scaler.mean_)
    np.testing.assert_allclose(columns.scale, scaler.scale_)
    scaled = _dataset(make(X), columns).take(slice(None))["x"].numpy()
    np.testing.assert_allclose(scaled, scaler.transform(X), atol=1e-12)


def test_missing_cells_do_not_enter_the_scaling(X):
    gaps = X.copy()
    gaps[::4, 1] = np.nan
    columns = NumericColumns.fit(gaps, "auto", has_missing=True)
    np.testing.assert_allclose(columns.center, np.nanmean(gaps, axis=0))
    np.testing.assert_allclose(columns.scale, np.nanstd(gaps, axis=0))
    batch = _dataset(gaps, columns).take(np.arange(8))
    np.testing.assert_array_equal(batch["mask"].numpy(), ~np.isnan(gaps[:8]))
    assert np.all(batch["x"].numpy()[::4, 1] == 0)


def test_none_leaves_the_rows_alone(X):
    columns = NumericColumns.fit(X, None)
    np.testing.assert_array_equal(_dataset(X, columns).take(slice(None))["x"], X)
    assert columns.low is None


@pytest.mark.parametrize(
    ("rows", "scale"),
    [
        (np.array([[0.0, 0.3], [1.0, 0.2]]), 1.0),
        (np.array([[0.0, 12.0], [16.0, 3.0]]), 16.0),
        (np.zeros((4, 2)), 1.0),
    ],
    ids=["unit interval", "counts", "zeros"],
)
def test_a_common_range_is_one_constant_with_bounds(rows, scale):
    columns = NumericColumns.fit(rows, "auto")
    np.testing.assert_array_equal(columns.scale, [scale, scale])
    np.testing.assert_array_equal(columns.center, [0, 0])
    assert (columns.low, columns.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    "rows",
    [
        np.array([[0.0, 0.5], [2.0, 0.25]]),  # not whole numbers
        np.array([[-1.0, 5.0], [4.0, 3.0]]),  # negative
        np.array([[1.0, 900.0], [3.0, 100.0], [2.0, 1.0]])[
            :, [0, 0, 1]
        ],  # units differ
        np.array([[1.0], [9.0]]),  # a single column
        np.array([[0.0, 7e4], [8e4, 1.0]]),  # too large for pixels
        np.array([[17, 8, 40], [90, 16, 99], [55, 4, 30]]) * 1.0,  # years of school
        np.c_[np.eye(20)[:, :18] * 90, np.arange(20) % 2 + 3],  # no pixel at the edge
    ],
)
def test_other_columns_are_standardised_each(rows):
    columns = NumericColumns.fit(rows, "auto")
    np.testing.assert_allclose(columns.scale, rows.std(axis=0))
    assert columns.low is None


def test_dark_pixels_at_the_edge_share_the_constant_of_the_others():
    rows = np.c_[np.eye(20)[:, :18] * 255, np.arange(20) // 18 * 3]
    gaps = np.where(np.arange(20)[:, None] == 1, np.nan, rows)
    for X in (rows, gaps):
        np.testing.assert_array_equal(NumericColumns.fit(X, "auto").scale, 255.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_subnormal_spread_is_none(dtype):
    rows = np.array([[-1.0], [2.0]], dtype) * np.finfo(dtype).tiny / 4
    columns = NumericColumns.fit(rows, "auto")
    assert columns.scale[0] == 1.0
    rows = np.array([[-1.0], [2.0]], np.float32) * dtype(1e-30)
    np.testing.assert_allclose(NumericColumns.fit(rows, "auto").scale, 1.5e-30)


def test_constant_columns_have_scale_one():
    columns = NumericColumns.fit(np.array([[5.5, -1.0], [5.5, 2.0]]), "auto")
    assert columns.scale[0] == 1.0
    assert columns.center[0] == 5.5


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(2, 6), st.integers(1, 4)),
        elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    )
)
def test_scaling_there_and_back_gives_the_rows(rows):
    columns = NumericColumns.fit(rows, "auto")
    scaled = _dataset(rows, columns).take(slice(None))["x"].numpy()
    span = np.abs(rows).max(initial=1.0)
    np.testing.assert_allclose(columns.from_scaled(scaled), rows, atol=1e-9 * span)


def test_log_jacobian_is_the_log_derivative_of_the_scaling(X):
    columns = NumericColumns.fit(X, "auto")
    moved = _dataset(np.stack([X[0], X[0] + 1e-3]), columns).take(slice(None))["x"]
    slope = (moved[1] - moved[0]).numpy() / 1e-3
    np.testing.assert_allclose(columns.log_jacobian, np.log(slope), rtol=1e-6)


def test_restored_rows_stay_within_the_bounds():
    columns = NumericColumns.fit(np.array([[0.0, 12.0], [16.0, 3.0]]), "auto")
    restored = columns.from_scaled(np.array([[-0.5, 0.5], [2.0, 1.0]]))
    np.testing.assert_array_equal(restored, [[0, 8], [16, 16]])


@pytest.mark.parametrize("scale", ["auto", None])
def test_a_variance_that_overflows_names_its_column(X, scale):
    with (
        pytest.raises(ValueError, match="variance of column 1 is not finite"),
        np.errstate(over="ignore"),
    ):
        NumericColumns.fit(X * [1, 1e200, 1], scale)


def test_the_state_of_the_columns_is_plain(X):
    columns = NumericColumns.fit(X, "auto")
    again = NumericColumns(**columns.get_state())
    np.testing.assert_array_equal(again.scale, columns.scale)
    assert {type(v) for v in columns.get_state().values()} <= {
        np.ndarray,
        float,
        bool,
        type(None),
    }


# -- gathering -----------------------------------------------------------------------
@pytest.mark.parametrize("make", [np.asarray, np.asfortranarray, sp.csr_array])
def test_taking_rows_never_writes_to_them(X, make):
    rows = make(X.copy())
    dataset = _dataset(rows, NumericColumns.fit(rows, "auto"))
    for index in (slice(0, 9), np.array([3, 1, 3])):
        dataset.take(index)
    kept = rows.toarray() if sp.issparse(rows) else rows
    np.testing.assert_array_equal(kept, X)


@pytest.mark.parametrize("make", [np.asarray, np.asfortranarray, sp.csr_array])
@pytest.mark.parametrize(
    "index", [slice(2, 9), np.array([3, 1, 3])], ids=["slice", "list"]
)
def test_batches_are_contiguous_whatever_the_layout(X, make, index):
    batch = _dataset(make(X), NumericColumns.fit(X, "auto")).take(index)["x"]
    assert batch.is_contiguous()


def test_what_rows_carry_is_gathered_with_them(X):
    condition = np.arange(50.0)[:, None]
    dataset = _dataset(X, NumericColumns.fit(X, None), condition=condition)
    batch = dataset.take(np.array([7, 2]))
    assert batch["condition"].ravel().tolist() == [7, 2]


def test_the_dataset_is_a_torch_dataset(X):
    dataset = _dataset(X, NumericColumns.fit(X, None))
    row, target = dataset[3]
    np.testing.assert_array_equal(row["x"], X[3])
    np.testing.assert_array_equal(target, X[3])
    assert len(dataset) == 50


def _indices(batches):
    return [batch["x"][:, 0].int().tolist() for batch in batches.batches()]


def _numbered(n):
    rows = np.arange(float(n))[:, None]
    return _dataset(rows, NumericColumns.fit(rows, None))


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [
        (10, 5, [5, 5]),
        (11, 5, [6 - 1, 6]),
        (12, 5, [5, 5, 2]),
        (3, 8, [3]),
        (1, 1, [1]),
    ],
)
def test_a_short_last_batch_joins_the_one_before(n, size, sizes):
    batches = RowBatches(_numbered(n), size)
    assert [len(b) for b in _indices(batches)] == sizes
    assert len(batches) == len(sizes)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9))
def test_an_epoch_sees_every_row_once(n, size, seed):
    generator = torch.Generator().manual_seed(seed)
    batches = RowBatches(_numbered(n), size, shuffle=True, generator=generator)
    seen = [i for batch in _indices(batches) for i in batch]
    assert sorted(seen) == list(range(n))


def test_every_epoch_has_its_own_order():
    generator = torch.Generator().manual_seed(0)
    batches = RowBatches(_numbered(40), 8, shuffle=True, generator=generator)
    assert _indices(batches) != _indices(batches)


def test_a_subset_gives_its_rows_only():
    part = torch.utils.data.Subset(_numbered(20), np.array([3, 9, 11]))
    assert _indices(RowBatches(part, 2)) == [[3, 9], [11]]


def test_chunks_cover_sparse_rows_in_order(X):
    blocks = list(dense_chunks(sp.csr_array(X), 17))
    assert [len(b) for b in blocks] == [17, 17, 16]
    np.testing.assert_array_equal(np.vstack(blocks), X)


def test_unscaled_values_whose_squares_overflow_are_refused():
    X = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32) * 1e30
    with pytest.raises(ValueError, match="squares of X overflow float32"):
        AutoencoderTransformer(2, scale=None, max_iter=2, random_state=0).fit(X)
    for kind in (AutoencoderTransformer, VAE):
        scaled = kind(2, max_iter=2, random_state=0).fit(X)
        assert np.isfinite(scaled.noise_variance_).all()
