"""The map of the package, enforced: who may import whom, and how large rooms grow."""

import ast
import inspect
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import skvae

PACKAGE = Path(skvae.__file__).parent

# Imports run down this list, never up; neighbours in a row do not import each other.
# A new module joins the row that it belongs to, or gets a row of its own.
LAYERS = (
    "imputation outliers metrics inspection persistence",
    "_autoencoder _denoising _contractive _vae _conditional_vae",
    "_deterministic",
    "_base",
    "_fitting _state",
    "_latent _passes",
    "_training",
    "_course",
    "_build _step _table_fitting",
    "_table_effects",
    "_module _contraction _table_starts",
    "_table_model",
    "_jacobian _layerwise _inference _autoregressive _conditioning",
    "_networks _starts _learned_prior _table_likelihood _imputing",
    "_factories _flat _conditions _proposals _defaults _smoothing _embedding _thinning "
    "_excluded _counts _warm_start _refilling _classes _net_params",
    "objectives likelihoods corruptions priors _table _table_heads",
    "_fused _densities _mixture_density _optimizer _plan _rows",
    "_random _docs _compat _threads _summary _inner _devices",
)
SIDEWAYS = {("_conditional_vae", "_vae"), ("metrics", "inspection")}

# If a library changes, one place changes with it.
OWNERS = {
    "skorch": "_training",
    "pandas": "_table",
    "polars": "_table",
    "narwhals": "_table",
    "pyarrow": "_table",
    "matplotlib": "inspection",
    "safetensors": "persistence",
    "onnx": "persistence",
    "onnxscript": "persistence",
    "onnxruntime": "persistence",
}
PRIVATE_SKLEARN = "_compat"

MAX_LINES = 600
MAX_PARAMETERS = 30


def _is_type_checking(node):
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def _imports(tree):
    """Yield (line, dotted module, imported name or None), lazy imports included."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and _is_type_checking(node):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or ""), alias.name
        elif isinstance(node, ast.Call) and _is_import_module(node):
            yield node.lineno, node.args[0].value, None
        waiting.extend(ast.iter_child_nodes(node))


def _is_import_module(node):
    name = getattr(node.func, "attr", getattr(node.func, "id", None))
    literal = bool(node.args) and isinstance(node.args[0], ast.Constant)
    return name == "import_module" and literal and isinstance(node.args[0].value, str)


def _modules(package):
    """Map the dotted name of each module of the package to its file."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(p for p in parts if p != "__init__")] = path
    return names


def _room(module):
    """Return the place of a module in `LAYERS`: its first name below the package."""
    return module.split(".")[1] if "." in module else ""


def _edges(package):
    """Yield (importer, line, imported module, imported name), one per import."""
    modules = _modules(package)
    for importer, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for line, module, name in _imports(tree):
            if name is not None and f"{module}.{name}" in modules:
                module, name = f"{module}.{name}", None
            yield importer, line, module, name


def _layer_fault(package, importer, module, name):
    """Return what is wrong with an import inside the package, None if nothing is."""
    if module.startswith("."):
        return "is relative"
    if module == package.name:
        return None if name == "__version__" else f"takes {name!r} from the root"
    rows = {room: i for i, row in enumerate(LAYERS) for room in row.split()}
    here, there = _room(importer), _room(module)
    if here == there:
        return None
    if not here:
        return f"makes the root load {there}"
    for room in (here, there):
        if room not in rows:
            return f"{room} has no row in LAYERS"
    if rows[there] > rows[here] or (here, there) in SIDEWAYS:
        return None
    return f"{there} is " + ("beside" if rows[there] == rows[here] else "above")


def _owner_fault(importer, module, name):
    """Return what is wrong with an import from another library, None if nothing is."""
    library = module.split(".")[0]
    owner = OWNERS.get(library)
    if owner is not None and _room(importer) != owner:
        return f"only {owner} imports {library}"
    if library != "sklearn" or _room(importer) == PRIVATE_SKLEARN:
        return None
    parts = [*module.split("."), name or ""]
    private = [p for p in parts if p.startswith("_") and not p.startswith("__")]
    return f"only {PRIVATE_SKLEARN} imports {private[0]!r}" if private else None


def import_faults(package):
    """List the imports of a package that the map forbids."""
    faults = []
    for importer, line, module, name in _edges(package):
        inside = module.startswith(".") or module.split(".")[0] == package.name
        if inside:
            fault = _layer_fault(package, importer, module, name)
        else:
            fault = _owner_fault(importer, module, name)
        if fault is not None:
            faults.append(f"{importer}:{line} imports {module}: {fault}")
    return faults


