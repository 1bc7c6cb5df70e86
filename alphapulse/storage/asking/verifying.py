"""Rebuild every stored input of a range, and say which are not what the models were fed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import InputPackage, inference_id
from alphapulse.storage.asking.conditions import Asked, Span, Where
from alphapulse.storage.asking.open_journals import recent
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.asking.rebuilding import UNREADABLE, rebuilt_package, shared_rows
from alphapulse.storage.journal.decoding import package_of

CHUNK = 512  # decisions read at once: some MB of rows

_Key = tuple[int, str]  # instant and symbol of a decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A decision whose input cannot be given back as it was.

    Attributes:
        place: where: `journal`, or `lake` with what a journal holds beside it.
        ids: of its inferences; none if they are what is missing.
        reason: what was expected and what was found.
    """

    place: str
    run: str
    symbol: str
    event_ns: int
    ids: tuple[str, ...]
    reason: str


@dataclass(slots=True)
class Verified:
    """What became of a verification.

    Attributes:
        checked: number of decisions whose input was rebuilt, bit for bit, from every place it is.
        damaged: inputs that are stored and cannot be rebuilt, or give other bits.
        missing: decisions of which the input, or every inference, is not stored.
    """

    checked: int = 0
    damaged: list[Fault] = field(default_factory=list)
    missing: list[Fault] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is damaged and nothing is missing."""
        return not self.damaged and not self.missing


@dataclass(frozen=True, slots=True)
class _Place:
    """One of the places that hold a run."""

    name: str
    find: Callable[[Asked], pa.Table]

    def fetch(self, table: str, where: Where) -> list[dict[str, Any]]:
        """Return rows of a table as plain values."""
        found: list[dict[str, Any]] = self.find(Asked(table, where)).to_pylist()
        return found


def verify(
    reader: HistoryReader,
    where: Where,
    *,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:
    """Rebuild every input of a range from what is stored and compare its hash.

    A run that is in its journal and in the lake is checked in both. Rows that inputs share are
    read once a slice, and no more than a slice is in memory.

    Args:
        reader: of the history.
        where: `run`, `symbol`, `event_ns`: any of them.
        tell: is told how many inputs are done, and of how many.

    Raises:
        StoreError: what is stored cannot be listed at all.
    """
    found, done = Verified(), 0
    places = [(run, place) for run in _runs(reader, where) for place in _places(reader, run, where)]
    listed = [(run, place, _decisions(place, {**where, "run": run})) for run, place in places]
    total = sum(len(keys) for *_, keys in listed)
    for run, place, keys in listed:
        for begin in range(0, len(keys), CHUNK):
            part = keys[begin : begin + CHUNK]
            _check(place, run, part, found)
            done += len(part)
            tell(done, total)
    every = {(run, *key) for run, _, keys in listed for key in keys}
    faulty = {(f.run, f.event_ns, f.symbol) for f in (*found.damaged, *found.missing)}
    found.checked = len(every - faulty)
    return found


def _runs(reader: HistoryReader, where: Where) -> list[str]:
    """Return every run that an inference or an input in the range is of."""
    asked = (Asked(table, where, columns=("run",)) for table in ("inferences", "packages"))
    return sorted({run for one in asked for run in reader.find(one)["run"].unique().to_pylist()})


def _places(reader: HistoryReader, run: str, where: Where) -> list[_Place]:
    whole = [journal for journal in reader.journals.of(run) if journal.lake_only_ns < 0]
    places = [
        _Place("journal", partial(recent, journals=[journal], after=[0])) for journal in whole
    ]
    tables = ("inferences", "packages", "rows")
    if not places or any(reader.in_lake(table, {**where, "run": run}) for table in tables):
        places.append(_Place("lake", lambda asked: reader.find(replace(asked, lake_first=True))))
    return places


def _decisions(place: _Place, where: Where) -> list[_Key]:
    """Return, in order, every decision that an inference or an input is stored of."""
    found: set[_Key] = set()
    for table in ("inferences", "packages"):
        rows = place.find(Asked(table, where, columns=("event_ns", "symbol")))
        found |= set(zip(rows["event_ns"].to_pylist(), rows["symbol"].to_pylist(), strict=True))
    return sorted(found)


def _check(place: _Place, run: str, keys: Sequence[_Key], found: Verified) -> None:
    """Check some decisions; what cannot be read together is read apart."""
    where: dict[str, Any] = {"run": run, "event_ns": Span(keys[0][0], None, keys[-1][0])}
    if len({symbol for _, symbol in keys}) == 1:
        where["symbol"] = keys[0][1]
    inferences = _inferences(place, where)
    faults = _Faults(place.name, run, inferences, found)
    try:
        packages = [package_of(row) for row in place.fetch("packages", where)]
        shared = shared_rows(run, packages, place.fetch)
    except UNREADABLE as error:
        if len(keys) > 1:
            middle = len(keys) // 2
            _check(place, run, keys[:middle], found)
            _check(place, run, keys[middle:], found)
        else:
            faults.damaged(keys[0], error)
        return
    stored = {(package.event_ns, package.symbol): package for package in packages}
    for key in keys:
        if key not in stored or not inferences[key]:
            faults.missing(key, "its input" if key not in stored else "an inference of it")
            continue
        try:
            _require_own(run, stored[key], inferences[key])
            rebuilt_package(stored[key], shared)
        except UNREADABLE as error:
            faults.damaged(key, error)


@dataclass(frozen=True, slots=True)
class _Faults:
    """Writes down what is wrong with decisions of a run in one place."""

    place: str
    run: str
    inferences: Mapping[_Key, Sequence[Mapping[str, Any]]]
    found: Verified

    def damaged(self, key: _Key, error: Exception) -> None:
        said = str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        self.found.damaged.append(self._fault(key, said))

    def missing(self, key: _Key, what: str) -> None:
        self.found.missing.append(self._fault(key, f"expected {what}, was none stored"))

    def _fault(self, key: _Key, reason: str) -> Fault:
        event_ns, symbol = key
        ids = tuple(row["id"] for row in self.inferences.get(key, ()))
        return Fault(
            place=self.place, run=self.run, symbol=symbol, event_ns=event_ns, ids=ids, reason=reason
        )


def _require_own(run: str, package: InputPackage, inferences: Sequence[Mapping[str, Any]]) -> None:
    """Raise StoreError unless the inferences are of this decision and of this input."""
    for row in inferences:
        about = {"symbol": package.symbol, "event_ns": package.event_ns, "model": row["model"]}
        expected = (inference_id(run=run, **about), package.input_hash)
        if (row["id"], row["input_hash"]) != expected:
            raise StoreError(
                f"inference of {row['model']}: expected id and input {' '.join(expected)}, was "
                f"{row['id']} {row['input_hash']}; restore the history from a backup"
            )


def _inferences(place: _Place, where: Where) -> dict[_Key, list[dict[str, Any]]]:
    names = ("id", "event_ns", "symbol", "model", "input_hash")
    found: dict[_Key, list[dict[str, Any]]] = defaultdict(list)
    for row in place.find(Asked("inferences", where, columns=names)).to_pylist():
        found[row["event_ns"], row["symbol"]].append(row)
    return found
