"""Conditions: rows without a label, columns by name, one condition for all rows."""

import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from skvae import ConditionalVAE
from skvae._conditions import Conditions


@pytest.fixture(scope="module")
def X():
    X = np.random.default_rng(0).normal(size=(120, 4))
    X[:, 1] += X[:, 0]
    return X


def _quick():
    return ConditionalVAE(2, max_iter=2, random_state=0)


@pytest.mark.parametrize("gap", [-1, -1.0, None, np.nan])
@pytest.mark.parametrize("dtype", [float, object])
def test_labels_may_be_floats_or_objects_and_still_be_missing(X, dtype, gap):
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    some = y.astype(dtype)
    some[::5] = gap
    model = _quick().fit(X, some)
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    shares = np.bincount(y[some == y]) / (some == y).sum()
    np.testing.assert_allclose(model.class_prior_, shares)
    with pytest.raises(ValueError, match="give a label for each"):
        model.sample(1, y=-1.0)


def test_minus_one_beside_names_is_no_label(X):
    y = np.where(X[:, 0] > 0, "up", "down").astype(object)
    y[::5] = -1
    model = _quick().fit(X, y)
    assert list(model.classes_) == ["down", "up"]


@pytest.mark.parametrize("y", [np.arange(120.0) % 30 - 1, np.arange(120.0) / 4 - 1])
def test_minus_one_among_many_numbers_is_a_number(X, y):
    model = _quick().fit(X, y)
    assert model.classes_ is None
    assert -1 in model.sample(120, random_state=0)[1]


def test_minus_one_of_two_floats_is_a_class(X):
    model = _quick().fit(X, np.sign(X[:, 0]))
    np.testing.assert_array_equal(model.classes_, [-1, 1])


@pytest.fixture(scope="module")
def of_two():
    """Return rows, their two conditions by name, and a model of them."""
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"g": rng.choice(["A", "B"], 150), "v": rng.normal(size=150)})
    X = rng.normal(size=(150, 3)) + 3 * y[["v"]].to_numpy()
    return X, y, _quick().fit(X, y)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_conditions_go_by_name(of_two, library):
    X, y, model = of_two
    given = y if library == "pandas" else pytest.importorskip("polars").from_pandas(y)
    rows = model.sample(150, y=y, random_state=0)[0]
    swapped, told = model.sample(150, y=given[["v", "g"]], random_state=0)
    np.testing.assert_array_equal(swapped, rows)
    assert list(told.columns) == ["v", "g"]
    score = model.score(X, given[["v", "g"]])
    assert score == model.score(X, y) == model.score(X, y.to_numpy())


def test_one_condition_for_all_rows(of_two):
    model = of_two[2]
    many = pd.DataFrame({"g": ["A"] * 4, "v": [1.0] * 4})
    rows = model.sample(4, y=many, random_state=0)[0]
    for one in ({"v": 1, "g": "A"}, many[:1], many[["v", "g"]][:1]):
        again, told = model.sample(4, y=one, random_state=0)
        np.testing.assert_array_equal(again, rows)
        pd.testing.assert_frame_equal(told[["g", "v"]], many)
    codes = np.zeros((4, 2))
    np.testing.assert_array_equal(
        model.inverse_transform(codes, y={"v": 1, "g": "A"}),
        model.inverse_transform(codes, y=many),
    )


NAMES = r"was fitted with \['g', 'v'\]. Pass these, in any order"


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ({"v": 1.0}, rf"columns \['v'\], but the model {NAMES}"),
        ({"v": 1.0, "h": "A"}, NAMES),
        (pd.DataFrame({"v": [1.0], "h": ["A"]}), NAMES),
        (pd.DataFrame({"v": [1.0]}), NAMES),
        ({"v": 1.0, "g": "C"}, r"y\['g'\].*\['C'\]. Known labels are \['A', 'B'\]"),
        (pd.DataFrame({"v": [1.0], "g": [5]}), r"y\['g'\].*\[5\]. Known labels are"),
        ({"v": "x", "g": "A"}, "does not fit the types of conditions in fit"),
        (np.array([["A", "x"]]), r"y\['v'\] holds numbers. Got \['x'\]"),
        ({"v": [1.0, 2.0], "g": "A"}, r"y\['v'\] must be one value in a dict"),
        ({"v": None, "g": "A"}, r"y\['v'\] must be one value in a dict. Got None"),
        ("A", r"1 condition columns.*fitted with 2, \['g', 'v'\]"),
    ],
)
def test_conditions_that_do_not_fit_say_what_is_known(of_two, y, message):
    with pytest.raises(ValueError, match=message):
        of_two[2].sample(1, y=y, random_state=0)


