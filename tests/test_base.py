"""What all estimators share: containers, dtypes, codes there and back, own recipes."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import (
    VAE,
    AutoencoderTransformer,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    Recipe,
)
from skvae._base import BaseAutoencoder
from skvae._deterministic import DeterministicMixin
from skvae._docs import estimator
from skvae.objectives import NegativeLogLikelihood, Sparsity

# The estimators whose rows follow from their codes alone.
UNCONDITIONAL = pytest.mark.parametrize(
    "kind",
    [AutoencoderTransformer, DenoisingAutoencoder, ContractiveAutoencoder, VAE],
)
NAMES = list("abcde")
X = np.random.default_rng(0).normal(size=(70, 2)) @ np.random.default_rng(1).normal(
    size=(2, 5)
) + 0.2 * np.random.default_rng(2).normal(size=(70, 5))
Y = np.arange(70) % 2


def _model(kind, **params):
    return kind(**{"n_components": 2, "max_iter": 3, "random_state": 0, **params})


def _sample(model, n_samples, seed=0):
    drawn = model.sample(n_samples, random_state=seed)
    return drawn[0] if isinstance(drawn, tuple) else drawn


# -- parameters ----------------------------------------------------------------------
def test_only_the_number_of_components_may_be_positional(kind):
    assert kind(3).n_components == 3
    with pytest.raises(TypeError, match="positional argument"):
        kind(3, (8,))


def test_constructor_keeps_what_it_is_given_and_nothing_else(kind):
    model = kind(7, dropout=0.5)
    assert vars(model).keys() == model.get_params().keys()
    assert clone(model).get_params() == model.get_params()


def test_there_are_at_most_thirty_parameters(kind):
    assert len(kind().get_params()) <= 30


def test_the_printed_form_shows_what_was_changed(kind):
    assert repr(kind(3)) == f"{kind.__name__}(n_components=3)"


# -- containers and dtypes -----------------------------------------------------------
@pytest.mark.parametrize("method", ["sample", "reconstruct", "inverse_transform"])
def test_frames_come_back_as_frames(kind, method):
    frame = pd.DataFrame(X, columns=NAMES).astype({"b": np.float32})
    model = _model(kind).fit(frame, Y)
    if method == "sample":
        rows = _sample(model, 4)
    else:
        given = frame if method == "reconstruct" else np.zeros((3, 2))
        rows = getattr(model, method)(given)
    assert isinstance(rows, pd.DataFrame)
    assert list(rows.columns) == NAMES
    assert (rows.dtypes == frame.dtypes).all()


def test_reconstructions_keep_the_index():
    frame = pd.DataFrame(X, columns=NAMES, index=np.arange(70)[::-1])
    rows = _model(VAE).fit(frame).reconstruct(frame)
    assert rows.index.equals(frame.index)


@pytest.mark.parametrize("table", [False, True])
def test_decoded_codes_keep_their_index(kind, table):
    frame = pd.DataFrame(X, columns=NAMES, index=np.arange(70)[::-1])
    if table:
        frame["c"] = ["u", "v"] * 35
    model = _model(kind).fit(frame, Y).set_output(transform="pandas")
    rows = model.inverse_transform(model.transform(frame[:9]))
    assert rows.index.equals(frame.index[:9])
    codes = model.transform(frame[:9]).to_numpy()
    assert model.inverse_transform(codes).index.equals(pd.RangeIndex(9))


def test_polars_frames_come_back_as_polars(kind):
    frame = pl.DataFrame(X, schema=NAMES)
    model = _model(kind).fit(frame, Y)
    for rows in (model.reconstruct(frame), _sample(model, 3, 0)):
        assert isinstance(rows, pl.DataFrame)
        assert rows.schema == frame.schema


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array, list], ids=str)
def test_arrays_come_back_as_arrays(kind, make):
    rows = make(X)
    model = _model(kind).fit(rows, Y)
    assert type(model.reconstruct(rows)) is np.ndarray
    assert type(_sample(model, 3, 0)) is np.ndarray


def test_integer_columns_of_a_frame_stay_integers(kind):
    frame = pd.DataFrame(np.round(5 * X).astype(np.int64), columns=NAMES)
    model = _model(kind).fit(frame, Y)
    drawn = _sample(model, 20, 0)
    assert (drawn.dtypes == np.int64).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_answers_have_the_dtype_of_the_rows(kind, dtype):
    rows = X.astype(dtype)
    model = _model(kind).fit(rows, Y)
    for answer in (
        model.transform(rows),
        model.reconstruct(rows),
        _sample(model, 3, 0),
    ):
        assert answer.dtype == dtype
    assert next(model.net_.module_.parameters()).dtype.itemsize == dtype().itemsize


def test_single_precision_is_close_to_double(kind):
    one = _model(kind, max_iter=0).fit(X, Y)
    other = _model(kind, max_iter=0).fit(X.astype(np.float32), Y)
    assert other.score(X.astype(np.float32)) == pytest.approx(one.score(X), abs=1e-2)


def test_transform_follows_set_output(kind):
    model = _model(kind).set_output(transform="pandas")
    codes = model.fit_transform(pd.DataFrame(X, columns=NAMES), Y)
    prefix = kind.__name__.lower()
    assert list(codes.columns) == [f"{prefix}0", f"{prefix}1"]
    assert list(model.get_feature_names_out()) == list(codes.columns)


# -- there and back ------------------------------------------------------------------
@UNCONDITIONAL
def test_reconstruct_decodes_the_codes(kind):
    model = _model(kind).fit(X, Y)
    np.testing.assert_allclose(
        model.reconstruct(X), model.inverse_transform(model.transform(X))
    )


def test_fit_transform_equals_fit_then_transform(kind):
    codes = _model(kind).fit_transform(X, Y)
    np.testing.assert_array_equal(codes, _model(kind).fit(X, Y).transform(X))


@UNCONDITIONAL
def test_labels_are_not_even_looked_at(kind):
    model = _model(kind).fit(X, y=[None, "x", object()])
    np.testing.assert_array_equal(model.transform(X), _model(kind).fit(X).transform(X))


def test_samples_depend_on_their_seed_alone(kind):
    model = _model(kind).fit(X, Y)
    first = _sample(model, 5, 0)
    other = _sample(model, 5, 1)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(_sample(model, 5, 0), first)
    rng = np.random.RandomState(0)
    assert not np.array_equal(_sample(model, 5, rng), _sample(model, 5, rng))


@pytest.mark.numpy_global_rng
def test_samples_without_a_seed_differ(kind):
    model = _model(kind).fit(X, Y)
    assert not np.array_equal(_sample(model, 5, None), _sample(model, 5, None))


def test_sampling_does_not_disturb_the_model(kind):
    model = _model(kind).fit(X, Y)
    codes = model.transform(X)
    model.sample(100, random_state=3)
    np.testing.assert_array_equal(model.transform(X), codes)
    model.partial_fit(X, Y)
    np.testing.assert_array_equal(
        model.transform(X), _model(kind).fit(X, Y).partial_fit(X, Y).transform(X)
    )


@UNCONDITIONAL
def test_interpolation_starts_and_ends_at_the_reconstructions(kind):
    model = _model(kind).fit(X, Y)
    walk = model.interpolate(X[:2], X[5:7], n_steps=4)
    assert walk.shape == (8, 5)
    np.testing.assert_allclose(walk[[0, 4]], model.reconstruct(X[:2]))
    np.testing.assert_allclose(walk[[3, 7]], model.reconstruct(X[5:7]))


def test_traversal_moves_one_component(kind):
    model = _model(kind).fit(X, Y)
    values = [-1.0, 0.0, 2.0]
    expected = model.inverse_transform([[0.0, v] for v in values])
    np.testing.assert_allclose(model.traverse(1, values), expected)
    codes = model.transform(X[:2])
    codes[:, 0] = 5.0
    told = {"y": model.predict(X[:2])} if hasattr(model, "predict") else {}
    np.testing.assert_allclose(
        model.traverse(0, [5.0], X[:2]), model.inverse_transform(codes, **told)
    )


def test_cell_losses_of_an_autoencoder_add_up_to_its_scores():
    model = _model(AutoencoderTransformer).fit(X)
    losses = model.cell_losses(X)
    assert losses.shape == X.shape
    scaled = (X - model.reconstruct(X)) / model.scale_
    # Half the squared error, up to the constant of the gaussian's density.
    expected = 0.5 * scaled**2
    np.testing.assert_allclose(
        losses - losses.min(), expected - expected.min(), atol=1e-6
    )


# -- in scikit-learn -----------------------------------------------------------------
def _fitted_names(model):
    return {n for n in vars(model) if n.endswith("_") and not n.startswith("_")}


def test_a_fit_leaves_nothing_of_an_earlier_one(kind):
    words = pd.DataFrame({"a": list("xyz") * 20, "b": list("uv") * 30})
    fresh = _fitted_names(_model(kind).fit(words, Y[:60]))
    model = _model(kind).fit(X, Y)
    assert {"center_", "noise_variance_"} <= _fitted_names(model)
    assert _fitted_names(model.fit(words, Y[:60])) == fresh
    # A fit that fails leaves the model as it was.
    with pytest.raises(ValueError, match="0 sample"):
        model.fit(words[:0], Y[:0])
    assert _fitted_names(model) == fresh
    model.transform(words)


def test_works_in_a_pipeline_and_a_column_transformer(kind):
    frame = pd.DataFrame(X, columns=NAMES)
    pipe = make_pipeline(StandardScaler(), _model(kind))
    assert pipe.fit_transform(frame, Y).shape == (70, 2)
    np.testing.assert_allclose(pipe.inverse_transform(np.zeros((3, 2))).shape, (3, 5))
    columns = make_column_transformer(
        (_model(kind), ["a", "b", "c"]), remainder="passthrough"
    ).set_output(transform="pandas")
    assert columns.fit_transform(frame, Y).shape == (70, 4)


def test_fits_on_clean_rows_are_silent(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = _model(kind, max_iter=30).fit(X, Y)
        model.score(X)
        model.impute(X)


# -- own recipes ---------------------------------------------------------------------
@estimator
class Everything(DeterministicMixin, BaseAutoencoder):
    """Denoising and sparse at once: a user's own subclass."""

    alpha: float = 0.01
    _parameter_constraints = {
        **BaseAutoencoder._parameter_constraints,
        "alpha": [float],
    }

    def _recipe(self):
        terms = (NegativeLogLikelihood(), Sparsity(self.alpha, kind="l2"))
        return Recipe(
            terms=terms,
            corruption="masking",
            corruption_level=0.2,
            likelihood="gaussian",
        )


