"""Check that a record is acknowledged, flagged and kept, or reported lost, and never forgotten."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import MODELS, DecisionRecord, inference_id
from alphapulse.execution.outages import Told
from alphapulse.execution.recorder import RETRY_S, Recorder
from alphapulse.storage.journal.spill import MIB, Spill
from tests.unit.execution.points import BTC, ETH, RUN, Store, a_record, instant

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


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spill]:
    spill = Spill(tmp_path / "spill.sqlite", run=RUN, max_bytes=MIB)
    yield spill
    spill.close()


class Notes:
    """Takes alerts, unless told to fail."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.failing = False

    async def note(self, told: Sequence[Told]) -> None:
        """Keep what happened; there must be something."""
        assert told
        if self.failing:
            raise StoreError("alerts: expected to write, was no space left; free the disk")
        self.told += told


def a_spilling(store: Store, spill: Spill, *, notes: Notes | None = None) -> Recorder:
    """Return a recorder that spills at once and holds four records in memory."""
    note = (notes or Notes()).note
    return Recorder(
        store.append,
        timeout_s=SOON_S,
        max_pending=4,
        spill=spill,
        spill_after_s=0.0,
        note=note,
    )


async def recorded(recorder: Recorder, seconds: Sequence[int]) -> None:
    for second in seconds:
        await recorder.record([a_record(second)])


async def spilled(recorder: Recorder, count: int) -> None:
    async with asyncio.timeout(SOON_S):
        while recorder.counters()["spilled"] != count:
            await asyncio.sleep(0.01)


def counts(**given: int) -> dict[str, int]:
    return dict.fromkeys(("flagged", "pending", "spilled", "recovered", "lost"), 0) | given


def test_what_waits_is_spilled_and_stored_in_order_once_the_store_heals(
    spill: Spill, logged: Logged
) -> None:
    store = Store(failing=True)
    recorder = a_spilling(store, spill)

    async def scenario() -> dict[str, int]:
        for second in range(9):
            await recorder.record([a_record(second)])
            await spilled(recorder, second + 1)
        while_failing = recorder.counters()
        store.failing = False
        await recorder.close(timeout_s=SOON_S)
        return while_failing

    while_failing = asyncio.run(scenario())

    assert while_failing == counts(flagged=9, pending=9, spilled=9)
    assert recorder.counters() == counts(flagged=9, recovered=9)
    assert store.seconds == list(range(9))
    assert not spill.path.exists()


def test_long_outage_is_spilled_and_stored_in_order(spill: Spill, logged: Logged) -> None:
    store = Store(failing=True)
    recorder = Recorder(store.append, timeout_s=SOON_S, max_pending=300, spill=spill)

    async def scenario() -> None:
        await recorded(recorder, range(160))  # half of what memory may hold, and some more
        await spilled(recorder, 160)
        store.failing = False
        await recorder.close(timeout_s=SOON_S)

    asyncio.run(scenario())

    assert store.seconds == list(range(160))


def test_next_process_recovers_what_the_last_one_left_before_it_goes_on(
    spill: Spill, logged: Logged
) -> None:
    store = Store(failing=True)
    ended, recorder = a_spilling(store, spill), a_spilling(store, spill)

    async def scenario() -> int:
        await recorded(ended, [1, 2])
        await ended.close(timeout_s=0.0)
        store.failing = False
        left = await recorder.recover(timeout_s=SOON_S)
        await recorder.record([a_record(3)])
        return left

    left = asyncio.run(scenario())

    assert left == 0
    assert store.seconds == [1, 2, 3]
    assert recorder.counters() == counts(flagged=2, recovered=2)
    assert logged("records found in the spill")[0]["records"] == 2


def test_store_that_fails_at_the_start_does_not_keep_the_run_from_going_on(
    spill: Spill, logged: Logged
) -> None:
    store = Store(failing=True)
    ended, recorder = a_spilling(store, spill), a_spilling(store, spill)

    async def scenario() -> int:
        await recorded(ended, [1, 2])
        await ended.close(timeout_s=0.0)
        left = await recorder.recover(timeout_s=0.1)
        await recorded(recorder, [2, 3])  # 2 was not durable, so it is made again
        await spilled(recorder, 3)
        assert await recorder.recover(timeout_s=0.1) == 3
        store.failing = False
        await recorder.close(timeout_s=SOON_S)
        return left

    left = asyncio.run(scenario())

    assert left == 2
    assert store.seconds == [1, 2, 3]
    assert recorder.counters() == counts(flagged=4, recovered=4)


