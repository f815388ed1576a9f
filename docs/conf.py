"""Configuration of the documentation: `make docs` builds it, warnings as errors."""

import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from sphinx_gallery.sorting import ExplicitOrder

import skvae

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

from _results import write_page  # noqa: E402

write_page(ROOT / "benchmarks" / "results", ROOT / "docs" / "how_good.md")

project = "skvae"
author = "the skvae developers"
copyright = f"2026, {author}"
version = release = skvae.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
# The links to other projects need the network, which a build must not.
if os.environ.get("SKVAE_DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
        "skorch": ("https://skorch.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

root_doc = "index"
templates_path = ["_templates"]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst"]
default_role = "literal"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "groupwise"
autodoc_typehints = "none"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": ExplicitOrder(["plot_quickstart.py", "*"]),
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skvae",),
    "reference_url": {"skvae": None},
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = "skvae"
html_show_sourcelink = False
# Pages without sections of their own need no column for them.
html_sidebars = {name: [] for name in ("how_good", "changelog", "contributing")}
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}


def skip_foreign_member(app, what, name, obj, skip, options):
    """Leave out what other libraries wrote, such as set_output: their docs have it."""
    home = getattr(obj, "__module__", None)
    if callable(obj) and home is not None and home.split(".")[0] != "skvae":
        return True
    if name.startswith("set_") and name.endswith("_request"):
        return True
    return None


def setup(app):
    app.connect("autodoc-skip-member", skip_foreign_member)
