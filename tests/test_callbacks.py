"""Callbacks: skorch's in `callbacks=`, scikit-learn's by `set_callbacks`."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ProgressBar as SklearnProgressBar
from sklearn.callback import ScoringMonitor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
    ProgressBar,
)

from skvae import VAE, AutoencoderTransformer, DenoisingAutoencoder

Y = np.arange(90) % 2
# One without a prior and one with it, where a test takes long.
PAIR = pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(90, 2)) @ rng.normal(size=(2, 5))
    return rows + 0.3 * rng.normal(size=(90, 5))


def _model(kind, **params):
    return kind(**{"n_components": 2, "max_iter": 4, "random_state": 0, **params})


def _code_spread(net, X, y=None):
    return float(net.forward(X)[1].std())


def _row_count(net, X, y=None):
    return float(len(X))


CALLBACKS = {
    "early_stopping": lambda _: EarlyStopping(patience=9, load_best=True),
    "checkpoint": lambda path: Checkpoint(
        dirname=path / "saved", monitor="valid_loss_best"
    ),
    "lr_by_epoch": lambda _: LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2),
    "lr_on_plateau": lambda _: LRScheduler("ReduceLROnPlateau", monitor="train_loss"),
    "lr_by_batch": lambda _: LRScheduler(
        torch.optim.lr_scheduler.OneCycleLR,
        max_lr=0.01,
        total_steps=100,
        step_every="batch",
    ),
    "clipping": lambda _: GradientNormClipping(0.5),
    "scoring_cached": lambda _: EpochScoring(_code_spread, name="spread"),
    "scoring": lambda _: EpochScoring(_row_count, name="count", use_caching=False),
    "named": lambda _: (
        "mine",
        EpochScoring(_row_count, name="count", use_caching=False),
    ),
}


def _plain(callback):
    callback = callback[1] if isinstance(callback, tuple) else callback
    return {k: v for k, v in vars(callback).items() if not callable(v)}


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_skorch_callback_works_and_is_not_changed(kind, name, X, tmp_path):
    callback = CALLBACKS[name](tmp_path)
    before = copy.deepcopy(_plain(callback))
    model = _model(kind, callbacks=[callback]).fit(X, Y)
    assert np.all(np.isfinite(model.transform(X)))
    assert _plain(callback) == before
    assert len(model.net_.history) == model.n_iter_ == 4
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert clone(model).callbacks is not None


def test_progress_bar_draws_on_demand_only(kind, X, capsys):
    _model(kind, callbacks=[ProgressBar()]).fit(X, Y)
    assert "%" in "".join(capsys.readouterr())


def test_early_stopping_stops(kind, X):
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9)
    model = _model(kind, max_iter=50, callbacks=[stop]).fit(X, Y)
    assert model.n_iter_ == 3


def test_held_out_loss_is_fresh_in_every_epoch_a_callback_sees(kind, X):
    stop = EarlyStopping(patience=9)
    model = _model(kind, callbacks=[stop], max_iter=6, n_iter_no_change=9).fit(X, Y)
    assert len(set(model.net_.history[:, "valid_loss"])) == 6


class _Batches(Callback):
    """Asks for batches, and does nothing with them."""

    def on_batch_end(self, net, **kwargs):
        pass


@pytest.mark.parametrize("table", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [AutoencoderTransformer, DenoisingAutoencoder, VAE])
def test_a_callback_that_only_watches_does_not_change_the_model(kind, table, wine):
    X = pd.DataFrame(wine).add_prefix("x")
    if table:
        X["c"] = ["u", "v"] * 89
    params = {"n_components": 2, "max_iter": 80, "random_state": 0}
    plain = kind(**params).fit(X)
    watched = kind(**params, callbacks=[EpochTimer()]).fit(X)
    assert (watched.n_iter_, watched.best_loss_) == (plain.n_iter_, plain.best_loss_)
    np.testing.assert_array_equal(watched.transform(X), plain.transform(X))
    # In steps of skorch, which round otherwise.
    stepped = kind(**params, callbacks=[_Batches()]).fit(X)
    assert stepped.best_loss_ == pytest.approx(plain.best_loss_, rel=1e-4)
    assert stepped.net_.best_epoch_ == plain.net_.best_epoch_


def test_checkpoint_writes_the_best_weights(kind, X, tmp_path):
    _model(kind, callbacks=[Checkpoint(dirname=tmp_path / "c", monitor=None)]).fit(X, Y)
    saved = torch.load(tmp_path / "c" / "params.pt", weights_only=True)
    assert any(name.startswith("encoder") for name in saved)


def test_a_scheduler_replaces_the_plan(kind, X):
    class Recorder(Callback):
        rates = []

        def on_epoch_end(self, net, **kwargs):
            Recorder.rates.append(net.optimizer_.param_groups[0]["lr"])

    scheduler = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    model = _model(kind, learning_rate_init=1e-3, callbacks=[scheduler, Recorder()])
    model.fit(X, Y)
    np.testing.assert_allclose(Recorder.rates, 1e-3 * 0.1 ** np.arange(1, 5), rtol=1e-6)


class OwnScheduler(LRScheduler):
    """A scheduler under another name."""


class OwnClipping(GradientNormClipping):
    """A clipping under another name."""


def test_subclasses_of_schedulers_and_clippings_replace_the_plan_too(X):
    scheduler = OwnScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    callbacks = [scheduler, OwnClipping(1.0)]
    model = _model(VAE, learning_rate_init=1e-3, callbacks=callbacks).fit(X)
    (group,) = model.net_.optimizer_.param_groups
    np.testing.assert_allclose(group["lr"], 1e-7, rtol=1e-6)
    assert not model.net_.clips_itself_


@pytest.mark.parametrize("name", ["train_loss", "valid_loss"])
def test_scores_of_batches_are_passed_on(X, name):
    scoring = PassthroughScoring(name, on_train=name == "train_loss")
    model = _model(VAE, callbacks=[("again", scoring)]).fit(X)
    assert np.isfinite(model.net_.history[:, name]).all()


def test_scores_of_epochs_are_in_the_history(kind, X):
    scoring = EpochScoring(_row_count, name="count", use_caching=False)
    model = _model(kind, callbacks=[scoring]).fit(X, Y)
    # Without a word skorch scores the held-out rows: 10 of 90.
    assert model.net_.history[:, "count"] == [10.0] * 4


def test_clipping_bounds_the_gradient(kind, X):
    class Norm(Callback):
        seen = []

        def on_grad_computed(self, net, named_parameters, **kwargs):
            grads = [p.grad for _, p in named_parameters if p.grad is not None]
            Norm.seen.append(float(torch.cat([g.ravel() for g in grads]).norm()))

    _model(kind, callbacks=[GradientNormClipping(1e-3), Norm()]).fit(X, Y)
    assert 0 < max(Norm.seen) <= 1e-3 * (1 + 1e-5)


class EveryBatch(Callback):
    """Does nothing, but asks for batches, so that skorch's own step runs."""

    def on_batch_end(self, net, **kwargs):
        pass


