"""What every test runs under: one thread, global state left alone, fixed examples."""

import os
import sys

# Read by OpenMP when it is loaded, so before anything imports NumPy's or torch's.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from hypothesis import settings
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
)

ESTIMATORS = (
    "AutoencoderTransformer",
    "DenoisingAutoencoder",
    "ContractiveAutoencoder",
    "VAE",
    "ConditionalVAE",
)

settings.register_profile("skvae", deadline=None, derandomize=True)
settings.load_profile("skvae")


def pytest_collection_modifyitems(items):
    # Autograd counts devices at its first backward pass: the emulated one comes first.
    items.sort(key=lambda item: item.path.name != "test_devices.py")
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, and there is none")
    for item in on_gpu:
        item.add_marker(skip)


@pytest.fixture(scope="session", params=ESTIMATORS)
def kind(request):
    """Each of the five estimators.

    A test of fewer says `parametrize("kind", ...)`. All but one look past the labels
    that a test gives to `fit`.
    """
    import skvae

    return getattr(skvae, request.param)


def _numpy_state():
    name, keys, *rest = np.random.get_state()
    return (name, keys.tobytes(), *rest)


def _torch_state():
    """Return the thread count and RNG state, None before torch is imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return torch.get_num_threads(), torch.get_rng_state().numpy().tobytes()


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread():
    """Run the session on one torch thread: two are slower on networks this small."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def global_state_is_left_alone(request, one_torch_thread):
    """Fail a test that moves a global generator or the thread count of the process.

    A test that fits with ``random_state=None`` on purpose says so by the marker
    ``numpy_global_rng``; torch's state is never anybody's to change.
    """
    numpy_before, torch_before = _numpy_state(), _torch_state()
    yield
    if request.node.get_closest_marker("numpy_global_rng") is None:
        assert _numpy_state() == numpy_before, "NumPy's global generator has moved"
    if torch_before is None:
        return
    threads, state = _torch_state()
    assert threads == torch_before[0], "the thread count of torch has changed"
    assert state == torch_before[1], "torch's global generator has moved"


@pytest.fixture
def torch_layers(global_state_is_left_alone):
    """Let a test build torch's own layers, which draw from its global generator."""
    import torch

    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(scope="session")
def step_gradient():
    """Take one step, closed or by the graph: its loss, terms and gradients."""
    from skvae._flat import FlatParameters
    from skvae._step import closed_step

    def take(module, objective, x, *, closed):
        module.noise.manual_seed(5)
        flat = FlatParameters(module)
        module.train()
        flat.bind()
        flat.grad.fill_(7.0)
        if closed:
            loss, parts = closed_step(module, objective)(x=x)
        else:
            flat.zero_grad()
            loss, parts = objective(module, module(x))
            loss.backward()
        grads = {name: p.grad.clone() for name, p in module.named_parameters()}
        return loss.detach(), parts, grads

    return take


@pytest.fixture(scope="session")
def wine():
    """178 rows, 13 numeric columns of different units, as read-only float64."""
    return _frozen(load_wine().data)


@pytest.fixture(scope="session")
def breast_cancer():
    """569 rows, 30 strongly correlated positive columns, as read-only float64."""
    return _frozen(load_breast_cancer().data)


@pytest.fixture(scope="session")
def digits():
    """1797 rows, 64 pixels in 0..16, some of them constant, as read-only float64."""
    return _frozen(load_digits().data)


@pytest.fixture(scope="session")
def diabetes():
    """442 rows, 10 scaled columns, as read-only float64."""
    return _frozen(load_diabetes().data)


def _frozen(X):
    X = np.ascontiguousarray(X, dtype=np.float64)
    X.setflags(write=False)
    return X
