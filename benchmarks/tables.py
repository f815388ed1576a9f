"""Compare synthetic tables: this library, simple baselines and TVAE, side by side.

    python benchmarks/tables.py --data DIR [--sets adult magic] [--methods skvae cart]
        [--seeds 0 1 2] [--out benchmarks/results] [--tvae-python PYTHON] [--keep]

``DIR`` (or ``DIR/tabular``) holds ``adult.csv`` and so on. One split for all: 80 % to
fit, 20 % held out; as many synthetic rows as training rows; one thread; CPU seconds.
Results join those already in the output folder, so one method can be run again alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _baselines import (
    Synthesis,
    em_mixture,
    gaussian_copula,
    independent,
    known_levels,
    resampled,
    sequential_cart,
    timed,
)
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import skvae
from skvae.metrics import QualityReport


@dataclass(frozen=True)
class TableSet:
    """A benchmark table: what to predict, drop, and treat as categories."""

    target: str
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()


SETS = {
    "adult": TableSet("income"),
    "magic": TableSet("class"),
    "abalone": TableSet("Rings"),
    "california": TableSet("median_house_value"),
    "titanic": TableSet("survived", ("alive",), ("survived", "pclass")),
}
PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "torch", "skorch")
# Key in the record, heading, format.
COLUMNS = (
    ("shape_error", "shape %", "{:.2%}"),
    ("association_error", "pair %", "{:.2%}"),
    ("utility", "utility", "{:.3f}"),
    ("utility_ratio", "/ real", "{:.3f}"),
    ("detection_auc", "detection AUC", "{:.3f}"),
    ("alpha_precision", "alpha-prec.", "{:.3f}"),
    ("beta_recall", "beta-recall", "{:.3f}"),
    ("dcr_share", "DCR share", "{:.3f}"),
    ("exact_copies", "copies", "{:.2%}"),
    ("missing_rate_error", "missing", "{:.2%}"),
    ("out_of_range", "out of range", "{:.2%}"),
    ("log_likelihood", "nats/row", "{:.2f}"),
    ("fit_seconds", "fit CPU s", "{:.1f}"),
    ("sample_seconds", "sample CPU s", "{:.2f}"),
)


def load(folder: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a table and split it, always in the same way."""
    place = folder / "tabular" if (folder / "tabular").is_dir() else folder
    frame = pd.read_csv(place / f"{name}.csv", skipinitialspace=True)
    frame = frame.drop(columns=list(SETS[name].drop))
    train, holdout = train_test_split(frame, test_size=0.2, random_state=0)
    return train.reset_index(drop=True), holdout.reset_index(drop=True)


def fit_skvae(
    train: pd.DataFrame, n: int, seed: int, holdout: pd.DataFrame, declared: list[str]
) -> Synthesis:
    """Fit `skvae.VAE` with its defaults."""
    import torch

    torch.set_num_threads(1)
    options: dict[str, Any] = {"categorical_features": declared} if declared else {}
    model = skvae.VAE(random_state=seed, **options)
    model, synthesis = timed(
        lambda: model.fit(train), lambda fitted: fitted.sample(n, random_state=seed)
    )
    synthesis.log_likelihood = float(model.score(known_levels(train, holdout)))
    return synthesis


