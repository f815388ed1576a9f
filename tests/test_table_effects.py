"""Effects of levels, gaps and spikes on other columns, before any training."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax, softmax

from skvae import VAE, ConditionalVAE
from skvae._table_effects import (
    _columns,
    _effects_on,
    _Fit,
    _logits_of_rows,
    _shrunk,
    start_at_effects,
)

N = 400


@pytest.fixture(scope="module")
def people():
    """Return people of two sexes; what they answer has nothing to do with it."""
    rng = np.random.default_rng(0)
    man = rng.random(N) < 0.5
    age = rng.integers(18, 80, N)
    retired = age + rng.normal(0, 4, N) > 62
    pay = np.exp(rng.normal(8, 0.4 + 0.6 * man, N)).round()
    mood = rng.normal(size=(N, 2))
    answers = {
        f"answer {i}": (mood[:, i % 2] + 0.5 * rng.normal(size=N)).round(2)
        for i in range(10)
    }
    return pd.DataFrame(
        answers
        | {
            "sex": np.where(man, "m", "f"),
            "age": age,
            "height": (164 + 14 * man + rng.normal(0, 6, N)).round(1),
            "works": np.where(retired, "no", "yes"),
            "pay": np.where(retired & (rng.random(N) < 0.9), np.nan, pay),
        }
    )


def _start(frame, monkeypatch, *, plain=False, kind=VAE, y=None):
    with monkeypatch.context() as patch:
        if plain:
            name = "skvae._table_fitting.start_at_effects"
            patch.setattr(name, lambda *args: None)
        return kind(max_iter=0, random_state=0).fit(frame, y)


@pytest.fixture(scope="module")
def samples(people):
    """Return rows drawn before any training, with and without this start."""
    with pytest.MonkeyPatch.context() as patch:
        return [
            _start(people, patch, plain=plain).sample(4000, random_state=0)
            for plain in (False, True)
        ]


def _means(frame):
    """Return by how much means of groups differ, in units of the people's."""
    by_sex = frame.groupby("sex")["height"].mean()
    by_work = frame.groupby("works")["age"].mean()
    by_gap = frame.groupby(frame["pay"].isna())["age"].mean()
    return np.array([np.ptp(by) for by in (by_sex, by_work, by_gap)])


def test_groups_differ_as_they_should_before_any_training(people, samples):
    found, plain = (_means(rows) / _means(people) for rows in samples)
    assert np.abs(found - 1).max() < 0.2, found
    assert plain.min() < 0.6, plain
    assert (found > plain).all()


def test_a_level_may_tell_how_much_a_number_varies(people, samples):
    def ratio(frame):
        spread = np.log(frame["pay"]).groupby(frame["sex"]).std()
        return np.log(spread["m"] / spread["f"])

    rows, plain = samples
    assert ratio(rows) > 0.6 * ratio(people)
    assert ratio(plain) < 0.5 * ratio(people)


def test_rows_held_out_are_foretold_better(people, monkeypatch):
    train, rest = people[:250], people[250:]
    started, plain = (
        _start(train, monkeypatch, plain=plain).score(rest) for plain in (False, True)
    )
    assert started > plain + 0.3


def test_a_number_that_is_often_missing_tells_more_where_it_is_there(
    monkeypatch,
):
    rng = np.random.default_rng(0)
    x = rng.normal(100, 25, 1500).round()
    y = (x / 20 + 0.5 * rng.normal(size=1500)).round(1)
    frame = pd.DataFrame({"y": np.where(rng.random(1500) < 0.5, np.nan, y), "x": x})
    found, plain = (
        _start(frame, monkeypatch, plain=plain)
        .sample(8000, random_state=0)
        .corr()
        .iloc[0, 1]
        for plain in (False, True)
    )
    assert plain + 0.01 < found < 0.93


def test_a_spike_has_an_effect(monkeypatch):
    """Nothing spent where there was no visit, whatever the scores say."""
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b", "c"], N)
    spent = np.where(kind == "b", 0.0, np.exp(rng.normal(3, 1, N)).round(2))
    frame = pd.DataFrame({"kind": kind, "spent": spent})
    found, plain = (
        _start(frame, monkeypatch, plain=plain).sample(4000, random_state=0)
        for plain in (False, True)
    )
    wrong = [
        np.mean((rows["spent"] == 0) != (rows["kind"] == "b"))
        for rows in (found, plain)
    ]
    assert wrong[0] < 0.7 * wrong[1], wrong


def test_chance_is_not_taken_for_an_effect(monkeypatch):
    rng = np.random.default_rng(0)
    columns = {f"c{i}": rng.choice(list("abcdefgh"), 300) for i in range(4)}
    columns |= {f"x{i}": rng.normal(size=300) for i in range(3)}
    frame, rest = pd.DataFrame(columns)[:200], pd.DataFrame(columns)[200:]
    started, plain = (
        _start(frame, monkeypatch, plain=plain).score(rest) for plain in (False, True)
    )
    assert started > plain - 0.06


