"""Does a recording decide the same without Ray? Run the one engine over it, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from alphapulse import logs
from alphapulse.assembly import make_desk
from alphapulse.config import load_settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape, content_hash, find_recording
from alphapulse.domain.inference import (
    MODELS,
    Decision,
    DecisionPoint,
    DecisionRecord,
    Thresholds,
    inference_id,
)
from alphapulse.domain.inputs import ModelInput
from alphapulse.execution.engine import Engine
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.recorder import Recorder
from alphapulse.models.checkpoints import Registry, directory_of
from alphapulse.models.decide import decide, local
from alphapulse.models.loading import load_model
from alphapulse.storage.home import Home, run_id
from experiments import first_training

SHOWN = (
    *("events", "bars", "decisions", "inferences", "incomplete"),
    *("orders", "fills", "pnl", "halts", "is_halted"),
)


class InMemory:
    """Takes records where `up` has its store, and writes their rows to a file if there is one."""

    def __init__(self, out: IO[str] | None) -> None:
        self._out = out

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Write one line per inference and return how many records there were."""
        if self._out is not None:
            for record in records:
                self._out.writelines(json.dumps(row) + "\n" for row in rows(record))
        return len(records)


def rows(record: DecisionRecord) -> list[dict[str, Any]]:
    """Return what of a record does not depend on the wall clock, one row per inference."""
    decision = record.decision
    return [
        {
            "id": inference_id(run=record.run, symbol=p.symbol, event_ns=p.event_ns, model=p.model),
            "trace_id": record.trace_id,
            "symbol": p.symbol,
            "model": p.model,
            "version": p.version,
            "event_ns": p.event_ns,
            "input_hash": record.package.input_hash,
            "action": p.action.value,
            "p_buy": p.p_buy,
            "p_sell": p.p_sell,
            "p_hold": p.p_hold,
            "confidence": p.confidence,
            "utility_r": p.utility_r,
            "hidden": p.hidden_H.tobytes().hex(),
            "decision_action": decision.action.value,
            "decision_confidence": decision.confidence,
            "decision_reason": decision.reason,
        }
        for p in decision.predictions
    ]


async def replay(
    recording: Path,
    *,
    home: Path,
    checkpoints: dict[str, str],
    run: str,
    ledger: Ledger,
    out: IO[str] | None,
) -> dict[str, Any]:
    """Return the tally, the account and the feed's counters of one pass over `recording`."""
    settings = load_settings(home)
    torch.set_num_threads(1)  # as a replica: another number of threads may sum in another order
    cnn, rl, moe = (
        local(load_model(directory_of(home, model=model, id=checkpoints[model])))
        for model in MODELS
    )

    async def ask(input: ModelInput, thresholds: Thresholds) -> Decision:
        return await decide(input, cnn=cnn, rl=rl, moe=moe, thresholds=thresholds)

    feed = MarketFeed(
        Tape(recording, settings.market.instruments), settings.market.instruments, settings.feed
    )
    desk = make_desk(run, settings, ledger=ledger, quote=feed.quote)

    async def act(point: DecisionPoint, decisions: Sequence[Decision], stored: bool) -> None:
        await desk.act(point, decisions, stored=stored, entries=True)

    recorder = Recorder(
        InMemory(out).append,
        timeout_s=settings.storage.append_timeout_s,
        max_pending=settings.storage.retry_records,
    )
    engine = Engine(
        run=run,
        config_hash=settings.hash,
        decide=ask,
        recorder=recorder,
        act=act,
        thresholds=settings.decision.thresholds,
    )
    await feed.open()
    while (point := await feed.advance()) is not None:
        feed.put_outputs(await engine.step(point))
        feed.put_accounts(desk.account_vectors())
    return {**feed.counters(), **engine.tally.summary(), **desk.summary()}


def run(home: Path, *, recording: Path | None, out: Path | None) -> dict[str, Any]:
    """Return the summary of a backtest; ids are those of the first run of a fresh home."""
    began_s = time.time()
    settings = load_settings(home)
    place = Home(home)
    logs.configure(place.path / "logs", process="backtest", session=f"backtest-{int(began_s)}")
    instruments = settings.market.instruments
    found = find_recording(recording, instruments, os.environ, roots=[place.path / "market"])
    content = content_hash(found, instruments)
    registry = Registry(place.path / "registry.sqlite")
    checkpoints = registry.find_first(content, settings.training_hash)
    if checkpoints is None:
        first_training.train_first(home, found)
        checkpoints = registry.find_first(content, settings.training_hash) or {}
    identity = run_id("recording", content, settings.hash, checkpoints=checkpoints, number=1)
    place.backtests_path.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{found.name}-", dir=place.backtests_path))
    ledger = Ledger(folder / "ledger.sqlite", run=identity)
    with _opened(out) as file:
        done = asyncio.run(
            replay(
                found,
                home=home,
                checkpoints=checkpoints,
                run=identity,
                ledger=ledger,
                out=file,
            )
        )
    return {
        "source": "recording",
        "recording": found.name,
        "run": identity,
        **{key: done[key] for key in SHOWN},
        "ledger": str(ledger.path),
        "decision_ms": done["decision_ms"],
        "wall_s": round(time.time() - began_s, 2),
    }


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[IO[str] | None]:
    if path is None:
        yield None
        return
    with path.open("w", encoding="utf-8") as file:
        yield file