VARIANTS = [
    AutoencoderTransformer(),
    AutoencoderTransformer(penalty="kl", alpha=0.1, dropout=0.2),
    AutoencoderTransformer(tied_weights=True, weight_decay=0.1),
    VAE(),
    VAE(noise="heteroscedastic", kl_warmup=0.5, free_bits=0.1),
    VAE(n_importance_samples=3, prior="mixture"),
]


@pytest.mark.parametrize("model", VARIANTS, ids=repr)
def test_lean_epoch_and_skorch_step_give_the_same_weights(model, X):
    model = clone(model).set_params(
        n_components=2,
        max_iter=6,
        batch_size=16,
        early_stopping=False,
        random_state=0,
    )
    lean = clone(model).fit(X)
    slow = clone(model).set_params(callbacks=[EveryBatch()]).fit(X)
    assert slow.net_.by_batch
    assert not lean.net_.by_batch
    for a, b in zip(
        lean.net_.module_.parameters(), slow.net_.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(lean.loss_curve_, slow.loss_curve_, rtol=1e-6)
    columns = [set(m.net_.history[-1]) - {"batches"} for m in (lean, slow)]
    assert columns[0] <= columns[1]


# -- scikit-learn's ------------------------------------------------------------------
# scoring=None fails in scikit-learn 1.9.1 for every estimator: the default scorer gives
# a number where the monitor wants a dictionary.
def _score(estimator, X, y):
    return estimator.score(X)


OWN_SCORE = {"score": _score}


class StopAfter:
    """A scikit-learn callback that stops a training after some epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def setup(self, estimator, context):
        self.seen = 0

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **kwargs):
        pass

    def on_fit_task_end(self, estimator, context, **kwargs):
        self.seen += context.task_name == "epoch"
        return self.seen >= self.epochs


def test_a_stopping_callback_stops(kind, X):
    model = _model(kind, max_iter=50)
    model.set_callbacks(StopAfter(3)).fit(X, Y)
    assert model.n_iter_ == 3
    assert np.all(np.isfinite(model.transform(X)))


def test_a_stopping_callback_stops_in_a_pipeline(kind, X):
    model = _model(kind, max_iter=50).set_callbacks(StopAfter(3))
    pipe = make_pipeline(StandardScaler(), model).fit(X, Y)
    assert pipe[-1].n_iter_ == 3


@PAIR
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_stopping_callback_stops_in_a_grid_search(kind, X, n_jobs):
    model = _model(kind, max_iter=50).set_callbacks(StopAfter(3))
    search = GridSearchCV(model, {"n_components": [1, 2]}, cv=2, n_jobs=n_jobs)
    search.fit(X, Y)
    assert search.best_estimator_.n_iter_ == 3


def test_scoring_monitor_logs_every_epoch(kind, X):
    monitor = ScoringMonitor(scoring=OWN_SCORE)
    model = _model(kind).set_callbacks(monitor).fit(X, Y)
    logs = monitor.get_logs().data
    epochs = [row for row in logs if row["task_name"] == "epoch"]
    assert len(epochs) == 4
    assert all(np.isfinite(row["score"]) for row in epochs)
    assert len({row["score"] for row in epochs}) > 1
    assert model.n_iter_ == 4


def test_scoring_monitor_takes_an_own_scorer(kind, X):
    monitor = ScoringMonitor(scoring=lambda est, X, y: {"half": est.score(X) / 2})
    model = _model(kind, early_stopping=False).set_callbacks(monitor).fit(X, Y)
    rows = [r for r in monitor.get_logs().data if r["task_name"] == "epoch"]
    # Without held-out rows the model keeps the weights of the last epoch.
    assert rows[-1]["half"] == pytest.approx(model.score(X) / 2)


@PAIR
def test_scoring_monitor_works_in_pipeline_and_grid_search(kind, X):
    monitor = ScoringMonitor(scoring=OWN_SCORE)
    model = _model(kind).set_callbacks(monitor)
    make_pipeline(StandardScaler(), model).fit(X, Y)
    assert len(monitor.get_logs().data) >= 4
    GridSearchCV(model, {"n_components": [1, 2]}, cv=2, refit=False).fit(X, Y)
    assert len(monitor.get_logs().data) >= 16


@PAIR
@pytest.mark.parametrize("where", ["alone", "pipeline", "grid"])
def test_progress_bar_of_scikit_learn_runs(kind, X, where, capsys):
    pytest.importorskip("rich")
    model = _model(kind)
    if where == "alone":
        model.set_callbacks(SklearnProgressBar()).fit(X, Y)
    elif where == "pipeline":
        pipe = make_pipeline(StandardScaler(), model, LogisticRegression())
        pipe.set_callbacks(SklearnProgressBar()).fit(X, X[:, 0] > 0)
    else:
        search = GridSearchCV(model, {"n_components": [1, 2]}, cv=2)
        search.set_callbacks(SklearnProgressBar()).fit(X, Y)
    assert kind.__name__ in capsys.readouterr().out or where == "grid"


def test_callbacks_of_scikit_learn_do_not_change_the_model(kind, X):
    plain = _model(kind).fit(X, Y)
    watched = _model(kind).set_callbacks(ScoringMonitor(scoring=OWN_SCORE)).fit(X, Y)
    np.testing.assert_array_equal(watched.transform(X), plain.transform(X))


def test_a_model_with_callbacks_of_scikit_learn_pickles(kind, X):
    model = _model(kind).set_callbacks(ScoringMonitor(scoring=OWN_SCORE)).fit(X, Y)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))


def test_nothing_is_printed_by_default(kind, X, capfd):
    model = _model(kind).fit(X, Y)
    model.score(X)
    model.sample(2, random_state=0)
    assert capfd.readouterr() == ("", "")


def test_verbose_prints_one_line_an_epoch(kind, X, capsys):
    _model(kind, verbose=1).fit(X, Y)
    lines = capsys.readouterr().out.strip().splitlines()
    assert "train_loss" in lines[0]
    assert len(lines) == 2 + 4
