"""One test for each mistake found by reading or using the package."""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_iris

from skvae import (
    VAE,
    AutoencoderTransformer,
    ConditionalVAE,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
)
from skvae.imputation import AutoencoderImputer
from skvae.outliers import AutoencoderOutlierDetector
from skvae.persistence import save

TIED = [AutoencoderTransformer, DenoisingAutoencoder, ContractiveAutoencoder]


@pytest.fixture
def X():
    X = np.random.default_rng(0).normal(size=(120, 4))
    X[:, 1] += X[:, 0]
    return X


@pytest.fixture
def with_gap(X):
    X = X.copy()
    X[3, 1] = np.nan
    return X


def _quick(kind, **parameters):
    return kind(2, max_iter=2, random_state=0, **parameters)


# -- names -----------------------------------------------------------------------------
@pytest.mark.parametrize("names", [[0, 1, 2], [("a", 1), ("a", 2), ("b", 1)]])
def test_column_names_need_not_be_text(X, with_gap, names):
    frame = pd.DataFrame(with_gap[:, :3], columns=pd.Index(names))
    frame[names[2]] = pd.Categorical(np.where(X[:, 2] > 0, "up", "down"))
    model = _quick(VAE).fit(frame)
    filled = model.impute(frame)
    assert list(filled.columns) == names
    assert not filled.isna().to_numpy().any()
    rows = model.sample(5, given={names[2]: "up"}, random_state=0)
    assert list(rows.columns) == names
    assert list(rows.dtypes) == list(frame.dtypes)
    assert (rows[names[2]] == "up").all()
    again = pd.DataFrame(model.reconstruct(frame))
    assert list(again.columns) == names


def test_names_that_are_numbers_survive_a_file(with_gap, tmp_path):
    pytest.importorskip("safetensors")
    from skvae.persistence import load

    model = _quick(VAE).fit(pd.DataFrame(with_gap))
    save(model, tmp_path / "model.safetensors")
    rows = load(tmp_path / "model.safetensors").sample(3, random_state=0)
    pd.testing.assert_frame_equal(rows, model.sample(3, random_state=0))


def test_a_detector_forgets_the_names_of_an_earlier_fit(X):
    detector = AutoencoderOutlierDetector(_quick(VAE))
    detector.fit(pd.DataFrame(X, columns=list("abcd")))
    assert list(detector.feature_names_in_) == list("abcd")
    assert not hasattr(detector.fit(X), "feature_names_in_")


@pytest.mark.parametrize("outer", [AutoencoderImputer, AutoencoderOutlierDetector])
def test_the_outer_seed_is_for_an_inner_estimator_without_one(X, outer):
    inner = VAE(2, max_iter=1)
    assert outer(inner, random_state=3).fit(X).estimator_.random_state == 3
    inner.set_params(random_state=5)
    assert outer(inner, random_state=3).fit(X).estimator_.random_state == 5
    assert inner.random_state == 5


@pytest.mark.parametrize("outer", [AutoencoderImputer, AutoencoderOutlierDetector])
def test_an_inner_estimator_that_requires_y_is_refused(X, outer):
    message = f"{outer.__name__} is .* estimator=ConditionalVAE requires y. Use VAE"
    with pytest.raises(ValueError, match=message):
        outer(ConditionalVAE()).fit(X)


# -- missing cells and sparse rows -----------------------------------------------------
@pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])
def test_sparse_rows_with_gaps_are_refused(X, kind):
    rows = sp.csr_array(np.where(X > 0, X, 0))
    gaps = rows.copy()
    gaps.data[5] = np.nan
    with pytest.raises(ValueError, match=r"Sparse input X contains NaN.*toarray"):
        _quick(kind).fit(gaps)
    model = _quick(kind).fit(rows)
    with pytest.raises(ValueError, match=r"Sparse input X contains NaN.*toarray"):
        model.transform(gaps)
    with pytest.raises(TypeError, match="complete rows are dense"):
        model.impute(gaps)


