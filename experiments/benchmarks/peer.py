"""Run a peer in its own environment, turn by turn with ours, and make a row of both."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmarks.result import Row

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of the counted runs of both, and the peer's version.

    Attributes:
        peer: its version; where it did not run, what to do, and `peer_s` is empty.
    """

    ours_s: Sequence[float]
    peer_s: Sequence[float]
    peer: str


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of one run [s]."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def in_turn(
    run: Callable[[], object], script: str, arguments: Sequence[object], *, runs: int
) -> Timed:
    """Time `run` and a peer's script in turn, so that both meet the same machine.

    Args:
        run: ours; called once before the first counted run.
        script: module of `experiments.benchmarks.peers`; it prints its version, then the seconds
            of a run for every line on stdin (`peers.peer.serve`).
        arguments: of the script, such as the files it reads.
        runs: counted runs of each.
    """
    run()
    if not PYTHON.exists():
        ours_s = [seconds(run) for _ in range(runs)]
        return Timed(ours_s=ours_s, peer_s=(), peer="missing: run `make bench`")
    command = [str(PYTHON), "-m", f"experiments.benchmarks.peers.{script}", *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        peer = child.stdout.readline().strip()
        if not peer:
            ours_s = [seconds(run) for _ in range(runs)]
            return Timed(ours_s=ours_s, peer_s=(), peer=f"{script} did not start: see above")
        ours_s, peer_s = [], []
        for _ in range(runs):
            ours_s.append(seconds(run))
            child.stdin.write("\n")
            child.stdin.flush()
            peer_s.append(float(child.stdout.readline()))
        child.stdin.close()
    return Timed(ours_s=ours_s, peer_s=peer_s, peer=peer)


def best_of(
    run: Callable[[], object],
    script: str,
    kinds: Sequence[str],
    arguments: Sequence[object],
    *,
    runs: int,
) -> tuple[Timed, str]:
    """Time `run` and each kind of a peer, its first argument; return the fastest, and all said."""
    timed = [in_turn(run, script, (kind, *arguments), runs=runs) for kind in kinds]
    ran = [t for t in timed if t.peer_s]
    best = min(ran, key=lambda t: statistics.median(t.peer_s), default=timed[0])
    return best, ", ".join(f"{t.peer} {statistics.median(t.peer_s) * 1e3:.3g} ms" for t in ran)


def ms_row(name: str, timed: Timed, words: str, *, goal: float, times: int = 1) -> Row:
    """Return the time of both [ms], and whether the peer takes `goal` times ours.

    `times`: how often a run did it.
    """
    ours_ms = [s * 1e3 / times for s in timed.ours_s]
    value = statistics.median(ours_ms)
    peer_value = statistics.median(timed.peer_s) * 1e3 / times if timed.peer_s else None
    ratio = peer_value / value if peer_value else None
    return Row(
        name=name,
        value=value,
        unit="ms",
        peer=timed.peer,
        peer_value=peer_value,
        ratio=ratio,
        goal=words,
        met=ratio is not None and ratio >= goal,
        runs=ours_ms,
    )


def rate_row(name: str, timed: Timed, *, events: int, goal: float) -> Row:
    """Return events a second of both, and whether ours is `goal` times the peer's."""
    ours = events / statistics.median(timed.ours_s)
    theirs = events / statistics.median(timed.peer_s) if timed.peer_s else None
    ratio = ours / theirs if theirs else None
    return Row(
        name=name,
        value=ours,
        unit="1/s",
        peer=timed.peer,
        peer_value=theirs,
        ratio=ratio,
        goal=f">= {goal:g} x the peer",
        met=ratio is not None and ratio >= goal,
        runs=[events / s for s in timed.ours_s],
    )
