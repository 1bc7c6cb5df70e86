"""Reads a run's ledger, in any process, also while it is written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from alphapulse.domain.errors import StoreError
from alphapulse.domain.learning import Promotion
from alphapulse.domain.trading import Fill, Order, Purpose
from alphapulse.execution.ledger_tables import (
    FILLS,
    HALTS,
    META,
    ORDERS,
    PROMOTIONS,
    SCHEMA_VERSION,
    STEPS,
    Halt,
    KnownOrder,
    Step,
    store_errors,
)


class LedgerReader:
    """Reads a ledger, in any process, also while it is written; each call raises StoreError.

    Attributes:
        path: the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine(
            "sqlite://", creator=self._connect, poolclass=sa.pool.QueuePool
        )
        # the driver begins no transaction by itself, so that a writer can ask for the lock at once
        sa.event.listen(self._engine, "begin", _begin)

    def orders_until(self, event_ns: int, *, from_ns: int = 0) -> list[KnownOrder]:
        """Return the orders of the steps from `from_ns` to `event_ns`, both inclusive.

        They come in the order they were made, the refused ones too.
        """
        query = (
            sa.select(ORDERS)
            .where(ORDERS.c.event_ns.between(from_ns, event_ns))
            .order_by(ORDERS.c.event_ns, ORDERS.c.position)
        )
        return [KnownOrder(_order(row), row["state"], row["reason"]) for row in self._rows(query)]

    def fills_of(self, order_id: str) -> list[Fill]:
        """Return the fills of an order in the order of the executor's answer."""
        query = sa.select(FILLS).where(FILLS.c.order_id == order_id).order_by(FILLS.c.number)
        return [_fill(row) for row in self._rows(query)]

    def last_step(self) -> int | None:
        """Return the newest instant with a step [ns UTC], None before the first."""
        (row,) = self._rows(sa.select(sa.func.max(STEPS.c.event_ns).label("newest")))
        newest: int | None = row["newest"]
        return newest

    def step_at(self, event_ns: int) -> Step | None:
        """Return the newest step at or before `event_ns`, None if there is none."""
        query = (
            sa.select(STEPS)
            .where(STEPS.c.event_ns <= event_ns)
            .order_by(STEPS.c.event_ns.desc())
            .limit(1)
        )
        return next((_step(row) for row in self._rows(query)), None)

    def halts(self) -> list[Halt]:
        """Return every halt, oldest first."""
        rows = self._rows(sa.select(HALTS).order_by(HALTS.c.event_ns, HALTS.c.number))
        names = ("event_ns", "reason", "cleared_ns", "clear_reason")
        return [Halt(*(row[name] for name in names)) for row in rows]

    def promotions(self) -> list[Promotion]:
        """Return every promotion, oldest first."""
        rows = self._rows(sa.select(PROMOTIONS).order_by(PROMOTIONS.c.event_ns, PROMOTIONS.c.model))
        return [Promotion(**row) for row in rows]

    def orders(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` orders as plain values, newest last; money is text."""
        rows = self._newest(sa.select(ORDERS), (ORDERS.c.event_ns, ORDERS.c.position), limit)
        return [row | {"is_stored": bool(row["is_stored"])} for row in rows]

    def fills(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` fills as plain values, newest last; money is text."""
        order = (FILLS.c.event_ns, ORDERS.c.event_ns, ORDERS.c.position, FILLS.c.number)
        return self._newest(sa.select(FILLS).join(ORDERS), order, limit)

    def equity(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` steps as plain values, newest last; money is text."""
        rows = self._newest(sa.select(STEPS), (STEPS.c.event_ns,), limit)
        return [row | {"prices": json.loads(row["prices"])} for row in rows]

    def counts(self) -> dict[str, int]:
        """Return the numbers of orders (the refused ones not among them), fills and more.

        `stops` are the orders of a stop that were filled.
        """
        state, purpose = ORDERS.c.state, ORDERS.c.purpose
        orders = sa.select(
            sa.func.count().filter(state != "refused").label("orders"),
            sa.func.count().filter(state == "refused").label("refused"),
            sa.func.count().filter(state == "filled", purpose == "stop").label("stops"),
        ).select_from(ORDERS)
        counted = dict(self._rows(orders)[0])
        for name, table in (("fills", FILLS), ("halts", HALTS)):
            query = sa.select(sa.func.count().label(name)).select_from(table)
            counted |= self._rows(query)[0]
        return counted

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        self._engine.dispose()

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)

    def _newest(
        self, query: sa.Select[*tuple[Any, ...]], order: Sequence[sa.Column[Any]], limit: int
    ) -> list[dict[str, Any]]:
        newest_first = query.order_by(*(column.desc() for column in order)).limit(limit)
        return self._rows(newest_first)[::-1]

    def _rows(self, query: sa.Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        with self._database() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    @contextmanager
    def _database(self) -> Iterator[sa.Connection]:
        with store_errors(self.path), self._engine.begin() as db:
            yield db


def check_schema(db: sa.Connection, path: Path, *, run: str | None = None) -> None:
    """Raise StoreError if the ledger is of another schema, or of another run than `run`."""
    meta = {row.key: row.value for row in db.execute(sa.select(META))}
    if meta.get("schema_version") != str(SCHEMA_VERSION):
        raise StoreError(
            f"ledger {path}: expected schema version {SCHEMA_VERSION}, was "
            f"{meta.get('schema_version')}; use the AlphaPulse version that wrote it, or start a "
            "fresh run"
        )
    if run is not None and meta.get("run") != run:
        raise StoreError(
            f"ledger {path}: expected the one of run {run}, was {meta.get('run')}; "
            "open the folder of that run, or start a fresh one"
        )


def _begin(db: sa.Connection) -> None:
    db.exec_driver_sql(db.get_execution_options().get("begin", "BEGIN"))


def _order(row: dict[str, Any]) -> Order:
    stop = row["stop_price"]
    return Order(
        symbol=row["symbol"],
        event_ns=row["event_ns"],
        quantity=Decimal(row["quantity"]),
        inference_id=row["inference_id"],
        purpose=Purpose(row["purpose"]),
        stop_price=None if stop is None else Decimal(stop),
        is_stored=bool(row["is_stored"]),
    )


def _fill(row: dict[str, Any]) -> Fill:
    return Fill(
        symbol=row["symbol"],
        event_ns=row["event_ns"],
        quantity=Decimal(row["quantity"]),
        price=Decimal(row["price"]),
        fee=Decimal(row["fee"]),
        order_id=row["order_id"],
        source=row["source"],
    )


def _step(row: dict[str, Any]) -> Step:
    money = {name: Decimal(row[name]) for name in ("cash", "equity", "peak", "drawdown")}
    prices = {symbol: Decimal(price) for symbol, price in json.loads(row["prices"]).items()}
    return Step(event_ns=row["event_ns"], prices=prices, **money)
