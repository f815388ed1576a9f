"""Off the CPU: all estimators fit there, repeat themselves, do not wait, come back.

Where there is no GPU, the same tests run on a device that is built here from
`emulated_device.cpp`: it refuses what a GPU refuses and computes what the CPU does.
"""

import pickle
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from skvae import (
    VAE,
    AutoencoderTransformer,
    ConditionalVAE,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
)
from skvae.imputation import AutoencoderImputer
from skvae.outliers import AutoencoderOutlierDetector

SOURCE = Path(__file__).with_name("emulated_device.cpp")


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """Build and load the device named "emulated"."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler to build the emulated device")
    from torch.utils import cpp_extension

    built = tmp_path_factory.mktemp("device") / "emulated_device.so"
    headers = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    libraries = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-lc10"]
    options = ["-std=c++20", "-shared", "-fPIC", "-w", "-o", str(built)]
    command = [compiler, *options, *headers, str(SOURCE), *libraries]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.utils.rename_privateuse1_backend("emulated")
    torch._register_device_module(
        "emulated",
        SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 1,
            get_amp_supported_dtype=lambda: [torch.bfloat16],
        ),
    )
    torch.ops.load_library(built)
    return "emulated"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("cuda", marks=pytest.mark.gpu),
        pytest.param("emulated", marks=pytest.mark.slow),
    ],
)
def device(request):
    """Each kind of device that is not the CPU."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated")
    return request.param


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(400, 3)) @ rng.normal(size=(3, 8))).astype(np.float32)


@pytest.fixture(scope="module")
def frame(rows):
    frame = pd.DataFrame(rows[:, :3], columns=list("abc"))
    frame["kind"] = np.where(frame["a"] > 0, "high", "low")
    frame["twice"] = 2 * frame["a"]
    frame.loc[::7, "b"] = np.nan
    return frame


def _labels(kind, X):
    return np.arange(X.shape[0]) % 2 if kind is ConditionalVAE else None


def _fitted(kind, X, device, **options):
    options = {"max_iter": 5, "random_state": 0, **options}
    return kind(3, device=device, **options).fit(X, _labels(kind, X))


def test_a_fit_stays_on_the_device_and_repeats_itself(kind, rows, device):
    model = _fitted(kind, rows, device)
    assert model.device_.startswith(device)
    assert next(model.net_.module_.parameters()).device.type == device
    again = _fitted(kind, rows, device)
    np.testing.assert_array_equal(model.transform(rows), again.transform(rows))


def test_the_start_is_that_of_the_cpu(kind, rows, device):
    codes = [
        _fitted(kind, rows, place, max_iter=0).transform(rows)
        for place in ("cpu", device)
    ]
    np.testing.assert_allclose(*codes, atol=1e-3)


@pytest.mark.parametrize("of", ["rows", "frame"])
def test_results_come_back_to_the_host(kind, of, device, request):
    X = request.getfixturevalue(of)
    model = _fitted(kind, X, device)
    drawn = model.sample(5, random_state=0)
    drawn = drawn[0] if kind is ConditionalVAE else drawn
    assert type(drawn) is type(X)
    codes = model.transform(X)
    assert np.isfinite(codes).all()
    assert np.isfinite(model.score_samples(X)).all()
    assert type(model.inverse_transform(codes)) is type(X)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.transform(X), codes)


def test_training_goes_on_there(kind, rows, device):
    model = _fitted(kind, rows, device, warm_start=True)
    y = _labels(kind, rows)
    codes = pickle.loads(pickle.dumps(model)).fit(rows, y).transform(rows)
    np.testing.assert_allclose(model.fit(rows, y).transform(rows), codes, rtol=1e-4)
    assert model.partial_fit(rows, y).device_.startswith(device)