def test_five_lines_make_an_estimator_of_ones_own():
    model = Everything(2, max_iter=5, hidden_layer_sizes=(8,), random_state=0).fit(X)
    row = model.net_.history[-1]
    total = row["train_nll"] + 0.01 * row["train_sparsity"]
    assert row["train_loss"] == pytest.approx(total, rel=1e-4)
    assert repr(Everything(alpha=0.5)) == "Everything(alpha=0.5)"
    assert model.score(X) > 0.5


@estimator
class WithoutDivergence(VAE):
    """A recipe that leaves the divergence out."""

    def _recipe(self):
        return Recipe((NegativeLogLikelihood(),), variational=True, prior="auto")


@pytest.mark.parametrize("likelihood", ["gaussian", "table"])
def test_a_recipe_may_leave_the_divergence_out(likelihood):
    table = pd.DataFrame({"a": X[:, 0], "k": ["u", "v"] * 35})
    rows = X if likelihood == "gaussian" else table
    model = WithoutDivergence(2, max_iter=2, random_state=0).fit(rows)
    family = "normal" if likelihood == "gaussian" else "mixture"
    assert model._architecture.prior == family
    assert np.isfinite(model.score_samples(rows)).all()


def test_the_base_class_has_no_recipe():
    with pytest.raises(NotImplementedError):
        BaseAutoencoder(2).fit(X)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])
