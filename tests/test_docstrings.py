"""Every public docstring follows numpydoc; the examples run as doctests of the package.

The filter is scikit-learn's: short summaries may be all there is (ES01), a return value
need not have a name (RT02), a docstring may begin on the line of its quotes (GL01,
GL02). Methods and functions need neither See Also nor Examples; classes need both. A
method that overrides one of a base class of ours is described in full there.
"""

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.validate import validate

import skvae

IGNORED = {"RT02", "GL01", "GL02", "ES01"}
# What is private to the package, and what has no user.
PUBLIC_MODULES = sorted(
    f"skvae.{module.name}"
    for module in pkgutil.iter_modules(skvae.__path__)
    if not module.name.startswith("_")
)


def _public_objects():
    """Yield the import paths of public classes, functions and methods."""
    found = {f"skvae.{n}" for n in skvae.__all__ if not n.startswith("__")}
    for name in PUBLIC_MODULES:
        module = importlib.import_module(name)
        names = getattr(module, "__all__", [])
        found |= {f"{name}.{n}" for n in names if callable(getattr(module, n))}
    for path in sorted(found):
        home, name = path.rsplit(".", 1)
        thing = getattr(importlib.import_module(home), name)
        if not callable(thing) or not (thing.__module__ or "").startswith("skvae"):
            continue
        if getattr(thing, "_is_protocol", False):
            continue
        yield path
        if inspect.isclass(thing):
            yield from (f"{path}.{m}" for m in _public_methods(thing))


def _public_methods(kind):
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name.startswith("_") or isinstance(member, property):
            continue
        function = getattr(member, "__func__", member)
        home = getattr(function, "__module__", None) or ""
        if inspect.isfunction(function) and home.startswith("skvae"):
            yield name


def _overrides(path):
    """Tell whether a method is documented by a base class it overrides."""
    home, name = path.rsplit(".", 1)
    if home == "skvae" or not _is_class(home):
        return False
    module, kind = home.rsplit(".", 1)
    bases = inspect.getmro(getattr(importlib.import_module(module), kind))[1:]
    return any(
        name in vars(base) for base in bases if base.__module__.startswith("skvae")
    )


def _is_class(path):
    home, name = path.rsplit(".", 1)
    try:
        return inspect.isclass(getattr(importlib.import_module(home), name))
    except ModuleNotFoundError:
        return False


PATHS = list(_public_objects())


def test_the_estimators_and_the_families_are_among_what_is_checked():
    assert {
        "skvae.VAE",
        "skvae.VAE.fit",
        "skvae.AutoencoderTransformer.sample",
        "skvae.objectives.Sparsity",
    } <= set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_docstring_is_valid(path):
    ignored = set(IGNORED)
    if not _is_class(path):
        ignored |= {"EX01", "SA01"}
    if _overrides(path):
        ignored |= {"PR01", "RT01"}
    problems = [
        f"{code}: {text}"
        for code, text in validate(path)["errors"]
        if code not in ignored
    ]
    assert not problems, "\n".join([path, *problems])


def _is_estimator(path):
    home, name = path.rsplit(".", 1)
    return _is_class(path) and hasattr(
        getattr(importlib.import_module(home), name), "get_params"
    )


@pytest.mark.parametrize("path", [p for p in PATHS if _is_estimator(p)])
def test_documented_parameters_are_those_of_the_constructor(path):
    home, name = path.rsplit(".", 1)
    kind = getattr(importlib.import_module(home), name)
    fields = [p for p in inspect.signature(kind).parameters if p != "self"]
    documented = validate(path)["docstring"]
    for field in fields:
        assert f"{field} : " in documented, field
    assert "%(" not in documented


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_only_a_conditional_model_asks_for_y(method):
    asks = "    Conditions of the rows, which must be given"
    assert asks in getattr(skvae.ConditionalVAE, method).__doc__
    assert "y : None\n" in inspect.getdoc(getattr(skvae.VAE, method))
