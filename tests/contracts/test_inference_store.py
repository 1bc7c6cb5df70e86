"""Hold every InferenceStore to its promise: durable, once, whole or not at all, in order."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import DecisionRecord, inference_id
from alphapulse.domain.learning import Outcome
from alphapulse.domain.pruning import Pruned
from alphapulse.interfaces import InferenceStore, Query
from tests.contracts.factories import StoreSubject, factory_of
from tests.contracts.finding import assert_documented, implementations
from tests.unit.storage.records import RUN, outcome, record

EXPECTED = {"InferenceHistory"}


@contextmanager
def opened(subject: StoreSubject) -> Iterator[InferenceStore]:
    store = subject.open()
    try:
        yield store
    finally:
        subject.close(store)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def find(store: InferenceStore, **asked: Any) -> pd.DataFrame:
    frame: pd.DataFrame = run(store.query(Query(**asked)))
    return frame


def ids_of(records: Sequence[DecisionRecord]) -> set[str]:
    return {
        inference_id(
            run=r.run, symbol=r.decision.symbol, event_ns=r.decision.event_ns, model=p.model
        )
        for r in records
        for p in r.decision.predictions
    }


def check_docstrings(subject: StoreSubject) -> None:
    assert_documented(subject.kind)


def check_append_twice_is_append_once(subject: StoreSubject) -> None:
    with opened(subject) as store:
        new = [run(store.append(subject.records)) for _ in range(2)]

        assert new == [len(subject.records), 0]
        assert sorted(find(store)["id"]) == sorted(ids_of(subject.records))


def check_what_was_appended_is_there_after_reopening(subject: StoreSubject) -> None:
    with opened(subject) as store:
        run(store.append(subject.records))
        before = find(store)
    with opened(subject) as store:
        after = find(store)
        again = run(store.append(subject.records))

    pd.testing.assert_frame_equal(before, after)
    assert set(after["id"]) == ids_of(subject.records)
    assert again == 0, "the reopened store took the same records for new"


def check_answer_is_in_order(subject: StoreSubject) -> None:
    with opened(subject) as store:
        for one in reversed(subject.records):
            run(store.append([one]))
        rows = find(store)

    keys = list(zip(rows["event_ns"], rows["symbol"], rows["model"], strict=True))
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) == len(ids_of(subject.records))


def check_query_finds_what_was_asked_for(subject: StoreSubject) -> None:
    first, second = (r.decision for r in subject.records[:2])
    between = {"from_ns": first.event_ns, "to_ns": second.event_ns}
    with opened(subject) as store:
        run(store.append(subject.records))
        one = find(store, **between)
        models = find(store, model=first.predictions[0].model)
        newest = find(store, limit=1)
        elsewhere = find(store, symbol="DOGE/USDT")
        forecasts = find(store, table="predictions", timeframe="1m", **between)

    assert set(one["event_ns"]) == {first.event_ns}, "from is inclusive, to is exclusive"
    assert set(models["model"]) == {first.predictions[0].model}
    assert list(newest["event_ns"]) == [max(r.decision.event_ns for r in subject.records)]
    assert len(elsewhere) == 0
    expected = [f for p in first.predictions for f in p.forecasts if f.timeframe == "1m"]
    assert list(forecasts["pivot_ns"]) == [f.pivot_ns for f in expected]


def check_query_restricts_by_action_and_confidence(subject: StoreSubject) -> None:
    said = [p for r in subject.records for p in r.decision.predictions]
    sure = sorted(p.confidence for p in said if p.confidence == p.confidence)
    low, high = sure[len(sure) // 3], sure[-1]
    with opened(subject) as store:
        run(store.append(subject.records))
        held = find(store, action="hold")
        bought = find(store, action="buy")
        between = find(store, min_confidence=low, max_confidence=high)

    assert len(held) == sum(p.action == "hold" for p in said)
    assert len(bought) == sum(p.action == "buy" for p in said)
    assert len(between) == sum(low <= p.confidence <= high for p in said) < len(said)


def check_batch_is_whole_or_not_there(subject: StoreSubject) -> None:
    with opened(subject) as store:
        error = None
        try:
            run(store.append([*subject.records, subject.foreign]))
        except StoreError as raised:
            error = raised
        left = find(store)
        new = run(store.append(subject.records))

    assert error is not None, "a record of another run was taken"
    assert len(left) == 0, "half of a refused batch is there"
    assert new == len(subject.records)


def check_settle_twice_is_settle_once(subject: StoreSubject) -> None:
    with opened(subject) as store:
        run(store.append(subject.records))
        new = [run(store.settle(subject.outcomes)) for _ in range(2)]
    with opened(subject) as store:
        rows = find(store, table="outcomes")
        again = run(store.settle(subject.outcomes))

    assert (new, again) == ([len(subject.outcomes), 0], 0)
    keys = list(
        zip(rows["event_ns"], rows["symbol"], rows["model"], rows["timeframe"], strict=True)
    )
    assert keys == sorted((o.event_ns, o.symbol, o.model, o.timeframe) for o in subject.outcomes)
    assert set(rows["inference_id"]) <= ids_of(subject.records)


def check_outcomes_are_found_as_asked_for(subject: StoreSubject) -> None:
    second = subject.records[1].decision
    asked = {"table": "outcomes", "timeframe": "1m", "symbol": second.symbol}
    with opened(subject) as store:
        run(store.settle(subject.outcomes))
        before = find(store, **asked, to_ns=second.event_ns)
        newest = find(store, **asked, model="cnn", limit=2)
        elsewhere = find(store, **(asked | {"model": "rl"}))

    minutes = sorted(o.event_ns for o in subject.outcomes if o.timeframe == "1m")
    assert list(before["event_ns"]) == [ns for ns in minutes if ns < second.event_ns]
    assert list(newest["event_ns"]) == minutes[-2:]
    assert len(elsewhere) == 0


def check_half_settled_is_not_settled(subject: StoreSubject) -> None:
    with opened(subject) as store:
        error = None
        try:
            run(store.settle([*subject.outcomes, subject.foreign_outcome]))
        except StoreError as raised:
            error = raised
        left = find(store, table="outcomes")
        new = run(store.settle(subject.outcomes))

    assert error is not None, "an outcome of another run was taken"
    assert len(left) == 0, "half of a refused call is there"
    assert new == len(subject.outcomes)


def check_asking_for_nothing_changes_nothing(subject: StoreSubject) -> None:
    with opened(subject) as store:
        run(store.append(subject.records))
        assert run(store.settle([])) == 0, "nothing was asked for and something was done"
        said = run(store.prune(dry_run=True))
        assert run(store.prune()).decisions == said.decisions == 0, "it has no limit and loses some"
        assert set(find(store)["id"]) == ids_of(subject.records)


class ExampleStore(InferenceStore):
    """The smallest store that keeps the promise: one file, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def kept(self) -> dict[tuple[int, str], DecisionRecord]:
        """Return every record by decision."""
        found: dict[tuple[int, str], DecisionRecord] = {}
        return pickle.loads(self.path.read_bytes()) if self.path.exists() else found

    def keep(self, kept: dict[tuple[int, str], DecisionRecord]) -> None:
        """Replace the file."""
        self.path.write_bytes(pickle.dumps(kept))

    def admit(self, records: Sequence[DecisionRecord]) -> None:
        """Refuse a record of another run."""
        if len({r.run for r in records}) > 1:
            raise StoreError("example: expected records of one run, was two; append them apart")

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Keep the records that are new."""
        self.admit(records)
        kept = self.kept()
        before = len(kept)
        for r in records:
            kept.setdefault((r.decision.event_ns, r.decision.symbol), r)
        self.keep(kept)
        return len(kept) - before

    def settled(self) -> dict[tuple[Any, ...], Outcome]:
        """Return every outcome by what it answers."""
        path = self.path.with_suffix(".outcomes")
        found: dict[tuple[Any, ...], Outcome] = {}
        return pickle.loads(path.read_bytes()) if path.exists() else found

    def keep_settled(self, settled: dict[tuple[Any, ...], Outcome]) -> None:
        """Replace the file of outcomes."""
        self.path.with_suffix(".outcomes").write_bytes(pickle.dumps(settled))

    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Keep the outcomes that are new."""
        if len({o.run for o in outcomes}) > 1:
            raise StoreError("example: expected outcomes of one run, was two; settle them apart")
        settled = self.settled()
        before = len(settled)
        for o in outcomes:
            settled.setdefault((o.inference_id, o.timeframe, o.level, o.version), o)
        self.keep_settled(settled)
        return len(settled) - before

    async def prune(self, *, dry_run: bool = False) -> Pruned:
        """Remove nothing: it has no limit."""
        return Pruned()

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """Return the rows of a table, unordered and unfiltered."""
        if query.table == "outcomes":
            names = ("inference_id", "symbol", "model", "event_ns", "timeframe")
            return [{name: getattr(o, name) for name in names} for o in self.settled().values()]
        rows = []
        for r in self.kept().values():
            for p in r.decision.predictions:
                key = {"symbol": p.symbol, "model": p.model, "event_ns": p.event_ns}
                found = inference_id(run=r.run, **key)
                if query.table == "inferences":
                    said = {"action": p.action.value, "confidence": p.confidence}
                    rows.append({**key, "id": found, **said})
                else:
                    rows += [
                        {**key, "timeframe": str(f.timeframe), "pivot_ns": f.pivot_ns}
                        for f in p.forecasts
                    ]
        return rows

    async def query(self, query: Query) -> pd.DataFrame:
        """Return the rows asked for, in order."""
        rows = [
            row
            for row in sorted(
                self.rows(query),
                key=lambda r: (r["event_ns"], r["symbol"], r["model"], r.get("timeframe", "")),
            )
            if (query.symbol or row["symbol"]) == row["symbol"]
            and (query.model or row["model"]) == row["model"]
            and (query.timeframe is None or row["timeframe"] == query.timeframe)
            and (query.action is None or row["action"] == query.action)
            and (query.min_confidence is None or row["confidence"] >= query.min_confidence)
            and (query.max_confidence is None or row["confidence"] <= query.max_confidence)
            and (query.from_ns is None or row["event_ns"] >= query.from_ns)
            and (query.to_ns is None or row["event_ns"] < query.to_ns)
        ]
        columns = ["event_ns", "symbol", "model", "id", "inference_id", "timeframe", "pivot_ns"]
        return pd.DataFrame(rows[-query.limit :] if query.limit else rows, columns=columns)


