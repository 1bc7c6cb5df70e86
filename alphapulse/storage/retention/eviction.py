"""Carry out an eviction: archive, read back and compare, only then remove from lake and journals.

Every step can be done again: what is archived already is not written twice, and what is gone
already is not there to remove. So a killed round is finished by carrying it out once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import Bools, Ints
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.lake.columns import arrow_table
from alphapulse.storage.lake.delta import Lake, day_of, sql_text
from alphapulse.storage.lake.durable import bring_to_disk, sync
from alphapulse.storage.lake.forming import STREAM as FORMING
from alphapulse.storage.retention.comparing import alike, differing, missing, pieces_of, whole
from alphapulse.storage.retention.inventory import LEAVING
from alphapulse.storage.retention.journal_eviction import JournalEviction
from alphapulse.storage.retention.policy import DAY_NS
from alphapulse.storage.retention.rounds import Hull, Round, Rounds
from alphapulse.storage.retention.shown_rows import Spans, is_shown, spans_of, union

BOOK, SECONDS = "book", "1s"


@dataclass(frozen=True, slots=True)
class _Part:
    """The decisions of a round in one partition of the lake: their instants, by run."""

    symbol: str
    day: str
    times: Mapping[str, Ints]

    def leaves(self, batch: pa.RecordBatch) -> Bools:
        """Return which rows belong to them."""
        run, event_ns = np.asarray(batch["run"]), np.asarray(batch["event_ns"])
        found = np.zeros(batch.num_rows, np.bool_)
        for id, times in self.times.items():
            found |= (run == id) & np.isin(event_ns, times)
        return found


@dataclass(frozen=True, slots=True)
class _Rows:
    """Closed rows of one stream of a run, by their instants."""

    run: str
    stream: str
    times: Ints

    @classmethod
    def of(cls, rows: pa.Table) -> Self:
        """Return the rows of a table, all of one stream."""
        return cls(rows["run"][0].as_py(), rows["stream"][0].as_py(), rows["ts_ns"].to_numpy())

    def leaves(self, batch: pa.RecordBatch) -> Bools:
        """Return which rows are among them."""
        run, stream, ts_ns = (np.asarray(batch[name]) for name in ("run", "stream", "ts_ns"))
        return np.asarray((run == self.run) & (stream == self.stream) & np.isin(ts_ns, self.times))


class Eviction:
    """Takes decisions out of a home's lake and journals, all of each or nothing.

    ```python
    eviction = Eviction(lake, journals, rounds=Rounds(home / "retention"))
    round = eviction.begin(round)
    eviction.archive(round, Lake(round.archive))
    eviction.remove(round, archive=Lake(round.archive))
    ```
    """

    def __init__(
        self,
        lake: Lake,
        journals: Sequence[JournalReader],
        *,
        rounds: Rounds,
        going_on: frozenset[str] = frozenset(),
        step: Callable[[str], None] = lambda _: None,
        sync: Callable[[Path], None] = sync,
    ) -> None:
        """Begin with nothing under way.

        Args:
            lake: what is evicted from.
            journals: all journals of the home.
            rounds: where the one under way is written down.
            going_on: ids of the runs that may be written on: their bars stay.
            step: told the name of each step when it is done.
            sync: brings a file or folder of a lake to the disk.
        """
        self._lake = lake
        self._journals = {journal.meta("run") or "": journal for journal in journals}
        self._rounds = rounds
        self._going_on = going_on
        self._step = step
        self._sync = sync

    def begin(self, round: Round) -> Round:
        """Write a round down with where its rows are, and return it so; nothing else is touched."""
        hulls = [
            (run, symbol, stream, int(spans_K2[0, 0]), int(spans_K2[-1, 1]))
            for run, of_run in round.keys.items()
            for (symbol, stream), spans_K2 in sorted(self._shown_by(run, of_run).items())
        ]
        whole = replace(round, hulls=tuple(hulls))
        self._rounds.begin(whole)
        self._step("begun")
        return whole

    def archive(self, round: Round, archive: Lake) -> None:
        """Let the archive have all that leaves, and what it showed, and compare what it gives back.

        Raises StoreError if the archive does not take it or gives back something else.
        """
        for part in _parts(round.keys):
            for table in LEAVING:
                self._copy(table, self._decided(table, part), archive, round.id)
        for run, of_run in round.keys.items():
            for (symbol, stream), spans_K2 in sorted(self._shown_by(run, of_run).items()):
                hull = (int(spans_K2[0, 0]), int(spans_K2[-1, 1]))
                rows = self._rows(run, symbol, stream, *hull)
                shown_T = is_shown(rows["ts_ns"].to_numpy(), spans_K2)
                self._copy("rows", rows.filter(pa.array(shown_T)), archive, round.id)
        self._step("verified")
        self._bring_to_disk(archive, round)

    def remove(self, round: Round, *, archive: Lake | None) -> None:
        """Remove what is archived, or was begun to be removed, and forget the round.

        Raises StoreError if a table cannot be written; the round stays, to be done once more.
        """
        round = self._rounds.removing(round)
        self._step("removing")
        for part in _parts(round.keys) if round.leaves_lake else []:
            for table in LEAVING:
                self._lake.remove(table, symbol=part.symbol, day=part.day, leaves=part.leaves)
                self._step(f"removed {table}")
        self._bring_to_disk(self._lake, round)
        for run, of_run in round.keys.items():
            if journal := self._journals.get(run):
                with JournalEviction(journal, self._lake) as leaving:
                    for symbol, times in of_run.items():
                        leaving.remove_decisions(symbol, times, lake_only=not round.leaves_lake)
        self._step("removed from journals")
        for run in round.keys:
            hulls = [hull for hull in round.hulls if hull[0] == run and self._may_go(run, hull[2])]
            if hulls:
                self._sweep(run, hulls, archive=archive, leaves_lake=round.leaves_lake)
        self._step("removed rows")
        self._rounds.finish(round)

    def _bring_to_disk(self, lake: Lake, round: Round) -> None:
        """Let what a lake holds of a round survive a power failure: other copies go now."""
        parts = _parts(round.keys)
        symbols, days = {part.symbol for part in parts}, {part.day for part in parts}
        for table in LEAVING:
            bring_to_disk(lake, table, symbols=symbols, days=days, sync=self._sync)
        of_rows = {symbol for _, symbol, *_ in round.hulls}
        bring_to_disk(lake, "rows", symbols=of_rows, sync=self._sync)
        self._step("on the disk")

    def _copy(self, table: str, source: pa.Table, archive: Lake, name: str) -> None:
        """Let the archive have rows, once each, and compare what it gives back bit for bit."""
        if not source.num_rows:
            return
        new = missing(table, source, alike(archive, table, source))
        if new.num_rows:
            archive.add(table, new, name=f"eviction-{name}")
            self._step(f"archived {table}")
        if num := len(differing(source, alike(archive, table, source))):
            raise StoreError(
                f"archive {archive.uri}/{table}: expected {source.num_rows} rows back as they were "
                f"written, {num} differ or are missing; nothing was removed; check the disk or "
                "object store, move the archive away if it is damaged"
            )

    def _decided(self, table: str, part: _Part) -> pa.Table:
        """Return the rows of a table that belong to decisions."""
        field = pa.dataset.field
        at = (field("symbol") == part.symbol) & (field("day") == part.day)
        at &= field("run").isin(list(part.times))
        pieces = pieces_of(self._lake, table, at)
        return whole(table, [piece.filter(pa.array(part.leaves(piece))) for piece in pieces])

    def _shown_by(self, run: str, of_run: Mapping[str, Sequence[int]]) -> Spans:
        """Return what decisions of a run that are in the lake show."""
        shown: Spans = {}
        for part in _parts({run: of_run}):
            shown = union(shown, spans_of(self._decided("packages", part)))
        return shown

    def _rows(self, run: str, symbol: str, stream: str, first_ns: int, last_ns: int) -> pa.Table:
        """Return stored rows of a stream between two instants, from lake and journal, each once."""
        field = pa.dataset.field
        where = (field("run") == run) & (field("symbol") == symbol) & (field("stream") == stream)
        where &= (field("ts_ns") >= first_ns) & (field("ts_ns") <= last_ns)
        found = whole("rows", list(pieces_of(self._lake, "rows", where)))
        if journal := self._journals.get(run):
            after = self._taken(journal, "rows")
            at = "symbol = ? AND stream = ? AND ts_ns BETWEEN ? AND ?"
            recent = journal.select("rows", at, (symbol, stream, first_ns, last_ns), after=after)
            found = pa.concat_tables([found, arrow_table("rows", recent)])
        return found

    def _taken(self, journal: JournalReader, table: str) -> int:
        (batch,) = self._lake.read(table, writers=[journal.name()])[1]
        return journal.reached(batch, table)

    def _may_go(self, run: str, stream: str) -> bool:
        """Return whether rows of a stream that nothing shows any more may go.

        A book row and a forming one are read for inputs alone; settlement reads the bars of a run
        again until it ends.
        """
        return stream in (BOOK, FORMING) or (stream == SECONDS and run not in self._going_on)

    def _sweep(
        self, run: str, hulls: Sequence[Hull], *, archive: Lake | None, leaves_lake: bool
    ) -> None:
        """Remove the rows of a run that no package shows any more, where the round was."""
        span = (min(hull[3] for hull in hulls), max(hull[4] for hull in hulls))
        if leaves_lake:
            shown = self._remaining(run, *span)
            for _, symbol, stream, *of_stream in hulls:
                rows = self._rows(run, symbol, stream, *of_stream)
                self._remove_unshown(rows, shown.get((symbol, stream)), archive)
        if journal := self._journals.get(run):
            symbols = {hull[1] for hull in hulls}
            bring_to_disk(self._lake, "rows", symbols=symbols, sync=self._sync)
            with JournalEviction(journal, self._lake) as leaving:
                shown = leaving.remaining(*span)
                for _, symbol, stream, first_ns, last_ns in hulls:
                    times = leaving.unshown_rows(
                        symbol, stream, span=(first_ns, last_ns), shown=shown
                    )
                    leaving.remove_rows(symbol, stream, times)

    def _remove_unshown(self, rows: pa.Table, shown: Ints | None, archive: Lake | None) -> None:
        rows = rows.filter(pa.array(~is_shown(rows["ts_ns"].to_numpy(), shown)))
        if rows.num_rows and archive is not None:  # one that was never archived stays
            unlike = differing(rows, alike(archive, "rows", rows))
            rows = rows.filter(pa.array(~np.isin(rows["ts_ns"].to_numpy(), unlike)))
        for day, those in _by_day(rows):
            symbol, leaving = those["symbol"][0].as_py(), _Rows.of(those)
            self._lake.remove("rows", symbol=symbol, day=day, leaves=leaving.leaves)

    def _remaining(self, run: str, first_ns: int, last_ns: int) -> Spans:
        """Return what the packages of a run that are left show between two instants."""
        stored = self._lake.read("packages", writers=[])[0]
        where = f"run = {sql_text(run)} AND event_ns >= {first_ns}"
        shown = spans_of(stored, where, until_ns=last_ns) if stored is not None else {}
        if journal := self._journals.get(run):
            recent = journal.select("packages", after=self._taken(journal, "packages"))
            waiting = spans_of(arrow_table("packages", recent), until_ns=last_ns)
            shown = union(shown, waiting)
        return shown


def _parts(keys: Mapping[str, Mapping[str, Sequence[int]]]) -> list[_Part]:
    """Return decisions by the lake's partition they are in, oldest first."""
    found: dict[tuple[int, str], dict[str, Ints]] = {}
    for run, of_run in keys.items():
        for symbol, times in of_run.items():
            event_ns = np.array(times, np.int64)
            for day in np.unique(event_ns // DAY_NS):
                found.setdefault((int(day), symbol), {})[run] = event_ns[event_ns // DAY_NS == day]
    return [
        _Part(symbol, day_of(day * DAY_NS), times) for (day, symbol), times in sorted(found.items())
    ]


def _by_day(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield rows of one stream by the lake's partition they are in."""
    day = rows["event_ns"].to_numpy() // DAY_NS
    for number in np.unique(day):
        yield day_of(int(number) * DAY_NS), rows.filter(pa.array(day == number))
