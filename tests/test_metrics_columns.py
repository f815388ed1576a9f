"""Metrics read the columns of tables as the estimators do."""

import numpy as np
import pandas as pd
import pytest

from skvae import metrics


def numbers(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"x": rng.normal(size=n), "k": rng.integers(0, 3, n)})


# -- which columns are categories ------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        [False, True],
        np.array([False, True]),
        pd.Series([False, True]),
        [1],
        np.array([1]),
        np.array(["k"]),
        "k",
    ],
)
def test_categories_are_names_positions_or_a_mask(chosen):
    real, fake = numbers(), numbers(seed=1).assign(k=7)
    expected = metrics.shape_errors(real, fake, categorical_features=["k"])
    assert metrics.shape_errors(real, fake, categorical_features=chosen) == expected
    assert expected["x"] == metrics.shape_errors(real, fake)["x"]


def test_categories_from_the_dtype_are_the_default():
    real, fake = numbers(), numbers(seed=1)
    default = metrics.shape_errors(real, fake)
    assert default == metrics.shape_errors(
        real, fake, categorical_features="from_dtype"
    )


def test_integers_are_positions_whatever_the_names():
    real, fake = (numbers(seed=s).set_axis([1, 0], axis=1) for s in (0, 1))
    errors = metrics.shape_errors(real, fake, categorical_features=[1])
    assert errors[1] == metrics.shape_errors(real, fake)[1]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([-1], r"unknown columns \[-1\].*positions from 0 to 1"),
        ([2], r"unknown columns \[2\]"),
        (["k", True], r"unknown columns \[True\]"),
        ([True], "1 entries as a mask, but X has 2 columns"),
    ],
)
def test_categories_that_are_no_columns_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        metrics.shape_errors(numbers(), numbers(), categorical_features=chosen)


@pytest.mark.parametrize("target", [True, np.True_, -1])
def test_a_target_that_is_no_column_is_refused(target):
    with pytest.raises(ValueError, match="is not a column"):
        metrics.utility_score(numbers(), numbers(), numbers(), target, random_state=0)
