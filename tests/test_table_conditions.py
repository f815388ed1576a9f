"""Given cells come back as given; bad rows and conditions say what is known."""

import numpy as np
import pandas as pd
import pytest

from skvae import VAE, AutoencoderTransformer, ConditionalVAE


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    days = pd.to_timedelta(rng.integers(0, 300, 200), "D")
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, 200),
            "town": rng.choice(["Rome", "Oslo"], 200),
            "pay": rng.normal(50, 9, 200).round(2),
            "own": rng.random(200) < 0.5,
            "day": pd.Timestamp("2024-01-01") + days,
        }
    )


@pytest.fixture(scope="module")
def model(frame):
    return VAE(2, max_iter=2, random_state=0).fit(frame)


@pytest.fixture(scope="module", params=["vae", "autoencoder", "conditional"])
def any_model(request, frame):
    if request.param == "conditional":
        return ConditionalVAE(2, max_iter=2, random_state=0).fit(frame, frame["town"])
    kind = VAE if request.param == "vae" else AutoencoderTransformer
    return kind(2, max_iter=2, random_state=0).fit(frame)


def _with(frame, **columns):
    return frame.assign(**columns)


def _gap(frame, column):
    frame = frame.copy()
    frame.loc[3, column] = None
    return frame


BAD_ROWS = [
    (lambda f: _with(f, town="Paris"), r"'town'.*\['Paris'\].*\['Oslo', 'Rome'\]"),
    (lambda f: _with(f, age=f["age"].astype(str) + "y"), "'age' was numeric"),
    (lambda f: _with(f, town=1.5), r"'town'.*\[1\.5\].*\['Oslo', 'Rome'\]"),
    (lambda f: _with(f, own=7.3), r"'own'.*\[7\.3\].*(True|False)"),
    (lambda f: _with(f, day=5), "'day' held dates"),
    (lambda f: f.drop(columns="pay"), "now missing:\n- pay"),
    (lambda f: f.assign(x=1), "unseen at fit time:\n- x"),
    (lambda f: f.rename(columns={"pay": "wage"}), "- wage\n(.|\n)*- pay"),
    (lambda f: f[f.columns[::-1]], "same order"),
    (lambda f: _gap(f, "pay"), "'pay' has missing cells, but had none"),
    (lambda f: _gap(f, "town"), "'town' has missing cells, but had none"),
    (lambda f: _with(f, pay=np.inf), "'pay' contains infinity"),
    (lambda f: f.iloc[:0], "0 sample"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_ROWS)
def test_bad_rows_are_refused_and_lose_nothing(any_model, frame, spoil, message):
    before = any_model.transform(frame)
    for method in (any_model.transform, any_model.score_samples):
        with pytest.raises(ValueError, match=message):
            method(spoil(frame))
    np.testing.assert_array_equal(any_model.transform(frame), before)


def test_a_failed_refit_leaves_the_table_model_fitted(frame):
    model = VAE(2, max_iter=2, random_state=0).fit(frame)
    before = model.score_samples(frame)
    with pytest.raises(ValueError, match="infinity"):
        model.fit(_with(frame, pay=np.inf))
    np.testing.assert_array_equal(model.score_samples(frame), before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"twon": "Rome"}, "unknown column 'twon'. Known columns are .*'town'"),
        ({"town": "Paris"}, r"no level 'Paris'. Known levels are \['Oslo', 'Rome'\]"),
        ({"age": "old"}, "'age' is numeric; got the condition 'old'"),
        ({"age": 500}, r"'age' lies in \[18, 79\] in training; got the condition 500"),
        ({"age": 30.5}, "'age' has 0 decimals"),
        ({"age": np.nan}, "'age' has no missing cells"),
        ({"town": None}, "'town' has no missing cells"),
        ({"day": "no date"}, "'day' holds dates; got the condition 'no date'"),
        ({"day": "1999-01-01"}, r"'day' lies in \[2024-01-0"),
    ],
)
def test_bad_conditions_say_what_is_known(model, given, message):
    with pytest.raises(ValueError, match=message):
        model.sample(3, given=given, random_state=0)


