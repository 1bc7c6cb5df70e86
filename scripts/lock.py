"""Resolve pyproject.toml under each given Python and write requirements/lock.txt, one pin a line.

    .venv/bin/python scripts/lock.py python3.11 python3.12 python3.13 [--upgrade]

Pins already in the lock stay unless `--upgrade` is given. The lock names no index, no URL, no path
and no hash: a hash would exclude the torch builds of other platforms. A pin that differs between
Pythons, or is only needed on Linux, carries a marker.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
MACOS = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}
HEADER = "# Written by scripts/lock.py from pyproject.toml [dev]; edit that and run it again.\n"


def declared() -> list[str]:
    """Return the direct dependencies of the project, the dev extra included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["dev"]]


def resolve(python: str, *, keep: bool) -> dict[str, dict[str, Any]]:
    """Return pip's metadata of every package `python` would install, by canonical name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        constraints = ["--constraint", str(LOCK)] if keep and LOCK.exists() else []
        subprocess.run([*command, "--report", str(report), *constraints, *declared()], check=True)
        installs = json.loads(report.read_text())["install"]
    return {canonicalize_name(i["metadata"]["name"]): i["metadata"] for i in installs}


def reachable(packages: dict[str, dict[str, Any]], environment: dict[str, str]) -> set[str]:
    """Return the packages that the direct dependencies lead to in `environment`."""
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(line) for line in declared()]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if name not in packages or (name, extra) in seen:
                continue
            seen.add((name, extra))
            children = map(Requirement, packages[name].get("requires_dist", []))
            values = {**environment, "extra": extra}
            todo += [c for c in children if c.marker is None or c.marker.evaluate(values)]
    return {name for name, _ in seen}


def marker(pythons: Iterable[str], every: list[str], *, linux_only: bool) -> str:
    """Return the marker of a pin that holds for `pythons`, neighbours out of `every`."""
    mine = sorted(pythons, key=Version)
    parts = []
    if mine[0] != every[0]:
        parts.append(f'python_version >= "{mine[0]}"')
    if mine[-1] != every[-1]:
        parts.append(f'python_version < "{every[every.index(mine[-1]) + 1]}"')
    if linux_only:
        parts.append('sys_platform == "linux"')
    return f" ; {' and '.join(parts)}" if parts else ""


def main() -> None:
    """Write the lock."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="+", help="interpreters, such as python3.11")
    parser.add_argument("--upgrade", action="store_true", help="forget the present pins")
    arguments = parser.parse_args()

    pins: dict[tuple[str, str], list[str]] = {}
    linux_only: set[str] = set()
    every: list[str] = []
    for python in arguments.pythons:
        ask = "import sys; print('%d.%d' % sys.version_info[:2])"
        version = subprocess.check_output([python, "-c", ask], text=True).strip()
        packages = resolve(python, keep=not arguments.upgrade)
        everywhere = reachable(packages, {**MACOS, "python_version": version})
        linux_only |= set(packages) - everywhere
        every.append(version)
        for name, metadata in packages.items():
            release = metadata["version"].split("+")[
                0
            ]  # the local part names a build, not a version
            pins.setdefault((name, release), []).append(version)
        print(f"{python}: {len(packages)} packages", file=sys.stderr)

    every.sort(key=Version)
    lines = [
        f"{name}=={release}{marker(pythons, every, linux_only=name in linux_only)}\n"
        for (name, release), pythons in sorted(pins.items())
    ]
    LOCK.parent.mkdir(exist_ok=True)
    LOCK.write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
