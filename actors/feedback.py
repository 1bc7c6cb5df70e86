"""Close the loop: settle what was predicted, start training rounds, make promotions live."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from actors.jobs import Jobs
from actors.launch import Launch
from alphapulse import cluster, logs
from alphapulse.data.live import Live
from alphapulse.domain.errors import AlphaPulseError, CheckpointError, InvalidRequest
from alphapulse.domain.learning import (
    LEVELS,
    Cursor,
    Outcome,
    PastDecision,
    RoundState,
    TrainingRound,
)
from alphapulse.domain.market import TIMEFRAMES
from alphapulse.learning.outcomes import Settlement
from alphapulse.learning.rounds import RoundScheduler, Start
from alphapulse.models.rounds import Rounds
from alphapulse.storage.control import Control
from alphapulse.storage.home import Home
from alphapulse.storage.notes import round_row
from alphapulse.storage.run import now

SLICE = 128  # decisions followed at once
IDLE_S = 0.25  # between two looks when nothing new is there
DRAIN_S = 60.0  # how long an end waits for the outcomes of its newest decisions
JOB_POLL_S = 1.0  # between two looks at a job
NEVER = -1  # live_ns of a verdict that came too late
MODEL = "cnn"  # the one whose rounds pivots start (R2.4)
log = logs.get_logger("feedback")


class FeedbackActor:
    """Reads the history as it grows, in event time; a restarted one reads it again from the start.

    Outcomes have ids, so that settling again changes nothing.
    """

    def __init__(self, launch: Launch) -> None:
        logs.configure(Path(launch.home) / "logs", process="feedback", session=launch.session)
        self._launch = launch
        home = Home(Path(launch.home))
        self._history = cluster.History()
        self._control = Control(home.control_path)
        self._settlement = Settlement(cost_bps=launch.settings.training.cost_bps)
        self._cursor = Cursor()
        self._at_ns = -1  # newest instant followed
        self._unsaved: list[Outcome] = []
        self._unlabelled: list[dict[str, Any]] = []  # labels on their way to the history
        self._rounds = Rounds(home.registry_path)
        mine = [r for r in self._rounds.all(launch.run) if r.model == MODEL]
        self._scheduler = RoundScheduler(launch.settings.learning, levels=LEVELS, rounds=mine)
        self._kept_verdicts: set[str] = set()  # ids of rows
        self._jobs = Jobs(launch)
        self._looked_at_s = 0.0
        self._closing = False
        self._working = asyncio.Lock()
        self._loop: asyncio.Task[None] | None = None

    async def status(self) -> dict[str, Any]:
        """Return what is settled and pending, and the rounds; a loop that ended begins again."""
        if self._loop is None or self._loop.done():
            if self._loop is not None and self._loop.exception():
                log.error("feedback failed", **logs.describe(self._loop.exception()))
            self._loop = asyncio.create_task(self._run())
        rounds = self._rounds.all(self._launch.run)
        state = Counter(round.state for round in rounds)
        counters = self._settlement.counters()
        running = next((r for r in rounds if r.state is RoundState.RUNNING), None)
        return {
            "settlement": {
                "at_ns": self._at_ns,
                "settled": counters["settled_forecasts"] + counters["settled_actions"],
                "pending": counters["pending_forecasts"] + counters["pending_actions"],
                **counters,
            },
            "training": {
                "rounds": state[RoundState.PROMOTED] + state[RoundState.REJECTED],
                "failed": state[RoundState.FAILED],
                "promotions": state[RoundState.PROMOTED],
                "running": None if running is None else _plain(running),
                **self._scheduler.counters(),
            },
        }

    async def drain(self, until_ns: int) -> None:
        """Return once everything up to `until_ns` [ns UTC] is settled that can be, or in vain."""
        give_up_at = time.monotonic() + DRAIN_S
        while self._at_ns < until_ns and self._control.is_wanted("settlement"):
            if time.monotonic() > give_up_at:
                log.warning("outcomes are left for the next start", at_ns=self._at_ns)
                return
            await self.status()
            await asyncio.sleep(IDLE_S)

    async def finish(self, timeout_s: float) -> bool:
        """Begin no further round, and return whether none runs after at most `timeout_s` [s]."""
        if not self._closing:
            await self._try_to_work()  # what the last pivots asked for may begin yet
            self._closing = True
        give_up_at = time.monotonic() + timeout_s
        while self._rounds.running(self._launch.run) is not None:
            if time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(IDLE_S)
        await self._try_to_work()  # a verdict may have come with the end
        return True

    async def pid(self) -> int:
        """Return the process id."""
        return os.getpid()

    async def _run(self) -> None:
        await self._begin()
        while True:
            try:
                moved = await self._follow()
            except AlphaPulseError as error:  # an actor is being replaced, a disk is full
                log.warning("settlement waits", **logs.describe(error))
                moved = False
            await self._try_to_work()
            if not moved:
                await asyncio.sleep(IDLE_S)

    async def _try_to_work(self) -> None:
        try:
            await self._work()
        except AlphaPulseError as error:  # an actor is being replaced, the job server is busy
            log.warning("training waits", **logs.describe(error))

    async def _begin(self) -> None:
        """Start at the beginning of the history."""
        settings = self._launch.settings
        self._settlement = Settlement(cost_bps=settings.training.cost_bps)
        self._cursor, self._unsaved, self._unlabelled = Cursor(), [], []
        for round in self._rounds.all(self._launch.run):
            if round.state is RoundState.RUNNING and not round.job:
                self._fail(round, "whoever began it ended before its job was submitted")

    async def _seed(self, first_ns: int) -> None:
        """Give the settlement the bars that had closed by the first instant of the run [ns UTC].

        A live venue also has later ones; those come with the history, at their time.
        """
        provider = self._launch.provider()
        try:
            for instrument in self._launch.settings.market.instruments:
                for timeframe in TIMEFRAMES:
                    series = await provider.history(instrument, timeframe, None)
                    self._settlement.seed(series.until(first_ns))
        finally:
            if isinstance(provider, Live):
                await provider.close()

    async def _follow(self) -> bool:
        """Settle the next slice of the history and return whether there was one."""
        await self._save()
        if not self._control.is_wanted("settlement"):
            return False
        found = await self._history.follow(self._cursor, limit=SLICE)
        if not found.events:
            return False
        if self._cursor == Cursor():
            first = found.events[0]
            await self._seed(first.event_ns if isinstance(first, PastDecision) else first.shown_ns)
        self._unsaved = list(self._settlement.take(found.events))
        self._cursor = found.cursor
        self._unlabelled += map(asdict, self._settlement.labels())
        await self._save()
        self._scheduler.offer(self._settlement.pivots())
        decided = [e.event_ns for e in found.events if isinstance(e, PastDecision)]
        self._at_ns = max(self._at_ns, *decided)
        return True

    async def _save(self) -> None:
        """Make durable what was settled, once again what an earlier try did not."""
        if self._unsaved:
            await self._history.settle(self._unsaved)
            log.info("settled", outcomes=len(self._unsaved))
            self._unsaved = []
        if self._unlabelled:
            await self._history.note("examples", self._unlabelled)
            self._unlabelled = []

    async def _work(self) -> None:
        """Look after the running round, make a verdict live, begin what is due."""
        if not self._launch.training:
            return
        async with self._working:
            await self._look_after_rounds()
            await self._begin_what_is_due()

    async def _begin_what_is_due(self) -> None:
        if self._closing or not self._control.is_wanted("training"):
            return
        start = self._scheduler.next(
            is_running=self._rounds.running(self._launch.run) is not None,
            num_examples=self._settlement.counters()["examples"],
        )
        if start is not None:
            await self._begin_round(start)

    async def _begin_round(self, start: Start) -> None:
        champion = (await cluster.Trader().versions())[MODEL]
        round = TrainingRound(
            run=self._launch.run,
            model=MODEL,
            confirm_ns=start.confirm_ns,
            trigger=start.trigger,
            state=RoundState.RUNNING,
            champion=champion,
            started_at=now(),
        )
        if not self._rounds.begin(round):
            return
        job = await self._jobs.submit(round, until_ns=self._at_ns)
        begun = self._rounds.get(round.run, round.model, round.confirm_ns) or round
        self._rounds.update(replace(begun, job=job))
        log.info("round begun", trigger=start.trigger, confirm_ns=start.confirm_ns, job=job)

    async def _look_after_rounds(self) -> None:
        if time.monotonic() - self._looked_at_s < JOB_POLL_S and not self._closing:
            return
        self._looked_at_s = time.monotonic()
        for round in self._rounds.all(self._launch.run):
            if round.state is RoundState.RUNNING and round.job:
                await self._require_alive(round)
            elif round.state is RoundState.PROMOTED and round.live_ns is None:
                await self._make_live(round)
        await self._keep_verdicts()

    async def _keep_verdicts(self) -> None:
        """Append every verdict to the history, and again what became of it; each once."""
        rounds = self._rounds.all(self._launch.run)
        ended = [round for round in rounds if round.state is not RoundState.RUNNING]
        rows = {row["id"]: row for row in map(round_row, ended)}
        if new := [row for id_, row in rows.items() if id_ not in self._kept_verdicts]:
            await self._history.note("training_rounds", new)
            self._kept_verdicts |= rows.keys()

    async def _require_alive(self, round: TrainingRound) -> None:
        ended = await self._jobs.ended(round.job)
        if ended is None:
            return
        found = self._rounds.get(round.run, round.model, round.confirm_ns)
        if found is None or found.state is not RoundState.RUNNING:
            return  # it wrote its verdict and ended
        self._fail(found, ended)

    def _fail(self, round: TrainingRound, reason: str) -> None:
        log.warning("round failed", job=round.job, code="RoundFailed", reason=reason)
        failed = replace(round, state=RoundState.FAILED, reason=reason, ended_at=now())
        self._rounds.update(failed)

    async def _make_live(self, round: TrainingRound) -> None:
        live = await cluster.Trader().versions()
        if live[round.model] != round.champion:
            reason = f"{round.reason}; not made live: {live[round.model]} answers by now"
            log.warning("verdict is out of date", code="StaleVerdict", reason=reason)
            self._rounds.update(replace(round, live_ns=NEVER, reason=reason))
            return
        why = f"training round: {round.reason}"
        try:
            promotion = await cluster.Trader().promote(round.model, round.challenger, reason=why)
        except (InvalidRequest, CheckpointError) as error:  # asking again would change nothing
            log.error("promotion failed", **logs.describe(error), remedy="see `alphapulse models`")
            reason = f"{round.reason}; not made live: {error}"
            self._rounds.update(replace(round, live_ns=NEVER, reason=reason))
        else:
            self._rounds.update(replace(round, live_ns=promotion.event_ns))


def _plain(round: TrainingRound) -> dict[str, Any]:
    return {
        "model": round.model,
        "trigger": round.trigger,
        "confirm_ns": round.confirm_ns,
        "started_at": round.started_at,
        "progress": round.figures.get("progress"),
    }