@pytest.mark.parametrize(
    "parameters", [{"likelihood": "table"}, {"categorical_features": [0]}]
)
def test_a_sparse_table_is_refused(X, parameters):
    with pytest.raises(TypeError, match="needs dense data"):
        _quick(VAE, **parameters).fit(sp.csr_array(X))


@pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])
def test_gaps_that_come_later_are_refused(X, with_gap, kind):
    model = _quick(kind, warm_start=True).fit(X)
    codes = model.transform(X)
    for go_on in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="had no missing cells"):
            go_on(with_gap)
    np.testing.assert_array_equal(model.transform(X), codes)


# -- parameters ------------------------------------------------------------------------
@pytest.mark.parametrize("empty", [[], [False] * 4, np.zeros(4, dtype=bool)])
@pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])
def test_no_categorical_features_make_no_table(X, kind, empty):
    model = _quick(kind, categorical_features=empty).fit(X)
    assert model.likelihood_ == "gaussian"


def test_categories_beside_a_likelihood_of_numbers_are_refused(X):
    model = _quick(VAE, likelihood="gaussian", categorical_features=[3])
    with pytest.raises(ValueError, match=r"\[3\] needs likelihood='auto' or 'table'"):
        model.fit(X)


@pytest.mark.parametrize("count", [0, 2.5, "many"])
def test_importance_samples_are_counted(X, count):
    vae = _quick(VAE).fit(X)
    labelled = _quick(ConditionalVAE).fit(X, X[:, 0] > 0)
    for model in (vae, labelled):
        with pytest.raises(ValueError, match="n_importance_samples must be an integer"):
            model.score_samples(X, n_importance_samples=count)


@pytest.mark.parametrize("kind", TIED)
@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_tied_weights_need_the_own_networks(X, kind, name):
    from torch import nn

    model = _quick(kind, tied_weights=True, **{name: nn.Linear})
    with pytest.raises(ValueError, match=f"tied_weights=True needs {name}=None"):
        model.fit(X)


@pytest.mark.parametrize("kind", TIED)
def test_tied_weights_need_numbers(X, kind):
    frame = pd.DataFrame(X).assign(label=np.where(X[:, 0] > 0, "up", "down"))
    frame.columns = frame.columns.astype(str)
    with pytest.raises(ValueError, match="tied_weights=True needs numeric rows"):
        _quick(kind, tied_weights=True).fit(frame)


def test_a_missing_value_that_nobody_has_seen_cannot_be_given(X):
    frame = pd.DataFrame({"x": X[:, 0], "label": np.where(X[:, 0] > 0, "up", "down")})
    model = _quick(VAE).fit(frame)
    for given in ({"label": pd.NA}, {"x": pd.NA}):
        with pytest.raises(ValueError, match="has no missing cells"):
            model.sample(1, given=given, random_state=0)


# -- results ---------------------------------------------------------------------------
def test_diagnostics_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6000, 1)) + 0.3 * rng.normal(size=(6000, 5))
    X[:5000] *= 0.001
    model = VAE(1, max_iter=0, random_state=0).fit(X)
    mean, sd = model.transform(X, return_std=True)
    own = 0.5 * (mean**2 + sd**2 - 1 - 2 * np.log(sd)).mean()
    assert model.kl_per_component_[0] == pytest.approx(own, rel=0.05)


