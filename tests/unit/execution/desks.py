"""A desk with the real rooms around it, points and decisions by hand, a market that can fail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from alphapulse.config import Risk, Settings, Trading
from alphapulse.domain.errors import StoreError
from alphapulse.domain.inference import Action, Decision, DecisionPoint, Thresholds
from alphapulse.domain.market import Mark
from alphapulse.domain.trading import Approved, Fill, Quote, Refused
from alphapulse.execution.desk import Desk
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.ledger_tables import Step
from alphapulse.execution.paper import PaperExecutor
from alphapulse.portfolio.accounting import Portfolio
from alphapulse.portfolio.allocation import Sizing
from alphapulse.risk.gate import Gate
from tests.unit.execution.points import BTC, ETH, RUN, a_decision, an_input, instant

SPOT = Settings()
MARGIN = Settings(trading=Trading(allow_short=True))
DEEP = 1_000.0  # base currency, at each of two levels
PRICES = {ETH: 2_500.0, BTC: 60_000.0}
WALL_CLOCK = {"halts": ("at", "cleared_at")}


class Crash(Exception):
    """The process is gone at this very place."""


class FailingLedger(Ledger):
    """A ledger that takes no steps, or no answers, while told so.

    Attributes:
        failing: names of the methods that raise StoreError.
        crash_in: number of calls that come through before the process is gone; None for never.
    """

    failing: frozenset[str] = frozenset()
    crash_in: int | None = None

    def step(
        self, step: Step, verdicts: Sequence[Approved | Refused] = (), *, halt: str | None = None
    ) -> bool:
        """Keep the step unless told otherwise."""
        self._pass("step")
        is_new = super().step(step, verdicts, halt=halt)
        self._pass("after step")
        return is_new

    def fill(self, order_id: str, fills: Sequence[Fill]) -> bool:
        """Keep the answer unless told otherwise."""
        self._pass("fill")
        is_new = super().fill(order_id, fills)
        self._pass("after fill")
        return is_new

    def _connect(self) -> sqlite3.Connection:
        db = super()._connect()
        db.execute("PRAGMA synchronous = OFF")  # no power fails here, and it is many times faster
        return db

    def _pass(self, name: str) -> None:
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                raise Crash(name)
        if name in self.failing:
            raise StoreError("ledger: expected to write, was no space left; free the disk")


class Exchange:
    """A market whose price is a function of time; counts how often each arrival was asked for.

    Attributes:
        asked: every (symbol, instant) asked for.
        is_down: whether it raises.
        ends_ns: from when on the source has ended [ns UTC].
    """

    def __init__(self, path: Mapping[int, Mapping[str, float]] | None = None) -> None:
        self.path = path or {}
        self.asked: list[tuple[str, int]] = []
        self.is_down = False
        self.ends_ns = 2**62

    def price(self, symbol: str, second: int) -> float:
        """Return the price at a second: that of the newest one in `path`."""
        known = [s for s in self.path if s <= second and symbol in self.path[s]]
        return self.path[max(known)][symbol] if known else PRICES[symbol]

    async def quote(self, symbol: str, event_ns: int) -> Quote | None:
        """Return a book of two levels a side around the price."""
        self.asked.append((symbol, event_ns))
        await asyncio.sleep(0)
        if self.is_down:
            raise ConnectionError("market: expected an answer, was none")
        if event_ns >= self.ends_ns:
            return None
        price = self.price(symbol, (event_ns - instant(0)) // 10**9)
        bids_L2 = np.array([[price - 0.01, 0.03], [price - 0.02, DEEP]])
        asks_L2 = np.array([[price + 0.01, 0.03], [price + 0.02, DEEP]])
        return Quote(symbol, event_ns, "book", price, bids_L2, asks_L2)

    def point(
        self,
        second: int,
        *,
        risk: float = 0.01,
        low: float | None = None,
        high: float | None = None,
    ) -> DecisionPoint:
        """Return the point at a second; `low` and `high` are those of ETH since the one before."""
        marks = {}
        for symbol in (ETH, BTC):
            price = self.price(symbol, second)
            marks[symbol] = Mark(price, price, price, risk)
        eth = marks[ETH]
        marks[ETH] = replace(eth, low=low or eth.low, high=high or eth.high)
        return DecisionPoint(instant(second), second, {}, {}, (), {}, {}, 0, marks)


@cache
def _template(symbol: str) -> Decision:
    return a_decision(an_input(0, symbol), Thresholds())


def decided(second: int, action: str, symbol: str = ETH) -> Decision:
    """Return the decision to do `action` at a second."""
    return replace(_template(symbol), event_ns=instant(second), action=Action(action))


class Room:
    """A desk over a ledger in `folder`; a second one over the same folder is a restarted process.

    Attributes:
        desk: under test.
        ledger: of the run.
        exchange: what its executor meets.
        portfolio: what the desk counts in.
    """

    def __init__(
        self, folder: Path, settings: Settings = SPOT, *, exchange: Exchange | None = None
    ) -> None:
        rules = settings.venue_rules
        self.exchange = exchange or Exchange()
        self.ledger = FailingLedger(folder / "ledger.sqlite", RUN)
        self.portfolio = Portfolio(Decimal(repr(settings.trading.initial_cash)))
        self.desk = Desk(
            run=RUN,
            ledger=self.ledger,
            portfolio=self.portfolio,
            gate=Gate.of(settings),
            executor=PaperExecutor(self.exchange.quote, rules=rules, trading=settings.trading),
            size=Sizing(settings.risk, rules, fee_bps=settings.trading.fee_bps),
            rules=rules,
            stop_r=settings.risk.stop_r,
        )

    def act(
        self,
        second: int,
        *actions: str | tuple[str, str],
        stored: bool = True,
        entries: bool = True,
        **mark: float,
    ) -> None:
        """Let the desk act at a second on actions for ETH, or on pairs of action and symbol."""
        pairs = [(a, ETH) if isinstance(a, str) else a for a in actions]
        decisions = [decided(second, action, symbol) for action, symbol in pairs]
        point = self.exchange.point(second, **mark)
        asyncio.run(self.desk.act(point, decisions, stored=stored, entries=entries))

    def restore(self, second: int) -> None:
        """Restore the account as it was after a second and finish what it left."""

        async def restoring() -> None:
            await self.desk.restore(instant(second))
            await self.desk.complete()

        asyncio.run(restoring())

    def halt(self, reason: str, second: int) -> bool:
        """Halt trading as a person does after a second."""
        return asyncio.run(self.desk.halt(reason, instant(second)))

    def resume(self, reason: str, second: int) -> None:
        """Resume trading as a person does after a second."""
        asyncio.run(self.desk.resume(reason, instant(second)))

    def orders(self) -> list[tuple[str, str, str, str]]:
        """Return symbol, purpose, sign of the quantity and state of every order, oldest first."""
        rows = self.ledger.orders(999)
        sign = ["-" if row["quantity"].startswith("-") else "+" for row in rows]
        return [(r["symbol"], r["purpose"], s, r["state"]) for r, s in zip(rows, sign, strict=True)]

    def is_halted(self, second: int) -> bool:
        """Return whether trading is halted at a second."""
        return any(halt.holds_at(instant(second)) for halt in self.ledger.halts())

    def held(self) -> dict[str, Decimal]:
        """Return the quantities that are open, by symbol."""
        return {p.symbol: p.quantity for p in self.portfolio.positions}


def limits(**changed: float) -> Settings:
    """Return the default settings with other limits."""
    return Settings(risk=Risk(**changed))


def rows_of(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table but for the wall clock."""
    found = {}
    with closing(sqlite3.connect(ledger.path)) as db:
        db.row_factory = sqlite3.Row
        for table in ("orders", "fills", "steps", "halts", "promotions"):
            rows = [dict(row) for row in db.execute(f"SELECT * FROM {table}")]
            for name in WALL_CLOCK.get(table, ()):
                for row in rows:
                    del row[name]
            found[table] = rows
    return found
