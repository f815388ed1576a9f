"""Time fits on an accelerator beside a plain loop and the limits of the device.

    python benchmarks/gpu.py [--device cuda] [--rounds 3] [--out DIR]

Contenders take turns after a round that warms up. The floor of a fit is the time its
matrix products need at the rate of one large product measured on the same device, or
its passes over parameters and layers at the rate of one large copy, whichever is
longer; the share is that floor over our time, so 1 is the limit of the machine.
``--device cpu`` runs the same code where there is no accelerator.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import table, write
from _speed_fit import ours, raw_loop, rounds_of

from skvae import VAE, AutoencoderTransformer

# rows, columns, hidden layers, components, batch size, epochs
WORKLOADS = {
    "table": (100_000, 32, (128, 64), 10, 1024, 5),
    "image": (20_000, 784, (512, 256), 20, 512, 5),
    "wide": (20_000, 784, (2048, 1024), 50, 1024, 3),
}
# Passes over memory of one step: Adam reads and writes parameters, gradients and two
# moments; each layer is written and read forwards and backwards.
_PARAMETER_PASSES, _LAYER_PASSES = 8, 6


def finished(function: Callable[..., Any], *args: Any, device: str) -> None:
    """Call a function and wait for what it queued on the device."""
    function(*args, device=device)
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def limits(device: str) -> tuple[float, float]:
    """Measure multiply-adds and bytes a second of one large product and copy."""
    n = 4096 if device.startswith("cuda") else 1024
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    source = torch.randn(n * n, device=device)
    target = torch.empty_like(source)
    works = {
        "product": lambda device: a @ b,
        "copy": lambda device: target.copy_(source),
    }
    bound = {k: partial(finished, work, device=device) for k, work in works.items()}
    found = rounds_of(bound, 10)
    return n**3 / min(found["product"]), 2 * source.nbytes / min(found["copy"])


def floor_seconds(
    n: int, d: int, hidden: Any, k: int, batch: int, epochs: int, rates: Any
) -> tuple[float, str]:
    """Return the least time of a fit, and what sets it."""
    sizes = [d, *hidden, k, *hidden[::-1], d]
    weights = sum(a * b for a, b in pairwise(sizes))
    # Forward, gradient of the weights, gradient of the inputs but for the rows.
    products = epochs * n * (3 * weights - d * sizes[1])
    steps = epochs * -(-n // batch)
    floats = weights * _PARAMETER_PASSES + batch * sum(sizes) * _LAYER_PASSES
    arithmetic, memory = products / rates[0], 4 * floats * steps / rates[1]
    return max((arithmetic, "arithmetic"), (memory, "memory"))


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fit every workload in turns and return a row each."""
    rates, rows = limits(options.device), []
    for name, (n, d, *sizes) in WORKLOADS.items():
        X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
        contenders: dict[str, Any] = {
            "plain loop": partial(raw_loop, fused=True),
            "AutoencoderTransformer": partial(ours, AutoencoderTransformer),
            "VAE": partial(ours, VAE),
        }
        bound = {
            label: partial(finished, contender, X, *sizes, device=options.device)
            for label, contender in contenders.items()
        }
        found = rounds_of(bound, options.rounds)
        least, limit = floor_seconds(n, d, *sizes, rates)
        loop = np.array(found["plain loop"])
        for label, times in found.items():
            median = float(np.median(times))
            row = {
                "workload": name,
                "contender": label,
                "seconds": median,
                "rows_per_second": n * sizes[-1] / median,
                "share_of_floor": least / median,
                "floor": limit,
                "ratio": float(np.median(np.array(times) / loop)),
            }
            print(*_cells(row), sep=" | ", flush=True)
            rows.append(row)
    return rows


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["workload"],
        row["contender"],
        f"{row['seconds']:.3g}",
        f"{row['rows_per_second']:,.0f}",
        f"{row['share_of_floor']:.2f} ({row['floor']})",
        f"{row['ratio']:.2f}",
    ]


def main() -> None:
    """Run the workloads and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(
            "device='cuda', but torch finds no CUDA device. Pass --device cpu to run "
            "the same code on the processor."
        )
    if options.device == "cpu":
        torch.set_num_threads(1)
    rows = measured(options)
    columns = ["", "", "seconds", "rows/s", "share of the floor", "/ plain loop"]
    name = options.device
    if name.startswith("cuda"):
        name = torch.cuda.get_device_name()
    page = f"Device: {name}.\n\n{table(columns, [_cells(row) for row in rows])}\n"
    write(options.out, "gpu", rows, page)


if __name__ == "__main__":
    main()
