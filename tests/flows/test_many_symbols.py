"""Symbols beyond the first two are decided about, stored and traded like them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alphapulse.assembly import make_desk
from alphapulse.config import Market, Risk, Settings, Trading
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import (
    MODELS,
    Action,
    Decision,
    DecisionPoint,
    DecisionRecord,
    Thresholds,
)
from alphapulse.domain.inputs import ModelInput
from alphapulse.execution.engine import Engine
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.recorder import Recorder
from alphapulse.models.decide import decide, local
from alphapulse.models.loading import load_model
from experiments.benchmarks.renamed import side_by_side
from tests.golden.test_run import KEPT

NUM_INSTANTS = 8
RUN = "00112233445566ff"


def settings_of(market: Market) -> Settings:
    """Return settings under which there is cash for a position in each of four symbols."""
    steps = (0.0001, 0.00001, 0.0001, 0.00001)
    trading, risk = Trading(quantity_steps=steps), Risk(max_position_pct=10.0)
    return Settings(market=market, trading=trading, risk=risk)


class Kept:
    """What was decided, as a store is given it."""

    def __init__(self) -> None:
        self.records: list[DecisionRecord] = []

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        self.records += records
        return len(records)


async def traded(folder: Path, market: Market, ledger: Ledger) -> tuple[Kept, dict[str, Any]]:
    settings, kept = settings_of(market), Kept()
    cnn, rl, moe = (local(load_model(KEPT / model)) for model in MODELS)

    async def ask(input: ModelInput, thresholds: Thresholds) -> Decision:
        said = await decide(input, cnn=cnn, rl=rl, moe=moe, thresholds=thresholds)
        return replace(said, action=Action.BUY, reason="acts")  # they seldom do in a few seconds

    feed = MarketFeed(Tape(folder, market.instruments), market.instruments, settings.feed)
    desk = make_desk(RUN, settings, ledger=ledger, quote=feed.quote)

    async def act(point: DecisionPoint, decisions: Sequence[Decision], stored: bool) -> None:
        await desk.act(point, decisions, stored=stored, entries=True)

    storage = settings.storage
    engine = Engine(
        run=RUN,
        config_hash=settings.hash,
        decide=ask,
        recorder=Recorder(
            kept.append, timeout_s=storage.append_timeout_s, max_pending=storage.retry_records
        ),
        act=act,
        thresholds=settings.decision.thresholds,
    )
    await feed.open()
    for _ in range(NUM_INSTANTS):
        point = await feed.advance()
        assert point is not None
        feed.put_outputs(await engine.step(point))
        feed.put_accounts(desk.account_vectors())
    return kept, engine.tally.summary() | desk.summary()


@pytest.mark.slow
def test_every_symbol_is_decided_about_and_traded_against_its_own_book(
    recordings: Path, tmp_path: Path
) -> None:
    (tmp_path / "market").mkdir()
    watched = side_by_side(recordings.parent, tmp_path / "market", count=4)
    market = Market(
        symbols=tuple(i.symbol for i in watched),
        tick_sizes=tuple(i.tick_size for i in watched),
        bucket_sizes=tuple(i.bucket_size for i in watched),
    )
    ledger = Ledger(tmp_path / "ledger.sqlite", run=RUN)

    kept, summary = asyncio.run(traded(tmp_path / "market", market, ledger))

    assert Counter(r.decision.symbol for r in kept.records) == dict.fromkeys(
        market.symbols, NUM_INSTANTS
    )
    references = {r.package.symbol: r.package.reference for r in kept.records}
    assert references == {s: "ETH/USDT" if s == "BTC/USDT" else "BTC/USDT" for s in market.symbols}
    fills = ledger.fills(limit=1_000)
    assert summary["incomplete"] == 0
    assert {fill["symbol"] for fill in fills} == set(market.symbols)
    assert {fill["source"] for fill in fills} == {"book"}