@pytest.mark.parametrize("container", [np.asfortranarray, sp.csr_array])
def test_the_container_does_not_matter(kind, container, rows, device):
    X = np.where(rows > 1, rows, 0.0)
    codes = _fitted(kind, container(X), device, scale=None).transform(X)
    np.testing.assert_array_equal(
        codes, _fitted(kind, X, device, scale=None).transform(X)
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (AutoencoderTransformer, {"penalty": "kl", "alpha": 0.1}),
        (AutoencoderTransformer, {"penalty": "l1", "alpha": 0.1}),
        (AutoencoderTransformer, {"tied_weights": True}),
        (AutoencoderTransformer, {"init": "layerwise", "dropout": 0.1}),
        (DenoisingAutoencoder, {"corruption": "masking"}),
        (DenoisingAutoencoder, {"corruption": "salt_and_pepper"}),
        (DenoisingAutoencoder, {"corruption": "swap"}),
        (ContractiveAutoencoder, {"jacobian": "exact"}),
        (ContractiveAutoencoder, {"jacobian": "subset"}),
        (ContractiveAutoencoder, {"jacobian": "hutchinson"}),
        (VAE, {"prior": "normal", "noise": "shared", "free_bits": 0.1}),
        (VAE, {"prior": "mixture", "noise": "feature"}),
        (VAE, {"prior": "vamp", "n_importance_samples": 3}),
        (VAE, {"likelihood": "bernoulli", "dropout": 0.1}),
        (VAE, {"likelihood": "poisson"}),
        (ConditionalVAE, {"prior": "mixture"}),
    ],
    ids=str,
)
def test_every_option_works_there(kind, options, rows, device):
    X = (rows > 0).astype(np.float32) if "likelihood" in options else rows
    model = _fitted(kind, X, device, **options)
    assert np.isfinite(model.score(X, _labels(kind, X)))


@pytest.mark.parametrize("kind", [VAE, AutoencoderTransformer])
def test_missing_numbers_are_filled(kind, rows, device):
    holed = np.where(np.arange(rows.size).reshape(rows.shape) % 5, rows, np.nan)
    model = AutoencoderImputer(kind(3, max_iter=5, random_state=0, device=device))
    assert np.isfinite(model.fit_transform(holed)).all()


def test_labels_may_be_numbers_or_missing(rows, device):
    half = np.where(np.arange(len(rows)) % 3, np.arange(len(rows)) % 2, np.nan)
    for y in (rows[:, 0], half):
        model = ConditionalVAE(3, max_iter=5, random_state=0, device=device)
        assert np.isfinite(model.fit(rows, y).sample(5, random_state=0)[0]).all()


def test_outliers_are_found_there(rows, device):
    detector = AutoencoderOutlierDetector(
        VAE(3, max_iter=5, random_state=0, device=device)
    )
    assert set(detector.fit(rows).predict(rows)) == {-1, 1}


@pytest.mark.parametrize("copies", [1, 3])  # Many rows: columns hear each other.
def test_a_table_is_sampled_on_request_and_filled(frame, copies, device):
    table = pd.concat([frame] * copies, ignore_index=True)
    model = _fitted(VAE, table, device)
    for drawn in (
        model.sample(20, random_state=0),
        model.sample(20, random_state=0, given={"kind": "low"}),
        model.impute(table[:20].assign(b=np.nan)),
    ):
        assert list(drawn.columns) == list(table.columns)
        assert set(drawn["kind"]) <= {"high", "low"}
        assert drawn.drop(columns="b").notna().all(axis=None)
        np.testing.assert_allclose(drawn["twice"], 2 * drawn["a"], rtol=1e-5)


def _waits(kind, X, device, batch_size):
    before = torch.ops.emulated.waits()
    options = {"early_stopping": False, "batch_size": batch_size}
    _fitted(kind, X, device, **options)
    return torch.ops.emulated.waits() - before


@pytest.mark.slow
@pytest.mark.parametrize("of", ["rows", "frame"])
def test_steps_do_not_wait_for_the_device(kind, of, emulated, request):
    X = request.getfixturevalue(of)
    few, many = (_waits(kind, X, emulated, size) for size in (200, 20))
    assert abs(many - few) < 10  # 18 steps an epoch more, 5 epochs.