def test_few_distinct_rows_are_sampled_without_a_warning():
    rows = np.repeat(np.random.default_rng(0).normal(size=(3, 4)), 80, axis=0)
    model = AutoencoderTransformer(2, max_iter=1, random_state=0).fit(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(model.sample(20, random_state=0)).all()


def test_large_samples_come_in_chunks(monkeypatch):
    from skvae import _passes

    X = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    model = AutoencoderTransformer(2, max_iter=1, random_state=0).fit(X)
    whole = model.sample(1000, random_state=0)
    monkeypatch.setattr(_passes, "_CHUNK_FLOATS", 1 << 14)
    parts = model.sample(1000, random_state=0)
    assert model._chunk_rows() < 1000
    assert parts.shape == whole.shape
    np.testing.assert_allclose(parts.std(0), whole.std(0), rtol=0.2)


def test_a_table_of_polars_rebuilds_pandas_rows(X):
    pl = pytest.importorskip("polars")
    frame = pd.DataFrame({"x": X[:, 0], "label": np.where(X[:, 0] > 0, "up", "down")})
    model = _quick(VAE).fit(pl.DataFrame(frame.to_dict("list")))
    assert isinstance(model.reconstruct(frame), pl.DataFrame)


class Own(AutoencoderTransformer):
    """An estimator of somebody else."""


def test_a_file_is_written_only_if_it_can_be_read(X, tmp_path):
    pytest.importorskip("safetensors")
    model = clone(Own(2, max_iter=1, random_state=0)).fit(X)
    with pytest.raises(TypeError, match="Got Own, which load could not make again"):
        save(model, tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("model", "highest"),
    [
        (_quick(DenoisingAutoencoder, code_activation="relu"), np.inf),
        (_quick(ContractiveAutoencoder, code_activation="logistic"), 1.0),
        (_quick(AutoencoderTransformer, penalty="kl"), 1.0),
    ],
)
def test_drawn_codes_are_those_an_encoder_can_give(X, model, highest, monkeypatch):
    import torch

    model = model.fit(X)
    # Normals around an end of the range: half of what they give lies beyond it.
    means = np.array([[0.0, 0.5]])
    mixture = np.ones(1), means, np.eye(2)[None]
    monkeypatch.setattr(model, "_code_mixture", lambda: mixture)
    codes = model._draw_codes(1000, torch.Generator().manual_seed(0)).numpy()
    assert codes.min() == 0
    assert codes.max() <= highest
    assert (codes[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.05)


def test_only_a_vamp_prior_starts_far_from_factor_analysis():
    X = load_iris().data
    losses = {
        prior: VAE(2, prior=prior, max_iter=1, random_state=0).fit(X).baseline_loss_
        for prior in ("normal", "mixture", "vamp")
    }
    assert losses["mixture"] == pytest.approx(losses["normal"], abs=1)
    assert losses["vamp"] > losses["normal"] + 10


# -- found by people who used it -------------------------------------------------------
@pytest.mark.parametrize("kind", [*TIED, VAE])
def test_rows_and_columns_in_reverse(X, kind):
    model = _quick(kind).fit(X)
    codes = model.transform(X)
    np.testing.assert_array_equal(model.transform(X[::-1]), codes[::-1])
    turned = np.ascontiguousarray(X[:, ::-1])
    np.testing.assert_array_equal(model.transform(turned[:, ::-1]), codes)
    np.testing.assert_array_equal(
        model.reconstruct(X[::-1]), model.reconstruct(X)[::-1]
    )


@pytest.mark.parametrize("unit", [1e-2, 1e-4, 1e-8])
def test_small_shares_are_standardised_like_all_small_numbers(unit):
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(200, 1)) * np.ones((1, 4)) + 0.1 * rng.uniform(size=(200, 4))
    X = X / X.max() * unit
    shares, shifted = (VAE(1, max_iter=5, random_state=0).fit(Y) for Y in (X, X - unit))
    assert shares.score(X) == pytest.approx(shifted.score(X - unit), abs=1e-3)
    drawn = shares.sample(2000, random_state=0)
    np.testing.assert_allclose(drawn.std(0), X.std(0), rtol=0.2)


def test_data_that_reach_far_into_the_unit_interval_keep_their_units():
    X = np.random.default_rng(0).uniform(size=(100, 5)) * [1, 1, 0.6, 0.3, 0.01]
    model = _quick(VAE).fit(X)
    np.testing.assert_array_equal(model.scale_, np.ones(5))
    assert model.sample(100, random_state=0).min() >= 0


@pytest.mark.parametrize("mean", [0.5, 50, 5000, 10**6])
@pytest.mark.parametrize("max_iter", [0, 20])
def test_counts_of_any_size(mean, max_iter):
    from scipy.stats import poisson

    X = np.random.default_rng(0).poisson(mean, (400, 4)).astype(float)
    model = VAE(2, likelihood="poisson", max_iter=max_iter, random_state=0).fit(X[:300])
    own = poisson(X[:300].mean(0)).logpmf(X[300:]).sum(1).mean()
    assert model.score(X[300:]) == pytest.approx(own, abs=1.0)
    np.testing.assert_allclose(
        model.sample(5000, random_state=0).mean(0), X.mean(0), rtol=0.25
    )


def test_counts_with_factors_behind_them():
    from scipy.stats import poisson

    rng = np.random.default_rng(0)
    z, loadings = rng.normal(size=(800, 2)), 0.6 * rng.normal(size=(2, 6))
    X = rng.poisson(np.exp(z @ loadings + rng.uniform(0, 6, 6))).astype(float)
    model = VAE(2, likelihood="poisson", max_iter=60, random_state=0).fit(X[:600])
    own = poisson(X[:600].mean(0)).logpmf(X[600:]).sum(1).mean()
    assert model.score(X[600:]) > 0.5 * own


def test_counts_with_gaps():
    X = np.random.default_rng(0).poisson(30, (200, 3)).astype(float)
    gaps = X.copy()
    gaps[::5, 1] = np.nan
    model = VAE(1, likelihood="poisson", max_iter=20, random_state=0).fit(gaps)
    filled = model.impute(gaps)
    assert np.abs(filled[::5, 1] - 30).max() < 10


@pytest.mark.parametrize(
    ("likelihood", "message"), [("bernoulli", r"in \[0, 1\]"), ("poisson", "counts")]
)
def test_numbers_without_a_likelihood_are_refused_at_any_time(X, likelihood, message):
    model = _quick(VAE, likelihood=likelihood, warm_start=True).fit(1.0 * (X > 0))
    for method in (model.fit, model.partial_fit, model.score, model.score_samples):
        with pytest.raises(ValueError, match=message):
            method(X)
    labelled = _quick(ConditionalVAE, likelihood=likelihood).fit(1.0 * (X > 0), X[:, 0])
    with pytest.raises(ValueError, match=message):
        labelled.score_samples(X, X[:, 0])


def test_own_networks_with_dropout_are_reproducible(X):
    import torch
    from torch import nn

    def encoder(n_in, n_out):
        return nn.Sequential(nn.Linear(n_in, 8), nn.Dropout(0.5), nn.Linear(8, n_out))

    before = torch.get_rng_state()
    codes = []
    for extra in range(2):
        torch.rand(extra)
        state = torch.get_rng_state()
        codes.append(_quick(AutoencoderTransformer, encoder=encoder).fit_transform(X))
        assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)
    np.testing.assert_array_equal(*codes)


