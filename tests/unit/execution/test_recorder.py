"""Check that a record is acknowledged, flagged and kept, or reported lost, and never forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from alphapulse.domain.inference import DecisionRecord
from alphapulse.execution.recorder import RETRY_S, Recorder
from tests.unit.execution.points import BTC, ETH, Store, a_record

Logged = Callable[[str], list[dict[str, Any]]]
SOON_S = 10.0  # far more than a test waits


def a_recorder(store: Store, *, timeout_s: float = SOON_S, max_pending: int = 100) -> Recorder:
    return Recorder(store.append, timeout_s=timeout_s, max_pending=max_pending)


def trace_ids(*records: DecisionRecord) -> list[str]:
    return [record.trace_id for record in records]


def test_record_is_durable_at_once_when_the_store_answers() -> None:
    store = Store()
    recorder = a_recorder(store)

    durable = asyncio.run(recorder.record([a_record(1, ETH), a_record(1, BTC)]))

    assert durable
    assert store.seconds == [1, 1]
    assert (recorder.flagged, recorder.num_pending, recorder.lost) == (0, 0, 0)


def test_record_is_flagged_and_kept_when_the_store_fails(logged: Logged) -> None:
    store = Store(failing=True)
    recorder = a_recorder(store)
    records = [a_record(1, ETH), a_record(1, BTC)]

    durable = asyncio.run(recorder.record(records))

    assert not durable
    assert store.appends == []
    assert (recorder.flagged, recorder.num_pending, recorder.lost) == (2, 2, 0)
    line = logged("inference not stored")[0]
    assert (line["code"], line["trace_id"]) == ("StoreError", records[0].trace_id)
    assert "no space left" in line["reason"]
    assert line["remedy"]


def test_silent_store_counts_as_a_failing_one(logged: Logged) -> None:
    store = Store(silent=True)
    recorder = a_recorder(store, timeout_s=0.01)

    durable = asyncio.run(recorder.record([a_record(1)]))

    assert not durable
    assert (recorder.flagged, recorder.num_pending) == (1, 1)
    assert logged("inference not stored")[0]["code"] == "TimeoutError"


def test_kept_records_are_stored_in_order_once_the_store_heals(logged: Logged) -> None:
    store = Store(failing=True)
    recorder = a_recorder(store)

    async def scenario() -> int:
        for second in (1, 2):
            await recorder.record([a_record(second)])
        store.failing = False
        await recorder.record([a_record(3)])
        return await recorder.close(timeout_s=SOON_S)

    left = asyncio.run(scenario())

    assert left == 0
    assert store.seconds == [1, 2, 3]
    assert (recorder.flagged, recorder.num_pending, recorder.lost) == (3, 0, 0)
    assert logged("store answers again")[0]["flagged"] == 3


def test_record_made_after_the_store_healed_is_durable_at_once(logged: Logged) -> None:
    store = Store(failing=True)
    recorder = a_recorder(store)

    async def scenario() -> bool:
        await recorder.record([a_record(1)])
        store.failing = False
        await asyncio.sleep(2 * RETRY_S)
        return await recorder.record([a_record(2)])

    durable = asyncio.run(scenario())

    assert durable
    assert store.seconds == [1, 2]
    assert recorder.flagged == 1


def test_long_outage_is_stored_whole_in_batches(logged: Logged) -> None:
    store = Store(failing=True)
    recorder = a_recorder(store, max_pending=500)

    async def scenario() -> int:
        for second in range(120):
            await recorder.record([a_record(second)])
        store.failing = False
        return await recorder.close(timeout_s=SOON_S)

    left = asyncio.run(scenario())

    assert left == 0
    assert store.seconds == list(range(120))


def test_beyond_its_bound_the_oldest_record_is_lost_counted_and_logged(logged: Logged) -> None:
    store = Store(failing=True)
    recorder = a_recorder(store, max_pending=2)
    records = [a_record(second) for second in range(5)]

    async def scenario() -> int:
        for record in records:
            await recorder.record([record])
        store.failing = False
        return await recorder.close(timeout_s=SOON_S)

    left = asyncio.run(scenario())

    assert left == 0
    assert store.seconds == [3, 4]
    assert (recorder.flagged, recorder.lost) == (5, 3)
    lines = logged("record lost")
    assert [line["trace_id"] for line in lines] == trace_ids(*records[:3])
    assert {line["code"] for line in lines} == {"RecordLost"}


def test_record_kept_while_a_full_batch_is_on_its_way_is_not_forgotten(logged: Logged) -> None:
    store = Store(failing=True)
    recorder = a_recorder(store, max_pending=2)

    async def scenario() -> int:
        for second in (1, 2):
            await recorder.record([a_record(second)])
        store.failing, store.silent = False, True
        await asyncio.sleep(2 * RETRY_S)  # the batch of 1 and 2 is on its way now
        await recorder.record([a_record(3)])
        store.silent = False
        return await recorder.close(timeout_s=SOON_S)

    left = asyncio.run(scenario())

    assert left == 0
    assert store.seconds == [1, 2, 3]


def test_close_reports_what_is_not_durable(logged: Logged) -> None:
    store = Store(failing=True)
    recorder = a_recorder(store)
    records = [a_record(1, ETH), a_record(1, BTC)]

    async def scenario() -> int:
        await recorder.record(records)
        return await recorder.close(timeout_s=0.01)

    left = asyncio.run(scenario())

    assert left == 2
    lines = logged("record lost")
    assert [line["trace_id"] for line in lines] == trace_ids(*records)
    assert all("alphapulse up" in line["remedy"] for line in lines)


def test_close_of_a_recorder_that_never_failed_waits_for_nothing() -> None:
    store = Store()
    recorder = a_recorder(store)

    async def scenario() -> int:
        await recorder.record([a_record(1)])
        return await recorder.close(timeout_s=0.0)

    assert asyncio.run(scenario()) == 0
