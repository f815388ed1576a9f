"""Same seed, same bits: reruns, copies, containers, workers, threads."""

import contextlib
import copy
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import skops.io
import torch
from sklearn.base import clone

from skvae import VAE, AutoencoderTransformer, ConditionalVAE
from skvae._threads import limited_threads

MODELS = [
    AutoencoderTransformer(2, max_iter=4, random_state=0),
    AutoencoderTransformer(
        2,
        max_iter=4,
        penalty="kl",
        dropout=0.3,
        hidden_layer_sizes=(8,),
        random_state=0,
    ),
    AutoencoderTransformer(2, max_iter=4, tied_weights=True, random_state=0),
    VAE(2, max_iter=4, random_state=0),
    VAE(2, max_iter=4, noise="heteroscedastic", dropout=0.3, random_state=0),
    VAE(2, max_iter=4, prior="mixture", init="random", random_state=0),
    VAE(2, max_iter=4, prior="vamp", n_importance_samples=3, random_state=0),
]


def _label(model):
    params = {
        k: v
        for k, v in model.get_params().items()
        if v != getattr(type(model)(), k)
        and k not in ("max_iter", "random_state", "n_components")
    }
    return f"{type(model).__name__}({params})"


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 5))
    return rows + 0.3 * rng.normal(size=(80, 5))


