"""What a fitted model costs: codes, samples, single rows, memory, import."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from _speed_fit import rounds_of
from sklearn.decomposition import PCA

from skvae import VAE, AutoencoderTransformer

Row = tuple[str, str, list[float], list[float]]
_CHUNK = 2048


def _rows(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def transform(options: Any) -> Iterator[Row]:
    """Compare `transform` with the products of the encoder."""
    for n, d, hidden, k in (
        (100_000, 32, (128, 64), 10),
        (20_000, 784, (512, 256), 20),
    ):
        X = _rows(n, d)
        model = AutoencoderTransformer(
            k, hidden_layer_sizes=hidden, activation="relu", max_iter=1, random_state=0
        ).fit(X[:2000])
        products = _products(torch.from_numpy(X), [d, *hidden, k], linear=True)
        both = {"ours": lambda m=model, X=X: m.transform(X), "products": products}
        found = rounds_of(both, options.rounds)
        yield f"{n} x {d}", "products", found["ours"], found["products"]


def _products(x: torch.Tensor, sizes: list[int], *, linear: bool) -> Any:
    """Return the matrix products of a network, and nothing else."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(a, b, generator=generator) for a, b in pairwise(sizes)]
    path = torch.randn(sizes[0], sizes[-1], generator=generator) if linear else None
    buffers = [torch.empty(_CHUNK, size) for size in (*sizes[1:], sizes[-1])]

    def run() -> None:
        for part in x.split(_CHUNK):
            hidden = part
            for weight, buffer in zip(weights, buffers, strict=False):
                hidden = torch.mm(hidden, weight, out=buffer[: len(part)])
            if path is not None:
                torch.mm(part, path, out=buffers[-1][: len(part)])

    return run


def sample(options: Any) -> Iterator[Row]:
    """Compare `sample` with the products of the decoder."""
    n, d, hidden, k = 100_000, 32, (128, 64), 10
    model = VAE(k, hidden_layer_sizes=hidden, max_iter=1, random_state=0)
    model.fit(_rows(2000, d))
    outputs = model._module.decoder.n_out
    z = torch.randn(n, k, generator=torch.Generator().manual_seed(0))
    products = _products(z, [k, *hidden[::-1], outputs], linear=True)
    buffer = torch.empty(_CHUNK, d + k)

    def products_and_noise() -> None:
        products()
        for _ in range(0, n, _CHUNK):
            buffer.normal_()

    contenders = {
        "ours": lambda: model.sample(n, random_state=0),
        "products": products,
        "products and noise": products_and_noise,
    }
    found = rounds_of(contenders, options.rounds)
    for name in ("products", "products and noise"):
        yield f"{n} x {d}", name, found["ours"], found[name]


def latency(options: Any) -> Iterator[Row]:
    """Compare the whole call for one row with PCA's, in microseconds."""
    X = _rows(2000, 32)
    model = AutoencoderTransformer(10, max_iter=1, random_state=0).fit(X)
    pca, row, calls = PCA(10).fit(X), X[:1], 1000

    def repeated(encoder: Any) -> Any:
        def run() -> None:
            for _ in range(calls):
                encoder.transform(row)

        return run

    found = rounds_of({"ours": repeated(model), "pca": repeated(pca)}, options.rounds)
    ours, theirs = (np.array(found[name]) / calls * 1e6 for name in ("ours", "pca"))
    yield "1 x 32, us a call", "PCA", list(ours), list(theirs)


_MEMORY = """
import re, numpy as np, torch
torch.set_num_threads(1)
from skvae import {kind}
# Of this program alone: what getrusage tells begins with the peak of its parent.
def size(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
draw = np.random.default_rng(0).standard_normal
{kind}(10, max_iter=1, random_state=0).fit(draw((1000, 32), dtype=np.float32))
X = draw(({n}, 32), dtype=np.float32)
now = size("VmRSS")
{kind}(10, max_iter=1, random_state=0).fit(X)
print(1024 * (size("VmHWM") - now), X.nbytes)
"""


def memory(options: Any) -> Iterator[Row]:
    """Compare the peak memory of a fit above its input with the input, in MB."""
    for kind in ("AutoencoderTransformer", "VAE"):
        code = _MEMORY.format(kind=kind, n=1_000_000)
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        above, size = (float(v) / 1e6 for v in done.stdout.split())
        yield f"{kind}, MB", "the input", [above], [size]


def imports(options: Any) -> Iterator[Row]:
    """Compare the import of sklearn and skvae with that of sklearn, in ms."""
    found: dict[str, list[float]] = {"sklearn": [], "skvae": []}
    lines = {"sklearn": "import sklearn", "skvae": "import sklearn, skvae"}
    for i in range(options.rounds + 1):
        for name, line in lines.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True)
            if i:
                found[name].append((time.perf_counter() - started) * 1e3)
    yield "whole process, ms", "sklearn", found["skvae"], found["sklearn"]