@pytest.mark.parametrize("gaps_in_training", [True, False])
def test_copies_of_an_imputation_spread_as_the_rows_do(kind, gaps_in_training):
    rng = np.random.default_rng(0)
    code = rng.normal(size=(400, 1))
    X = code * [1.0, -1.0, 2.0] + 0.3 * rng.normal(size=(400, 3))
    gaps = X.copy()
    gaps[::4, 2] = np.nan
    model = kind(1, max_iter=80, random_state=0).fit(gaps if gaps_in_training else X)
    copies = np.stack(model.impute(gaps, n_samples=30, random_state=0))
    assert not np.ptp(copies[:, ~np.isnan(gaps)], axis=0).any()
    spread = copies[:, ::4, 2].std(axis=0)
    assert 0.15 < np.median(spread) < 1.0
    assert np.corrcoef(copies[:, ::4, 2].mean(axis=0), X[::4, 2])[0, 1] > 0.9


@pytest.mark.parametrize("n_samples", [None, 2])
def test_deterministic_models_fill_the_gaps_of_tables(n_samples):
    rng = np.random.default_rng(0)
    level = rng.integers(0, 2, 400)
    table = pd.DataFrame(
        {
            "level": np.where(level, "high", "low"),
            "value": level * 10.0 + rng.normal(size=400),
            "other": level * 5.0 + rng.normal(size=400),
            "more": np.where(level, "a", "b"),
        }
    )
    gaps = table.copy()
    gaps.loc[::5, "level"] = None
    gaps.loc[1::5, "value"] = np.nan
    model = AutoencoderTransformer(2, max_iter=60, random_state=0).fit(gaps)
    filled = model.impute(gaps, n_samples=n_samples, random_state=0)
    filled = filled if n_samples is None else filled[0]
    assert (filled.dtypes == gaps.dtypes).all()
    right = (filled["level"][::5] == table["level"][::5]).mean()
    assert right > 0.9
    assert (filled["value"][1::5] - table["value"][1::5]).abs().median() < 3
    for name in table:
        seen = gaps[name].notna()
        assert (filled[name][seen] == gaps[name][seen]).all()
