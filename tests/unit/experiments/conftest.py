"""One answered run, made once: real seconds decided by the kept checkpoints, then settled."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from alphapulse.config import load_settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape, content_hash
from alphapulse.domain.inference import MODELS, DecisionRecord, StoredRow, trace_id
from alphapulse.domain.inputs import ModelInput
from alphapulse.domain.learning import Cursor
from alphapulse.domain.market import TIMEFRAMES
from alphapulse.learning.outcomes import Settlement
from alphapulse.models.checkpoints import Entry, Registry, directory_of, load_checkpoint
from alphapulse.models.decide import decide, local
from alphapulse.models.loading import load_model
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home

KEPT = Path(__file__).parents[2] / "golden" / "run"
FIRST_TICK_NS = 1_723_161_255_208_000_000
EVERY = 3  # of the instants, one is decided
SMALL = "[learning]\nmin_examples = 16\nmax_examples = 48\n"


@dataclass(frozen=True)
class AnsweredRun:
    """A home with one run.

    Attributes:
        champions: checkpoint id by model.
        last_ns: newest instant decided [ns UTC].
    """

    home: Path
    champions: dict[str, str]
    last_ns: int


@pytest.fixture(scope="session")
def kept_run(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> AnsweredRun:
    """Return a home whose run 1 is decided and settled; not to be changed."""
    path = tmp_path_factory.mktemp("answered")
    (path / "config.toml").write_text(SMALL)
    registry, champions = Registry(path / "registry.sqlite"), {}
    settings = load_settings(path)
    data_hash = content_hash(recordings, settings.market.instruments)
    for model in MODELS:
        champions[model] = load_checkpoint(KEPT / model).id
        shutil.copytree(KEPT / model, directory_of(path, model=model, id=champions[model]))
        entry = Entry(
            id=champions[model],
            model=model,
            role="champion",
            data_hash=data_hash,
            config_hash=settings.training_hash,
            created_event_ns=FIRST_TICK_NS,
            metrics={},
        )
        registry.register(entry)
    return AnsweredRun(path, champions, asyncio.run(_made(path, recordings)))


@pytest.fixture
def answered_run(kept_run: AnsweredRun, tmp_path: Path) -> AnsweredRun:
    """Return a copy of the answered run, to be changed at will."""
    home = tmp_path / "home"
    shutil.copytree(kept_run.home, home)
    return AnsweredRun(home, kept_run.champions, kept_run.last_ns)


async def _made(path: Path, recordings: Path) -> int:
    home, settings = Home(path), load_settings(path)
    run = home.open_run(
        source="recording",
        recording=recordings.name,
        content_hash="as recorded",
        settings=settings,
        checkpoints={},
        fresh=False,
    )
    history = InferenceHistory(home, run=run, settings=settings.storage)
    instruments = settings.market.instruments
    tape = Tape(recordings, instruments)
    last_ns = await _decided(MarketFeed(tape, instruments, settings.feed), history, run.id)
    settlement = Settlement(cost_bps=settings.training.cost_bps)
    for instrument in instruments:
        for timeframe in TIMEFRAMES:
            settlement.seed(await tape.history(instrument, timeframe, None))
    cursor = Cursor()
    while (found := await history.follow(cursor, 500)).events:
        await history.settle(settlement.take(found.events))
        cursor = found.cursor
    history.close()
    return last_ns


async def _decided(feed: MarketFeed, history: InferenceHistory, run: str) -> int:
    cnn, rl, moe = (local(load_model(KEPT / model)) for model in MODELS)
    thresholds = load_settings().decision.thresholds
    await feed.open()
    rows: tuple[StoredRow, ...] = ()
    number, last_ns = 0, 0
    while (point := await feed.advance()) is not None:
        rows += point.rows
        number += 1
        if number % EVERY:
            continue
        records = []
        for symbol, input in point.inputs.items():
            assert isinstance(input, ModelInput)
            decision = await decide(input, cnn=cnn, rl=rl, moe=moe, thresholds=thresholds)
            records.append(
                DecisionRecord(
                    run=run,
                    trace_id=trace_id(run=run, symbol=symbol, event_ns=point.event_ns),
                    config_hash="config",
                    last_trade_id=0,
                    last_book_id=0,
                    received_ns=point.event_ns,
                    decided_at_ns=point.event_ns,
                    package=point.packages[symbol],
                    rows=rows,
                    decision=decision,
                )
            )
            rows = ()
        await history.append(records)
        last_ns = point.event_ns
    return last_ns
