"""Find every implementation of a promise: import the whole product, ask for subclasses."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

PRODUCT = ("alphapulse", "actors", "serve_apps", "experiments")
PEERS = "experiments.benchmarks.peers."  # scripts of .venv-bench, whose packages are not here


@cache
def import_everything() -> dict[str, str]:
    """Import every module of the product and return, by name, why one could not be imported."""
    failed: dict[str, str] = {}
    for name in PRODUCT:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if module.name.startswith(PEERS):
                continue
            try:
                importlib.import_module(module.name)
            except Exception as error:  # a test of its own names them all
                failed[module.name] = repr(error)
    return failed


def implementations(promise: type) -> dict[str, type[Any]]:
    """Return the product's concrete classes that inherit `promise`, by class name."""
    import_everything()
    found: dict[str, type[Any]] = {}
    todo = list(promise.__subclasses__())
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.split(".")[0] in PRODUCT and not inspect.isabstract(kind):
            assert found.setdefault(kind.__name__, kind) is kind, f"two classes {kind.__name__}"
    return dict(sorted(found.items()))


def assert_documented(kind: type) -> None:
    """Check that a class has a docstring of its own and each public method one, or inherits it."""
    assert vars(kind).get("__doc__"), f"{kind.__name__}: expected a docstring, was none; write one"
    bare = [
        name
        for name, member in vars(kind).items()
        if inspect.isroutine(member) and not name.startswith("_") and not inspect.getdoc(member)
    ]
    assert not bare, f"{kind.__name__}: expected docstrings on {bare}, was none; write them"
