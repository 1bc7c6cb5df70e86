"""The golden run: fixed checkpoints over a fixed window decide what they decided when it was kept.

Kept in `run/`: the checkpoints of one first training on binance-spot-2024-08, and what they said
at the first 90 instants (23:54:17 to 23:55:46, across the close of a minute). A change that moves
a number here changes every decision: keep it only on purpose, with

    python -m tests.golden.test_run RECORDING

and say in the commit what moved and why.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from pathlib import Path

import pytest

from alphapulse.config import Settings
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.inference import MODELS
from alphapulse.domain.inputs import ModelInput
from alphapulse.models.decide import decide, local
from alphapulse.models.loading import load_model

KEPT = Path(__file__).parent / "run"
NUM_INSTANTS = 90
TOLERANCE = 1e-4  # another CPU sums in another order; a wrong input moves far more
TEXT = ("symbol", "event_ns", "model", "action", "decision")
NUMBERS = ("p_buy", "p_sell", "p_hold", "confidence", "utility_r", "pivot_price_1m", "p_high_1h")
Row = dict[str, str | int | float]


async def run_of(recording: Path) -> list[Row]:
    settings = Settings()
    cnn, rl, moe = (local(load_model(KEPT / model)) for model in MODELS)
    instruments = settings.market.instruments
    feed = MarketFeed(Tape(recording, instruments), instruments, settings.feed)
    await feed.open()
    rows: list[Row] = []
    for _ in range(NUM_INSTANTS):
        point = await feed.advance()
        assert point is not None
        for symbol, input in point.inputs.items():
            assert isinstance(input, ModelInput)
            decision = await decide(
                input, cnn=cnn, rl=rl, moe=moe, thresholds=settings.decision.thresholds
            )
            forecasts = {f.timeframe.value: f for f in decision.of("cnn").forecasts}
            rows.extend(
                {
                    "symbol": symbol,
                    "event_ns": p.event_ns,
                    "model": p.model,
                    "action": p.action.value,
                    "decision": decision.action.value,
                    "p_buy": p.p_buy,
                    "p_sell": p.p_sell,
                    "p_hold": p.p_hold,
                    "confidence": p.confidence,
                    "utility_r": p.utility_r,
                    "pivot_price_1m": forecasts["1m"].price / input.price,
                    "p_high_1h": forecasts["1h"].p_high,
                }
                for p in decision.predictions
            )
            feed.put_outputs(decision.predictions)
    return rows


def test_fixed_checkpoints_over_a_fixed_window_decide_what_they_decided(recordings: Path) -> None:
    with (KEPT / "rows.csv").open() as file:
        kept = list(csv.DictReader(file))

    rows = asyncio.run(run_of(recordings))

    assert len(rows) == len(kept) == 2 * NUM_INSTANTS * len(MODELS)
    for row, was in zip(rows, kept, strict=True):
        assert {name: str(row[name]) for name in TEXT} == {name: was[name] for name in TEXT}
        for name in NUMBERS:
            assert row[name] == pytest.approx(float(was[name]), abs=TOLERANCE), (name, row)


def keep(recording: Path) -> None:
    rows = asyncio.run(run_of(recording))
    with (KEPT / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*TEXT, *NUMBERS])
        writer.writeheader()
        for row in rows:
            rounded = {n: f"{row[n]:.6f}" for n in NUMBERS}
            writer.writerow({**{n: row[n] for n in TEXT}, **rounded})


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