def test_conditions_must_name_columns(model):
    with pytest.raises(TypeError, match=r"dict of column names.*Got int"):
        model.sample(3, given=5, random_state=0)


def test_given_values_come_back_as_they_were_given(model, frame):
    given = {"pay": 50.31, "age": 30, "town": "Oslo", "day": "2024-03-05"}
    drawn = model.sample(4, given=given, random_state=0)
    assert drawn.dtypes.equals(frame.dtypes)
    assert (drawn["pay"] == 50.31).all()
    assert (drawn["age"] == 30).all()
    assert (drawn["town"] == "Oslo").all()
    assert (drawn["day"] == pd.Timestamp("2024-03-05")).all()


def test_given_values_of_each_row_stay_with_their_rows(model):
    given = pd.DataFrame({"pay": [40.25, 60.75], "own": [True, None]})
    drawn = model.sample(3, given=given, random_state=0)
    np.testing.assert_array_equal(drawn["pay"], [40.25] * 3 + [60.75] * 3)
    assert drawn["own"][:3].all()


def test_rare_levels_come_back_as_they_were_given():
    rng = np.random.default_rng(0)
    names = [f"n{i}" for i in range(300)]
    frame = pd.DataFrame(
        {"name": rng.permutation(names * 2), "x": rng.normal(size=600)}
    )
    model = VAE(2, max_iter=1, random_state=0).fit(frame)
    drawn = model.sample(5, given={"name": "n7"}, random_state=0)
    assert (drawn["name"] == "n7").all()


def test_cells_that_contradict_each_other_get_a_warning():
    rng = np.random.default_rng(0)
    city = rng.integers(0, 20, 1000)
    frame = pd.DataFrame({"city": [f"c{i}" for i in city], "state": city % 5})
    frame["state"] = frame["state"].map(list("ABCDE").__getitem__)
    frame["age"] = rng.integers(18, 90, 1000)
    model = VAE(2, max_iter=5, random_state=0).fit(frame)
    with pytest.warns(UserWarning, match="contradict each other") as caught:
        rows = model.sample(50, given={"city": "c1", "state": "A"}, random_state=0)
    assert caught[0].filename == __file__
    assert set(rows["city"]) == {"c1"}
    assert set(rows["state"]) == {"A"}
    # Rare cells that do not contradict each other are drawn without a word.
    model.sample(50, given={"city": "c1", "state": "B", "age": 89}, random_state=0)


def test_a_number_of_a_frame_is_told_as_a_plain_one(model):
    with pytest.raises(ValueError, match=r"got the condition 900\.0\."):
        model.sample(2, given=pd.DataFrame({"pay": [900.0]}), random_state=0)


def test_few_proposals_behind_the_rows_get_a_warning(model, monkeypatch):
    monkeypatch.setattr("skvae._conditioning._PROPOSALS", 64)
    with pytest.warns(UserWarning, match="of 64 proposals carry the weight") as caught:
        model.sample(200, given={"age": 30}, random_state=0)
    assert caught[0].filename == __file__


def test_what_a_calculation_leaves_behind_the_decimals_is_no_part_of_a_condition():
    rates = np.random.default_rng(0).choice([0.1, 0.2, 0.3], 90)
    frame = pd.DataFrame({"rate": rates, "g": ["u", "v", "w"] * 30})
    model = VAE(max_iter=2, random_state=0).fit(frame)
    rows = model.sample(3, given={"rate": 0.1 * 3}, random_state=0)
    assert rows["rate"].tolist() == [0.3, 0.3, 0.3]
    with pytest.raises(ValueError, match="has 1 decimals in training"):
        model.sample(3, given={"rate": 0.3 - 1e-12}, random_state=0)
