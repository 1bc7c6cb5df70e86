"""Fork writers of one history, kill each at a moment drawn by lot, and look at what is left.

The process that forks never reads a lake itself: deltalake's threads would not live on in a fork.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from alphapulse.config import Settings
from alphapulse.storage.home import Home, Run
from tests.flows.history_faults.board import Board, Phase
from tests.flows.history_faults.checking import Check
from tests.flows.history_faults.tallying import Tally
from tests.flows.history_faults.watching import watch
from tests.flows.history_faults.writer import Life, lead

PR_SET_PDEATHSIG = 1  # linux/prctl.h
KILLS_A_HOME = 15  # what comes after starts with an empty history
ALL_EVERY = 5  # kills between two looks at all there is; at the newest after each
JOURNAL_ALONE = 0.2  # share of the writers that flush nothing
BY_THE_CLOCK = 0.3  # share of the kills that wait for no phase
IN_THE_JOURNAL = 0.3  # share of the others that wait for one in the journal
# By phase waited for, the n-th time it is entered at most.
OF_THE_JOURNAL = {Phase.OPENING: 1, Phase.WRITING: 60, Phase.COMMITTING: 60}
OF_THE_LAKE = {
    Phase.NAMING: 6,
    Phase.LAKE_COMMITTING: 12,
    Phase.COMPACTING: 2,
    Phase.VACUUMING: 2,
}
POLL_S = 5e-5
LONGEST_S = 2.0  # a writer is killed then, whether or not the phase came
CHECK_S = 60.0  # for a look at what is left
RECOVERY_S = 30.0  # within which a healed writer must have got through what it was refused
_LIBC = ctypes.CDLL(None)


class Faults(Protocol):
    """Something that makes the disk of a home fail."""

    def arm(self, lot: random.Random) -> None:
        """Begin to fail."""

    def heal(self) -> None:
        """Fail no longer."""

    def counts(self) -> dict[str, int]:
        """Return how many calls failed, by name."""


@dataclass(frozen=True)
class Moment:
    """When to kill: `after_s` after the writer entered a phase the n-th time, or was started."""

    phase: Phase | None
    entries: int
    after_s: float

    @classmethod
    def drawn(cls, lot: random.Random, *, flushes: bool) -> Moment:
        """Return a moment; a delay after a phase's begin may be of any size, 10 us to 20 ms."""
        if lot.random() < BY_THE_CLOCK:
            return cls(None, 0, lot.uniform(0, 0.4))
        after_s = 10 ** lot.uniform(-5, -1.7)
        in_journal = not flushes or lot.random() < IN_THE_JOURNAL
        phases = OF_THE_JOURNAL if in_journal else OF_THE_LAKE
        phase = lot.choice(list(phases))
        return cls(phase, lot.randint(1, phases[phase]), after_s)

    def wait(self, board: Board, child: Child) -> None:
        """Return when it has come."""
        latest = time.monotonic() + LONGEST_S
        while self.phase and board.entries(self.phase) < self.entries and time.monotonic() < latest:
            if child.has_ended():
                return
            time.sleep(POLL_S)
        time.sleep(self.after_s)


