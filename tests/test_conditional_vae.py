"""ConditionalVAE: what it is told, what it draws, classes by Bayes' rule, gaps in y."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skvae import VAE, ConditionalVAE
from skvae._learned_prior import fit_prior, refit_prior
from skvae.priors import ConditionalMixturePrior

VARIANTS = [
    ConditionalVAE(max_iter=5),
    ConditionalVAE(max_iter=5, prior="normal", noise="feature"),
    ConditionalVAE(max_iter=5, prior="vamp", beta=0.5),
    ConditionalVAE(max_iter=5, init="random", scale=None),
    ConditionalVAE(max_iter=5, dropout=0.2, hidden_layer_sizes=(8,)),
    ConditionalVAE(max_iter=5, missing_values="error", n_importance_samples=3),
]


@pytest.mark.numpy_global_rng
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(VARIANTS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def wine():
    return load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def model(wine):
    return ConditionalVAE(3, max_iter=60, random_state=0).fit(*wine)


# -- drawing ---------------------------------------------------------------------------


def test_draws_of_a_class_are_recognised_as_that_class(wine, model):
    judge = make_pipeline(StandardScaler(), LogisticRegression()).fit(*wine)
    X, y = model.sample(300, y=np.repeat([0, 1, 2], 100), random_state=0)
    assert (judge.predict(X) == y).mean() > 0.95


@pytest.mark.parametrize("kind", ["str", "object", "bool", "float"])
def test_labels_of_any_type_come_back_in_that_type(wine, kind):
    X, y = wine
    labels = {
        "str": np.array(["a", "b", "c"])[y],
        "object": np.array(["a", "b", "c"], dtype=object)[y],
        "bool": y > 0,
        "float": y.astype(float),
    }[kind]
    model = ConditionalVAE(2, max_iter=2, random_state=0).fit(X, labels)
    np.testing.assert_array_equal(model.classes_, np.unique(labels))
    _, drawn = model.sample(4, y=labels[0], random_state=0)
    assert (drawn == labels[0]).all()
    _, drawn = model.sample(50, random_state=0)
    assert set(drawn) <= set(labels)


def test_without_y_conditions_are_drawn_as_in_training(wine, model):
    shares = np.bincount(wine[1]) / len(wine[1])
    for n in (10, 3000):
        _, y = model.sample(n, random_state=0)
        # One systematic draw: each class as often as its share says, give or take one.
        assert np.abs(np.bincount(y, minlength=3) - n * shares).max() <= 1
        assert (np.diff(y) < 0).any()


def test_a_continuous_target_moves_the_rows():
    X, y = load_diabetes(return_X_y=True)
    model = ConditionalVAE(4, max_iter=40, random_state=0).fit(X, y)
    low, high = (model.sample(500, y=v, random_state=0)[0] for v in (60.0, 280.0))
    slopes = np.array([np.polyfit(y, column, 1)[0] for column in X.T])
    strongest = np.argsort(-np.abs(slopes))[:3]
    moved = (high.mean(0) - low.mean(0))[strongest]
    np.testing.assert_array_equal(np.sign(moved), np.sign(slopes[strongest]))
    assert model.classes_ is None
    assert not hasattr(model, "predict")


def test_floats_of_many_whole_values_are_numbers_and_integers_are_classes(wine):
    X, _ = wine
    model = ConditionalVAE(2, max_iter=2, random_state=0)
    ages = np.arange(len(X)) % 30
    assert model.fit(X, ages.astype(float)).classes_ is None
    assert len(model.fit(X, ages).classes_) == 30
    assert len(model.fit(X, (ages % 10).astype(float)).classes_) == 10


def _rows_of(frame):
    return list(zip(*(frame[name].to_list() for name in frame.columns), strict=True))


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_several_conditions_come_as_a_frame(wine, library):
    X, y = wine
    conditions = library({"kind": np.array(["a", "b", "c"])[y], "strength": X[:, 0]})
    model = ConditionalVAE(2, max_iter=5, random_state=0).fit(X, conditions)
    rows, given = model.sample(2, y=conditions[:2], random_state=0)
    assert rows.shape == (2, 13)
    assert list(given.columns) == ["kind", "strength"]
    drawn = model.sample(len(X), random_state=0)[1]
    assert type(drawn) is library
    assert list(drawn.dtypes) == list(conditions.dtypes)
    # As many as there are: each of them once.
    assert sorted(_rows_of(drawn)) == sorted(_rows_of(conditions))


def test_conditions_drawn_have_the_types_of_those_in_training(wine):
    X, y = wine
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(y, unit="D")
    frame = pd.DataFrame(
        {
            "level": pd.Categorical(np.array(["low", "mid", "top"])[y]),
            "flag": y > 0,
            "count": pd.array(y + 1, dtype="Int64"),
            "day": days,
        }
    )
    for conditions in (frame, pl.from_pandas(frame)):
        model = ConditionalVAE(2, max_iter=2, random_state=0).fit(X, conditions)
        for fitted in (model, pickle.loads(pickle.dumps(model))):
            drawn = fitted.sample(20, random_state=0)[1]
            assert type(drawn) is type(conditions)
            assert list(drawn.dtypes) == list(conditions.dtypes)
            assert set(_rows_of(drawn)) <= set(_rows_of(conditions))
            assert len(fitted.sample(len(drawn), y=drawn, random_state=0)[0]) == 20


def test_several_numeric_conditions_come_as_an_array(wine):
    X, y = wine
    conditions = np.column_stack([y, X[:, 0]])
    model = ConditionalVAE(2, max_iter=5, random_state=0).fit(X[:, 1:], conditions)
    rows, given = model.sample(3, y=conditions[:3], random_state=0)
    np.testing.assert_array_equal(given, conditions[:3])
    assert rows.shape == (3, 12)


def test_same_seed_same_rows(model):
    first, second = (model.sample(5, y=1, random_state=7)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_frames_come_back_as_frames(wine):
    X = pd.DataFrame(wine[0], index=np.arange(178) + 5).add_prefix("c")
    model = ConditionalVAE(2, max_iter=2, random_state=0).fit(X, wine[1])
    back = model.reconstruct(X, y=1)
    pd.testing.assert_index_equal(back.index, X.index)
    assert list(back.columns) == list(X.columns)
    drawn, _ = model.sample(2, y=0, random_state=0)
    assert list(drawn.columns) == list(X.columns)


# -- codes and counterfactuals ---------------------------------------------------------


def test_codes_need_no_labels(wine):
    X, y = wine
    model = ConditionalVAE(2, max_iter=3, random_state=0)
    np.testing.assert_array_equal(model.fit_transform(X, y), model.transform(X))


def test_reconstruct_under_another_class_moves_rows_towards_it(wine, model):
    X, y = wine
    rows = X[y == 0]
    mean, scale = X[y == 2].mean(axis=0), X.std(axis=0)

    def distance(given):
        moved = model.reconstruct(rows, y=given)
        return np.square((moved - mean) / scale).sum(axis=1).mean()

    assert distance(2) < 0.7 * distance(0)


def test_reconstruct_infers_the_class_where_none_is_given(wine, model):
    X, _ = wine
    expected = model.inverse_transform(model.transform(X), y=model.predict(X))
    np.testing.assert_allclose(model.reconstruct(X), expected)


# -- classes ---------------------------------------------------------------------------


@pytest.mark.parametrize("y", [None, 1, "each"])
def test_walks_begin_and_end_at_reconstructions(wine, model, y):
    X, labels = wine
    start, end = X[labels == 0][:5], X[labels == 2][:5]
    y = [0, 1, 2, 0, 1] if y == "each" else y
    walks = model.interpolate(start, end, n_steps=3, y=y).reshape(5, 3, -1)
    for rows, walked in ((start, walks[:, 0]), (end, walks[:, 2])):
        np.testing.assert_allclose(walked, model.reconstruct(rows, y=y), rtol=1e-6)
    codes = model.transform(start)
    told = model.traverse(1, codes[0, 1:2], start[:1], y=None if y is None else 1)
    expected = model.reconstruct(start[:1], y=None if y is None else 1)
    np.testing.assert_allclose(told, expected, rtol=1e-6)


def test_walks_from_no_row_may_be_told_a_class(model):
    Z = np.zeros((2, 3))
    Z[:, -1] = [-1.0, 1.0]
    for y in (None, 2):
        expected = model.inverse_transform(Z, y=y)
        np.testing.assert_allclose(model.traverse(-1, Z[:, -1], y=y), expected)


def test_probabilities_are_bayes_rule_on_the_bounds(wine, model):
    X, _ = wine
    joint = np.column_stack(
        [
            model.score_samples(X, np.full(len(X), c)) + np.log(model.class_prior_[c])
            for c in range(3)
        ]
    )
    expected = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-9)
    np.testing.assert_allclose(model.score_samples(X), logsumexp(joint, axis=1))


def test_log_probabilities_are_those_of_the_probabilities(wine, model):
    logs = model.predict_log_proba(wine[0])
    np.testing.assert_allclose(np.exp(logs), model.predict_proba(wine[0]), atol=1e-12)
    assert np.isfinite(logs).all()
    of_number = ConditionalVAE(max_iter=1, random_state=0).fit(wine[0], wine[0][:, 0])
    assert not hasattr(of_number, "predict_log_proba")


def test_conditions_asked_for_in_a_list_come_back_as_an_array(model):
    for y in ([0, 1], (0, 1)):
        asked = model.sample(2, y=y, random_state=0)[1]
        assert isinstance(asked, np.ndarray)
        np.testing.assert_array_equal(asked, y)


@pytest.mark.slow
def test_predict_recognises_held_out_rows(wine):
    X, X_test, y, y_test = train_test_split(*wine, random_state=0)
    model = ConditionalVAE(3, random_state=0).fit(X, y)
    assert (model.predict(X_test) == y_test).mean() > 0.93


def test_score_with_labels_is_that_of_rows_given_their_class(wine, model):
    X, y = wine
    assert model.score(X, y) == pytest.approx(model.score_samples(X, y).mean())
    assert model.score(X, y) > model.score(X, (y + 1) % 3) + 1


@pytest.mark.parametrize("unknown", [-1, np.nan, None])
def test_rows_without_a_label_are_learned_from(wine, unknown):
    X, y = wine
    rng = np.random.default_rng(0)
    some = y.astype(object if unknown is None else float if unknown != -1 else int)
    some[rng.random(len(y)) < 0.9] = unknown
    model = ConditionalVAE(3, max_iter=40, random_state=0).fit(X, some)
    assert len(model.classes_) == 3
    assert (model.predict(X) == y).mean() > 0.85


def test_conditions_that_say_nothing_do_no_harm(wine):
    X, _ = wine
    y = np.random.default_rng(0).integers(0, 2, len(X))
    told = ConditionalVAE(3, max_iter=40, prior="normal", random_state=0).fit(X, y)
    untold = VAE(3, max_iter=40, prior="normal", random_state=0).fit(X)
    assert told.score(X) > untold.score(X) - 0.5


# -- the conditional prior -------------------------------------------------------------


def test_conditional_prior_equals_the_mixture_it_says():
    prior = ConditionalMixturePrior(2, n_conditions=3, n_mixture=4).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_(generator=generator)
    y = torch.eye(3, dtype=torch.float64)
    z = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        found = prior.distribution(condition=y).log_prob(z).numpy()
        logits = (prior.log_weights + y @ prior.gates.T).numpy()
        means = prior.means.numpy()[None] + (y @ prior.shift.T).numpy()[:, None]
        sd = np.exp(0.5 * prior.log_vars.numpy())
    weights = logits - logsumexp(logits, axis=1, keepdims=True)
    density = norm.logpdf(z.numpy()[:, None], means, sd).sum(-1)
    np.testing.assert_allclose(found, logsumexp(density + weights, axis=1), rtol=1e-12)


def test_conditional_prior_draws_where_its_density_is():
    prior = ConditionalMixturePrior(1, n_conditions=2, n_mixture=2)
    prior.set_from([0.5, 0.5], [[-3.0], [3.0]], [[0.01], [0.01]])
    with torch.no_grad():
        prior.gates.copy_(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]))
    y = torch.eye(2).repeat(100, 1)
    z = prior.distribution(condition=y).draw(200, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(z[:, 0] > 0, y[:, 1] == 1)


def test_conditional_prior_without_conditions_is_refused():
    with pytest.raises(ValueError, match="needs condition"):
        ConditionalMixturePrior(1, n_conditions=2).distribution()


def test_a_prior_fitted_to_codes_knows_the_classes():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    codes = rng.normal(size=(400, 2)) * 0.1 + np.array([[0, 0], [5, 5]])[y]
    prior = ConditionalMixturePrior(2, n_conditions=2, n_mixture=4).double()
    fit_prior(prior, codes, np.eye(2)[y], seed=0)
    known = torch.as_tensor(np.eye(2)[y])
    z = torch.as_tensor(codes)
    with torch.no_grad():
        right = prior.distribution(condition=known).log_prob(z)
        wrong = prior.distribution(condition=1 - known).log_prob(z)
    assert float((right - wrong).min()) > 5


def test_a_prior_fitted_to_codes_follows_a_number():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(300, 1))
    codes = y * [[2.0, -1.0]] + 0.1 * rng.normal(size=(300, 2))
    prior = ConditionalMixturePrior(2, n_conditions=1, n_mixture=3).double()
    fit_prior(prior, codes, y, seed=0)
    shift = prior.shift.detach().numpy()
    np.testing.assert_allclose(shift, [[2.0], [-1.0]], atol=0.05)


@pytest.mark.parametrize("good", [True, False])
def test_a_refitted_prior_is_kept_only_where_it_is_better(good):
    rng = np.random.default_rng(0)
    y = np.eye(2)[rng.integers(0, 2, 200)]
    codes = rng.normal(size=(200, 1)) + 4 * y[:, :1]

    class Module:
        prior = ConditionalMixturePrior(1, n_conditions=2, n_mixture=2).double()

    # Judged by codes from elsewhere, what is fitted to these is no better.
    check = codes if good else rng.normal(size=(200, 1))
    with torch.no_grad():
        Module.prior.means.zero_()
        Module.prior.log_vars.zero_()
    before = {n: p.clone() for n, p in Module.prior.named_parameters()}
    assert refit_prior(Module, (codes, y), (check, y), seed=0) == good
    same = [torch.equal(p, before[n]) for n, p in Module.prior.named_parameters()]
    assert all(same) == (not good)


@pytest.mark.parametrize(
    ("likelihood", "gaps_in_training"),
    [("gaussian", False), ("gaussian", True), ("table", True)],
)
def test_cells_are_filled_under_the_condition_asked_for(likelihood, gaps_in_training):
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = rng.normal(size=(200, 3)) * [1.0, 0.3, 0.3] + 4.0 * y[:, None] * [0, 1, 1]
    gaps = X.copy()
    gaps[:20, 1:] = np.nan
    model = ConditionalVAE(2, likelihood=likelihood, max_iter=30, random_state=0)
    model.fit(gaps if gaps_in_training else X, y)
    each = np.arange(20) // 10
    filled = model.impute(gaps[:20], y=each)
    np.testing.assert_array_equal(filled[:, 0], X[:20, 0])
    assert np.abs(filled[:, 1:] - 4.0 * each[:, None]).max() < 2
    np.testing.assert_array_equal(model.impute(gaps[10:20], y=1), filled[10:])
    for copy in model.impute(gaps[:20], n_samples=2, random_state=0, y=each):
        assert np.median(np.abs(copy[:, 1:] - 4.0 * each[:, None])) < 1
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.impute(gaps[:20], y=each[:5])


# -- bad input -------------------------------------------------------------------------


def test_unknown_labels_are_named_beside_the_known(model):
    with pytest.raises(ValueError, match=r"\[7\].*Known labels are \[0, 1, 2\]"):
        model.sample(2, y=7)


def test_labels_are_asked_for(wine):
    with pytest.raises(ValueError, match="requires y to be passed"):
        ConditionalVAE(random_state=0).fit(wine[0])


def test_labels_must_be_as_many_as_rows(wine, model):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.sample(3, y=[0, 1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ConditionalVAE(max_iter=2, random_state=0).fit(wine[0], wine[1][:-1])


def test_unlabelled_rows_cannot_be_asked_for(wine):
    X, y = wine
    some = y.astype(float)
    some[::2] = np.nan
    model = ConditionalVAE(2, max_iter=2, random_state=0).fit(X, some)
    with pytest.raises(ValueError, match="give a label for each"):
        model.sample(2, y=[0.0, np.nan])


def test_no_label_at_all_is_refused(wine):
    nothing = np.full(178, np.nan)
    with pytest.raises(ValueError, match="no labelled row"):
        ConditionalVAE(max_iter=2, random_state=0).fit(wine[0], nothing)


def test_a_refused_fit_leaves_the_model_as_it_was(wine):
    X, y = wine
    model = ConditionalVAE(2, max_iter=2, random_state=0).fit(X, y)
    before = model.sample(3, y=1, random_state=0)[0]
    with pytest.raises(ValueError, match="inconsistent"):
        model.fit(X, y[:-1])
    np.testing.assert_array_equal(model.sample(3, y=1, random_state=0)[0], before)


def test_before_fit_there_is_nothing_to_draw_from():
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        ConditionalVAE().sample(3)


def test_drops_into_a_grid_search(wine):
    grid = {"n_components": [2, 3]}
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    model = ConditionalVAE(max_iter=3, random_state=0)
    search = GridSearchCV(model, grid, cv=folds).fit(*wine)
    assert search.best_params_["n_components"] in (2, 3)


def test_rows_without_labels_are_told_apart_by_plain_noise():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    X = rng.normal(size=(400, 4)) + 3 * y[:, None]
    few = np.where(np.arange(400) < 20, y, -1)
    model = ConditionalVAE(2, max_iter=5, random_state=0)
    assert model.fit(X, y).noise_ == "heteroscedastic"
    assert model.fit(X, few).noise_ == "feature"
    assert (model.predict(X[20:]) == y[20:]).mean() > 0.95


@pytest.mark.slow
def test_classes_of_a_table_begin_with_rows_of_their_own():
    # One mixture for all classes would have to be taken apart by training.
    rng = np.random.default_rng(0)
    y = rng.choice(["low", "high"], size=600)
    level = np.where(y == "high", 20.0, 0.0)[:, None]
    frame = pd.DataFrame((level + rng.normal(size=(600, 3))).round(1))
    common = {"max_iter": 0, "likelihood": "table", "random_state": 0}
    model = ConditionalVAE(3, **common).fit(frame, y)
    some = np.where(rng.random(600) < 0.1, y.astype(object), None)
    for fitted in (model, ConditionalVAE(3, **common).fit(frame, some)):
        assert np.mean(fitted.predict(frame) == y) > 0.95
        for name, value in (("low", 0.0), ("high", 20.0)):
            rows, _ = fitted.sample(400, y=name, random_state=0)
            assert np.mean(np.abs(rows.to_numpy() - value) < 5) > 0.8
