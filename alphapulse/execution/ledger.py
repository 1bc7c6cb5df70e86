"""One run's ledger: a SQLite file with one writer and any number of readers.

What a call returned survives a kill -9 and a power failure (write-ahead log, synchronous=FULL), and
a call that is made again changes nothing: orders, steps and fills are known by their ids.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from alphapulse.domain.errors import InvalidRequest, StoreError
from alphapulse.domain.learning import Promotion
from alphapulse.domain.trading import ZERO, Approved, Fill, Refused
from alphapulse.execution.ledger_reader import LedgerReader, check_schema
from alphapulse.execution.ledger_tables import (
    FILLS,
    HALTS,
    META,
    METADATA,
    ORDERS,
    PROMOTIONS,
    SCHEMA_VERSION,
    STEPS,
    Step,
    store_errors,
    text,
)


class Ledger(LedgerReader):
    """The one writer of a run's ledger; made where there is none yet.

    ```python
    if ledger.step(step, verdicts):
        for verdict in verdicts:
            ledger.fill(verdict.order.id, await executor.submit(verdict))
    ```

    Attributes:
        path: the SQLite file; its folder must exist.
        run: id of the run every row carries.
    """

    def __init__(self, path: Path, run: str, *, busy_timeout_s: float = 5.0) -> None:
        super().__init__(path)
        self.run = run
        self._busy_timeout_s = busy_timeout_s
        with self._transaction() as db:
            METADATA.create_all(db)
            meta = {"schema_version": str(SCHEMA_VERSION), "run": run}
            rows = [{"key": key, "value": value} for key, value in meta.items()]
            db.execute(insert(META).on_conflict_do_nothing(), rows)
            check_schema(db, path, run=run)

    def step(
        self, step: Step, verdicts: Sequence[Approved | Refused] = (), *, halt: str | None = None
    ) -> bool:
        """Return whether `step` was new; if so its verdicts are durable, all or nothing.

        Args:
            step: the account at the instant.
            verdicts: on the orders of the instant, in the order they were made; the approved ones
                are on their way from now on.
            halt: why trading halts at this instant, None where it does not.

        Raises StoreError if nothing was stored.
        """
        with self._transaction() as db:
            refused = sum(isinstance(verdict, Refused) for verdict in verdicts)
            row = {
                "event_ns": step.event_ns,
                "run": self.run,
                **{n: text(getattr(step, n)) for n in ("cash", "equity", "peak", "drawdown")},
                "prices": json.dumps({s: text(p) for s, p in sorted(step.prices.items())}),
                "refused": refused,
            }
            if not db.execute(insert(STEPS).values(row).on_conflict_do_nothing()).rowcount:
                return False
            orders = [self._order_row(i, verdict) for i, verdict in enumerate(verdicts)]
            if orders:
                db.execute(insert(ORDERS), orders)
            if halt is not None:
                _insert_halt(db, halt, step.event_ns)
        return True

    def fill(self, order_id: str, fills: Sequence[Fill]) -> bool:
        """Return whether the answer was new; if so `fills` are durable and the order is filled.

        Where they are less than was asked, the rest is not sent again and the order says so.
        """
        with self._transaction() as db:
            where = (ORDERS.c.id == order_id, ORDERS.c.state == "sent")
            asked = db.execute(sa.select(ORDERS.c.quantity).where(*where)).scalar()
            if asked is None:
                return False
            got = sum((fill.quantity for fill in fills), ZERO)
            reason = "" if got == Decimal(asked) else f"filled {text(got)} of {asked}"
            db.execute(insert(FILLS), [_fill_row(order_id, i, f) for i, f in enumerate(fills)])
            db.execute(sa.update(ORDERS).where(*where).values(state="filled", reason=reason))
        return True

    def unfilled(self, order_id: str, reason: str) -> bool:
        """Return whether the answer was new; if so the order is over without a fill."""
        with self._transaction() as db:
            where = (ORDERS.c.id == order_id, ORDERS.c.state == "sent")
            done = db.execute(
                sa.update(ORDERS).where(*where).values(state="unfilled", reason=reason)
            )
            return bool(done.rowcount)

    def halt(self, reason: str, event_ns: int) -> bool:
        """Return whether trading was not halted already; from now on it is.

        Args:
            reason: in a sentence.
            event_ns: newest decision instant [ns UTC]; steps that are made from now on are halted.
        """
        with self._transaction() as db:
            if db.execute(sa.select(HALTS).where(HALTS.c.cleared_ns.is_(None))).first():
                return False
            _insert_halt(db, reason, event_ns)
        return True

    def clear_halt(self, reason: str, event_ns: int) -> bool:
        """Return whether trading was halted; from now on it is not. Arguments as of `halt`."""
        with self._transaction() as db:
            cleared = {"cleared_ns": event_ns, "clear_reason": reason, "cleared_at": _now()}
            open_halts = sa.update(HALTS).where(HALTS.c.cleared_ns.is_(None))
            return bool(db.execute(open_halts.values(cleared)).rowcount)

    def promote(self, promotion: Promotion) -> bool:
        """Return whether `promotion` was new; it is durable now.

        Raises InvalidRequest if another one of the model has the same instant, StoreError if it is
        of another run or was not stored.
        """
        if promotion.run != self.run:
            raise StoreError(
                f"ledger {self.path}: expected a promotion of run {self.run}, "
                f"was {promotion.run}; hand it to the ledger of its run"
            )
        names = [column.name for column in PROMOTIONS.columns]
        row = {name: getattr(promotion, name) for name in names}
        with self._transaction() as db:
            new = db.execute(insert(PROMOTIONS).values(row).on_conflict_do_nothing()).rowcount
        if not new and promotion not in self.promotions():
            raise InvalidRequest(
                f"promotion of {promotion.model} at {promotion.event_ns}: expected one an instant, "
                "was a second one; let it begin at the next instant"
            )
        return bool(new)

    def _order_row(self, position: int, verdict: Approved | Refused) -> dict[str, Any]:
        order = verdict.order
        is_refused = isinstance(verdict, Refused)
        return {
            "id": order.id,
            "run": self.run,
            "inference_id": order.inference_id,
            "is_stored": int(order.is_stored),
            "symbol": order.symbol,
            "event_ns": order.event_ns,
            "position": position,
            "quantity": text(order.quantity),
            "purpose": order.purpose.value,
            "stop_price": None if order.stop_price is None else text(order.stop_price),
            "state": "refused" if is_refused else "sent",
            "reason": verdict.reason if isinstance(verdict, Refused) else "",
        }

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=self._busy_timeout_s, check_same_thread=False, isolation_level=None
        )
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                db.execute(f"PRAGMA {pragma}")
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        engine = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        with store_errors(self.path), engine.begin() as db:
            yield db


def _insert_halt(db: sa.Connection, reason: str, event_ns: int) -> None:
    db.execute(insert(HALTS).values(event_ns=event_ns, reason=reason, at=_now()))


def _fill_row(order_id: str, number: int, fill: Fill) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "number": number,
        "event_ns": fill.event_ns,
        "symbol": fill.symbol,
        **{name: text(getattr(fill, name)) for name in ("quantity", "price", "fee")},
        "source": fill.source,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
