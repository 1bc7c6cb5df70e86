"""Run the decision loop: ask for a point, ask the served models, record, go on."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from actors.launch import Launch
from alphapulse import cluster, logs
from alphapulse.domain.errors import AlphaPulseError, ClusterError, Unavailable
from alphapulse.domain.inference import Decision, ModelInput, Prediction, Thresholds, trace_id
from alphapulse.execution.engine import Engine
from alphapulse.execution.recorder import Recorder

RETRY_S = 0.2  # between two tries of a call whose process is being replaced
PATIENCE_S = 60.0  # how long a replacement may take before the run ends with an error
log = logs.get_logger("trader")


class TraderActor:
    """Holds the engine of a run; a restarted one goes on after the newest durable decision."""

    def __init__(self, launch: Launch) -> None:
        logs.configure(Path(launch.home) / "logs", process="trader", session=launch.session)
        self._launch = launch
        self._market = cluster.MarketData()
        self._history = cluster.History()
        self._stopping = False
        self._ended = False
        self._resumed_ns = -1
        self._thresholds_file = (
            Path(launch.home) / "runs" / str(launch.run_number) / "thresholds.json"
        )
        self._recorder = Recorder(
            self._history.append,
            timeout_s=launch.settings.storage.append_timeout_s,
            max_pending=launch.settings.storage.retry_records,
        )
        self._engine = Engine(
            run=launch.run,
            config_hash=launch.settings.hash,
            decide=self._decide,
            recorder=self._recorder,
            thresholds=self._stored_thresholds(),
        )

    async def run(self) -> dict[str, Any]:
        """Decide until the source ends or `stop` is called, and return the status."""
        last = await _patiently(self._history.last)
        self._engine.durable_until = {s: p[0].event_ns for s, p in last.items()}
        outputs: list[Prediction] = [prediction for p in last.values() for prediction in p]
        after_ns = min(self._engine.durable_until.values(), default=-1)
        self._resumed_ns = after_ns
        while not self._stopping:
            point = await _patiently(self._market.advance, after_ns=after_ns, outputs=outputs)
            if point is None:
                self._ended = True
                break
            outputs = list(await self._engine.step(point))
            after_ns = point.event_ns
        await self._recorder.close(timeout_s=PATIENCE_S)
        return await self.status()

    async def status(self) -> dict[str, Any]:
        """Return the tally and the newest decisions as plain values."""
        return {
            "run": self._launch.run,
            "ended": self._ended,
            "stopping": self._stopping,
            "resumed_ns": self._resumed_ns,
            "flagged": self._recorder.flagged,
            "pending": self._recorder.num_pending,
            "lost": self._recorder.lost,
            "thresholds": {
                "entry": self._engine.thresholds.entry,
                "exit": self._engine.thresholds.exit,
            },
            "latest": {
                symbol: {
                    "event_ns": decision.event_ns,
                    "action": decision.action.value,
                    "confidence": decision.confidence,
                    "reason": decision.reason,
                }
                for symbol, decision in self._engine.latest.items()
            },
            **self._engine.tally.summary(),
        }

    async def set_thresholds(self, new: Thresholds | None) -> Thresholds:
        """Return the thresholds; new ones hold from the next decision on and survive a restart."""
        if new is not None:
            text = json.dumps({"entry": new.entry, "exit": new.exit})
            part = self._thresholds_file.with_suffix(".part")
            part.write_text(text)
            part.replace(self._thresholds_file)
            self._engine.thresholds = new
            log.info("thresholds set", entry=new.entry, exit=new.exit)
        return self._engine.thresholds

    async def stop(self) -> None:
        """End the loop after the decision in flight."""
        self._stopping = True

    async def pid(self) -> int:
        """Return the process id."""
        return os.getpid()

    def _stored_thresholds(self) -> Thresholds:
        if self._thresholds_file.exists():
            return Thresholds(**json.loads(self._thresholds_file.read_text()))
        return self._launch.settings.decision.thresholds

    async def _decide(self, input: ModelInput, thresholds: Thresholds) -> Decision:
        """Ask the graph, again if a replica dies meanwhile: predictions are pure."""
        trace = trace_id(run=self._launch.run, symbol=input.symbol, event_ns=input.event_ns)
        handle = serve.get_deployment_handle("Orchestrator", cluster.SERVE_APP)
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                decision: Decision = await handle.decide.remote(input, thresholds, trace)
            except (RayError, RayServeException) as error:
                _require_passing(error)
                if time.monotonic() > give_up_at:
                    raise ClusterError(
                        f"Orchestrator: expected an answer within {PATIENCE_S:.0f} s, was "
                        f"{type(error).__name__}; see `alphapulse doctor`"
                    ) from error
                log.warning("asking the graph again", trace_id=trace, **logs.describe(error))
                await asyncio.sleep(RETRY_S)
            else:
                return decision


async def _patiently(call: Any, **arguments: Any) -> Any:
    """Return what `call` answers, asking again while its actor is being restarted."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call(**arguments)
        except Unavailable as error:
            if time.monotonic() > give_up_at:
                raise
            log.warning("waiting for an actor", **logs.describe(error))
            await asyncio.sleep(RETRY_S)


def _require_passing(error: RayError | RayServeException) -> None:
    """Return if a replica was lost, which passes; raise what the graph itself raised."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, AlphaPulseError):
        raise cause from None
    if not isinstance(cause, RayError | RayServeException):
        raise ClusterError(f"Orchestrator: expected a decision, it failed: {cause!r}") from error
