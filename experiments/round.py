"""Conduct one training round: begin it once, show how far it is, end it by verdict or fault."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import psutil
from rich.console import Console

from alphapulse import logs
from alphapulse.domain.errors import AlphaPulseError, CheckpointError, InvalidRequest, Unavailable
from alphapulse.domain.learning import RoundState, TrainingRound
from alphapulse.interfaces import Model
from alphapulse.learning.promotion import Verdict
from alphapulse.models.checkpoints import Entry, Registry, directory_of
from alphapulse.models.rounds import Rounds
from alphapulse.storage.home import Home, Run
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.run import now

PROGRESS_S = 1.0  # between two updates of a round's progress [s]
NICE = 10  # decisions go first
BY_HAND = "asked for"  # trigger of a round that no pivot started
_log = logs.get_logger("training")


class Step(Protocol):
    """Say that some of a stage is done."""

    def __call__(self, done: int, *, loss: float | None = None) -> None:
        """Take note of `done` more of it, and of the present loss if there is one."""


class Conducted:
    """A round under way: what it knows is in the table of rounds, for people to watch.

    ```python
    with conducted(home, asked) as under_way:
        step = under_way.stage("training", of=100)
        step(1, loss=loss)
        under_way.conclude(verdict)
    ```
    """

    def __init__(self, table: Rounds, registry: Registry, round: TrainingRound) -> None:
        self.round = round
        self._table, self._registry = table, registry
        self._told_s = 0.0

    def stage(self, name: str, *, of: int = 0) -> Step:
        """Begin a stage of `of` pieces and return what is to be called when some are done."""
        total = 0
        self._show({"stage": name, "done": 0, "of": of, "loss": None})

        def step(done: int, *, loss: float | None = None) -> None:
            nonlocal total
            total += done
            if time.monotonic() - self._told_s >= PROGRESS_S:
                self._show({"stage": name, "done": total, "of": of, "loss": loss})

        return step

    def know(self, **changes: Any) -> None:
        """Write down more of the round, such as `num_train`."""
        kept = self._table.get(self.round.run, self.round.model, self.round.confirm_ns)
        job = kept.job if kept else ""  # told by whoever submitted it, perhaps since
        self.round = replace(self.round, job=job, **changes)
        self._table.update(self.round)

    def enter(self, model: Model, *, home: Path, entry: Mapping[str, Any]) -> None:
        """Save the challenger and register it.

        Args:
            model: the challenger.
            home: where checkpoints are.
            entry: data_hash, config_hash, created_event_ns and metrics of its registration.
        """
        id = model.save(directory_of(home, model=model.name, id=model.version))
        self._registry.register(Entry(id=id, model=model.name, role="challenger", **entry))
        self.know(challenger=id)

    def conclude(self, verdict: Verdict, **figures: Any) -> None:
        """End the round with a verdict; a challenger that failed it is rejected.

        One that passed stays challenger until whoever makes it live makes it champion.
        """
        self.know(
            state=RoundState.PROMOTED if verdict.promoted else RoundState.REJECTED,
            reason=verdict.reason,
            figures={**figures, **verdict.figures},
            ended_at=now(),
        )
        if self.round.challenger and not verdict.promoted:
            self._registry.set_role(self.round.challenger, "rejected")

    def fail(self, reason: str) -> None:
        """End the round as failed; a challenger it had is rejected."""
        self.know(state=RoundState.FAILED, reason=reason, ended_at=now())
        if self.round.challenger:
            self._registry.set_role(self.round.challenger, "rejected")

    def _show(self, progress: Mapping[str, Any]) -> None:
        self._told_s = time.monotonic()
        self.know(figures={**self.round.figures, "progress": dict(progress)})


@contextmanager
def conducted(home: Path, asked: TrainingRound) -> Iterator[Conducted]:
    """Run the body as the round `asked` for, begun already or not; whatever it raises fails it.

    Raises InvalidRequest if the round has a verdict already.
    """
    path = Home(home).registry_path
    table, registry = Rounds(path), Registry(path)
    # so that whoever looks after rounds can tell whether this one still lives: pids are used again
    created_s = int(psutil.Process().create_time())
    job = f"process {os.getpid()} {created_s} on {socket.gethostname()}"
    asked = replace(asked, job=job)
    under_way = Conducted(table, registry, asked)
    if not table.begin(asked):
        had = table.get(asked.run, asked.model, asked.confirm_ns)
        if had is None or had.state is not RoundState.RUNNING:
            raise InvalidRequest(
                f"round {asked.model} {asked.confirm_ns} of run {asked.run}: expected one without "
                f"a verdict, was {had.state if had else 'none'}; ask for another confirmation"
            )
        under_way.round = had
    try:
        yield under_way
    except BaseException as error:  # a stopped job is a failed round too
        if under_way.round.state is RoundState.RUNNING:
            under_way.fail(f"{type(error).__name__}: {error}")
        _log.error("round failed", trigger=asked.trigger, **logs.describe(error))
        raise


def next_confirmation(home: Path, run: str, model: str, *, from_ns: int) -> int:
    """Return the first instant from `from_ns` on that the run has had no round for [ns UTC]."""
    table, confirm_ns = Rounds(Home(home).registry_path), from_ns
    while table.get(run, model, confirm_ns) is not None:
        confirm_ns += 1
    return confirm_ns


def newest_decision(run: Run) -> int:
    """Return the newest instant a run has decided [ns UTC]; raises Unavailable if there is none."""
    journal = JournalReader(run.journal_path)
    try:
        decided = [journal.last_decision(s) for s in run.manifest.config["market"]["symbols"]]
    finally:
        journal.close()
    known = [event_ns for event_ns in decided if event_ns is not None]
    if not known:
        raise Unavailable(
            f"run {run.number}: expected decisions to learn from, was none; let it run a while"
        )
    return max(known)


def champion_of(home: Path, model: str, given: str | None) -> str:
    """Return the checkpoint to beat: the given one or the registered champion.

    Raises CheckpointError if there is neither.
    """
    champion = given or Registry(Home(home).registry_path).champion(model)
    if champion is None:
        raise CheckpointError(
            f"{home}: expected a champion of {model}, was none; run the first training"
        )
    return champion


def learned_until_ns(home: Path, model: str, id: str, trained: Mapping[str, Any]) -> int:
    """Return the newest instant a checkpoint may know something of [ns UTC].

    A challenger carries it in its layout, a first training in the registry.

    Raises CheckpointError if neither says so.
    """
    if "until_ns" in trained:
        return int(trained["until_ns"])
    registered = Registry(Home(home).registry_path).entries()
    known = [e.created_event_ns for e in registered if (e.id, e.model) == (id, model)]
    if not known:
        raise CheckpointError(
            f"{model} {id}: expected a registered checkpoint, or one that says what it was trained "
            "on, was neither; train it again"
        )
    return max(known)


def instant_of(text: str) -> int:
    """Return [ns UTC] of nanoseconds or ISO-8601 text; raises InvalidRequest if it is neither."""
    if text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"instant: expected nanoseconds or ISO-8601 such as 2024-08-09T00:02:00Z, was {text!r}"
        ) from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    whole = at.replace(microsecond=0)
    return round(whole.timestamp()) * 1_000_000_000 + at.microsecond * 1_000


def told(train: Callable[[], TrainingRound], *, as_json: bool) -> int:
    """Run a round for the command line, print its verdict, and return the exit code.

    A rejection is an answer and no error.
    """
    began = time.monotonic()
    try:
        done = train()
    except AlphaPulseError as error:
        Console(stderr=True).print(f"{error.code}: {error}", highlight=False)
        return error.exit_code
    wall_s = time.monotonic() - began
    if as_json:
        plain = {**asdict(done), "state": done.state.value, "wall_s": round(wall_s, 2)}
        sys.stdout.write(json.dumps(plain) + "\n")
    else:
        sys.stdout.write(
            f"{done.state} {done.challenger or '-'} in {wall_s:.1f} s: {done.reason}\n"
        )
    return 0


def step_aside() -> None:
    """Let decisions go first: be as nice as NICE, and no nicer if whoever started us saw to it."""
    os.nice(max(0, NICE - os.nice(0)))


def become_a_trainer() -> None:
    """Let decisions go first, and let a stop end the round as a failure that says so."""
    step_aside()

    def stop(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
