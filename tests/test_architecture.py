"""Hold every file to its floor: who may import whom, and where each heavy library may live.

    floor 4   serve_apps/   experiments/   actors/   alphapulse/cli.py with commands/, client.py,
              analysing/, collecting.py and doctor.py
    floor 3   models/ data/ portfolio/ risk/ execution/ storage/ learning/ dashboard/ cluster.py
              assembly.py and alerting.py (where rooms meet)
    floor 2   interfaces.py   features/   config.py with settings/   logs.py
    floor 1   domain/

The checker reads source text and judges every import in it, those inside functions and those by
`importlib` too. Only the commands and actors/main start a roof folder by its import path.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOF = ("actors", "serve_apps", "experiments")
FRONT = (
    "analysing",  # what `lookahead` does: it asks rows, labels and models alike
    "asking",
    "cli",
    "client",
    "collecting",
    "commands",  # how each command is typed, one file a group
    "doctor",
)  # what the command line does, apart from how it is typed
STARTERS = ("alphapulse/commands/running.py", "actors/main.py")
MEETINGS = ("alerting", "assembly")  # where rooms meet
ROOMS = (
    "models", "data", "risk", "portfolio", "execution", "storage", "learning", "dashboard",
)  # fmt: skip
GROUND_LIBRARIES = {"numpy", "pandas"}
LAKE = ("alphapulse/storage/", "alphapulse/data/tape.py", "alphapulse/data/history.py",
        "alphapulse/data/segments.py", "experiments/dataset.py",
        "experiments/benchmarks/peers/")  # fmt: skip
ROOF_PATHS = tuple(f"{folder}/" for folder in ROOF)
HOMES = {
    "ray": (*ROOF_PATHS, "alphapulse/cluster.py"),
    "torch": ("alphapulse/models/", "experiments/", "serve_apps/"),
    "ccxt": (
        "alphapulse/data/live.py",
        "alphapulse/data/history.py",
        "alphapulse/execution/live.py",
    ),
    "streamlit": ("alphapulse/dashboard/",),
    "mlflow": ("experiments/tracking.py",),
    "pyarrow": LAKE,
    "deltalake": LAKE,
    "duckdb": LAKE,
}


def python_files(*folders: str) -> list[str]:
    """Return every Python file below `folders`, relative to the root."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    )


