"""The tables of a run's ledger, the values read from them, and what a failure asks of a person.

Money is text, so that it comes back as it went in. Times are int64 `*_ns` UTC of the event; the
columns `at` and `cleared_at` are wall clock, for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import sqlalchemy as sa

from alphapulse.domain.errors import StoreError
from alphapulse.domain.trading import Order

SCHEMA_VERSION = 1

_DAMAGED = "it is damaged: restore a backup, or move it away and start a fresh run"
_REMEDIES = {
    "SQLITE_FULL": "free space on the disk; trading goes on with the next decision",
    "SQLITE_BUSY": "another process holds the ledger: end it; trading goes on by itself then",
    "SQLITE_READONLY": "make the file and its folder writable by this user",
    "SQLITE_CANTOPEN": "check that the folder exists and this user may use it",
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_CONSTRAINT": "nothing was stored; report it with this message",
}

METADATA = sa.MetaData()


def _text(name: str, *constraints: sa.schema.SchemaItem, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, *constraints, nullable=null)


def _integer(
    name: str, *constraints: sa.schema.SchemaItem, key: bool = False, null: bool = False
) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, *constraints, primary_key=key, nullable=null)


META = sa.Table(
    "meta",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True, nullable=False),
    _text("value"),
    sqlite_strict=True,
)
ORDERS = sa.Table(
    "orders",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True, nullable=False),
    _text("run"),
    _text("inference_id", sa.CheckConstraint("length(inference_id) > 0")),
    _integer("is_stored", sa.CheckConstraint("is_stored IN (0, 1)")),
    _text("symbol"),
    _integer("event_ns"),
    _integer("position"),  # within its step
    _text("quantity"),
    _text("purpose", sa.CheckConstraint("purpose IN ('entry', 'exit', 'stop', 'halt')")),
    _text("stop_price", null=True),
    _text("state", sa.CheckConstraint("state IN ('sent', 'filled', 'unfilled', 'refused')")),
    _text("reason"),
    sa.UniqueConstraint("event_ns", "position"),
    sa.CheckConstraint("state IN ('sent', 'filled') OR length(reason) > 0"),
    sqlite_strict=True,
)
FILLS = sa.Table(
    "fills",
    METADATA,
    sa.Column("order_id", sa.Text, sa.ForeignKey("orders.id"), primary_key=True, nullable=False),
    _integer("number", key=True),  # from 0, in the order of the executor's answer
    _integer("event_ns"),
    _text("symbol"),
    *(_text(name) for name in ("quantity", "price", "fee", "source")),
    sqlite_strict=True,
)
STEPS = sa.Table(
    "steps",
    METADATA,
    _integer("event_ns", key=True),
    _text("run"),
    *(_text(name) for name in ("cash", "equity", "peak", "drawdown")),
    _text("prices"),  # JSON: newest traded price by symbol
    _integer("refused"),
    sqlite_strict=True,
)
HALTS = sa.Table(
    "halts",
    METADATA,
    _integer("number", key=True),
    _integer("event_ns"),
    _text("reason", sa.CheckConstraint("length(reason) > 0")),
    _text("at"),
    _integer("cleared_ns", null=True),
    _text("clear_reason", null=True),
    _text("cleared_at", null=True),
    sqlite_strict=True,
)
PROMOTIONS = sa.Table(
    "promotions",
    METADATA,
    sa.Column("model", sa.Text, primary_key=True, nullable=False),
    _integer("event_ns", key=True),
    *(_text(name) for name in ("run", "checkpoint", "before", "reason")),
    sqlite_strict=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The account at one decision instant, before the fills of that instant.

    Attributes:
        prices: newest traded price by symbol [quote currency].
    """

    event_ns: int
    cash: Decimal
    equity: Decimal
    peak: Decimal
    drawdown: Decimal
    prices: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Halt:
    """A stretch in which nothing may be opened.

    Attributes:
        event_ns: the instant it followed from [ns UTC].
        cleared_ns: newest instant when a person cleared it [ns UTC], None while it holds.
    """

    event_ns: int
    reason: str
    cleared_ns: int | None
    clear_reason: str | None

    def holds_at(self, at_ns: int) -> bool:
        """Return whether it began at or before `at_ns` and was not cleared at or before it."""
        return self.event_ns <= at_ns and (self.cleared_ns is None or self.cleared_ns > at_ns)


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """An order as the ledger has it: sent, filled, unfilled or refused, and why."""

    order: Order
    state: str
    reason: str


def text(money: Decimal) -> str:
    """Return an amount as plain digits, never with an exponent."""
    return f"{money:f}"


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn a failure of the database or the disk into a StoreError with a remedy."""
    try:
        yield
    except StoreError:
        raise
    except (sa.exc.SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        name = getattr(cause, "sqlite_errorname", "")
        remedy = next(
            (r for code, r in _REMEDIES.items() if name.startswith(code)), "check the disk"
        )
        raise StoreError(
            f"ledger {path}: {cause} ({name or type(cause).__name__}); {remedy}"
        ) from error
