"""An end waits for what can be settled, and says where something is left for the next start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.feedback import FeedbackActor
from alphapulse.storage.control import Control
from alphapulse.storage.home import Home
from tests.unit.actors.launches import a_launch


def drained(home: Path, until_ns: int, *, is_over: bool) -> bool:
    async def drain() -> bool:
        return await FeedbackActor(a_launch(home)).drain(until_ns, is_over)

    return asyncio.run(drain())


@pytest.mark.parametrize(("until_ns", "is_over"), [(7, False), (7, True), (-1, True)])
def test_an_end_with_settlement_stopped_is_none(
    tmp_path: Path, until_ns: int, is_over: bool
) -> None:
    Control(Home(tmp_path).control_path).wish("settlement", is_wanted=False, asked_by="a test")

    assert not drained(tmp_path, until_ns, is_over=is_over)


def test_where_nothing_is_left_to_settle_nobody_waits(tmp_path: Path) -> None:
    assert drained(tmp_path, -1, is_over=False)
