"""The code of the README and the user guide runs as it is printed."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
GUIDE = sorted(ROOT.glob("docs/user_guide/*.md"))
if not GUIDE:
    pytest.skip("docs/user_guide is not beside tests/", allow_module_level=True)
PAGES = [
    page
    for page in [ROOT / "README.md", ROOT / "docs/index.md", *GUIDE]
    if "```python" in page.read_text(encoding="utf-8")
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.numpy_global_rng,
    # Of the exporter of torch, and of plots without a screen.
    pytest.mark.filterwarnings("default"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_blocks_run_in_order(page, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    np.random.seed(0)
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    try:
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    except ImportError as error:
        if "cannot import name" in str(error):
            raise
        pytest.skip(f"an extra is not installed: {error}")
