"""Find inferences by id, and rebuild what the models were fed: in journals, lake and archive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from alphapulse.domain.errors import StoreError
from alphapulse.domain.inputs import ModelInput
from alphapulse.storage.asking.conditions import Asked, Where
from alphapulse.storage.asking.open_journals import recent
from alphapulse.storage.asking.rebuilding import Decisions, Fetch, rebuilt
from alphapulse.storage.journal.reader import JournalReader
from alphapulse.storage.tables import COLUMNS

if TYPE_CHECKING:
    from alphapulse.storage.asking.reader import HistoryReader

Row = dict[str, Any]
FIRST_FILES, WIDER = 16, 16  # of the lake, looked into together; how many more each next time
_PLACE = ("id", "run", "symbol", "event_ns")  # what leads from an inference to its input


def asked_by(ids: Sequence[str], columns: tuple[str, ...] | None = None) -> Asked:
    """Return what asks for inferences by id: all of their columns, or some."""
    one_or_several: Any = ids[0] if len(ids) == 1 else list(ids)
    return Asked("inferences", {"id": one_or_several}, columns=columns)


def located(
    reader: HistoryReader, ids: Sequence[str], columns: tuple[str, ...] | None = None
) -> tuple[list[Row], StoreError | None]:
    """Return those of the inferences that are soon found, and why others could not be.

    What no batch has yet is looked through; of what is older the lake tells: its newest files
    first, of which the Bloom filters of their ids leave little to read.
    """
    found: list[Row] = []
    try:
        part = reader.gathered(asked_by(ids, columns))
        found += part.recent.select(part.asked.names).to_pylist()
        files = sorted(part.files, key=lambda file: file.last_ns, reverse=True)
        num = FIRST_FILES if reader.paths(part) else len(files)  # a lake elsewhere is read at once
        while files and (others := _others(ids, {row["id"] for row in found})):
            asked = asked_by(others, columns)
            some = replace(part, asked=asked, files=files[:num], recent=part.recent.slice(0, 0))
            found += reader.read(some).to_pylist()
            files, num = files[num:], num * WIDER
    except StoreError as error:
        return found, error
    return found, None


def scanned(
    reader: HistoryReader, ids: Sequence[str], columns: tuple[str, ...] | None = None
) -> list[Row]:
    """Return those of the inferences that a journal has, which is read from end to end.

    That is how one is found whose rows in the lake were lost, or while the lake is away.
    """
    journals = reader.journals.of(None)
    found: list[Row] = recent(asked_by(ids, columns), journals, [0] * len(journals)).to_pylist()
    return found


def inputs_by_id(reader: HistoryReader, ids: Sequence[str]) -> dict[str, ModelInput]:
    """Return the inputs of stored inferences, each bit for bit what the model was fed.

    Raises StoreError if one is not there, a row is missing, or the bits differ.
    """
    if not ids:
        return {}
    found: dict[str, ModelInput] = {}
    failure: StoreError | None = None
    known: set[str] = set()
    for place in (reader, *([reader.archive] if reader.archive else [])):
        rows, missed = located(place, _others(ids, found), _PLACE)
        inputs, unreadable = inputs_of(place, rows)
        found, failure = found | inputs, failure or unreadable or missed
        known |= {row["id"] for row in rows}
        if len(found) == len({*ids}):
            break
    if unknown := _others(ids, known):
        inputs, unreadable = inputs_of(reader, scanned(reader, unknown, _PLACE))
        found, failure = found | inputs, failure or unreadable
    for id_ in _others(ids, found):
        raise failure or StoreError(
            f"inference {id_}: not in {reader.runs} and not in {reader.lake_uri}; "
            "list ids with `history query`"
        )
    return {id_: found[id_] for id_ in ids}


def inputs_of(
    reader: HistoryReader, rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, ModelInput], StoreError | None]:
    """Return the inputs of located inferences by id, and why others cannot be rebuilt."""
    by_run: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_run[row["run"]].append(row)
    found: dict[str, ModelInput] = {}
    failure: StoreError | None = None
    for run, of_run in by_run.items():
        for fetch in _sources(reader, run):
            decisions: Decisions = defaultdict(list)
            for row in of_run:
                if row["id"] not in found:
                    decisions[row["symbol"], row["event_ns"]].append(row["id"])
            if decisions:
                try:
                    found |= rebuilt(run, decisions, fetch)
                except StoreError as error:  # what retention moves meanwhile is in the next one
                    failure = error
    return found, failure


def _others(ids: Sequence[str], found: Container[str]) -> list[str]:
    return [id_ for id_ in ids if id_ not in found]


def _sources(reader: HistoryReader, run: str) -> list[Fetch]:
    """Return what finds rows of a run: a journal that holds all of it is sooner than the lake."""
    whole = [journal for journal in reader.journals.of(run) if journal.lake_only_ns < 0]
    return [*(partial(_from_journal, journal.reader) for journal in whole), reader.fetch]


def _from_journal(journal: JournalReader, table: str, where: Where) -> list[Row]:
    sql, values = Asked(table, where).sql()
    return [
        dict(zip(COLUMNS[table], row, strict=True)) for row in journal.select(table, sql, values)
    ]
