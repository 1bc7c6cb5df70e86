"""Run the decision loop: ask for a point, ask the served models, record, trade, go on."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from actors.launch import Launch
from actors.resume import ledger_path, resume_point
from alphapulse import cluster, logs
from alphapulse.assembly import make_desk
from alphapulse.domain.errors import AlphaPulseError, ClusterError, InvalidRequest, Unavailable
from alphapulse.domain.inference import Decision, DecisionPoint, Prediction, Thresholds, trace_id
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.learning import Promotion
from alphapulse.domain.trading import Quote
from alphapulse.execution.engine import Engine
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.order_links import OrderLinks
from alphapulse.execution.outages import Told
from alphapulse.execution.recorder import Recorder
from alphapulse.models.checkpoints import Registry, directory_of, load_checkpoint
from alphapulse.models.versions import Versions
from alphapulse.storage.alerts import alert_of
from alphapulse.storage.control import Control
from alphapulse.storage.home import Home
from alphapulse.storage.journal.spill import Spill
from alphapulse.storage.notes import alert_row

RETRY_S = 0.2  # between two tries of a call whose process is being replaced
PATIENCE_S = 60.0  # how long a replacement may take before the run ends with an error
RECOVER_S = 20.0  # how long a store that fails may hold up the start, with records in the spill
DEPLOYMENTS = {"cnn": "CNN", "rl": "RL", "moe": "Orchestrator"}
log = logs.get_logger("trader")


class TraderActor:
    """Holds engine and desk of a run; a restarted one goes on after the newest durable step."""

    def __init__(self, launch: Launch) -> None:
        logs.configure(Path(launch.home) / "logs", process="trader", session=launch.session)
        self._launch = launch
        self._market = cluster.MarketData()
        self._history = cluster.History()
        home, settings = Path(launch.home), launch.settings
        self._control = Control(home / "control.sqlite")
        self._registry = Registry(home / "registry.sqlite")
        self._stopping = False
        self._ended = False
        self._resumed_ns = -1
        self._at_ns: int | None = None  # instant of the newest point, None before it is known
        self._thresholds_file = home / "runs" / str(launch.run_number) / "thresholds.json"
        self._recorder = Recorder(
            self._history.append,
            timeout_s=settings.storage.append_timeout_s,
            max_pending=settings.storage.retry_records,
            spill=Spill.of(Home(home).run(launch.run_number), settings.storage),
            spill_after_s=settings.storage.spill_after_s,
            note=self._tell,
        )
        self._ledger = Ledger(ledger_path(launch), run=launch.run)
        self._links = OrderLinks(self._ledger, self._history.note)
        self._versions = Versions(launch.checkpoints, self._ledger.promotions())
        self._desk = make_desk(launch.run, settings, ledger=self._ledger, quote=self._quote)
        self._engine = Engine(
            run=launch.run,
            config_hash=settings.hash,
            decide=self._decide,
            recorder=self._recorder,
            act=self._act,
            thresholds=self._stored_thresholds(),
        )

    async def run(self) -> dict[str, Any]:
        """Decide until the source ends or `stop` is called, and return the status."""
        await self.recover()
        after_ns = await _patiently(resume_point, self._launch)
        outputs = await self._go_on_after(after_ns)
        while not self._stopping:
            if not self._control.is_wanted("feed"):
                await asyncio.sleep(RETRY_S)
                continue
            point = await _patiently(
                self._market.advance,
                after_ns=after_ns,
                outputs=outputs,
                accounts=self._desk.account_vectors(),
            )
            if point is None:
                self._ended = True
                break
            self._at_ns = point.event_ns
            outputs = list(await self._engine.step(point))
            after_ns = point.event_ns
            self._links.follow(after_ns)
        await self._recorder.close(timeout_s=PATIENCE_S)
        await self._links.close(after_ns)
        return await self.status()

    async def recover(self) -> int:
        """Hand over what an earlier process left in the spill and return how much still waits."""
        return await self._recorder.recover(timeout_s=RECOVER_S)

    async def _go_on_after(self, after_ns: int) -> list[Prediction]:
        """Become what the run was after the step `after_ns`, and return the outputs made then."""
        self._resumed_ns = self._engine.acted_until = after_ns
        self._engine.durable_until = dict.fromkeys(self._launch.settings.market.symbols, after_ns)
        await self._desk.restore(after_ns)
        self._at_ns = after_ns
        await self._desk.complete()
        if after_ns < 0:
            return []
        last = await _patiently(self._history.at, event_ns=after_ns)
        return [prediction for predictions in last.values() for prediction in predictions]

    async def status(self) -> dict[str, Any]:
        """Return the tally, the account and the newest decisions as plain values."""
        return {
            "run": self._launch.run,
            "ended": self._ended,
            "stopping": self._stopping,
            "resumed_ns": self._resumed_ns,
            **self._recorder.counters(),
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
            "versions": None if self._at_ns is None else self._versions.at(self._at_ns + 1),
            "hot_swaps": 0 if self._at_ns is None else self._versions.num_live(self._at_ns),
            **self._engine.tally.summary(),
            **self._desk.summary(),
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

    async def versions(self) -> Mapping[str, str]:
        """Return the checkpoint that answers the next decision, by model."""
        return self._versions.at(self._now() + 1)

    async def promote(self, model: str, checkpoint: str, reason: str) -> Promotion:
        """Let `checkpoint` answer for `model` from the next decision on; durable before it does.

        Raises InvalidRequest or CheckpointError, and changes nothing, unless it is a registered,
        whole checkpoint of that model that does not answer already.
        """
        self._promotion(model, checkpoint, reason)
        if self._registry.model_of(checkpoint) != model:
            raise InvalidRequest(
                f"promotion: expected a checkpoint of {model}, was {checkpoint} of "
                f"{self._registry.model_of(checkpoint)}; see `alphapulse models list`"
            )
        place = directory_of(Path(self._launch.home), model=model, id=checkpoint)
        load_checkpoint(place, model=model)
        handle = serve.get_deployment_handle(DEPLOYMENTS[model], cluster.SERVE_APP)
        try:
            await handle.prepare.remote(checkpoint)
        except (RayError, RayServeException) as error:
            _require_passing(error)  # a replica that is replaced loads it with its first request
            log.warning("replica did not prepare", model=model, **logs.describe(error))
        promotion = self._promotion(model, checkpoint, reason)  # decisions went on meanwhile
        self._ledger.promote(promotion)
        self._versions.add(promotion)
        self._registry.promote(checkpoint)
        log.info("promoted", model=model, checkpoint=checkpoint, event_ns=promotion.event_ns)
        return promotion

    def _promotion(self, model: str, checkpoint: str, reason: str) -> Promotion:
        return self._versions.promotion(
            self._launch.run, model, checkpoint, after_ns=self._now(), reason=reason
        )

    async def rollback(self, model: str, reason: str) -> Promotion:
        """Let the checkpoint before the present one answer again from the next decision on."""
        return await self.promote(model, self._versions.before(model), reason)

    async def halt(self, reason: str) -> None:
        """Halt trading: what is open is closed, nothing is opened until `resume`."""
        await self._desk.halt(reason, self._now())

    async def resume(self, reason: str) -> None:
        """Clear the halt; raises InvalidRequest if there is none."""
        await self._desk.resume(reason, self._now())

    def _now(self) -> int:
        """Return the instant of the newest point [ns UTC], -1 before the first of a run."""
        if self._at_ns is None:
            raise Unavailable(
                "trader: expected to know where the run is, it is still being restored; ask again"
            )
        return self._at_ns

    async def view(self, what: str, arguments: dict[str, Any]) -> Any:
        """Return a view for people, of the desk or the ledger."""
        if what == "risk":
            return self._desk.risk(self._launch.settings.risk)
        if what == "positions":
            return self._desk.positions()
        if what == "records":
            return self._recorder.counters()
        return getattr(self._ledger, what)(**arguments)

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

    async def _act(self, point: DecisionPoint, decisions: Sequence[Decision], stored: bool) -> None:
        entries = self._control.is_wanted("trader")
        await self._desk.act(point, decisions, stored=stored, entries=entries)

    async def _tell(self, happened: Sequence[Told]) -> None:
        """Keep what an outage of the store did to records."""
        rows = [alert_row(alert_of(*told), self._launch.run) for told in happened]
        await self._history.note("alerts", rows)

    async def _quote(self, symbol: str, at_ns: int) -> Quote | None:
        quote: Quote | None = await _patiently(
            self._market.quote, symbol=symbol, at_ns=at_ns, after_ns=self._now()
        )
        return quote

    async def _decide(self, input: ModelInput, thresholds: Thresholds) -> Decision:
        """Ask the graph, again if a replica dies meanwhile: predictions are pure."""
        trace = trace_id(run=self._launch.run, symbol=input.symbol, event_ns=input.event_ns)
        handle = serve.get_deployment_handle("Orchestrator", cluster.SERVE_APP)
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                decision: Decision = await handle.decide.remote(
                    input, thresholds, trace, self._versions.at(input.event_ns)
                )
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


async def _patiently(call: Any, *given: Any, **arguments: Any) -> Any:
    """Return what `call` answers, asking again while its actor is being restarted."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call(*given, **arguments)
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
