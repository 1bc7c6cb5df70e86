"""What rows of a table must be like: from a Query to SQL that SQLite and DuckDB both read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alphapulse.domain.errors import ConfigError
from alphapulse.interfaces import Query
from alphapulse.storage.lake.forming import STREAM as FORMING
from alphapulse.storage.tables import COLUMNS, KEYS

# By column: a value it must have, several of which it must have one, or a Span it must lie in.
Where = Mapping[str, Any]
_COLUMN = {  # of each restriction of a Query that is on a column alone
    "run": "run",
    "symbol": "symbol",
    "model": "model",
    "timeframe": "timeframe",
    "action": "action",
    "decision": "decision_action",
    "min_confidence": "confidence",
    "max_confidence": "confidence",
}
_JUDGED = ("inferences", "predictions")


@dataclass(frozen=True, slots=True)
class Span:
    """A range of numbers; None is no bound.

    Attributes:
        first: smallest inside.
        end: smallest above it that is outside.
        last: largest inside, where `end` is not given.
    """

    first: float | None = None
    end: float | None = None
    last: float | None = None

    def meets(self, low: float, high: float) -> bool:
        """Return whether a number from `low` to `high` is inside."""
        return (
            (self.first is None or high >= self.first)
            and (self.end is None or low < self.end)
            and (self.last is None or low <= self.last)
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a table is wanted.

    Attributes:
        columns: those of the answer; None are all.
        limit: how many of the newest; None are all.
        after: key of a row; only rows whose key is smaller.
        outcome: of an inference or a prediction, see `Query.outcome`.
        lake_first: whether a row that journal and lake both have comes from the lake in any case.
    """

    table: str
    where: Where
    columns: tuple[str, ...] | None = None
    limit: int | None = None
    after: tuple[Any, ...] | None = None
    outcome: str | None = None
    lake_first: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the columns of the answer."""
        return self.columns or tuple(COLUMNS[self.table])

    @property
    def key(self) -> tuple[str, ...]:
        """Return the columns that tell rows apart and order them."""
        return KEYS[self.table]

    @property
    def stored(self) -> tuple[str, ...]:
        """Return the columns that are read: those of the answer and of the key."""
        return tuple(dict.fromkeys((*self.names, *self.key)))

    @property
    def order(self) -> str:
        """Return the order in SQL: newest first where there is a limit, else oldest first."""
        return ", ".join(name if self.limit is None else f"{name} DESC" for name in self.key)

    @property
    def span(self) -> Span:
        """Return the event times rows can have."""
        asked = self.where.get("event_ns", Span())
        if isinstance(asked, Span):
            last = self.after[0] if self.after else None
            return Span(asked.first, asked.end, last if asked.last is None else asked.last)
        several = asked if isinstance(asked, Sequence) else [asked]
        return Span(min(several, default=0), None, max(several, default=-1))

    def sql(self) -> tuple[str, list[Any]]:
        """Return the condition and the values it binds."""
        terms, values = [], []
        for column, wanted in self.where.items():
            term, bound = _term(column, wanted)
            terms.append(term)
            values += bound
        if self.after is not None:
            terms.append(f"event_ns <= ? AND ({', '.join(self.key)}) < ({_marks(self.key)})")
            values += [self.after[0], *self.after]
        if self.table == "rows" and "stream" not in self.where:
            terms.append(f"stream <> '{FORMING}'")  # part of the packages, see `lake.forming`
        return " AND ".join(terms) or "TRUE", values


def asked_of(query: Query) -> Asked:
    """Return what a query wants; raises ConfigError if its table has no such rows."""
    table = query.table
    for name, column in _COLUMN.items():
        if getattr(query, name) is not None and column not in COLUMNS[table]:
            others = [t for t in Query.TABLES if column in COLUMNS[t]]
            raise ConfigError(
                f"query.{name}: expected table {' or '.join(others)}, was {table}; "
                f"{table} have none"
            )
    if query.outcome is not None and table not in _JUDGED:
        raise ConfigError(
            f"query.outcome: expected table {' or '.join(_JUDGED)}, was {table}; "
            "ask for inferences, or read `hit` and `state` of outcomes and examples"
        )
    if query.after is not None and len(query.after) != len(KEYS[table]):
        raise ConfigError(
            f"query.after: expected {', '.join(KEYS[table])} of a row of {table}, was "
            f"{query.after!r}; take it from `next_page`"
        )
    names = ("run", "symbol", "model", "timeframe", "action", "decision")
    where = {_COLUMN[n]: getattr(query, n) for n in names if getattr(query, n) is not None}
    spans = {
        "event_ns": Span(query.from_ns, query.to_ns),
        "confidence": Span(query.min_confidence, None, query.max_confidence),
    }
    where |= {column: span for column, span in spans.items() if span != Span()}
    return Asked(table, where, limit=query.limit, after=query.after, outcome=query.outcome)


def _term(column: str, wanted: Any) -> tuple[str, list[Any]]:
    if isinstance(wanted, Span):
        bounds = {">=": wanted.first, "<": wanted.end, "<=": wanted.last}
        given = {sign: bound for sign, bound in bounds.items() if bound is not None}
        return " AND ".join(f"{column} {sign} ?" for sign in given) or "TRUE", list(given.values())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return f"{column} IN ({_marks(wanted)})", list(wanted)
    return f"{column} = ?", [wanted]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
