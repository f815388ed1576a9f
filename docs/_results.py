"""Write the page "How good is it?" from the results the benchmarks left."""

from __future__ import annotations

import re
from pathlib import Path

# File, title, what is compared. A result that is not there has no section.
_SECTIONS = (
    (
        "quality",
        "Against the classical models",
        "Every model at its defaults, apart from the size of the code. Made by "
        "`benchmarks/quality.py`.",
    ),
    (
        "tables",
        "Synthetic tables",
        "One configuration for all tables: `VAE().fit(frame).sample(n)`. `copula` is a "
        "Gaussian copula, `cart` draws column after column from the leaves of decision "
        "trees, `mixture` is an EM mixture of independent columns. The row of the real "
        "hold-out says how far two samples of the same table lie apart; `resampled` "
        "are training rows drawn with replacement, the noise of a finite sample alone. "
        "TVAE takes no missing cells: it was given medians, and a level of their own. "
        "Sequential trees are a strong baseline, ahead in several columns; they draw "
        "values of real rows and have neither likelihood nor codes. Made by "
        "`benchmarks/tables.py`.",
    ),
    (
        "mnist",
        "What the literature reports on MNIST",
        "A few epochs each. Made by `benchmarks/mnist.py`.",
    ),
    (
        "speed",
        "Speed",
        "Side by side in one run, with the loop one would write by hand. Made by "
        "`benchmarks/speed.py`.",
    ),
    (
        "gpu",
        "On an accelerator",
        "Fits beside a plain loop and the limits of the device. Made by "
        "`benchmarks/gpu.py`.",
    ),
)
_HEAD = """# How good is it?

These tables are what the scripts in `benchmarks/` measured and committed, with date and
versions. Every script says in its first lines how to run it again.
"""


def write_page(results: Path, page: Path) -> None:
    """Write the page if its text changed, so that Sphinx rebuilds it only then."""
    parts = [_HEAD]
    for name, title, about in _SECTIONS:
        source = results / f"{name}.md"
        if source.exists():
            body = re.sub(r"^# .*\n+", "", source.read_text(encoding="utf-8"))
            body = re.sub(r"^(#+) ", r"#\1 ", body, flags=re.MULTILINE)
            parts.append(f"## {title}\n\n{about}\n\n{body.strip()}\n")
    text = "\n".join(parts)
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
