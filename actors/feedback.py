"""Close the loop: settle what was predicted, start training rounds, make promotions live."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.jobs import Jobs
from actors.launch import Launch
from alphapulse import cluster, logs
from alphapulse.data.live import Live
from alphapulse.domain.errors import AlphaPulseError, CheckpointError, InvalidRequest
from alphapulse.domain.learning import LEVELS, RoundState, TrainingRound
from alphapulse.domain.market import TIMEFRAMES, BarSeries
from alphapulse.learning.rounds import RoundScheduler, Start
from alphapulse.learning.settling import Settling
from alphapulse.models.rounds import Rounds
from alphapulse.storage.control import Control
from alphapulse.storage.home import Home
from alphapulse.storage.notes import round_row
from alphapulse.storage.run import now

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
        self._settling = self._new_settling()
        self._is_over = False  # whether the source gives no more, ever
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
        counters = self._settling.counters()
        running = next((r for r in rounds if r.state is RoundState.RUNNING), None)
        return {
            "settlement": {
                "at_ns": self._settling.at_ns,
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

    async def drain(self, until_ns: int, is_over: bool) -> bool:
        """Return whether everything up to `until_ns` [ns UTC] is settled that can be.

        With `is_over` the source gives no more, ever, and what is pending after that is void. What
        is not settled in time, or because people stopped it, is left for the next start.
        """
        self._is_over = is_over
        give_up_at = time.monotonic() + DRAIN_S
        while self._is_behind(until_ns):
            is_wanted = self._control.is_wanted("settlement")
            if time.monotonic() > give_up_at or not is_wanted:
                at_ns = self._settling.at_ns
                log.warning("outcomes are left for the next start", at_ns=at_ns, wanted=is_wanted)
                return False
            await self.status()
            await asyncio.sleep(IDLE_S)
        return True

    def _is_behind(self, until_ns: int) -> bool:
        is_open = self._is_over and not self._settling.is_concluded
        return is_open or self._settling.at_ns < until_ns

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
        self._settling = self._new_settling()
        for round in self._rounds.all(self._launch.run):
            if round.state is RoundState.RUNNING and not round.job:
                self._fail(round, "whoever began it ended before its job was submitted")

    def _new_settling(self) -> Settling:
        cost_bps = self._launch.settings.training.cost_bps
        return Settling(self._history, cost_bps=cost_bps, seed=self._bars_until)

    async def _bars_until(self, first_ns: int) -> list[BarSeries]:
        """Return the bars that had closed by the first instant of the run [ns UTC].

        A live venue also has later ones; those come with the history, at their time.
        """
        provider = self._launch.provider()
        try:
            return [
                (await provider.history(instrument, timeframe, None)).until(first_ns)
                for instrument in self._launch.settings.market.instruments
                for timeframe in TIMEFRAMES
            ]
        finally:
            if isinstance(provider, Live):
                await provider.close()

    async def _follow(self) -> bool:
        """Settle the next slice of the history and return whether there was one."""
        if not self._control.is_wanted("settlement"):
            return False
        moved = await self._settling.step(is_over=self._is_over)
        self._scheduler.offer(self._settling.pivots())
        return moved

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
            num_examples=self._settling.counters()["examples"],
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
        job = await self._jobs.submit(round, until_ns=self._settling.at_ns)
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