def test_record_damaged_in_the_spill_is_lost_by_its_ids_and_the_others_are_stored(
    spill: Spill, logged: Logged
) -> None:
    store, notes = Store(failing=True), Notes()
    ended = a_spilling(store, spill)

    async def leave() -> None:
        await recorded(ended, [1, 2, 3])
        await ended.close(timeout_s=0.0)

    asyncio.run(leave())
    spill.close()
    spill = Spill(spill.path, run=RUN, max_bytes=MIB)
    recorder = a_spilling(store, spill, notes=notes)
    with closing(sqlite3.connect(spill.path)) as db, db:
        db.execute("UPDATE decisions SET peers = x'ff' WHERE event_ns = ?", (instant(2),))
    store.failing = False
    asyncio.run(recorder.recover(timeout_s=SOON_S))

    ids = [inference_id(run=RUN, symbol=ETH, event_ns=instant(2), model=m) for m in MODELS]
    assert store.seconds == [1, 3]
    assert recorder.counters() == counts(flagged=3, recovered=2, lost=1)
    assert [line["ids"] for line in logged("record lost")] == [ids]
    assert ("RecordLost", f"inferences {', '.join(ids)}", instant(2)) in notes.told


def test_spill_that_cannot_be_read_is_told_and_the_run_goes_on(
    spill: Spill, logged: Logged
) -> None:
    spill.path.write_bytes(b"not a database, and long enough to be told from an empty file" * 99)
    store = Store()
    recorder = a_spilling(store, spill)

    async def scenario() -> tuple[int, bool]:
        return await recorder.recover(timeout_s=SOON_S), await recorder.record([a_record(1)])

    assert asyncio.run(scenario()) == (0, True)
    line = logged("spill not read")[0]
    assert line["code"] == "SpillFailing"
    assert str(spill.path) in line["reason"]


def test_spill_that_fails_costs_only_what_memory_cannot_hold(spill: Spill, logged: Logged) -> None:
    spill.path.mkdir()
    store, notes = Store(failing=True), Notes()
    recorder = a_spilling(store, spill, notes=notes)

    async def scenario() -> None:
        for second in range(9):
            await recorder.record([a_record(second)])
            await asyncio.sleep(0.02)
        store.failing = False
        await recorder.close(timeout_s=SOON_S)

    asyncio.run(scenario())

    lost = [line["trace_id"] for line in logged("record lost")]
    assert len(lost) == recorder.lost > 0
    assert recorder.counters() == counts(flagged=9, recovered=9 - len(lost), lost=len(lost))
    assert len(logged("not spilled")) == 1
    assert {code for code, _, _ in notes.told} == {"RecordLost", "StoreFailed"}


def test_outage_is_kept_as_an_alert_when_it_is_over_and_again_until_it_is_taken(
    spill: Spill, logged: Logged
) -> None:
    store, notes = Store(failing=True), Notes()
    recorder = a_spilling(store, spill, notes=notes)

    async def outage(second: int) -> None:
        store.failing = True
        await recorder.record([a_record(second)])
        store.failing = False
        await recorder.close(timeout_s=SOON_S)

    notes.failing = True
    asyncio.run(outage(1))
    notes.failing = False
    asyncio.run(outage(5))

    ((code, message, event_ns),) = notes.told
    assert (code, event_ns) == ("StoreFailed", instant(5))
    assert message.startswith(f"decisions from {instant(1)} to {instant(5)}; flagged 2, pending 0")


def test_append_that_never_answers_is_made_again(logged: Logged) -> None:
    store = Store()
    num_calls = 0

    async def append(records: Sequence[DecisionRecord]) -> int:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 1:
            await asyncio.Event().wait()  # as of a process that was stopped
        return await store.append(records)

    recorder = Recorder(append, timeout_s=0.01, max_pending=9, give_up_s=0.05)

    async def scenario() -> int:
        await recorded(recorder, [1, 2])
        return await recorder.close(timeout_s=SOON_S)

    assert asyncio.run(scenario()) == 0
    assert store.seconds == [1, 2]


def test_defect_behind_the_store_stops_the_run() -> None:
    async def defect(records: Sequence[DecisionRecord]) -> int:
        raise TypeError("a defect")

    recorder = Recorder(defect, timeout_s=SOON_S, max_pending=9)

    with pytest.raises(TypeError, match="a defect"):
        asyncio.run(recorder.record([a_record(1)]))
