"""What a benchmark ran on, and where its results go."""

from __future__ import annotations

import datetime
import json
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "pandas", "scikit-learn", "scipy", "skorch", "torch")


def machine():
    """Return versions, processor and date."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next(
        (x.split(":")[1].strip() for x in lines if x.startswith("model name")), ""
    )
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu or platform.processor(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def write(out, name, rows, markdown):
    """Write rows as JSON and a Markdown page under a folder."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    about = machine()
    (folder / f"{name}.json").write_text(json.dumps({**about, "rows": rows}, indent=1))
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    head = f"{about['date']}, {about['cpu']}, Python {about['python']}, {versions}.\n\n"
    (folder / f"{name}.md").write_text(head + markdown + "\n")


def table(columns, rows):
    """Return a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
