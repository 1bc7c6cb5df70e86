"""The decisions of a recorded window, as the loop of `alphapulse up` hands them to its history."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from alphapulse.assembly import make_desk
from alphapulse.config import Settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import (
    MODELS,
    Decision,
    DecisionPoint,
    DecisionRecord,
    Thresholds,
)
from alphapulse.domain.inputs import DTYPES, INPUT_SPEC, ModelInput
from alphapulse.execution.engine import Act, Decide, Engine
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.recorder import Recorder
from alphapulse.models.decide import decide, local
from alphapulse.models.loading import load_model
from alphapulse.storage.home import Home, Run
from alphapulse.storage.tables import SCHEMA_VERSION

CHECKPOINTS = Path(__file__).parents[2] / "tests" / "golden" / "run"  # of one first training
SETTINGS = Settings()
INSTRUMENTS = SETTINGS.market.instruments
ASSUMED_RUN = "00112233445566ff"  # replaced by that of a store before a record goes there


@dataclass(frozen=True, slots=True)
class Collected:
    """What one pass over a recording stores.

    Attributes:
        records: in the order they were made, all symbols of an instant one after the other; the
            first carries the closed rows of the first windows.
        folder: holds the inputs themselves, an array `<name>.npy` a name of DTYPES, in that order.
    """

    records: Sequence[DecisionRecord]
    folder: Path

    @property
    def num_short(self) -> int:
        """Return how many records come before the first whose inputs show all seconds they can."""
        return next(i for i, record in enumerate(self.records) if is_full(record))

    def of(self, run: str) -> list[DecisionRecord]:
        """Return the records as those of a run."""
        return [replace(record, run=run) for record in self.records]

    def input_array(self, name: str) -> np.ndarray:
        """Return an array of all inputs, their number before its own axes, read from its file."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


def is_full(record: DecisionRecord) -> bool:
    """Return whether the seconds an input shows of bars and book reach as far back as they can."""
    brief = (ref for ref in record.package.streams if ref.forming_C is None)
    return all(ref.count == INPUT_SPEC.num_rows for ref in brief)


def collect(recording: Path, folder: Path) -> Collected:
    """Return the decisions of a recording; those of an earlier call with `folder`, if there are."""
    kept = folder / f"records-{SCHEMA_VERSION}.pickle"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        records, inputs = asyncio.run(_collect(recording, folder))
        for name in DTYPES:
            np.save(folder / f"{name}.npy", np.stack([getattr(i, name) for i in inputs]))
        kept.write_bytes(pickle.dumps(records))
    return Collected(pickle.loads(kept.read_bytes()), folder)


async def _collect(recording: Path, folder: Path) -> tuple[list[DecisionRecord], list[ModelInput]]:
    records: list[DecisionRecord] = []
    inputs: list[ModelInput] = []

    async def append(made: Sequence[DecisionRecord]) -> int:
        records.extend(made)
        return len(made)

    feed = await opened(recording)
    ledger = folder / "ledger.sqlite"
    ledger.unlink(missing_ok=True)
    desk = make_desk(
        ASSUMED_RUN, SETTINGS, ledger=Ledger(ledger, run=ASSUMED_RUN), quote=feed.quote
    )

    async def act(point: DecisionPoint, decisions: Sequence[Decision], stored: bool) -> None:
        await desk.act(point, decisions, stored=stored, entries=True)

    engine = engine_with(recorder_into(append), decide=decider(), act=act)
    async for point in points(feed):
        inputs.extend(i for i in point.inputs.values() if isinstance(i, ModelInput))
        feed.put_outputs(await engine.step(point))
        feed.put_accounts(desk.account_vectors())
    return records, inputs


async def opened(recording: Path) -> MarketFeed:
    """Return a feed that has the bars before the first event of a recording."""
    feed = MarketFeed(Tape(recording, INSTRUMENTS), INSTRUMENTS, SETTINGS.feed)
    await feed.open()
    return feed


async def points(feed: MarketFeed) -> AsyncIterator[DecisionPoint]:
    """Yield what a feed has left."""
    while (point := await feed.advance()) is not None:
        yield point


def decider() -> Decide:
    """Return a way to ask our three networks in this process."""
    torch.set_num_threads(1)  # as a replica
    cnn, rl, moe = (local(load_model(CHECKPOINTS / model)) for model in MODELS)

    async def ask(input: ModelInput, thresholds: Thresholds) -> Decision:
        return await decide(input, cnn=cnn, rl=rl, moe=moe, thresholds=thresholds)

    return ask


def engine_with(recorder: Recorder, *, decide: Decide, act: Act, run: str = ASSUMED_RUN) -> Engine:
    """Return the engine of a run."""
    return Engine(
        run=run,
        config_hash=SETTINGS.hash,
        decide=decide,
        recorder=recorder,
        act=act,
        thresholds=SETTINGS.decision.thresholds,
    )


def recorder_into(append: Callable[[Sequence[DecisionRecord]], Awaitable[int]]) -> Recorder:
    """Return a recorder with the settings of a run."""
    storage = SETTINGS.storage
    return Recorder(append, timeout_s=storage.append_timeout_s, max_pending=storage.retry_records)


def new_run(home: Home) -> Run:
    """Return a new run of a home."""
    return home.open_run(
        source="recording",
        recording="benchmark",
        content_hash="0" * 64,
        settings=SETTINGS,
        checkpoints=dict.fromkeys(MODELS, "golden"),
        fresh=True,
    )