class Doubling(ExampleStore):
    """Breaks the promise: counts every record as new."""

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Keep them, and claim all."""
        await super().append(records)
        return len(records)

    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Keep them, and claim all."""
        await super().settle(outcomes)
        return len(outcomes)


class Forgetful(ExampleStore):
    """Breaks the promise: keeps everything in memory, and does not say what it cannot do."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.memory: dict[tuple[int, str], DecisionRecord] = {}

    def kept(self) -> dict[tuple[int, str], DecisionRecord]:
        """Return what this process remembers."""
        return dict(self.memory)

    def keep(self, kept: dict[tuple[int, str], DecisionRecord]) -> None:
        """Remember."""
        self.memory = kept

    async def prune(self, *, dry_run: bool = False) -> Pruned:
        """Forget everything, whatever was asked."""
        self.memory = {}
        return Pruned()


class Disorderly(ExampleStore):
    """Breaks the promise: answers everything in the order it came, whatever was asked."""

    async def query(self, query: Query) -> pd.DataFrame:
        """Return all rows."""
        return pd.DataFrame(self.rows(Query(table=query.table)))


class Hasty(ExampleStore):
    """Breaks the promise: keeps one record after the other and stops at the first wrong one."""

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Keep the records in front of the foreign one."""
        new = sum([await super(Hasty, self).append([r]) for r in records if r.run != RUN])
        if any(r.run == RUN for r in records):
            raise StoreError("hasty: a foreign record; the others are kept")
        return new

    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Keep the outcomes in front of the foreign one."""
        new = sum([await super(Hasty, self).settle([o]) for o in outcomes if o.run != RUN])
        if any(o.run == RUN for o in outcomes):
            raise StoreError("hasty: a foreign outcome; the others are kept")
        return new


class Undocumented(ExampleStore):
    __doc__ = None


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
BROKEN = [
    (check_docstrings, Undocumented),
    (check_append_twice_is_append_once, Doubling),
    (check_what_was_appended_is_there_after_reopening, Forgetful),
    (check_answer_is_in_order, Disorderly),
    (check_query_finds_what_was_asked_for, Disorderly),
    (check_query_restricts_by_action_and_confidence, Disorderly),
    (check_batch_is_whole_or_not_there, Hasty),
    (check_settle_twice_is_settle_once, Doubling),
    (check_outcomes_are_found_as_asked_for, Disorderly),
    (check_half_settled_is_not_settled, Hasty),
    (check_asking_for_nothing_changes_nothing, Forgetful),
]


def example(kind: type[ExampleStore], path: Path) -> StoreSubject:
    records = [record(second, run="example-run") for second in range(4)]
    outcomes = [outcome(s, tf, run="example-run") for s in range(4) for tf in ("1s", "1m")]
    return StoreSubject(
        kind,
        partial(kind, path / "store"),
        lambda store: None,
        records,
        record(9, run=RUN),
        outcomes,
        outcome(9, run=RUN),
    )


@pytest.fixture(
    params=[*implementations(InferenceStore).values(), ExampleStore], ids=lambda k: k.__name__
)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param is ExampleStore:
        return example(ExampleStore, tmp_path)
    return factory_of(request.param)(request)


def test_suite_holds_every_store_there_is() -> None:
    assert set(implementations(InferenceStore)) == EXPECTED


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_store_keeps_its_promise(
    check: Callable[[StoreSubject], None], subject: StoreSubject
) -> None:
    check(subject)


@pytest.mark.parametrize(("check", "kind"), BROKEN, ids=lambda x: x.__name__)
def test_check_sees_a_broken_promise(
    check: Callable[[StoreSubject], None], kind: type[ExampleStore], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        check(example(kind, tmp_path))


def test_every_check_is_seen_to_fail() -> None:
    assert {check.__name__ for check, _ in BROKEN} == {check.__name__ for check in CHECKS}