@pytest.fixture(params=MODELS, ids=_label, scope="module")
def model(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(model, X):
    return clone(model).fit(X)


def _answers(model, X):
    return [
        model.transform(X),
        model.reconstruct(X),
        model.score_samples(X),
        model.sample(9, random_state=3),
    ]


def _assert_same_bits(one, other, X):
    for a, b in zip(_answers(one, X), _answers(other, X), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_fits_give_the_same_bits(model, fitted, X):
    _assert_same_bits(fitted, clone(model).fit(X), X)


def test_a_second_fit_of_the_same_object_gives_the_same_bits(model, fitted, X):
    _assert_same_bits(fitted, clone(model).fit(X[:50]).fit(X), X)


def test_the_seed_matters(model, fitted, X):
    other = clone(model).set_params(random_state=1).fit(X)
    assert not np.array_equal(other.transform(X), fitted.transform(X))


def test_the_state_of_the_global_generators_does_not_matter(model, fitted, X):
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    try:
        np.random.seed(99)
        torch.manual_seed(99)
        again = clone(model).fit(X)
    finally:
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
    _assert_same_bits(fitted, again, X)


def test_nothing_global_moves(model, X):
    # Also asserted for every test by conftest; here call by call.
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    torch.set_num_threads(2)
    default = torch.get_default_dtype()
    try:
        fitted = clone(model).fit(X)
        _answers(fitted, X)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.get_default_dtype() == default
    assert torch.is_grad_enabled()


@pytest.mark.numpy_global_rng
def test_without_a_seed_numpy_global_generator_decides(X):
    state = np.random.get_state()
    first = VAE(2, max_iter=2).fit(X).transform(X)
    np.random.set_state(state)
    np.testing.assert_array_equal(VAE(2, max_iter=2).fit(X).transform(X), first)


def test_a_random_state_instance_moves_on_between_fits(X):
    rng = np.random.RandomState(0)
    model = AutoencoderTransformer(2, max_iter=2, random_state=rng)
    first = model.fit(X).transform(X)
    assert not np.array_equal(model.fit(X).transform(X), first)


# -- copies --------------------------------------------------------------------------
def _pickled(model):
    return pickle.loads(pickle.dumps(model))


def _joblibbed(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def _skopsed(model):
    data = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=data)
    # One's own classes have to be trusted, and nothing else.
    assert all(name.startswith("skvae.") for name in trusted), trusted
    return skops.io.loads(data, trusted=trusted)


@pytest.mark.parametrize("route", [_pickled, _joblibbed, _skopsed, copy.deepcopy])
def test_a_copy_gives_the_same_bits(fitted, X, route):
    _assert_same_bits(fitted, route(fitted), X)


def test_a_copy_of_a_copy_gives_the_same_bits(fitted, X):
    _assert_same_bits(fitted, _pickled(_skopsed(_pickled(fitted))), X)


def test_a_read_only_memory_map_gives_the_same_bits(fitted, X, tmp_path):
    joblib.dump(fitted, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    # torch warns of memory that cannot be written to once a process only.
    torch.set_warn_always(True)
    try:
        _assert_same_bits(fitted, mapped, X)
    finally:
        torch.set_warn_always(False)


def test_clone_of_a_fitted_model_is_unfitted_and_refits_to_the_same_bits(fitted, X):
    again = clone(fitted)
    assert not hasattr(again, "net_")
    _assert_same_bits(fitted, again.fit(X), X)


# -- containers ----------------------------------------------------------------------
def _memmap(X, tmp_path):
    joblib.dump(X, tmp_path / "rows")
    return joblib.load(tmp_path / "rows", mmap_mode="r")


CONTAINERS = {
    "fortran": lambda X, _: np.asfortranarray(X),
    "view": lambda X, _: np.repeat(X, 2, axis=0)[::2],
    "list": lambda X, _: X.tolist(),
    "pandas": lambda X, _: pd.DataFrame(X, columns=list("abcde")),
    "polars": lambda X, _: pl.DataFrame(X, schema=list("abcde")),
    "csr": lambda X, _: sp.csr_array(X),
    "csc": lambda X, _: sp.csc_matrix(X),
    "coo": lambda X, _: sp.coo_array(X),
    "memmap": _memmap,
    "object": lambda X, _: X.astype(object),
}


@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_container_of_the_rows_does_not_matter(
    model, fitted, X, container, tmp_path
):
    rows = CONTAINERS[container](X, tmp_path)
    other = clone(model).fit(rows)
    np.testing.assert_array_equal(other.transform(rows), fitted.transform(X))
    np.testing.assert_array_equal(other.score_samples(rows), fitted.score_samples(X))
    drawn = np.asarray(other.sample(9, random_state=3))
    np.testing.assert_array_equal(drawn, fitted.sample(9, random_state=3))
    np.testing.assert_array_equal(fitted.transform(rows), fitted.transform(X))


def test_rows_are_never_written_to(model, X):
    rows = X.copy()
    fitted = clone(model).fit(rows)
    _answers(fitted, rows)
    np.testing.assert_array_equal(rows, X)


def test_integers_and_floats_of_the_same_numbers_agree():
    X = np.random.default_rng(0).integers(-9, 9, size=(60, 4))
    one = VAE(2, max_iter=2, random_state=0).fit(X)
    other = VAE(2, max_iter=2, random_state=0).fit(X.astype(float))
    _assert_same_bits(one, other, X)


# -- workers -------------------------------------------------------------------------
def _fit_and_answer(model, X):
    torch.set_num_threads(1)
    return _answers(clone(model).fit(X), X)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_give_the_same_bits(X, backend):
    models = [MODELS[1], MODELS[4]] * 2
    with joblib.parallel_config(backend, n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(_fit_and_answer)(m, X) for m in models)
    for model, answers in zip(models, found, strict=True):
        for a, b in zip(answers, _fit_and_answer(model, X), strict=True):
            np.testing.assert_array_equal(a, b)


@contextlib.contextmanager
def _default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        assert torch.get_default_dtype() is dtype
        torch.set_default_dtype(torch.float32)


def _all_answers(model, rows, y):
    model = clone(model).fit(rows, y)
    copied = pickle.loads(pickle.dumps(model))
    drawn = copied.sample(9, random_state=0)
    drawn = drawn[0] if isinstance(drawn, tuple) else drawn
    answers = [copied.transform(rows), model.score_samples(rows), drawn]
    answers += [copied.reconstruct(rows), model.partial_fit(rows, y).transform(rows)]
    return [np.asarray(answer) for answer in answers]


@pytest.mark.parametrize(
    "setting",
    [
        lambda: _default_dtype(torch.float64),
        lambda: _default_dtype(torch.bfloat16),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
    ],
    ids=["float64", "bfloat16", "autocast", "device"],
)
@pytest.mark.parametrize(
    "model",
    [
        AutoencoderTransformer(2, max_iter=2, device="cpu", random_state=0),
        VAE(2, max_iter=2, device="cpu", random_state=0),
        ConditionalVAE(2, max_iter=2, device="cpu", random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("kind", ["float32", "float64", "table"])
def test_settings_of_torch_do_not_change_the_bits(X, model, setting, kind):
    rows = pd.DataFrame(X).round(0).astype(str) if kind == "table" else X.astype(kind)
    y = np.arange(len(X)) % 2
    expected = _all_answers(model, rows, y)
    with setting():
        found = _all_answers(model, rows, y)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_fitted_model_serves_several_threads(X):
    fitted = clone(MODELS[3]).fit(X)
    expected = _answers(fitted, X)
    with joblib.parallel_config("threading", n_jobs=4):
        found = joblib.Parallel()(
            joblib.delayed(_answers)(fitted, X) for _ in range(20)
        )
    for answers in found:
        for a, b in zip(answers, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_thread_count_is_restored_by_the_last_to_leave():
    torch.set_num_threads(2)
    try:
        with limited_threads():
            with limited_threads():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with limited_threads(1e9):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# -- going on ------------------------------------------------------------------------
def test_partial_fit_goes_on_after_pickling_as_if_nothing_had_happened(model, X):
    through, stopped = clone(model), clone(model)
    for _ in range(6):
        through.partial_fit(X)
    for _ in range(3):
        stopped.partial_fit(X)
    stopped = _pickled(stopped)
    for _ in range(3):
        stopped.partial_fit(X)
    assert through.n_iter_ == stopped.n_iter_ == 6
    _assert_same_bits(through, stopped, X)


def test_partial_fit_after_a_fit_does_not_tell_a_pickle_from_the_model(model, X):
    fitted = clone(model).fit(X)
    again = _pickled(fitted)
    _assert_same_bits(fitted.partial_fit(X), again.partial_fit(X), X)


def test_warm_start_goes_on_from_the_weights_of_the_last_fit(X):
    model = AutoencoderTransformer(2, max_iter=5, warm_start=True, random_state=0)
    first = model.fit(X).score(X)
    model.set_params(max_iter=0).fit(X)
    assert model.score(X) == first
    weights = model.set_params(max_iter=5).fit(X).transform(X)
    again = AutoencoderTransformer(2, max_iter=5, warm_start=True, random_state=0)
    again = _pickled(again.fit(X)).set_params(max_iter=0).fit(X)
    np.testing.assert_array_equal(
        again.set_params(max_iter=5).fit(X).transform(X), weights
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_chunks_of_rows_agree_with_all_of_them(dtype):
    X = np.random.default_rng(0).normal(size=(9000, 4)).astype(dtype)
    vae = VAE(2, max_iter=0, random_state=0).fit(X[:100])
    whole = vae.transform(X)
    parts = np.vstack([vae.transform(part) for part in np.array_split(X, 7)])
    tolerance = 1e-12 if dtype is np.float64 else 1e-5
    np.testing.assert_allclose(parts, whole, atol=tolerance)
