"""Drawn numbers are written with the decimals of the training rows."""

import numpy as np
import pandas as pd
import pytest

from skvae._table import TableCodec


def _redrawn(values, **others):
    """Return one draw for each row of a column of numbers."""
    frame = pd.DataFrame({"x": values, **others})
    codec = TableCodec().fit(frame)
    state = TableCodec.from_state(codec.get_state())
    drawn = codec.decode(codec.encode(frame), np.random.default_rng(0))
    again = state.decode(state.encode(frame), np.random.default_rng(0))
    pd.testing.assert_frame_equal(drawn, again)
    assert (drawn["x"] != frame["x"]).any()
    return drawn["x"].to_numpy()


@pytest.fixture
def normal():
    return 300 * np.random.default_rng(1).normal(size=600)


def test_single_precision_keeps_its_decimals(normal):
    values = normal.round(1).astype(np.float32)
    drawn = _redrawn(values)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, drawn.astype(float).round(1).astype("f4"))


def test_single_precision_kept_in_doubles(normal):
    values = normal.round(1).astype(np.float32).astype(np.float64)
    drawn = _redrawn(values)
    np.testing.assert_array_equal(drawn, drawn.round(1).astype(np.float32))


def test_leftovers_of_calculations_do_not_count(normal):
    values = np.round(normal) * 0.1 * 3
    assert (values != values.round(8)).any()
    drawn = _redrawn(values)
    inside = ~np.isin(drawn, values)  # The ends of a code are training values.
    assert inside.sum() > 100
    np.testing.assert_array_equal(drawn[inside], drawn[inside].round(1))


def test_few_longer_values_do_not_lengthen_all(normal):
    values = normal.round(2)
    values[::60] += 1e-6
    drawn = _redrawn(values)
    assert (drawn != drawn.round(2)).mean() < 0.05


def test_decimals_follow_the_magnitude():
    sizes = 10 ** np.random.default_rng(3).uniform(-2, 5, 600)
    values = np.array([float(f"{v:.4g}") for v in sizes])
    drawn = _redrawn(values)
    large, small = drawn[drawn >= 2000], drawn[drawn < 1]
    np.testing.assert_array_equal(large, large.round())
    assert (small != small.round(3)).mean() > 0.5


def test_numbers_without_an_end_stay_so(normal):
    drawn = _redrawn(normal)
    assert (drawn != drawn.round(8)).mean() > 0.95


def test_whole_numbers_are_not_taken_for_single_precision():
    values = np.random.default_rng(2).integers(0, 10**6, 400) * 0.5
    drawn = _redrawn(values)
    np.testing.assert_array_equal(drawn, drawn.round(1))


@pytest.mark.parametrize("place", [0, 300])
def test_a_huge_number_beside_decimals(normal, place):
    values = normal.round(2)
    values[place] = 1e305
    drawn = _redrawn(values, y=normal[::-1], z=normal**2)
    assert np.isfinite(drawn).all()
    usual = drawn[np.abs(drawn) < 1e4]
    np.testing.assert_array_equal(usual, usual.round(2))