def test_a_flag_is_not_told_by_a_word(of_two):
    X, y, _ = of_two
    model = _quick().fit(X, y.assign(flag=y["v"] > 0))
    with pytest.raises(ValueError, match=r"\['no'\]. Known labels are \[False, True\]"):
        model.sample(1, y={"g": "A", "v": 1.0, "flag": "no"})


def test_conditions_without_names_go_by_position(of_two):
    X, y, _ = of_two
    table = np.column_stack([y["g"] == "A", y["v"]]).astype(float)
    model = _quick().fit(X, table)
    rows, told = model.sample(2, y={0: 1.0, 1: 0.5}, random_state=0)
    np.testing.assert_array_equal(told, [[1.0, 0.5]] * 2)
    np.testing.assert_array_equal(model.sample(2, y=told, random_state=0)[0], rows)
    with pytest.raises(ValueError, match=r"fitted with \[0, 1\]"):
        model.sample(2, y={"a": 1.0, "b": 0.5})
    with pytest.raises(ValueError, match="one that has no name"):
        _quick().fit(X, y["g"]).sample(2, y={"g": "A"})


def _numbers_in_disguise():
    """Return conditions that rise by the row and are no plain numbers."""
    days = pd.Series(pd.date_range("2024-01-01", periods=120))
    return {
        "moments": days,
        "zoned": days.dt.tz_localize("Europe/Rome"),
        "dates": days.dt.date,
        "durations": days - days[0],
        "decimals": pd.Series([Decimal(f"{k}.25") for k in range(120)]),
    }


@pytest.mark.parametrize("name", list(_numbers_in_disguise()))
@pytest.mark.parametrize("as_table", [False, True])
def test_dates_and_decimals_are_numbers(X, name, as_table):
    y = _numbers_in_disguise()[name]
    asked = y[60]
    seen = y.drop(60).reset_index(drop=True)
    if as_table:
        seen = pd.DataFrame({"when": seen, "k": np.arange(119) % 50})
        asked = {"when": asked, "k": 7}
    model = _quick().fit(X[:119], seen)
    assert model.classes_ is None
    assert model._conditions.width == 1 + as_table
    rows, told = model.sample(4, y=asked, random_state=0)
    assert rows.shape == (4, X.shape[1])
    if as_table:
        assert told["when"].tolist() == [y[60]] * 4
        drawn = model.sample(30, random_state=0)[1]
        assert drawn.dtypes.equals(seen.dtypes)
        assert set(drawn["when"]) <= set(seen["when"])


@pytest.mark.parametrize("name", ["moments", "dates", "durations"])
@pytest.mark.parametrize("as_table", [False, True])
def test_a_number_is_no_date(X, name, as_table):
    y = _numbers_in_disguise()[name]
    asked = 5
    if as_table:
        y, asked = pd.DataFrame({"when": y, "k": np.arange(120)}), {"when": 5, "k": 7}
    model = _quick().fit(X, y)
    with pytest.raises(ValueError, match=r"holds (dates|durations)\. Got \[5"):
        model.sample(4, y=asked, random_state=0)


def test_few_dates_are_classes(X):
    y = pd.Series(pd.to_datetime(["2024-01-01", "2024-02-01"] * 60))
    y[::7] = pd.NaT
    model = _quick().fit(X, y)
    assert len(model.classes_) == 2


def test_a_frame_of_one_column_has_classes(X):
    y = pd.DataFrame({"group": ["u", "v", "v"] * 40})
    model, other = _quick().fit(X, y), _quick().fit(X, y["group"])
    assert model.classes_.tolist() == ["u", "v"]
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    np.testing.assert_allclose(model.score_samples(X), other.score_samples(X))
    told = model.sample(5, y={"group": "v"}, random_state=0)[1]
    assert told["group"].tolist() == ["v"] * 5
    assert list(model.sample(5, random_state=0)[1].columns) == ["group"]


# -- further rows ----------------------------------------------------------------------


def test_shares_of_classes_are_those_of_all_rows_so_far():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 300)
    X = rng.normal(size=(600, 4)) + 0.7 * y[:, None]
    first = np.r_[0:200, 300:304]
    rest = np.setdiff1d(np.arange(600), first)
    model = ConditionalVAE(2, random_state=0).partial_fit(X[first], y[first])
    for _ in range(3):
        model.partial_fit(X[rest], y[rest])
    shares = np.bincount(np.r_[y[first], *[y[rest]] * 3]) / (204 + 3 * 396)
    np.testing.assert_allclose(model.class_prior_, shares)
    assert (model.predict(X) == y).mean() > 0.7
    drawn = model.sample(1000, random_state=0)[1]
    assert drawn.mean() == pytest.approx(shares[1], abs=0.01)
    model.partial_fit(X, np.where(y == 1, np.nan, 0.0))
    n = 204 + 3 * 396
    np.testing.assert_allclose(model.class_prior_[1], n * shares[1] / (n + 300))
    model.partial_fit(X, np.full(600, -1))  # No label says nothing of the shares.
    np.testing.assert_allclose(model.class_prior_[1], n * shares[1] / (n + 300))


