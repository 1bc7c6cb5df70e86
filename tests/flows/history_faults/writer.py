"""A writer of a history that knows what it was promised: it runs until something ends it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from alphapulse.config import Storage
from alphapulse.domain.errors import StoreError
from alphapulse.storage import lake
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run
from alphapulse.storage.lake import Lake
from alphapulse.storage.tables import COLUMNS
from tests.flows.history_faults.board import Board, Count, Kind, Mark, Phase
from tests.flows.history_faults.content import TABLES, answer, changed, decision
from tests.unit.storage.records import note

MAX_AT_ONCE = 3  # rows of one call
REPEATED = 0.2  # share of the appends that bring a stored decision again, changed
UPKEEP_PAUSE_S = 0.3  # at most, between two tables
PATIENCE_S = 0.005  # before something refused is tried again


@dataclass(frozen=True)
class Life:
    """What one writer does.

    Attributes:
        seed: of its choices.
        flushes: whether batches go to the lake, one after the other all the time.
        pause_s: between two appends, at most.
        removes_at_once: whether the upkeep removes files just replaced, not those of an hour ago.
        on_sound_disk: whether nothing fails.
    """

    seed: int
    flushes: bool
    pause_s: float
    removes_at_once: bool
    on_sound_disk: bool


def lead(run: Run, *, life: Life, board: Board) -> None:
    """Write to `run` for as long as the process lives."""
    asyncio.run(_Writer(run, life, board).write())


def keep_up(lake_uri: str, table: str, *, keep_replaced_h: int) -> None:
    """Join the files of a table and remove those nobody reads: the one call of the upkeep."""
    lake.KEEP_REPLACED_H = keep_replaced_h
    Lake(lake_uri).compact(table)


class _Writer:
    def __init__(self, run: Run, life: Life, board: Board) -> None:
        self._run, self._life, self._board = run, life, board
        self._random = random.Random(life.seed)
        self._home = Home(run.path.parents[1])
        self._refused: list[tuple[Kind, list[int]]] = []
        self._turn = asyncio.Lock()

    async def write(self) -> None:
        with self._board.during(Phase.OPENING):
            history = await self._opened()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._append(history))
            if self._life.flushes:
                tasks.create_task(self._flush(history))
                tasks.create_task(self._keep_up())

    async def _opened(self) -> InferenceHistory:
        while True:
            try:
                return InferenceHistory(self._home, run=self._run, settings=Storage())
            except StoreError:
                self._board.counts[Count.REFUSED_OPENINGS] += 1
                await asyncio.sleep(PATIENCE_S)

    async def _append(self, history: InferenceHistory) -> None:
        offered = self._board.numbers(Kind.DECISION, Mark.OFFERED)
        first = max(offered, default=-1) + 1
        await self._offer_again(history, offered)
        while True:
            numbers = list(range(first, first + self._random.randint(1, MAX_AT_ONCE)))
            first = numbers[-1] + 1
            await self._offer_all(history, numbers)
            if self._refused and (self._board.is_healed or self._random.random() < 0.3):
                await self._offer_refused(history)
            await asyncio.sleep(self._random.uniform(0, self._life.pause_s))

    async def _offer_all(self, history: InferenceHistory, numbers: Sequence[int]) -> None:
        """Hand over decisions and what else there is of them, each kind by a caller of its own."""
        await asyncio.gather(*(self._offer(history, kind, numbers) for kind in Kind))

    async def _offer_again(self, history: InferenceHistory, offered: set[int]) -> None:
        """Offer what the writer before was not told of; it may be there or not."""
        sure = set.intersection(*(self._board.numbers(kind, Mark.ACKNOWLEDGED) for kind in Kind))
        unsure = sorted(offered - sure)
        for begin in range(0, len(unsure), MAX_AT_ONCE):
            await self._offer_all(history, unsure[begin : begin + MAX_AT_ONCE])

    async def _offer_refused(self, history: InferenceHistory) -> None:
        refused, self._refused = self._refused, []
        for kind, numbers in refused:
            new = await self._offer(history, kind, numbers)
            if new is not None and new < len(numbers):
                self._board.counts[Count.STORED_THOUGH_REFUSED] += 1

    async def _offer(
        self, history: InferenceHistory, kind: Kind, numbers: Sequence[int]
    ) -> int | None:
        """Hand rows to the history, mark what it acknowledges, and return how many were new."""
        marks = self._board.marks[kind]
        fresh = sum(marks[n] == Mark.UNKNOWN for n in numbers)
        unsure = sum(marks[n] == Mark.OFFERED for n in numbers)
        marks[list(numbers)] = np.maximum(marks[list(numbers)], Mark.OFFERED)
        try:
            new = await self._handed(history, kind, numbers)
        except StoreError:
            self._board.counts[Count.REFUSED] += 1
            self._refused.append((kind, list(numbers)))
            return None
        marks[list(numbers)] = Mark.ACKNOWLEDGED
        least = fresh if self._life.on_sound_disk else 0  # what seemed to fail may have come first
        if not least <= new <= fresh + unsure:
            raise AssertionError(
                f"{kind.name} {numbers}: expected {least} to {fresh + unsure} new, was {new}"
            )
        return new

    async def _handed(self, history: InferenceHistory, kind: Kind, numbers: Sequence[int]) -> int:
        run = self._run.id
        if kind is Kind.OUTCOME:
            return await history.settle([answer(number, run=run) for number in numbers])
        if kind is not Kind.DECISION:
            table = TABLES[kind]
            return await history.note(table, [note(table, number, run=run) for number in numbers])
        records = [decision(number, run=run) for number in numbers]
        known = max(numbers[0] - self._random.randint(1, 200), 0)
        is_known = self._board.marks[kind][known] == Mark.ACKNOWLEDGED
        if is_known and self._random.random() < REPEATED:
            records.append(changed(known, run=run))
        return await history.append(records)

    async def _flush(self, history: InferenceHistory) -> None:
        while True:
            was_healed = self._board.is_healed
            async with self._turn:
                has_flushed = await self._tried(history.flush)
            if was_healed and has_flushed and not self._refused:
                self._board.say_recovered()

    async def _keep_up(self) -> None:
        uri, hours = str(self._home.path / "lake"), 0 if self._life.removes_at_once else 1
        while True:
            table = self._random.choice(list(COLUMNS))
            work = partial(keep_up, uri, table, keep_replaced_h=hours)
            async with self._turn:  # a flush may compact too: two at once would double the rows
                await self._tried(partial(asyncio.to_thread, work))
            await asyncio.sleep(self._random.uniform(0, UPKEEP_PAUSE_S))

    async def _tried(self, work: Callable[[], Awaitable[object]]) -> bool:
        try:
            await work()
        except StoreError:
            self._board.counts[Count.REFUSED_FLUSHES] += 1
            await asyncio.sleep(PATIENCE_S)
            return False
        return True