def import_cycle(package):
    """Return one cycle of imports as a list of modules, empty if there is none."""
    modules = _modules(package)
    graph = {module: set() for module in modules}
    for importer, _, module, _ in _edges(package):
        if module in modules:
            graph[importer].add(module)
    graph[package.name] = set()  # its imports are lazy or for the type checker
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def too_long(package):
    """List the files above the budget."""
    lengths = {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, path in _modules(package).items()
    }
    return [f"{m}: {n} lines" for m, n in lengths.items() if n > MAX_LINES]


def test_imports_run_down_the_map_and_libraries_have_one_owner():
    assert import_faults(PACKAGE) == []


def test_imports_have_no_cycle():
    assert import_cycle(PACKAGE) == []


def test_files_stay_within_their_budget():
    assert too_long(PACKAGE) == []


@pytest.mark.parametrize("name", [n for n in skvae.__all__ if not n.startswith("_")])
def test_constructors_take_at_most_thirty_parameters(name):
    parameters = inspect.signature(getattr(skvae, name)).parameters
    assert len(parameters) <= MAX_PARAMETERS


def test_no_module_stands_in_two_rows():
    rooms = " ".join(LAYERS).split()
    assert len(rooms) == len(set(rooms))


# The rules themselves, on packages of a few lines that break them one at a time.


@pytest.fixture
def write_package(tmp_path):
    def write(files):
        package = tmp_path / "fake"
        for name, text in {"__init__.py": "", **files}.items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return package

    return write


@pytest.mark.parametrize(
    ("module", "text", "fault"),
    [
        ("_module", "from fake._base import x", "_base is above"),
        ("_module", "def f():\n    import fake._base", "_base is above"),
        ("_module", "from fake import _base", "_base is above"),
        ("_contractive", "from fake._autoencoder import x", "_autoencoder is beside"),
        ("_denoising", "from fake._autoencoder import x", "_autoencoder is beside"),
        ("_vae", "from fake._conditional_vae import x", "_conditional_vae is beside"),
        ("_base", "from fake._elsewhere import x", "_elsewhere has no row"),
        ("_elsewhere", "from fake._base import x", "_elsewhere has no row"),
        ("_base", "from ._module import x", "is relative"),
        ("_base", "from fake import VAE", "from the root"),
        ("__init__", "from fake._base import x", "makes the root load _base"),
        ("_base", "import skorch.callbacks", "only _training imports skorch"),
        ("_base", "import_module('pandas')", "only _table imports pandas"),
        ("metrics", "from polars import col", "only _table imports polars"),
        ("metrics", "import matplotlib.pyplot", "only inspection imports matplotlib"),
        ("_state", "import safetensors", "only persistence imports safetensors"),
        ("_base", "from sklearn.base import _fit_context", "only _compat imports"),
        ("_base", "from sklearn.utils._tags import Tags", "only _compat imports"),
    ],
)
def test_forbidden_import_is_found(write_package, module, text, fault):
    names = ("_base", "_module", "_elsewhere", "_autoencoder", "_conditional_vae")
    files = {f"{name}.py": "" for name in names}
    faults = import_faults(write_package({**files, f"{module}.py": text}))
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("_base", "from fake._module import x"),
        ("_base", "from fake import __version__"),
        ("_conditional_vae", "from fake._vae import x"),
        ("_training", "import skorch"),
        ("_table/_codec", "import pandas as pd\nfrom fake._table import _frames"),
        ("_compat", "from sklearn.base import _fit_context"),
        ("_base", "from sklearn import __version__"),
        (
            "_module",
            "if TYPE_CHECKING:\n    import pandas\n    from fake._base import x",
        ),
        ("_module", "if typing.TYPE_CHECKING:\n    from fake._base import x"),
    ],
)
def test_allowed_import_is_no_fault(write_package, module, text):
    names = ("_base", "_module", "_vae", "_table/__init__", "_table/_frames")
    files = {f"{name}.py": "" for name in names}
    assert import_faults(write_package({**files, f"{module}.py": text})) == []


def test_cycle_inside_a_room_is_found(write_package):
    package = write_package(
        {
            "_table/__init__.py": "from fake._table._codec import x",
            "_table/_codec.py": "from fake._table import y",
        }
    )
    assert set(import_cycle(package)) == {"fake._table", "fake._table._codec"}


def test_long_file_is_found(write_package):
    package = write_package({"_base.py": "\n" * 601, "_module.py": "\n" * 600})
    assert too_long(package) == ["fake._base: 601 lines"]