def fit_tvae(
    train: pd.DataFrame,
    n: int,
    seed: int,
    declared: list[str],
    python: str,
    epochs: int,
) -> Synthesis:
    """Fit TVAE with the interpreter of its own environment."""
    discrete = [c for c in train if c in declared or train[c].dtype.kind not in "iuf"]
    worker = Path(__file__).with_name("tvae_worker.py")
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("in.csv", "out.csv", "o.json")]
        train.to_csv(paths[0], index=False)
        options = {"n": n, "seed": seed, "discrete": discrete, "epochs": epochs}
        Path(paths[2]).write_text(json.dumps(options))
        done = subprocess.run(
            [python, str(worker), *paths],
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        rows = pd.read_csv(paths[1], skipinitialspace=True)
        return Synthesis(rows, **json.loads(Path(paths[2]).read_text()))


def methods(args: argparse.Namespace) -> dict[str, Callable[..., Synthesis]]:
    """Return each method as a function of training rows, seed, hold-out, categories."""
    every: dict[str, Callable[..., Synthesis]] = {
        "independent": lambda train, seed, *_: independent(train, len(train), seed),
        "resampled": lambda train, seed, *_: resampled(train, len(train), seed),
        "copula": lambda train, seed, *_: gaussian_copula(train, len(train), seed),
        "cart": lambda train, seed, *_: sequential_cart(train, len(train), seed),
        "mixture": lambda train, seed, *rest: em_mixture(
            train, len(train), seed, *rest
        ),
        "tvae": lambda train, seed, _, declared: fit_tvae(
            train, len(train), seed, declared, args.tvae_python, args.tvae_epochs
        ),
        "skvae": lambda train, seed, *rest: fit_skvae(train, len(train), seed, *rest),
    }
    return {name: every[name] for name in args.methods}


def run_one(
    method: Callable[..., Synthesis], folder: Path, name: str, seed: int
) -> dict[str, Any]:
    """Fit, draw and judge once; an error becomes part of the record."""
    train, holdout = load(folder, name)
    declared = list(SETS[name].categorical)
    try:
        synthesis = method(train, seed, holdout, declared)
    except (RuntimeError, ValueError, TypeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    report = QualityReport(
        train,
        holdout,
        synthesis.rows,
        SETS[name].target,
        categorical_features=declared,
        random_state=0,
    )
    costs = {
        "fit_seconds": synthesis.fit_seconds,
        "sample_seconds": synthesis.sample_seconds,
        "log_likelihood": synthesis.log_likelihood,
    }
    return report.to_dict() | costs


def environment() -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    facts = {"skvae": skvae.__version__, "python": platform.python_version()}
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    facts["cpu"] = models[0] if models else platform.processor()
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def markdown(results: dict[str, Any]) -> str:
    """Write the results as one table for each set, means over the seeds."""
    lines = ["# Synthetic tables", ""]
    lines += ["Means over seeds; utility = train on synthetic, test on real."]
    for name in SETS:
        records = [r for r in results["records"] if r["set"] == name]
        if not records:
            continue
        lines += ["", f"## {name}", ""]
        lines.append(
            "| method | seeds | " + " | ".join(h for _, h, _ in COLUMNS) + " |"
        )
        lines.append("|---" * (len(COLUMNS) + 2) + "|")
        scored = [r for r in records if "holdout_scores" in r]
        if scored:
            floor = scored[0]["holdout_scores"]
            lines.append(_line("*real hold-out*", "-", [floor]))
        for method in dict.fromkeys(r["method"] for r in records):
            ours = [r for r in records if r["method"] == method]
            failed = [r["error"] for r in ours if "error" in r]
            if failed:
                lines.append(f"| {method} | {len(ours)} | {failed[0][:120]} |")
            else:
                lines.append(_line(method, str(len(ours)), ours))
    lines += ["", "## Where and when", ""]
    for facts in results["environments"]:
        lines.append("- " + ", ".join(f"{k} {v}" for k, v in facts.items()))
    dates = sorted({r["date"] for r in results["records"]})
    lines.append(f"- from {dates[0]} to {dates[-1]}")
    return "\n".join(lines) + "\n"


def _line(label: str, count: str, records: list[dict[str, Any]]) -> str:
    cells = []
    for key, _, form in COLUMNS:
        known = [r[key] for r in records if r.get(key) is not None]
        cells.append(form.format(np.mean(known)) if known else "-")
    return f"| {label} | {count} | " + " | ".join(cells) + " |"


def save(results: dict[str, Any], out: Path) -> None:
    """Write both forms of the results."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "tables.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "tables.md").write_text(markdown(results))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    names = ["resampled", "independent", "copula", "cart", "mixture", "tvae", "skvae"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--tvae-python", help="interpreter that can import ctgan")
    parser.add_argument("--tvae-epochs", type=int, default=300)
    parser.add_argument(
        "--keep", action="store_true", help="skip what the results already hold"
    )
    args = parser.parse_args(argv)
    if "tvae" in args.methods and not args.tvae_python:
        print("tvae skipped: give --tvae-python, an interpreter that has ctgan.")
        args.methods = [name for name in args.methods if name != "tvae"]
    return args


def main() -> None:
    """Run what was asked for, saving after every record."""
    args = parse()
    path = args.out / "tables.json"
    results: dict[str, Any] = {"environments": [], "records": []}
    if path.exists():
        results = json.loads(path.read_text())
    facts = environment()
    if facts not in results["environments"]:
        results["environments"].append(facts)
    for name in args.sets:
        for label, method in methods(args).items():
            for seed in args.seeds:
                key = {"set": name, "method": label, "seed": seed}
                others = [
                    r for r in results["records"] if any(r[k] != key[k] for k in key)
                ]
                if args.keep and len(others) < len(results["records"]):
                    continue
                with threadpool_limits(1):
                    record = run_one(method, args.data, name, seed)
                date = datetime.now(UTC).date().isoformat()
                results["records"] = [*others, key | record | {"date": date}]
                save(results, args.out)
                print(_line(f"{name} {label}", str(seed), [record]), flush=True)
                if "error" in record:
                    print("   ", record["error"], file=sys.stderr)


if __name__ == "__main__":
    main()
