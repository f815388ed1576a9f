"""Time the library beside the loops and classes its users would take instead.

    python benchmarks/speed.py [--groups fit transform ...] [--rounds 5]
        [--peers pythae=/path/to/python pyod=/path/to/python] [--out DIR]

One thread. Contenders take turns, round by round, after a round that warms up; a
ratio is the median over rounds of our time over the reference's in the same round, so
below 1 is faster. A group run alone keeps the other groups' rows in the results.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _speed_fit
import _speed_use
import numpy as np
import torch
from _machine import table, write

GROUPS: dict[str, tuple[str, Callable[[Any], Iterator[Any]]]] = {
    "fit": (
        "Same sizes, optimiser, batches, epochs and rows for all; nothing held out. "
        "tiny: 1797 x 64, table: 50 000 x 32, image: 20 000 x 784.",
        _speed_fit.fit,
    ),
    "contraction": (
        "Fit of a `ContractiveAutoencoder` with a penalty over one without, batches "
        "of 128; named by columns, hidden layers and components.",
        _speed_fit.contraction,
    ),
    "transform": (
        "`transform` against the matrix products of the encoder alone, "
        "preallocated, 2048 rows at a time.",
        _speed_use.transform,
    ),
    "sample": (
        "`sample` of 100 000 rows against the matrix products of the decoder alone, "
        "and against them with the normal numbers any sampler has to draw.",
        _speed_use.sample,
    ),
    "latency": (
        "One row, the whole call, against `PCA.transform`.",
        _speed_use.latency,
    ),
    "memory": (
        "Peak resident memory of a fit above that before it, as a multiple of the "
        "input: 1 000 000 x 32, float32.",
        _speed_use.memory,
    ),
    "import": (
        "Import of skvae with sklearn loaded, in fresh processes.",
        _speed_use.imports,
    ),
    "growth": (
        "Fit time a row, one epoch of batches of 256, over that of 10 000 rows.",
        _speed_fit.growth,
    ),
    "quality": (
        "CPU seconds of the default fit until its held-out R2 is what the raw loop "
        "reaches at the end of 3000 steps of the same network.",
        _speed_fit.time_to_quality,
    ),
    "peers": (
        "Other libraries in their own environments: same sizes, batches, epochs and "
        "rows. Ratios are ours over theirs.",
        _speed_fit.peers,
    ),
}


def tasks(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of the groups asked for."""
    for group in options.groups:
        started = time.perf_counter()
        for name, reference, ours, theirs in GROUPS[group][1](options):
            ratio = float(np.median(np.divide(ours, theirs)))
            row = {
                "group": group,
                "row": name,
                "reference": reference,
                "ours": float(np.median(ours)),
                "theirs": float(np.median(theirs)),
                "ratio": ratio,
            }
            print(group, *_cells(row), sep=" | ", flush=True)
            yield row
        print(f"-- {group}: {time.perf_counter() - started:.0f} s", flush=True)


def _cells(row: dict[str, Any]) -> list[str]:
    figures = (f"{row['ours']:.4g}", f"{row['theirs']:.4g}", f"{row['ratio']:.2f}")
    return [row["row"], row["reference"], *figures]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return one table a group."""
    parts = []
    for group, (about, _) in GROUPS.items():
        found = [_cells(row) for row in rows if row["group"] == group]
        if found:
            columns = ["", "reference", "ours", "reference's", "ratio"]
            parts.append(f"## {group}\n\n{about}\n\n{table(columns, found)}\n")
    return "\n".join(parts)


def main() -> None:
    """Run the groups and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=[*GROUPS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    path = options.out / "speed.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in rows if row["group"] not in options.groups]
    for row in tasks(options):
        rows.append(row)
        about = "One thread; seconds, unless said otherwise. Ratios are medians.\n\n"
        write(options.out, "speed", rows, about + markdown(rows))


if __name__ == "__main__":
    main()