@pytest.mark.parametrize("context", ["inference_mode", "no_grad"])
def test_a_fit_takes_gradients_wherever_it_is_called(X, context):
    import torch

    with getattr(torch, context)():
        model = _quick(VAE).fit(X)
    np.testing.assert_array_equal(model.transform(X), _quick(VAE).fit(X).transform(X))


@pytest.mark.parametrize("name", ["lr", "max_epochs", "batch_size", "device"])
def test_what_the_estimator_says_is_not_said_twice(X, name):
    with pytest.raises(ValueError, match=f"net_params may not hold '{name}'"):
        _quick(VAE, net_params={name: 1}).fit(X)


def test_the_start_is_epoch_zero_of_the_summary():
    X = np.random.default_rng(0).normal(size=(569, 30))
    model = AutoencoderTransformer(
        2, max_iter=20, learning_rate_init=0.2, random_state=0
    ).fit(X)
    assert model.best_loss_ == model.baseline_loss_
    assert "epoch kept" in model.summary()
    assert model.summary().split("epoch kept")[1].split()[0] == "0"


def test_rows_that_do_not_differ_explain_nothing():
    for X in (np.ones((1, 3)), np.ones((30, 3)), np.full((30, 3), 1e6)):
        model = AutoencoderTransformer(1, max_iter=1, random_state=0).fit(X)
        np.testing.assert_array_equal(model.explained_variance_ratio_, 0)