class Child:
    """A fork of this process that does one piece of work and ends with it."""

    def __init__(self, work: Callable[[], dict[str, Any] | None]) -> None:
        self._read, write = os.pipe()
        self._status: int | None = None
        self._pid = os.fork()
        if not self._pid:
            _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody else would end it
            os.close(self._read)
            _end_with(work, write)
        os.close(write)

    def has_ended(self) -> bool:
        """Return whether it ended by itself."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    def result(self) -> dict[str, Any]:
        """Wait for it and return what its work did, or its `code` and last words, `said`.

        One that does not end within a minute is killed.
        """
        if not select.select([self._read], [], [], CHECK_S)[0]:
            os.kill(self._pid, signal.SIGKILL)
        with os.fdopen(self._read) as pipe:
            said = pipe.read()
        if self._status is None:
            self._status = os.waitpid(self._pid, 0)[1]
        code = os.waitstatus_to_exitcode(self._status)
        return json.loads(said) if code == 0 else {"code": code, "said": said}

    def kill(self) -> dict[str, Any] | None:
        """Kill it with SIGKILL and return None, or its `code` and last words if it was ended."""
        if not self.has_ended():
            os.kill(self._pid, signal.SIGKILL)
        ended = self.result()
        return None if ended.get("code") == -signal.SIGKILL else ended


def _end_with(work: Callable[[], dict[str, Any] | None], write: int) -> NoReturn:
    code, said = 0, ""
    try:
        said = json.dumps(work())
    except BaseException:
        code, said = 1, traceback.format_exc()
    with os.fdopen(write, "w") as pipe:
        pipe.write(said)
    os._exit(code)


class Killer:
    """Kills writers one after the other and tallies what it finds.

    Attributes:
        tally: of all kills so far.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        faults: Faults | None = None,
        plant: Callable[[], type[sqlite3.Connection]] | None = None,
    ) -> None:
        """Work in `folder`; `plant` damages the history inside every writer."""
        self.tally = Tally()
        self._folder = folder
        self._lot = random.Random(seed)
        self._faults = faults
        self._plant = plant

    def kill(self, kills: int, *, until_wrong: bool = False) -> None:
        """Kill `kills` writers, in a fresh history after each 15; `until_wrong`: or fewer."""
        begun = time.monotonic()
        while self.tally.kills < kills and not (until_wrong and not self.tally.is_clean):
            self._kill_in_one_home(min(KILLS_A_HOME, kills - self.tally.kills))
            self.tally.seconds = time.monotonic() - begun
            self._report()
        if self._faults:
            self.tally.counts.update(self._faults.counts())

    def _kill_in_one_home(self, kills: int) -> None:
        home, board = self._folder / "home", Board()
        run = Home(home).open_run(
            source="recording",
            recording="by hand",
            content_hash="c0ffee",
            settings=Settings(),
            checkpoints={},
            fresh=False,
        )
        is_sound = True
        while kills and is_sound:  # what came after a defect would be the same again
            is_sound = self._live_and_die(run, board)
            is_sound = is_sound and self._look(lambda: self._checked(Check(run, board)))
            kills -= 1
        is_sound = is_sound and self._look(lambda: Check(run, board).at_the_end())
        self.tally.add_history(board)
        if is_sound:
            shutil.rmtree(home)
        else:
            home.rename(self._folder / f"wrong-{self.tally.kills}")

    def _live_and_die(self, run: Run, board: Board) -> bool:
        """Return whether the writer lived until it was killed."""
        flushes = self._faults is not None or self._lot.random() >= JOURNAL_ALONE
        life = Life(
            seed=self._lot.getrandbits(32),
            flushes=flushes,
            pause_s=10 ** self._lot.uniform(-3, -1.5),
            removes_at_once=self._lot.random() < 0.5,
            on_sound_disk=self._faults is None,
        )
        moment = Moment.drawn(self._lot, flushes=flushes)
        board.begin_life()
        if self._faults:
            self._faults.arm(self._lot)
        writer = Child(lambda: self._write(run, board, life))
        if self._faults and self._lot.random() < 0.5:
            self._recover(writer, board)
        moment.wait(board, writer)
        ended = writer.kill()
        if self._faults:
            self._faults.heal()
        self.tally.add_kill(board.phases())
        if ended:
            words = f"a writer ended with {ended['code']}: {ended['said'][-1000:]}"
            self.tally.add_found({"died": 1, "said": [words]})
        return ended is None

    def _recover(self, writer: Child, board: Board) -> None:
        assert self._faults is not None
        time.sleep(self._lot.uniform(0.05, 0.5))
        self._faults.heal()
        board.say_healed()
        latest = time.monotonic() + RECOVERY_S
        while not board.has_recovered and not writer.has_ended():
            if time.monotonic() > latest:
                words = f"not recovered {RECOVERY_S} s after the faults ended"
                self.tally.add_found({"stuck": 1, "said": [words]})
                return
            time.sleep(0.001)
        self.tally.counts["recoveries"] += 1

    def _write(self, run: Run, board: Board, life: Life) -> None:
        watch(board, connection=self._plant() if self._plant else sqlite3.Connection)
        lead(run, life=life, board=board)

    def _checked(self, check: Check) -> dict[str, Any]:
        is_whole = self.tally.kills % ALL_EVERY == 0
        return check.of_all(self.tally.kills) if is_whole else check.of_newest()

    def _look(self, check: Callable[[], dict[str, Any]]) -> bool:
        """Return whether nothing is wrong."""
        found = Child(check).result()
        if code := found.get("code"):
            kind = "stuck" if code == -signal.SIGKILL else "unreadable"
            found = {kind: 1, "said": [f"a check ended with {code}: {found['said'][-1000:]}"]}
        self.tally.add_found(found)
        return not found["said"]

    def _report(self) -> None:
        defects = dict(self.tally.defects) or "nothing wrong"
        print(
            f"{self.tally.kills} kills, {self.tally.inside} inside a commit or compaction, "
            f"{self.tally.seconds:.0f} s: {defects}",
            file=sys.stderr,
            flush=True,
        )
