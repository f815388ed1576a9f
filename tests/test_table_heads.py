"""Heads of chosen columns: normal over codes, a probability for every value."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.base import clone

from skvae import VAE, ConditionalVAE
from skvae._table_heads import GaussianHeads


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    z = rng.normal(size=1500)
    return pd.DataFrame(
        {
            "height": 170 + 10 * z + rng.normal(size=1500),
            "weight": 70 + 8 * z + 4 * rng.normal(size=1500),
            "rooms": rng.integers(1, 5, 1500),
            "town": rng.choice(["Rome", "Oslo"], 1500),
        }
    )


def _head(n=64):
    ranks = (np.arange(n) + 0.5) / n
    return {"first": 1, "scores": norm.ppf(ranks).tolist(), "shares": [1 / n] * n}


def test_any_logits_become_normal_in_scores():
    head = _head()
    module = GaussianHeads([head], torch.float64)
    logits = torch.randn(5, 70, dtype=torch.float64, generator=torch.Generator())
    confined = module(logits)
    np.testing.assert_array_equal(confined[:, :1], logits[:, :1])
    np.testing.assert_array_equal(confined[:, 65:], logits[:, 65:])
    ratio = confined[:, 1:65].numpy() - np.log(head["shares"])
    for row in ratio:
        curve, _, _ = np.polyfit(head["scores"], row, 2)
        left = row - np.polyval(np.polyfit(head["scores"], row, 2), head["scores"])
        assert np.abs(left).max() < 1e-9
        assert curve < 0.5


def test_logits_of_a_normal_are_left_alone():
    head = _head()
    scores = np.array(head["scores"])
    wanted = norm.logpdf(scores, 0.4, 0.7) - norm.logpdf(scores) + np.log(1 / 64)
    module = GaussianHeads([{**head, "first": 0}], torch.float64)
    found = module(torch.as_tensor(wanted).unsqueeze(0))[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.slow
def test_normal_heads_do_as_well_on_normal_columns(frame):
    free = VAE(2, max_iter=40, random_state=0).fit(frame[:1200])
    heads = {"height": "gaussian", "weight": "gaussian"}
    model = VAE(2, likelihood=heads, max_iter=40, random_state=0).fit(frame[:1200])
    assert model.likelihood_ == "table"
    assert model.score(frame[1200:]) > free.score(frame[1200:]) - 0.1
    drawn = model.sample(1000, random_state=0)
    assert list(drawn.columns) == list(frame.columns)
    assert drawn.dtypes.equals(frame.dtypes)
    real, ours = (f[["height", "weight"]].corr().iloc[0, 1] for f in (frame, drawn))
    assert abs(real - ours) < 0.03


def test_the_density_of_a_row_is_normal_in_its_column(frame):
    model = VAE(2, likelihood={0: "gaussian"}, max_iter=2, random_state=0).fit(frame)
    module, codec = model._module, model._columns.codec
    with torch.no_grad():
        shares = module.likelihood.mean(module.decode(torch.zeros(1, 2)))[0].numpy()
    size = int(codec.sizes[0])
    ratio = np.log(shares[:size] / codec.code_frequencies[:size])
    scores = codec.code_values[:size]
    left = ratio - np.polyval(np.polyfit(scores, ratio, 2), scores)
    assert np.abs(left).max() < 1e-4


def test_a_categorical_head_gives_every_value_a_code(frame):
    model = VAE(2, likelihood={"rooms": "categorical"}, max_iter=2, random_state=0)
    model.fit(frame)
    assert model._columns.codec.columns[2].kind == "category"
    drawn = model.sample(50, random_state=0)
    assert drawn["rooms"].dtype == frame["rooms"].dtype
    assert set(drawn["rooms"]) <= {1, 2, 3, 4}


def test_pickles_and_clones_keep_the_heads(frame):
    model = VAE(2, likelihood={"height": "gaussian"}, max_iter=2, random_state=0)
    model = clone(model).fit(frame)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        loaded.score_samples(frame[:50]), model.score_samples(frame[:50])
    )


@pytest.mark.slow
def test_gaps_of_a_normal_column_are_filled(frame):
    gaps = frame.copy()
    gaps.loc[::3, "height"] = np.nan
    model = VAE(2, likelihood={"height": "gaussian"}, max_iter=10, random_state=0)
    filled = model.fit(gaps).impute(gaps)
    error = (filled["height"] - frame["height"])[::3]
    assert error.std() < 0.8 * frame["height"].std()


def test_a_conditional_model_takes_heads_too(frame):
    model = ConditionalVAE(2, likelihood={"height": "gaussian"}, max_iter=2)
    model.set_params(random_state=0).fit(frame.drop(columns="town"), frame["town"])
    rows, _ = model.sample(3, y="Rome", random_state=0)
    assert list(rows.columns) == ["height", "weight", "rooms"]


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ({"size": "gaussian"}, r"unknown column 'size'. Known columns are \['height'"),
        ({9: "gaussian"}, "unknown column 9"),
        ({"height": "normal"}, r"'height' must be a str among .*Got 'normal'"),
        ({"town": "gaussian"}, "'town', which holds categories"),
    ],
)
def test_heads_that_cannot_be_are_refused(frame, likelihood, message):
    with pytest.raises(ValueError, match=message):
        VAE(2, likelihood=likelihood, max_iter=1, random_state=0).fit(frame)