def test_impossible_rows_are_of_any_class(X):
    y = X[:, 0] > 0
    model = _quick(ConditionalVAE).fit(X.astype(np.float32), y)
    far = np.full((1, 4), 1e30, dtype=np.float32)
    shares = model.predict_proba(far)
    assert shares.sum() == pytest.approx(1)
    assert shares[0, 1] == pytest.approx(y.mean())


@pytest.mark.parametrize("dtype", ["boolean", "string", "Int64"])
def test_labels_of_pandas_may_be_missing(X, dtype):
    labels = pd.Series((X[:, 0] > 0).astype(int)).astype(dtype)
    labels[::7] = pd.NA
    model = _quick(ConditionalVAE).fit(X, labels)
    assert len(model.classes_) == 2


def test_heads_of_columns_by_position_survive_a_file(X, tmp_path):
    pytest.importorskip("safetensors")
    from skvae.persistence import load

    model = _quick(VAE, likelihood={0: "gaussian"}).fit(X)
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.likelihood == {0: "gaussian"}
    np.testing.assert_array_equal(again.transform(X), model.transform(X))


@pytest.mark.parametrize("value", [["up"], ["up", "down"], ("up", "down")])
def test_one_value_is_given_for_a_column(X, value):
    frame = pd.DataFrame({"x": X[:, 0], "label": np.where(X[:, 0] > 0, "up", "down")})
    model = _quick(VAE).fit(frame)
    with pytest.raises(ValueError, match="one value for column 'label'"):
        model.sample(1, given={"label": value}, random_state=0)


def test_a_frame_without_columns_is_refused():
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        _quick(VAE, likelihood="table").fit(pd.DataFrame(index=range(5)))


@pytest.mark.parametrize("by_batch", [False, True])
@pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])
def test_frozen_parameters_stay_as_they_start(X, kind, by_batch):
    from skorch.callbacks import Callback, Freezer

    class Watching(Callback):
        def on_batch_end(self, net, **kwargs):
            pass

    callbacks = [Freezer("encoder*"), *([Watching()] if by_batch else [])]
    common = {"init": "random", "random_state": 0, "early_stopping": False}
    start = kind(2, max_iter=0, **common).fit(X)._module
    model = kind(2, max_iter=3, callbacks=callbacks, weight_decay=0.1, **common).fit(X)
    for name, value in model._module.encoder.named_parameters():
        np.testing.assert_array_equal(
            value.detach(), start.encoder.get_parameter(name).detach()
        )
    moved = model._module.decoder.bias.detach() - start.decoder.bias.detach()
    assert moved.abs().max() > 0


# -- conditions ------------------------------------------------------------------------
@pytest.mark.parametrize("frame", [np.asarray, pd.DataFrame])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "Input y contains NaN"),
        (np.inf, "Input y contains infinity or a value too large"),
    ],
)
def test_several_conditions_are_finite(X, frame, value, message):
    y = X[:, :2].copy()
    model = _quick(ConditionalVAE).fit(X, frame(y))
    y[5, 1] = value
    for method in (_quick(ConditionalVAE).fit, model.partial_fit, model.score):
        with pytest.raises(ValueError, match=message):
            method(X, frame(y))
    with pytest.raises(ValueError, match=message):
        model.sample(len(y), y=frame(y))


@pytest.mark.parametrize("gap", [None, np.nan])
def test_several_conditions_of_any_type_have_no_gaps(X, gap):
    y = np.empty((len(X), 2), dtype=object)
    y[:, 0], y[:, 1] = np.where(X[:, 0] > 0, "up", "down"), X[:, 1]
    y[5, 0] = gap
    with pytest.raises(ValueError, match="Input y contains NaN"):
        _quick(ConditionalVAE).fit(X, y)


def test_an_infinite_condition_has_no_rows(X):
    model = _quick(ConditionalVAE).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="Input y contains infinity"):
        model.sample(3, y=np.inf)