@pytest.mark.parametrize("normal", [False, True])
def test_context_weights_add_the_effects_that_were_fitted(people, monkeypatch, normal):
    seen = []

    def watched(module, batch, codec, spread, rng):
        def logits():
            own = np.random.default_rng(0)
            return _logits_of_rows(module, batch, spread, own)

        codes, before = logits()
        columns = _columns(codec, module.likelihood)
        start_at_effects(module, batch, codec, spread, np.random.default_rng(0))
        seen.append((columns, codes, before, logits()[1]))

    # Few levels: nothing of what was fitted is left out.
    frame = people[["sex", "age", "height", "works", "pay"]]
    heads = {"likelihood": {"height": "gaussian"}} if normal else {}
    with monkeypatch.context() as patch:
        patch.setattr("skvae._table_fitting.start_at_effects", watched)
        VAE(max_iter=0, random_state=0, **heads).fit(frame)
    ((columns, codes, before, after),) = seen
    moved = 0.0
    for j, column in columns.items():
        expected = before[:, column.place].copy()
        for k, effects in _effects_on(j, columns, codes, before).items():
            terms = columns[k].features @ effects @ column.statistics.T
            expected += terms[codes[:, k]]
        found = after[:, column.place]
        shares = softmax(expected, axis=1)
        np.testing.assert_allclose(softmax(found, axis=1), shares, atol=1e-4)
        moved = max(moved, np.abs(shares - softmax(before[:, column.place], 1)).max())
    assert moved > 0.1


def test_fit_counts_nats_and_moments():
    rng = np.random.default_rng(0)
    logits, codes = rng.normal(size=(50, 4)), rng.integers(4, size=50)
    statistics = rng.normal(size=(4, 2))
    fit = _Fit(logits, codes, statistics)
    rows = np.arange(50)
    assert fit.nats == pytest.approx(log_softmax(logits, axis=1)[rows, codes].sum())
    shares = softmax(logits, axis=1)
    expected = statistics[codes] - shares @ statistics
    np.testing.assert_allclose(fit.residual, expected)
    for i in range(50):
        variance = np.cov(statistics.T, aweights=shares[i], ddof=0)
        np.testing.assert_allclose(fit.variance[i], np.diag(variance))


def test_no_step_is_taken_that_costs_more_than_it_gains():
    logits, codes = np.zeros((30, 3)), np.zeros(30, dtype=int)
    helps = np.tile([1.0, 0.0, 0.0], (30, 1))
    fit = _Fit(logits, codes, np.eye(3))
    before = fit.nats
    assert fit.move(-helps, 0.0) == 0
    assert fit.nats == before
    assert fit.move(helps, 100.0) == 0
    assert fit.move(helps, 0.0) == 1
    assert fit.nats > before
    # Too far by three times: half of it, or a quarter, is not.
    fit = _Fit(np.zeros((30, 2)), np.tile([0, 1], 15), np.eye(2))
    away = np.add(np.where(fit.codes[:, None] == [0, 1], 0.5, 0.0), [0.0, 2.0])
    assert fit.move(away, 0.0) in (0.5, 0.25)


def test_effects_are_shrunk_by_their_own_size():
    rng = np.random.default_rng(0)
    free, information = np.ones((4000, 1), dtype=bool), np.full((4000, 1), 49.0)
    effects = 0.3 * rng.normal(size=(4000, 1))
    noisy = effects + rng.normal(size=effects.shape) / np.sqrt(50)
    zero = np.zeros_like(effects)
    found, variance = _shrunk(zero, 50 * noisy, information, free)
    assert variance == pytest.approx(0.09, rel=0.1)
    # The mean of the posterior under a normal prior and normal errors.
    mean = (noisy * 50 / (50 + 1 / variance)).clip(-1, 1)
    np.testing.assert_allclose(found, mean, atol=1e-9)
    assert np.mean((found - effects) ** 2) < np.mean((noisy - effects) ** 2)
    # What is nothing but error becomes nothing.
    chance = rng.normal(size=effects.shape) / np.sqrt(50) * 0.95
    assert not _shrunk(zero, 50 * chance, information, free)[0].any()
    # What is not free stays nothing.
    free = rng.random(free.shape) < 0.5
    assert not _shrunk(zero, 50 * noisy, information, free)[0][~free].any()


def test_conditions_and_single_precision(people, monkeypatch):
    model = ConditionalVAE(max_iter=0, random_state=0)
    rest = people.drop(columns="works").assign(
        height=people["height"].astype(np.float32)
    )
    labels = people["works"].where(np.arange(N) % 7 > 0)
    model.fit(rest, labels.fillna("-1"))
    rows, _ = model.sample(4000, random_state=0)
    by_sex = np.ptp(rows.groupby("sex")["height"].mean())
    assert by_sex == pytest.approx(np.ptp(rest.groupby("sex")["height"].mean()), abs=3)


def test_dropout_does_not_disturb_the_start(people):
    def start(dropout):
        model = VAE(max_iter=0, dropout=dropout, random_state=0).fit(people)
        return model._module.likelihood.start

    assert start(0.5).equal(start(0.0))
