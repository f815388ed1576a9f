"""What `import skvae` costs and shows."""

import subprocess
import sys

import pytest

import skvae

HEAVY = ["torch", "skorch", "matplotlib", "polars", "safetensors", "onnx", "rich"]


def _run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy():
    code = f"import skvae, sys; print([m for m in {HEAVY} if m in sys.modules])"
    assert _run(code) == "[]"


def test_the_first_estimator_brings_torch_and_draws_nothing():
    code = (
        "import sys, numpy as np; before = np.random.get_state()[1].copy();"
        "from skvae import *; print(VAE.__name__, 'torch' in sys.modules,"
        "(before == np.random.get_state()[1]).all())"
    )
    assert _run(code) == "VAE True True"


def test_a_fit_does_not_load_the_compiler_of_torch():
    code = (
        "import sys, numpy as np; from skvae import VAE;"
        "X = np.random.default_rng(0).normal(size=(40, 4));"
        "model = VAE(max_iter=3, random_state=0).fit(X).partial_fit(X);"
        "model.sample(3), model.score(X);"
        "print([m for m in sys.modules if m.startswith('torch._dynamo')][:1])"
    )
    assert _run(code) == "[]"


@pytest.mark.parametrize("name", skvae.__all__)
def test_every_public_name_is_there(name):
    assert getattr(skvae, name) is not None
    assert name in dir(skvae)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="module 'skvae' has no attribute 'Foo'"):
        skvae.Foo  # noqa: B018