def module_of(path: str) -> str:
    """Return the dotted name of a file given by its path from the root."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def home_of(module: str) -> str:
    """Return the part of the house a module of ours belongs to, such as `domain` or `actors`."""
    parts = module.split(".")
    if parts[0] != "alphapulse":
        return parts[0]
    return parts[1] if len(parts) > 1 else "alphapulse"


def floor_of(home: str) -> int:
    """Return the floor of a part of the house; the package itself is ground that all stand on."""
    if home in (*ROOF, *FRONT):
        return 4
    if home in (*ROOMS, "cluster", *MEETINGS):
        return 3
    if home in ("interfaces", "features", "config", "settings", "logs"):
        return 2
    if home in ("domain", "alphapulse"):
        return 1
    return 0  # not in the table


def imports(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Yield line and module of every import, and whether it is by import path.

    `from alphapulse import logs` is an import of alphapulse.logs.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "alphapulse":
                names = (f"alphapulse.{alias.name}" for alias in node.names)
                yield from ((node.lineno, name, False) for name in names)
            else:
                yield node.lineno, module, False
        elif isinstance(node, ast.Call) and _imports_by_path(node):
            argument = node.args[0]
            target = str(argument.value) if isinstance(argument, ast.Constant) else ""
            yield node.lineno, target, True


def _imports_by_path(call: ast.Call) -> bool:
    name = ast.unparse(call.func).split(".")[-1]
    return name in ("import_module", "__import__") and bool(call.args)


def violations(path: str, source: str) -> list[str]:
    """Return what is wrong with a file, one sentence each; empty is good."""
    tree = ast.parse(source)
    found = [] if _opens_with_a_sentence(tree) else [f"{path}:1 does not open with one sentence"]
    here = home_of(module_of(path))
    if floor_of(here) == 0:
        found.append(f"{path} has no place in the table: a new room needs a reason")
    for line, target, by_path in imports(tree):
        if by_path and path in STARTERS and target.split(".")[0] in ROOF:
            continue
        problem = _problem(path, here, target)
        if problem:
            found.append(f"{path}:{line} imports {target}: {problem}")
    return found


def _opens_with_a_sentence(tree: ast.Module) -> bool:
    first = (ast.get_docstring(tree) or "").split("\n", maxsplit=1)[0]
    return first.endswith((".", "?", ":"))


def _problem(path: str, here: str, target: str) -> str | None:
    if target.startswith("."):
        return "relative imports are banned"
    top = target.split(".")[0]
    if top == "tests":
        return "the product does not know its tests"
    if top in ("alphapulse", *ROOF):
        return _inner_problem(here, home_of(target))
    homes = HOMES.get(top)
    if homes is not None and not path.startswith(homes):
        return f"{top} only in {', '.join(homes)}"
    if here == "domain" and top not in GROUND_LIBRARIES and top not in sys.stdlib_module_names:
        return "domain/ knows the standard library, numpy, pandas and itself"
    return None


def _inner_problem(here: str, there: str) -> str | None:
    if here == there:
        return None
    if floor_of(there) == 0:
        return "no such part of the house"
    if there in FRONT and here not in FRONT:
        return "nothing stands on the command line"
    if here in ROOF and there in ROOF:
        return "roof folders meet by name, not by import"
    if here in ROOMS and there in ROOMS:
        return "rooms do not know each other"
    if there in ROOF:
        return "imports go down; the roof is started by import path"
    if here == "interfaces" and floor_of(there) == 2:
        return "the promises stand on domain/ alone"
    if here in ROOMS and there in MEETINGS:
        return "rooms are put together, they do not know by whom"
    if floor_of(there) > floor_of(here):
        return f"imports go down, floor {floor_of(here)} to {floor_of(there)} goes up"
    return None


@pytest.mark.parametrize("path", python_files("alphapulse", *ROOF))
def test_file_stands_on_its_floor(path: str) -> None:
    assert violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", python_files("tests", "scripts"))
def test_file_outside_the_house_opens_with_a_sentence(path: str) -> None:
    assert _opens_with_a_sentence(ast.parse((ROOT / path).read_text()))


def test_table_names_every_part_of_the_house() -> None:
    there = {home_of(module_of(path)) for path in python_files("alphapulse", *ROOF)}

    assert {home for home in there if floor_of(home) == 0} == set()
    assert {"domain", "interfaces", "features", "config", *ROOMS} <= there


SENTENCE = '"""Do one thing."""\n'


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("alphapulse/domain/market.py", "from alphapulse.config import Settings"),
        ("alphapulse/domain/market.py", "import structlog"),
        ("alphapulse/domain/market.py", "from alphapulse import interfaces"),
        ("alphapulse/features/inputs.py", "from alphapulse.data.cache import Cache"),
        ("alphapulse/interfaces.py", "from alphapulse.config import Settings"),
        ("alphapulse/config.py", "import alphapulse.cluster"),
        ("alphapulse/models/cnn.py", "from alphapulse.data.cache import Cache"),
        ("alphapulse/risk/gate.py", "from alphapulse import portfolio"),
        ("alphapulse/execution/desk.py", "from alphapulse.assembly import make_desk"),
        ("alphapulse/cluster.py", "from actors.trader import Trader"),
        ("alphapulse/cluster.py", "import alphapulse.cli"),
        ("alphapulse/commands/running.py", "import actors.main"),
        (
            "alphapulse/commands/settings.py",
            "import importlib\nimportlib.import_module('actors.main')",
        ),
        ("alphapulse/client.py", "import importlib\nimportlib.import_module('actors.main')"),
        ("alphapulse/client.py", "import ray"),
        ("actors/main.py", "import alphapulse.doctor"),
        ("actors/trader.py", "import serve_apps.graph"),
        ("serve_apps/graph.py", "from experiments import sweep"),
        ("experiments/sweep.py", "from actors.trader import Trader"),
        ("alphapulse/models/cnn.py", "import ray"),
        ("alphapulse/data/tape.py", "from ray import serve"),
        ("actors/trader.py", "import torch"),
        ("alphapulse/execution/engine.py", "import torch.nn"),
        ("alphapulse/data/tape.py", "import ccxt.pro"),
        ("alphapulse/storage/lake/delta.py", "import streamlit"),
        ("experiments/train_cnn.py", "import mlflow"),
        ("alphapulse/data/cache.py", "import pyarrow.parquet"),
        ("alphapulse/learning/outcomes.py", "import deltalake"),
        ("actors/inference_history.py", "import duckdb"),
        ("alphapulse/data/tape.py", "from .cache import Cache"),
        ("alphapulse/data/tape.py", "from . import cache"),
        ("alphapulse/data/tape.py", "import tests.conftest"),
        ("alphapulse/data/tape.py", "def f():\n    import ray"),
        ("alphapulse/data/tape.py", "import importlib\nimportlib.import_module('ray')"),
        ("alphapulse/utilities/things.py", "import math"),
    ],
)
def test_planted_violation_is_found(path: str, line: str) -> None:
    assert len(violations(path, SENTENCE + line)) >= 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("alphapulse/domain/market.py", "import math, numpy, pandas"),
        ("alphapulse/domain/market.py", "import alphapulse.domain.errors"),
        ("alphapulse/interfaces.py", "from alphapulse.domain.market import Bar"),
        ("alphapulse/features/inputs.py", "from alphapulse.config import Settings"),
        ("alphapulse/models/cnn.py", "import torch\nfrom alphapulse.features import rows"),
        ("alphapulse/data/tape.py", "import pyarrow\nfrom alphapulse.logs import get_logger"),
        ("alphapulse/data/live.py", "import ccxt.pro"),
        ("alphapulse/cluster.py", "import ray"),
        ("alphapulse/assembly.py", "from alphapulse.risk import gate"),
        ("alphapulse/cli.py", "from alphapulse.storage import history"),
        (
            "alphapulse/commands/running.py",
            "import importlib\nimportlib.import_module('actors.main')",
        ),
        ("alphapulse/cli.py", "from alphapulse import client"),
        ("actors/trader.py", "import ray\nfrom alphapulse.execution import engine"),
        ("experiments/tracking.py", "import mlflow"),
    ],
)  # fmt: skip
def test_what_the_table_allows_passes(path: str, line: str) -> None:
    assert violations(path, SENTENCE + line) == []


@pytest.mark.parametrize("source", ["import math\n", '"""no sentence"""\n', ""])
def test_file_without_its_sentence_is_found(source: str) -> None:
    assert violations("alphapulse/data/tape.py", source) == [
        "alphapulse/data/tape.py:1 does not open with one sentence"
    ]
