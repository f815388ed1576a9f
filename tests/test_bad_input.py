"""Bad input: what is raised, what it says, and that nothing is lost by it."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from skorch.callbacks import Callback

from skvae import (
    VAE,
    AutoencoderTransformer,
    ConditionalVAE,
    DenoisingAutoencoder,
)

# One without a prior and one with it, where a test takes long.
PAIR = pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])
N, D = 60, 5
Y = np.arange(N) % 2
X = np.random.default_rng(0).normal(size=(N, D))
FRAME = pd.DataFrame(X, columns=list("abcde"))


def _with(value, dtype=np.float64):
    bad = X.astype(dtype)
    bad[3, 1] = value
    return bad


def _model(kind, **params):
    return kind(**{"n_components": 2, "max_iter": 2, "random_state": 0, **params})


def _sample(model, n_samples):
    drawn = model.sample(n_samples, random_state=0)
    return drawn[0] if isinstance(drawn, tuple) else drawn


@pytest.fixture(scope="module")
def fitted(kind):
    return _model(kind).fit(X, Y)


ROWS = {
    "scalar": (3.0, ValueError, "Expected 2D array, got scalar array instead"),
    "1-D": (X[0], ValueError, "Expected 2D array, got 1D array instead"),
    "3-D": (X[None], ValueError, "Found array with dim 3"),
    "no rows": (X[:0], ValueError, r"Found array with 0 sample\(s\)"),
    "no columns": (X[:, :0], ValueError, r"Found array with 0 feature\(s\)"),
    "inf": (_with(np.inf), ValueError, "Input X contains infinity or a value too"),
    "-inf": (_with(-np.inf), ValueError, "Input X contains infinity"),
    "complex": (X + 1j, ValueError, "Complex data not supported"),
    "object dict": (_with({}, object), TypeError, "argument must be .* number"),
    "inf in CSR": (sp.csr_array(_with(np.inf)), ValueError, "contains infinity"),
    "mixed names": (
        pd.DataFrame(X, columns=["a", "b", 1, 2, "c"]),
        TypeError,
        "Feature names are only supported if all input features have string names",
    ),
    "None": (None, ValueError, "Expected 2D array, got scalar array instead"),
}


@pytest.mark.parametrize("name", ROWS)
def test_fit_refuses_rows(kind, name):
    rows, error, message = ROWS[name]
    with pytest.raises(error, match=message):
        _model(kind).fit(rows, Y)


@pytest.mark.parametrize("name", [n for n in ROWS if n not in ("mixed names",)])
@pytest.mark.parametrize("method", ["transform", "reconstruct", "score_samples"])
def test_fitted_models_refuse_rows(fitted, method, name):
    rows, error, message = ROWS[name]
    if name == "no columns":
        message = "X has 0 features|0 feature"
    with pytest.raises(error, match=message):
        getattr(fitted, method)(rows)


def test_strings_are_refused_where_a_numeric_model_is_asked_for():
    bad = FRAME.assign(b="x")
    model = _model(VAE, likelihood="gaussian")
    with pytest.raises(ValueError, match=r"gaussian' needs columns of numbers.*'b'"):
        model.fit(bad)


def test_missing_cells_are_taken_by_default_and_refused_on_demand(kind):
    assert np.all(np.isfinite(_model(kind).fit(_with(np.nan), Y).transform(X)))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        _model(kind, missing_values="error").fit(_with(np.nan), Y)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_missing_cells_of_tables_are_refused_on_demand(kind, make):
    cells = {"x": X[:, 0], "c": ["a", "b"] * (N // 2), "d": ["u"] * N}
    gaps = make({**cells, "c": ["a", None] * (N // 2)})
    message = r"Input X contains NaN.\n.* missing_values='error'.*: 'c' \(30\)\. Use"
    with pytest.raises(ValueError, match=message):
        _model(kind, missing_values="error").fit(gaps, Y)
    model = _model(kind, missing_values="error").fit(make(cells), Y)
    for answer in (model.transform, model.impute, model.score_samples):
        with pytest.raises(ValueError, match=message):
            answer(gaps)


@pytest.mark.parametrize("kind", [VAE, ConditionalVAE])
def test_missing_numbers_of_tables_are_refused_on_demand(kind):
    bad = pd.DataFrame(_with(np.nan), columns=list("abcde"))
    model = _model(kind, missing_values="error", likelihood="table")
    with pytest.raises(ValueError, match=r"Columns with missing cells: 'b' \(1\)"):
        model.fit(bad, Y)


def test_missing_cells_seen_only_after_fitting_are_refused(fitted):
    for method in ("transform", "reconstruct", "score_samples"):
        with pytest.raises(ValueError, match=r"Input X contains NaN.*Impute them"):
            getattr(fitted, method)(_with(np.nan))


def test_an_all_missing_column_gives_finite_answers(kind):
    gaps = X.copy()
    gaps[:, 2] = np.nan
    model = _model(kind).fit(gaps, Y)
    assert np.all(np.isfinite(model.transform(gaps)))


@pytest.mark.parametrize("width", [3, 6])
def test_the_number_of_columns_is_checked(fitted, width):
    message = rf"X has {width} features, but .* is expecting 5 features as input"
    with pytest.raises(ValueError, match=message):
        fitted.transform(np.zeros((4, width)))


@pytest.mark.parametrize(
    "columns",
    [list("edcba"), list("abcdz")],
    ids=["order", "renamed"],
)
def test_column_names_are_checked(kind, columns):
    model = _model(kind).fit(FRAME, Y)
    frame = pd.DataFrame(X, columns=columns)
    with pytest.raises(ValueError, match="The feature names should match those"):
        model.transform(frame)
    with pytest.raises(ValueError, match="The feature names should match those"):
        model.transform(FRAME.drop(columns="b"))


@pytest.mark.parametrize(
    "names", [[0, 1, 2], [0.5, 1.5, 2.5], [("a", 0), ("a", 1), ("b", 0)]]
)
def test_column_names_that_are_no_text_are_checked(names):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            0: rng.normal(size=90),
            1: rng.normal(50, 5, 90),
            2: rng.choice(["u", "v"], 90),
        }
    ).set_axis(pd.Index(names), axis=1)
    model = VAE(max_iter=2, random_state=0).fit(table)
    turned = table.iloc[:5, [1, 0, 2]]
    gaps = turned.mask(np.eye(5, 3) == 1)
    for rows, method in ((gaps, model.impute), (turned, model.score_samples)):
        with pytest.raises(ValueError, match="must be in the same order"):
            method(rows)
    other = table.set_axis(pd.Index([*names[:2], ("c", 9)], dtype=object), axis=1)
    with pytest.raises(ValueError, match=r"unseen at fit time: \[\('c', 9\)\]"):
        model.transform(other)


def test_text_in_an_array_is_sent_to_a_frame(kind):
    rows = np.array([["a", 1.0], ["b", 2.0]] * 30, dtype=object)
    with pytest.raises(ValueError, match=r"float: 'a'\. Rows with text .* data frames"):
        _model(kind).fit(rows, Y[:60])


@pytest.mark.parametrize("dtype", ["datetime64[D]", "timedelta64[s]"])
def test_dates_in_an_array_are_sent_to_a_frame(kind, dtype):
    rows = np.arange(120).reshape(60, 2).astype(dtype)
    with pytest.raises(TypeError, match="are columns of a data frame"):
        _model(kind).fit(rows, Y[:60])
    model = _model(kind).fit(rows.astype(float), Y[:60])
    with pytest.raises(TypeError, match="would be read as numbers of its unit"):
        model.transform(rows)


def test_masked_cells_are_not_read_as_numbers(kind):
    masked = np.ma.masked_greater(X, X.max(axis=0) - 0.1)
    model = _model(kind)
    for method in (model.fit, model.partial_fit):
        with pytest.raises(TypeError, match=r"Masked arrays are not .* X\.filled\(np"):
            method(masked, Y)
    model.fit(np.ma.masked_array(X), Y)
    for method in (model.transform, model.impute, model.score_samples):
        with pytest.raises(TypeError, match="Masked arrays are not supported"):
            method(masked)


def test_an_array_after_a_frame_warns(kind):
    model = _model(kind).fit(FRAME, Y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.transform(X)


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("transform", (X,)),
        ("inverse_transform", (X[:, :2],)),
        ("reconstruct", (X,)),
        ("score", (X,)),
        ("score_samples", (X,)),
        ("sample", ()),
        ("impute", (X,)),
        ("interpolate", (X, X)),
        ("traverse", (0, [0.0])),
        ("cell_losses", (X,)),
        ("get_feature_names_out", ()),
    ],
)
def test_unfitted_models_say_so(kind, method, args):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        getattr(_model(kind), method)(*args)


def test_inverse_transform_checks_codes(fitted):
    with pytest.raises(ValueError, match=r"X has 5 features, but .* 2 components"):
        fitted.inverse_transform(X)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        fitted.inverse_transform([[np.nan, 0.0]])
    with pytest.raises(ValueError, match="Expected 2D array"):
        fitted.inverse_transform([0.0, 0.0])


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, "3", None, np.nan, True])
def test_sample_wants_a_positive_integer(fitted, n_samples):
    with pytest.raises(ValueError, match=r"n_samples must be an integer >= 1. Got"):
        fitted.sample(n_samples)


def test_sample_wants_a_seed(fitted):
    with pytest.raises(ValueError, match="cannot be used to seed"):
        fitted.sample(2, random_state="x")


def test_traverse_and_interpolate_check_their_arguments(fitted):
    with pytest.raises(ValueError, match=r"component must be an integer in \[0, 1\]"):
        fitted.traverse(2, [0.0])
    with pytest.raises(ValueError, match="n_steps must be an integer >= 2"):
        fitted.interpolate(X, X, n_steps=1)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.interpolate(X, X[:3])


SHARED = [
    ("n_components", 0),
    ("n_components", 2.5),
    ("n_components", "many"),
    ("hidden_layer_sizes", "abc"),
    ("activation", "foo"),
    ("batch_size", 0),
    ("learning_rate_init", 0),
    ("learning_rate_init", np.nan),
    ("max_iter", -1),
    ("max_iter", "many"),
    ("early_stopping", "yes"),
    ("validation_fraction", 1.5),
    ("validation_fraction", 0.0),
    ("n_iter_no_change", 0),
    ("random_state", "x"),
    ("random_state", -1),
    ("random_state", 1.5),
    ("weight_decay", -1),
    ("dropout", 1.0),
    ("init", "zeros"),
    ("encoder", 3),
    ("scale", "standard"),
    ("missing_values", "drop"),
    ("device", 3),
    ("callbacks", "x"),
    ("net_params", [1]),
]
OWN = [
    (AutoencoderTransformer, "alpha", -1),
    (AutoencoderTransformer, "alpha", "x"),
    (AutoencoderTransformer, "alpha", np.nan),
    (AutoencoderTransformer, "penalty", "l3"),
    (AutoencoderTransformer, "sparsity_target", 0.0),
    (AutoencoderTransformer, "sparsity_target", 1.0),
    (AutoencoderTransformer, "tied_weights", 2),
    (AutoencoderTransformer, "input_noise", -0.1),
    (VAE, "likelihood", "cauchy"),
    (VAE, "noise", 0.0),
    (VAE, "noise", "loud"),
    (VAE, "beta", -1.0),
    (VAE, "kl_warmup", 1.5),
    (VAE, "free_bits", -0.5),
    (VAE, "n_importance_samples", 0),
    (VAE, "prior", "flat"),
]


@pytest.mark.parametrize(("name", "value"), SHARED)
def test_shared_parameters_out_of_range_are_named(kind, name, value):
    _assert_named(kind, name, value)


@pytest.mark.parametrize(("kind", "name", "value"), OWN)
def test_own_parameters_out_of_range_are_named(kind, name, value):
    _assert_named(kind, name, value)


def _assert_named(kind, name, value):
    message = rf"The '{name}' parameter of {kind.__name__} must be .* Got .* instead"
    with pytest.raises(ValueError, match=message):
        _model(kind, **{name: value}).fit(X, Y)


@pytest.mark.parametrize("hidden", [(0,), (8, -1), (2.5,)])
def test_hidden_layers_need_units(kind, hidden):
    with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0, got"):
        _model(kind, hidden_layer_sizes=hidden).fit(X, Y)


def test_no_hidden_layer_is_the_linear_model(kind):
    model = _model(kind, hidden_layer_sizes=()).fit(X, Y)
    a, b = model.inverse_transform([[1.0, 0.0], [-1.0, 0.0]])
    zero = model.inverse_transform([[0.0, 0.0]])[0]
    np.testing.assert_allclose(a - zero, zero - b, atol=1e-12)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(kind):
    message = r"device='cuda' was requested but CUDA is not available.*device='cpu'"
    with pytest.raises(ValueError, match=message):
        _model(kind, device="cuda").fit(X, Y)


def test_a_device_that_does_not_exist_is_refused(kind):
    with pytest.raises(ValueError, match="Invalid device='gpu': it must be 'auto'"):
        _model(kind, device="gpu").fit(X, Y)


@PAIR
def test_a_device_may_be_one_of_torch(kind):
    model = _model(kind, device=torch.device("cpu")).fit(X)
    assert model.device_ == "cpu"
    with pytest.raises(ValueError, match=r"'device' parameter of .* 'str' or .*device"):
        _model(kind, device=3).fit(X)


def test_unknown_parameters_are_refused(kind):
    with pytest.raises(ValueError, match="Invalid parameter 'foo' for estimator"):
        kind().set_params(foo=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        kind(foo=1)


def test_unknown_net_parameters_are_refused(kind):
    with pytest.raises((ValueError, TypeError), match=r"unexpected argument.*optimzer"):
        _model(kind, net_params={"optimzer": torch.optim.SGD}).fit(X, Y)


WRONG = [
    ({"net_params": {"module": 1}}, ValueError, "may not hold 'module': .* encoder"),
    ({"net_params": {"plan": 1}}, ValueError, "may not hold 'plan': the estimator"),
    ({"callbacks": ["x"]}, TypeError, "callbacks must hold skorch .* Got 'x'"),
    ({"callbacks": [("x", 3)]}, TypeError, "callbacks must hold skorch .* Got 3"),
    ({"hidden_layer_sizes": ("a",)}, ValueError, "hidden_layer_sizes must be > 0"),
    ({"hidden_layer_sizes": ((8, 4), (4, 2))}, ValueError, "Give an integer for each"),
    ({"categorical_features": [0.7]}, ValueError, r"bool, int or str. Got \[0.7\]"),
]


@pytest.mark.parametrize(("params", "error", "message"), WRONG, ids=str)
@PAIR
def test_wrong_kinds_of_parameters_are_named(kind, params, error, message):
    with pytest.raises(error, match=message):
        _model(kind, **params).fit(X)


def test_a_corruption_level_above_one_is_named():
    with pytest.raises(ValueError, match=r"corruption_level must be in \[0, 1\].*1.5"):
        _model(DenoisingAutoencoder, corruption_level=1.5).fit(X)
    noisy = _model(DenoisingAutoencoder, corruption="gaussian", corruption_level=1.5)
    assert np.isfinite(noisy.fit(X).transform(X)).all()


@pytest.mark.parametrize(
    ("likelihood", "rows", "message"),
    [
        ("poisson", X, "Negative values in data.*likelihood='poisson'"),
        ("bernoulli", X, r"likelihood='bernoulli' needs data in \[0, 1\]"),
        ("bernoulli", np.abs(X) + 1, r"needs data in \[0, 1\], got values in"),
        ("continuous_bernoulli", sp.csr_array(2 * X), r"needs data in \[0, 1\]"),
    ],
)
def test_rows_outside_the_support_of_the_likelihood_are_refused(
    likelihood, rows, message
):
    with pytest.raises(ValueError, match=message):
        _model(VAE, likelihood=likelihood).fit(rows)


# -- hard, but legal -----------------------------------------------------------------
@PAIR
@pytest.mark.parametrize("n", [1, 2, 3, 5, 11, 20])
def test_few_rows_fit(kind, n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = _model(kind, max_iter="auto", hidden_layer_sizes=(8,)).fit(X[:n], Y[:n])
    assert np.all(np.isfinite(model.transform(X)))
    assert np.all(np.isfinite(_sample(model, 3)))
    assert np.isfinite(model.score(X))


# A single column gives the code of a VAE nothing to explain.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_one_column_fits(kind):
    model = _model(kind, n_components="auto").fit(X[:, :1], Y)
    assert model.n_components_ == 1
    assert model.reconstruct(X[:, :1]).shape == (N, 1)


HARD = {
    "constant column": np.where(np.arange(D) == 1, 7.0, X),
    "all constant": np.full((N, D), 3.0),
    "zeros": np.zeros((N, D)),
    "outlier": np.where((np.arange(N) == 3)[:, None], 1e8, X),
    "large column": np.where(np.arange(D) == 1, 1e12 * X, X),
    "large offset": X + 1e9,
    "tiny": 1e-150 * X,
    "large": 1e6 * X,
    "twice the same column": X[:, [0, 0, 1, 1, 2]],
}


@PAIR
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_iter", [0, 20])
@pytest.mark.parametrize("name", HARD)
def test_hard_rows_give_finite_answers(kind, name, max_iter):
    rows = HARD[name]
    model = _model(kind, max_iter=max_iter).fit(rows, Y)
    for answer in (
        model.transform(rows),
        model.reconstruct(rows),
        model.score_samples(rows),
        _sample(model, 5),
        getattr(model, "noise_variance_", 0.0),
    ):
        assert np.all(np.isfinite(answer))


def test_constant_columns_come_back(kind):
    rows = HARD["constant column"]
    model = _model(kind, max_iter=20).fit(rows, Y)
    np.testing.assert_allclose(model.reconstruct(rows)[:, 1], 7.0, atol=0.2)
    assert np.all(np.abs(_sample(model, 20)[:, 1] - 7) < 0.5)


def test_a_step_size_of_one_never_ends_in_nan(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = _model(kind, max_iter=20, learning_rate_init=1.0).fit(X, Y)
    assert np.all(np.isfinite(model.transform(X)))


def test_numbers_too_large_to_square_are_refused(kind):
    with pytest.raises(ValueError, match=r"column 0 is not finite.*preprocessed"):
        _model(kind).fit(1e200 * X, Y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_numbers_too_large_to_square_are_refused_unscaled_too(kind):
    with pytest.raises(ValueError, match="preprocessed"):
        _model(kind, scale=None).fit(1e200 * X, Y)


def test_a_step_size_without_bound_is_blamed(kind):
    message = r"(?s)non-finite parameter weights.*epoch .*learning_rate_init=1e\+300"
    with (
        pytest.warns(ConvergenceWarning, match="went back to the best weights"),
        pytest.raises(ValueError, match=message),
    ):
        _model(kind, learning_rate_init=1e300, max_iter=50).fit(X, Y)


def test_one_non_finite_loss_goes_back_and_trains_on(kind):
    class Poison(Callback):
        done = False

        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 3 and not self.done:
                self.done = True
                net.flat_.data.fill_(float("nan"))

    start = _model(kind, max_iter=0).fit(X, Y)
    model = _model(kind, max_iter=20, callbacks=[Poison()])
    with pytest.warns(ConvergenceWarning, match="not finite in epoch 3"):
        model.fit(X, Y)
    assert np.all(np.isfinite(model.transform(X)))
    assert np.all(np.isfinite(_sample(model, 3)))
    assert model.n_iter_ > 3
    assert model.score(X) > start.score(X) - 0.5


# -- interrupts and failures ---------------------------------------------------------
class Interrupt(Callback):
    """Ctrl-C within the training step of one epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise KeyboardInterrupt


