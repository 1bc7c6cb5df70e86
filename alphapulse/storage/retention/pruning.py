"""Bring a home within its limits: take stock, plan, evict a round at a time."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alphapulse.config import Storage
from alphapulse.domain.errors import StoreError
from alphapulse.domain.market import Ints
from alphapulse.domain.pruning import Pruned
from alphapulse.storage.alerts import StoreCode
from alphapulse.storage.home import Home
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.lake.delta import Lake
from alphapulse.storage.lake.durable import bring_to_disk, sync
from alphapulse.storage.retention.eviction import Eviction
from alphapulse.storage.retention.inventory import LEAVING, Inventory, take_stock
from alphapulse.storage.retention.policy import Plan, Policy, Reason, Usage, plan
from alphapulse.storage.retention.rounds import Round, Rounds
from alphapulse.storage.run import now

# axes: N decision

NO_ARCHIVE = "none"  # the value of storage.archive_uri that removes without one
ROUND = 20_000  # decisions a round: bounds its memory, and what is done twice after a kill
HEADROOM = 1.1  # a disk below its watermark is freed a tenth beyond, so that it stays above a while
Disk = Callable[[Path], tuple[int, int]]


def disk_of(path: Path) -> tuple[int, int]:
    """Return how much of the disk of a folder is free, and its size [bytes]."""
    found = shutil.disk_usage(path)
    return found.free, found.total


class Pruning:
    """Prunes a home; one process at a time may, and nothing else may write its lake meanwhile.

    ```python
    pruned = Pruning(Home(path), lake=lake, settings=settings.storage).prune()
    ```
    """

    def __init__(
        self,
        home: Home,
        *,
        lake: Lake,
        settings: Storage,
        disk: Disk = disk_of,
        step: Callable[[str], None] = lambda _: None,
        sync: Callable[[Path], None] = sync,
    ) -> None:
        """Begin with nothing under way.

        `step` is told the name of each step that is done, `sync` what is to be on the disk by then.
        """
        self._home = home
        self._lake = lake
        self._settings = settings
        self._policy = Policy(
            max_age_days=settings.max_age_days,
            max_decisions=settings.max_decisions,
            max_bytes=settings.max_bytes,
            half_life_days=settings.half_life_days,
            audit_share=settings.audit_share,
        )
        self._disk = disk
        self._step = step
        self._sync = sync
        self._rounds = Rounds(home.path / "retention")

    @property
    def archive_uri(self) -> str:
        """Return where what leaves is kept, empty for nowhere."""
        uri = self._settings.archive_uri or str(self._home.path / "archive")
        return "" if uri == NO_ARCHIVE else uri

    @property
    def is_wanted(self) -> bool:
        """Return whether there is a limit, a disk below its watermark, or a round to finish."""
        limits = (self._policy.max_age_days, self._policy.max_decisions, self._policy.max_bytes)
        return any(limits) or self.is_urgent

    @property
    def is_urgent(self) -> bool:
        """Return whether the disk is below its watermark, or a round was left unfinished."""
        return self._lacking_bytes() > 0 or self._rounds.unfinished() is not None

    def prune(self, *, dry_run: bool = False) -> Pruned:
        """Finish what was begun, then evict until every limit holds or only the protected is left.

        With `dry_run` nothing is touched, and what would leave is returned. Raises StoreError if
        lake or journals cannot be read or written; the next call goes on.
        """
        journals = [JournalReader(run.journal_path) for run in self._home.runs()]
        try:
            there = [journal for journal in journals if journal.path.exists()]
            return self._planned(there) if dry_run else self._prune(there)
        finally:
            for journal in journals:
                journal.close()

    def _planned(self, journals: Sequence[JournalReader]) -> Pruned:
        stock, usage = self._stock(journals)
        found = plan(stock.candidates, self._policy, usage)
        return self._report(
            found, Counter(found.reasons), _weight(stock, found.rows), 0, self._archive_uri(usage)
        )

    def _prune(self, journals: Sequence[JournalReader]) -> Pruned:
        eviction = Eviction(
            self._lake,
            journals,
            rounds=self._rounds,
            going_on=self._going_on(),
            step=self._step,
            sync=self._sync,
        )
        self._finish(eviction)
        reasons: Counter[Reason] = Counter()
        round: Round | None = None
        num_bytes, trimmed, failure = 0, self._trim(eviction, journals), ""
        while True:
            stock, usage = self._stock(journals)
            found = plan(stock.candidates, self._policy, usage)
            archive = self._archive_uri(usage)
            if not len(found.rows) or failure:
                break
            if round is not None and _is_there(stock, round):
                raise StoreError(
                    f"lake {self._lake.uri}: expected round {round.id} to be gone, was still there "
                    "after it was removed; end whatever else writes the lake, then prune again"
                )
            rows, why = found.rows[:ROUND], Counter(found.reasons[:ROUND])
            round = _round(stock, rows, archive, why)
            failure = self._evict(eviction, round)
            if not failure:
                reasons += why
                num_bytes += _weight(stock, rows)
                self._reclaim(usage)
        return self._report(found, reasons, num_bytes, trimmed, archive, failure)

    def _finish(self, eviction: Eviction) -> None:
        """Finish a round whose removing had begun, and forget one of which nothing was removed."""
        round = self._rounds.unfinished()
        if round is None:
            return
        if not round.is_removing:
            self._rounds.undo()
            return
        archive = Lake(round.archive) if round.archive else None
        if archive is not None:
            eviction.archive(round, archive)
        eviction.remove(round, archive=archive)

    def _trim(self, eviction: Eviction, journals: Sequence[JournalReader]) -> int:
        """Free a disk below its watermark of what journals hold beside the lake; return how many.

        Nothing is lost by that, so that it comes before any eviction.
        """
        stock, usage = self._stock(journals)
        lacking = self._lacking_bytes()
        there = np.flatnonzero(stock.is_in_journal_N)
        if not lacking or not len(there):
            return 0
        of_journals = replace(
            stock.candidates.of(there), bytes_N=np.full(len(there), stock.journal_bytes)
        )
        wanted = Usage(now_ns=usage.now_ns, lacking_bytes=lacking)
        rows = there[plan(of_journals, Policy(), wanted).rows]
        for begin in range(0, len(rows), ROUND):
            piece = rows[begin : begin + ROUND]
            why = Counter({Reason.DISK: len(piece)})
            eviction.remove(
                eviction.begin(_round(stock, piece, "", why, leaves_lake=False)), archive=None
            )
        return len(rows)

    def _evict(self, eviction: Eviction, round: Round) -> str:
        """Carry a round out and return what is wrong with the archive, if it is."""
        round = eviction.begin(round)
        archive = Lake(round.archive) if round.archive else None
        if archive is not None:
            try:
                eviction.archive(round, archive)
            except StoreError as error:
                self._rounds.undo()
                return str(error)
        eviction.remove(round, archive=archive)
        return ""

    def _reclaim(self, usage: Usage) -> None:
        """Give replaced files of the lake back at once where the disk needs them."""
        if usage.is_critical:
            for table in (*LEAVING, "rows"):
                bring_to_disk(self._lake, table, sync=self._sync)
                self._lake.drop_replaced(table)

    def _stock(self, journals: Sequence[JournalReader]) -> tuple[Inventory, Usage]:
        stock = take_stock(self._lake, journals, audit_share=self._policy.audit_share)
        usage = Usage(
            now_ns=time.time_ns(),
            other_bytes=stock.other_bytes,
            lacking_bytes=self._lacking_bytes() if self._is_here(self._lake.uri) else 0,
        )
        return stock, usage

    def _lacking_bytes(self) -> int:
        free, total = self._disk(self._home.path)
        settings = self._settings
        watermark = max(settings.disk_free_pct / 100 * total, settings.disk_free_gb * 1e9)
        return int(HEADROOM * watermark) - free if free < watermark else 0

    def _is_here(self, uri: str) -> bool:
        """Return whether an address is on the disk of the home."""
        if "://" in uri:
            return False
        path = Path(uri).absolute()
        while not path.exists():
            path = path.parent
        return os.stat(path).st_dev == os.stat(self._home.path).st_dev

    def _archive_uri(self, usage: Usage) -> str:
        """Return where what leaves goes first; empty for nowhere, as on a full disk."""
        uri = self.archive_uri
        is_in_the_way = usage.is_critical and uri and self._is_here(uri)
        return "" if is_in_the_way else uri

    def _going_on(self) -> frozenset[str]:
        """Return the id of the run that may be written on: the newest, until its source ended."""
        newest = self._home.runs()[-1:]
        return frozenset(run.id for run in newest if run.ended_ns is None)

    def _report(
        self,
        last: Plan,
        reasons: Mapping[Reason, int],
        num_bytes: int,
        trimmed: int,
        archive: str,
        failure: str = "",
    ) -> Pruned:
        alerts: dict[str, str] = {}
        decisions = sum(reasons.values())
        lacking = self._lacking_bytes()
        if lacking:
            alerts[StoreCode.DISK_LOW] = (
                f"{self._home.path}: {lacking / 1e9:.1f} GB are missing to a tenth above the "
                f"watermark ({self._settings.disk_free_pct} % and {self._settings.disk_free_gb} GB)"
            )
        if by_value := reasons.get(Reason.DISK, 0):
            listed = "" if archive else f"; they are listed in {self._rounds.removed_path}"
            alerts[StoreCode.EVICTED_BY_VALUE] = (
                f"{by_value} decisions of the lowest value left because the disk is full{listed}"
            )
        if last.missed and not failure:
            over = ", ".join(f"{limit} by {excess}" for limit, excess in last.missed.items())
            held = ", ".join(f"{num} {name}" for name, num in last.protected.items())
            alerts[StoreCode.RETENTION_BLOCKED] = f"exceeded: {over}; protected: {held}"
        if failure:
            alerts[StoreCode.ARCHIVE_FAILED] = failure
        return Pruned(
            decisions=decisions,
            trimmed=trimmed,
            num_bytes=num_bytes,
            reasons={str(reason): num for reason, num in reasons.items()},
            missed={str(limit): excess for limit, excess in last.missed.items()},
            protected=dict(last.protected),
            archive=archive,
            alerts={str(code): said for code, said in alerts.items()},
        )


def _round(
    stock: Inventory,
    rows: Ints,
    archive: str,
    why: Mapping[Reason, int],
    *,
    leaves_lake: bool = True,
) -> Round:
    keys: dict[str, dict[str, list[int]]] = {}
    for name in np.unique(stock.name_N[rows]):
        run, symbol = stock.names[name]
        times = stock.candidates.event_ns_N[rows][stock.name_N[rows] == name]
        keys.setdefault(run, {})[symbol] = np.sort(times).tolist()
    return Round(
        id=secrets.token_hex(8),
        keys=keys,
        archive=archive,
        leaves_lake=leaves_lake,
        reasons={str(reason): num for reason, num in why.items()},
        begun_at=now(),
    )


def _is_there(stock: Inventory, round: Round) -> bool:
    """Return whether the first decision of a round is stored."""
    run, of_run = next(iter(round.keys.items()))
    symbol, times = next(iter(of_run.items()))
    of_name = [number for number, name in enumerate(stock.names) if name == (run, symbol)]
    is_same_N = np.isin(stock.name_N, of_name) & (stock.candidates.event_ns_N == times[0])
    return bool(is_same_N.any())


def _weight(stock: Inventory, rows: Ints) -> int:
    return int(stock.candidates.bytes_N[rows].sum())
