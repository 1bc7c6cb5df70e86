"""Rebuild every stored input of a range, and say which are not what the models were fed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import InputPackage, inference_id
from alphapulse.storage.conditions import Asked, Span, Where
from alphapulse.storage.encoding import package_of
from alphapulse.storage.history_reader import HistoryReader
from alphapulse.storage.rebuilding import Shared, rebuilt_package, shared_rows

CHUNK = 512  # decisions read at once: some MB of rows

_Key = tuple[int, str]  # instant and symbol of a decision
# What reading bytes that mean nothing ends in.
_UNREADABLE = (StoreError, ValueError, LookupError, TypeError, ArithmeticError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A decision whose input cannot be given back as it was.

    Attributes:
        ids: of its inferences; none if they are what is missing.
        reason: what was expected and what was found.
    """

    run: str
    symbol: str
    event_ns: int
    ids: tuple[str, ...]
    reason: str


@dataclass(slots=True)
class Verified:
    """What became of a verification.

    Attributes:
        checked: number of inputs that were rebuilt and are bit for bit as stored.
        inferences: number of inferences of these.
        damaged: inputs that are stored and cannot be rebuilt, or give other bits.
        missing: decisions of which the input, or every inference, is not stored.
    """

    checked: int = 0
    inferences: int = 0
    damaged: list[Fault] = field(default_factory=list)
    missing: list[Fault] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is damaged and nothing is missing."""
        return not self.damaged and not self.missing


def verify(
    reader: HistoryReader,
    where: Where,
    *,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:
    """Rebuild every input of a range from what is stored and compare its hash.

    Rows that inputs share are read once a slice, and no more than a slice is in memory.

    Args:
        reader: of the history.
        where: `run`, `symbol`, `event_ns`: any of them.
        tell: is told how many decisions are done, and of how many.

    Raises:
        StoreError: what is stored cannot be listed at all.
    """
    found, done = Verified(), 0
    decisions = _decisions(reader, where)
    total = sum(map(len, decisions.values()))
    for run, keys in decisions.items():
        for begin in range(0, len(keys), CHUNK):
            part = keys[begin : begin + CHUNK]
            _check(reader, run, part, found)
            done += len(part)
            tell(done, total)
    return found


def _decisions(reader: HistoryReader, where: Where) -> dict[str, list[_Key]]:
    """Return by run, in order, every decision that an inference or an input is stored of."""
    found: dict[str, set[_Key]] = defaultdict(set)
    for table in ("inferences", "packages"):
        rows = reader.find(Asked(table, where, columns=("run", "event_ns", "symbol")))
        columns = (rows[name].to_pylist() for name in rows.column_names)
        for run, event_ns, symbol in zip(*columns, strict=True):
            found[run].add((event_ns, symbol))
    return {run: sorted(found[run]) for run in sorted(found)}


def _check(reader: HistoryReader, run: str, keys: Sequence[_Key], found: Verified) -> None:
    """Check some decisions; what cannot be read together is read apart."""
    where = {"run": run, "event_ns": Span(keys[0][0], None, keys[-1][0])}
    if len({symbol for _, symbol in keys}) == 1:
        where["symbol"] = keys[0][1]
    inferences = _inferences(reader, where)
    try:
        packages = [package_of(row) for row in reader.fetch("packages", where)]
        shared = shared_rows(run, packages, reader.fetch)
    except _UNREADABLE as error:
        if len(keys) > 1:
            middle = len(keys) // 2
            _check(reader, run, keys[:middle], found)
            _check(reader, run, keys[middle:], found)
        else:
            found.damaged.append(_fault(run, keys[0], inferences[keys[0]], _said(error)))
        return
    stored = {(package.event_ns, package.symbol): package for package in packages}
    for key in keys:
        _check_one(run, key, stored.get(key), inferences[key], shared, found)


def _check_one(
    run: str,
    key: _Key,
    package: InputPackage | None,
    inferences: Sequence[Mapping[str, Any]],
    shared: Shared,
    found: Verified,
) -> None:
    if package is None or not inferences:
        lacking = "its input" if package is None else "an inference of it"
        found.missing.append(_fault(run, key, inferences, f"expected {lacking}, was none stored"))
        return
    try:
        _require_own(run, package, inferences)
        rebuilt_package(package, shared)
    except _UNREADABLE as error:
        found.damaged.append(_fault(run, key, inferences, _said(error)))
        return
    found.checked += 1
    found.inferences += len(inferences)


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


def _inferences(reader: HistoryReader, where: Where) -> dict[_Key, list[dict[str, Any]]]:
    names = ("id", "event_ns", "symbol", "model", "input_hash")
    found: dict[_Key, list[dict[str, Any]]] = defaultdict(list)
    for row in reader.find(Asked("inferences", where, columns=names)).to_pylist():
        found[row["event_ns"], row["symbol"]].append(row)
    return found


def _fault(run: str, key: _Key, inferences: Sequence[Mapping[str, Any]], reason: str) -> Fault:
    ids = tuple(row["id"] for row in inferences)
    return Fault(run=run, symbol=key[1], event_ns=key[0], ids=ids, reason=reason)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