@PAIR
def test_ctrl_c_after_an_epoch_keeps_what_was_trained(kind):
    model = _model(kind, max_iter=50, callbacks=[Interrupt(3)])
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, Y)
    assert model.n_iter_ == len(model.loss_curve_) == 2
    assert np.all(np.isfinite(model.transform(X)))
    assert _sample(model, 4).shape == (4, D)
    assert np.isfinite(model.score(X))


def test_ctrl_c_before_the_first_epoch_is_raised_again(kind):
    model = _model(kind, max_iter=50, callbacks=[Interrupt(1)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert not hasattr(model, "net_")
    assert vars(model) == vars(_model(kind, max_iter=50)) | {
        "callbacks": model.callbacks
    }


def test_ctrl_c_before_the_first_epoch_keeps_an_earlier_fit(kind):
    model = _model(kind).fit(X, Y)
    before = model.transform(X)
    model.set_params(callbacks=[Interrupt(1)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:30], Y[:30])
    np.testing.assert_array_equal(model.transform(X), before)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_with(np.inf), "Input X contains infinity"),
        (X[:0], r"Found array with 0 sample\(s\)"),
        (1e200 * X, "preprocessed"),
        (X[:, :3], "hidden_layer_sizes must be > 0|X has 3 features"),
    ],
    ids=["inf", "0", "big", "3"],
)
def test_a_failing_fit_leaves_an_earlier_one_as_it_was(kind, rows, message, warm_start):
    model = _model(kind, warm_start=warm_start).fit(FRAME, Y)
    before = {**vars(model)}
    codes = model.transform(FRAME)
    if np.shape(rows) == (N, 3) and not warm_start:
        model.set_params(hidden_layer_sizes=(0,))
        before["hidden_layer_sizes"] = (0,)
    with pytest.raises(ValueError, match=message):
        model.fit(rows, Y)
    assert vars(model) == before
    np.testing.assert_array_equal(model.transform(FRAME), codes)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_warm_fit_that_diverges_leaves_the_weights_it_began_with(kind):
    model = _model(kind, warm_start=True).fit(X, Y)
    codes, score = model.transform(X), model.score(X)
    model.set_params(max_iter=50, learning_rate_init=1e300)
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        model.fit(X, Y)
    np.testing.assert_array_equal(model.transform(X), codes)
    assert model.score(X) == score


