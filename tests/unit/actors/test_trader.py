"""Before it knows where its run is, the trader promotes, halts and resumes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.resume import ledger_path
from actors.trader import TraderActor
from alphapulse.domain.errors import Unavailable
from alphapulse.execution.ledger_reader import LedgerReader
from tests.unit.actors.launches import a_launch


@pytest.mark.parametrize(
    "ask",
    [
        lambda trader: trader.versions(),
        lambda trader: trader.promote("cnn", "c1", "a test"),
        lambda trader: trader.halt("a test"),
        lambda trader: trader.resume("a test"),
    ],
    ids=("versions", "promote", "halt", "resume"),
)
def test_trader_that_is_being_restored_asks_to_be_asked_again(
    tmp_path: Path, ask: Callable[[TraderActor], Awaitable[Any]]
) -> None:
    launch = a_launch(tmp_path)
    trader = TraderActor(launch)

    async def asked() -> None:
        await ask(trader)

    with pytest.raises(Unavailable, match="still being restored"):
        asyncio.run(asked())

    ledger = LedgerReader(ledger_path(launch))
    assert (ledger.halts(), ledger.promotions()) == ([], [])
    assert asyncio.run(trader.status())["versions"] is None