def test_a_warm_start_has_the_shares_of_its_own_rows(X):
    y = np.arange(120) % 3
    model = _quick().set_params(warm_start=True).fit(X, y)
    model.fit(X[y < 2], y[y < 2])
    np.testing.assert_allclose(model.class_prior_, [0.5, 0.5, 0])
    assert set(model.predict(X)) <= {0, 1}
    with pytest.raises(ValueError, match="no labelled row"):
        model.fit(X, np.full(120, -1))


@pytest.mark.parametrize("as_table", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_conditions_drawn_are_those_of_the_rows_so_far(X, as_table, warm):
    values = np.linspace(0, 1, 120)
    y = values
    if as_table:
        y = pd.DataFrame({"v": values, "g": np.where(values < 0.5, "a", "b")})
    model = _quick().set_params(warm_start=True)
    model.partial_fit(X[::2], y[::2])
    low, high = (0, 60) if warm else (90, 120)
    model = pickle.loads(pickle.dumps(model))
    (model.fit if warm else model.partial_fit)(X[low:high], y[low:high])
    drawn = model.sample(900, random_state=0)[1]
    drawn = drawn["v"].to_numpy() if as_table else drawn
    expected = values[:60] if warm else np.r_[values[::2], values[90:]]
    np.testing.assert_array_equal(np.unique(drawn), np.unique(expected))
    mean = model._conditions.mean[0] * model._conditions.columns[0].sd
    assert mean + values[::2].mean() == pytest.approx(expected.mean())


def test_many_conditions_are_kept_evenly():
    n = 8000
    y = np.linspace(0, 1, n, endpoint=False)
    found = Conditions.fit(y)
    for i in range(4):
        encoded = found.encode(y + i)
        found = found.following(y + i, encoded, more=i > 0)
    (kept,) = found.kept
    assert len(kept) == len(np.unique(kept)) == 10_000
    np.testing.assert_allclose(np.bincount(kept.astype(int)), 2500, rtol=0.1)
    assert found.n_seen == 4 * n


def test_conditions_keep_the_type_they_began_in(X):
    y = pd.DataFrame({"n": np.arange(120), "g": ["a", "b"] * 60})
    model = _quick().partial_fit(X, y).partial_fit(X, y.assign(n=y["n"] + 0.4))
    drawn = model.sample(50, random_state=0)[1]
    assert list(drawn.dtypes) == list(y.dtypes)


def test_gaps_in_a_number_are_refused_in_further_rows_too(X):
    y = X[:, 0].copy()
    model = _quick().set_params(warm_start=True).fit(X, y)
    y[:50] = np.nan
    for go_on in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="Input y contains NaN"):
            go_on(X, y)
    assert model.n_iter_ == 2


@pytest.mark.parametrize("likelihood", ["auto", "table"])
def test_classes_may_be_named_before_their_rows_come(X, likelihood):
    y = np.repeat(["a", "b", "c"], 40)
    model = _quick().set_params(likelihood=likelihood)
    for part in np.split(np.arange(120), 3):
        model.partial_fit(X[part], y[part], classes=["c", "b", "a"])
    assert list(model.classes_) == ["a", "b", "c"]
    np.testing.assert_allclose(model.class_prior_, 1 / 3)
    assert np.isfinite(model.predict_proba(X)).all()
    with pytest.raises(ValueError, match="is not the same as on last call"):
        model.partial_fit(X, y, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"unseen labels: \['d'\].*`classes` names"):
        model.partial_fit(X, np.where(y == "a", "d", y))


def test_classes_are_those_of_one_condition(X):
    y = np.arange(120) % 2
    with pytest.raises(ValueError, match="y has 2 columns"):
        _quick().partial_fit(X, np.column_stack([y, y]), classes=[0, 1])
    model = _quick().partial_fit(X, y, classes=[-1, 0, 1])
    np.testing.assert_array_equal(model.classes_, [-1, 0, 1])
    with pytest.raises(ValueError, match="is not the same as on last call"):
        _quick().partial_fit(X, X[:, 0]).partial_fit(X, X[:, 0], classes=[0, 1])


def test_of_many_labels_a_message_lists_a_few(X):
    model = _quick().fit(X, np.arange(120) % 40)
    with pytest.raises(ValueError, match=r"8, 9, \.\.\. \(40\)\]") as caught:
        model.sample(1, y=41)
    assert " 20," not in str(caught.value)