@pytest.mark.parametrize(("size", "rate"), [(1, 1e300), (1e300, 1e-3)])
def test_a_partial_fit_that_diverges_leaves_the_model_as_it_was(kind, size, rate):
    model = _model(kind).partial_fit(X, Y)
    model.set_params(learning_rate_init=rate)
    before, codes = {**vars(model)}, model.transform(X)
    for _ in range(3):
        with pytest.raises(ValueError, match="non-finite parameter weights"):
            model.partial_fit(size * X, Y)
    assert vars(model) == before
    np.testing.assert_array_equal(model.transform(X), codes)
    again = _model(kind).partial_fit(X, Y).partial_fit(X, Y)
    model.set_params(learning_rate_init="auto").partial_fit(X, Y)
    np.testing.assert_array_equal(model.transform(X), again.transform(X))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_ctrl_c_in_the_first_warm_epoch_leaves_the_weights_alone(kind, method):
    class SecondBatch(Callback):
        seen = 0

        def on_batch_begin(self, net, **kwargs):
            self.seen += 1
            if self.seen == 2:
                raise KeyboardInterrupt

    model = _model(kind, batch_size=10, warm_start=True)
    getattr(model, method)(X, Y)
    answers = model.transform(X), _sample(model, 4), model.score(X)
    model.set_params(callbacks=[SecondBatch()])
    with pytest.raises(KeyboardInterrupt):
        getattr(model, method)(X, Y)
    model.set_params(callbacks=None)
    for before, after in zip(
        answers,
        (model.transform(X), _sample(model, 4), model.score(X)),
        strict=True,
    ):
        np.testing.assert_array_equal(after, before)
