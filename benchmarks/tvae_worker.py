"""Fit TVAE of ctgan in an environment of its own; rows and times through files.

ctgan is under the Business Source License, so it is never a dependency of this project.
Run by ``tables.py`` with another interpreter:

    python tvae_worker.py TRAIN.csv OUT.csv OPTIONS.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from ctgan import TVAE

_MISSING = "(missing)"


def filled(train: pd.DataFrame, discrete: list[str]) -> pd.DataFrame:
    """Fill cells TVAE cannot take: a level of their own, or the median."""
    gaps = [c for c in train if train[c].isna().any()]
    values = {c: _MISSING if c in discrete else train[c].median() for c in gaps}
    wide = {c: object for c in gaps if c in discrete}
    return train.astype(wide).fillna(values)


def main(train_path: str, out_path: str, options_path: str) -> None:
    """Fit TVAE with its defaults, draw rows, write them and the CPU seconds."""
    torch.set_num_threads(1)
    options = json.loads(Path(options_path).read_text())
    train = filled(pd.read_csv(train_path), options["discrete"])
    model = TVAE(epochs=options["epochs"], enable_gpu=False)
    model.set_random_state(options["seed"])
    start = time.process_time()
    model.fit(train, discrete_columns=options["discrete"])
    middle = time.process_time()
    rows = model.sample(options["n"])
    end = time.process_time()
    rows.replace(_MISSING, None).to_csv(out_path, index=False)
    times = {"fit_seconds": middle - start, "sample_seconds": end - middle}
    Path(options_path).write_text(json.dumps(times))


if __name__ == "__main__":
    main(*sys.argv[1:])