# -- scaling and starts ----------------------------------------------------------------
def test_moments_in_single_precision_are_scaled():
    rng = np.random.default_rng(0)
    seconds = 1.7e9 + np.linspace(0, 1800, 300)
    X = np.column_stack([seconds, rng.normal(size=300)]).astype(np.float32)
    scale = _quick(VAE).fit(X).scale_
    np.testing.assert_allclose(scale, X.std(axis=0, dtype=np.float64), rtol=1e-3)
    # Below one it may be rounding: such a column is constant.
    X[:, 0] = 1e6 + 0.1 * rng.normal(size=300)
    assert _quick(VAE).fit(X).scale_[0] == 1


@pytest.mark.parametrize("n", [3, 120])
@pytest.mark.parametrize("kind", TIED)
def test_tied_weights_start_at_pca_beyond_the_rank_too(X, kind, n):
    def model(max_iter, **parameters):
        return kind(7, max_iter=max_iter, random_state=0, **parameters).fit(X[:n])

    start, untied = model(0, tied_weights=True), model(0)
    assert start.score(X) == pytest.approx(untied.score(X), abs=1e-7)
    # None of the components is stuck there.
    common = {"early_stopping": False, "tied_weights": True}
    moved = model(3, **common).transform(X) - start.transform(X)
    assert np.abs(moved).max(axis=0).min() > 1e-3


# -- free bits and held-out rows -------------------------------------------------------
@pytest.mark.parametrize("kind", [VAE, ConditionalVAE])
@pytest.mark.parametrize("likelihood", ["gaussian", "table"])
def test_free_bits_come_with_a_normal_prior(X, kind, likelihood):
    from skvae.priors import NormalPrior

    y = (X[:, 0] > 0).astype(int)
    model = _quick(kind, likelihood=likelihood, free_bits=0.2).fit(X, y)
    assert isinstance(model._module.prior, NormalPrior)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prior": "mixture"}, "free_bits=0.2 needs prior='normal'.*prior='mixture'"),
        ({"prior": "vamp"}, "free_bits=0.2 needs prior='normal'.*prior='vamp'"),
        (
            {"n_importance_samples": 3, "prior": "normal"},
            "needs n_importance_samples=1.*Got 3",
        ),
    ],
)
def test_free_bits_without_effect_are_refused(X, parameters, message):
    with pytest.raises(ValueError, match=message):
        _quick(VAE, free_bits=0.2, **parameters).fit(X)
    model = _quick(VAE, warm_start=True, **parameters).fit(X).set_params(free_bits=0.2)
    with pytest.raises(ValueError, match=message):
        model.fit(X)


def test_free_bits_are_not_forgotten_by_a_warm_start(X):
    model = _quick(VAE, warm_start=True).fit(X).set_params(free_bits=0.2)
    with pytest.raises(ValueError, match="The model has prior='mixture'"):
        model.partial_fit(X)


@pytest.mark.parametrize(("fraction", "left"), [(0.999, 0), (0.99, 1)])
def test_a_fraction_that_leaves_nothing_to_train_on_is_refused(X, fraction, left):
    message = rf"validation_fraction={fraction} holds .* of 120 rows and leaves {left} "
    with pytest.raises(ValueError, match=message):
        _quick(VAE, validation_fraction=fraction).fit(X)
    model = _quick(VAE, validation_fraction=fraction, early_stopping=False).fit(X)
    assert model.validation_loss_curve_ is None


# -- what a newcomer meets -------------------------------------------------------------
def test_submodules_come_with_the_package():
    import skvae

    assert skvae.metrics.shape_errors is not None
    assert {"metrics", "priors", "VAE"} <= set(dir(skvae))
    with pytest.raises(AttributeError, match="has no attribute 'metric'"):
        skvae.metric  # noqa: B018


def test_a_drawing_without_matplotlib_says_what_to_install(X, monkeypatch):
    from skvae.inspection import QualityReportDisplay
    from skvae.metrics import QualityReport

    rows = pd.DataFrame(X, columns=list("abcd")[: X.shape[1]])
    report = QualityReport(rows[:60], rows[60:], rows[:60].copy(), random_state=0)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'skvae\[plot\]'"):
        QualityReportDisplay.from_report(report).plot()
