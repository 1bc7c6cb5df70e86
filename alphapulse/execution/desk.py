"""The trading desk: from the decisions of an instant to durable orders, fills and the account.

An instant is done once. What the ledger has of it is the truth: made again after a crash, it finds
its orders and their fills there, and sends only those without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from alphapulse.config import Risk
from alphapulse.domain.errors import InvalidRequest, StoreError, Unavailable
from alphapulse.domain.inference import Decision, DecisionPoint
from alphapulse.domain.inputs import Tensor
from alphapulse.domain.trading import (
    ZERO,
    Account,
    Approved,
    VenueRules,
    decimal_of,
)
from alphapulse.execution.account import as_plain, opened, stands, step_of, vector
from alphapulse.execution.intents import RESUME, Intents, RiskGate, SizeEntry, announce
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.ledger_tables import Step, text
from alphapulse.execution.outbox import Books, Outbox
from alphapulse.interfaces import Executor
from alphapulse.logs import describe, get_logger

log = get_logger("execution")


class Desk:
    """Acts on decisions: durable first, then sent, then counted.

    ```python
    desk = Desk(run=run, ledger=ledger, portfolio=portfolio, gate=gate, executor=executor, ...)
    await desk.restore(until_ns)
    await desk.complete()
    async for point in points:
        decisions = ...
        await desk.act(point, decisions, stored=True, entries=True)
    ```

    Attributes:
        at_ns: newest durable step [ns UTC], 0 before the first.
        unsent: instants at which nothing was sent because the ledger did not take it, or because
            an open position had no price.
    """

    def __init__(
        self,
        *,
        run: str,
        ledger: Ledger,
        portfolio: Books,
        gate: RiskGate,
        executor: Executor,
        size: SizeEntry,
        rules: Mapping[str, VenueRules],
        stop_r: float,
    ) -> None:
        """Keep who does what.

        Args:
            run: id of the run.
            ledger: of the run.
            portfolio: one that nothing was applied to.
            gate: reviews every order.
            executor: takes the approved ones.
            size: says how large an entry may be.
            rules: of the venue, by symbol; these symbols are traded.
            stop_r: distance of a stop from the entry [R].
        """
        self._ledger = ledger
        self._portfolio = portfolio
        self._gate = gate
        self._intents = Intents(run, gate, size, rules)
        self._outbox = Outbox(ledger, executor, portfolio)
        self._rules = rules
        self._stop_r = Decimal(repr(stop_r))
        self.at_ns = 0
        self._prices: Mapping[str, Decimal] = {}  # of the step at `at_ns`
        self._drawdown = ZERO  # of the step at `at_ns`
        self._extremes: dict[str, tuple[Decimal, Decimal]] = {}  # lowest, highest since `at_ns`
        self.unsent = 0

    async def restore(self, until_ns: int) -> None:
        """Take the account from the ledger as it was after the instant `until_ns` [ns UTC].

        Orders without an answer wait for `complete`. Whether trading is halted is asked of the
        ledger at each instant. Raises StoreError if the fills do not add up to the cash of the
        newest step: then something is missing, and nothing must be sent.
        """
        step = self._ledger.step_at(until_ns)
        if step is None:
            return
        self._outbox.recall(self._ledger.orders_until(step.event_ns - 1))
        if self._portfolio.cash != step.cash:
            raise StoreError(
                f"ledger {self._ledger.path}: expected cash {step.cash} at {step.event_ns}, was "
                f"{self._portfolio.cash} by its fills; restore a backup, or start a fresh run"
            )
        self._recall(step)

    async def complete(self) -> None:
        """Send what was durable at the restored instant and has no answer yet."""
        await self._outbox.send()

    async def act(
        self,
        point: DecisionPoint,
        decisions: Sequence[Decision],
        *,
        stored: bool,
        entries: bool,
    ) -> None:
        """Do what risk and `decisions` ask for at `point`, once.

        If the ledger does not take it, or an open position has no price, nothing is sent and the
        next instant tries anew; a stop that was touched meanwhile closes its position then. What
        the executor raises goes on to the caller; its order is sent again at the next instant, or
        after a restart by `complete`.

        Args:
            point: with the marks of the instant.
            decisions: of the instant; none where the inputs were incomplete.
            stored: whether their inferences are durable; the orders are flagged if not.
            entries: whether positions may be opened; stops, halts and exits go on without.
        """
        self._widen(point)
        if not await self._sent(point):
            self.unsent += 1
            return
        try:
            known = self._ledger.step_at(point.event_ns)
            if known is not None and known.event_ns == point.event_ns:
                self._recall(known)
            elif (self._ledger.last_step() or 0) < point.event_ns:
                self._decide(point, decisions, stored=stored, entries=entries)
            # else the ledger was down at this instant, and later ones are durable: it stays so
        except (StoreError, Unavailable) as error:
            self.unsent += 1
            _report("nothing sent", point, error)
        else:
            await self._sent(point)

    async def halt(self, reason: str, event_ns: int) -> bool:
        """Return whether trading was not halted yet; from the next step on it is, durably.

        Args:
            reason: of the person who asks.
            event_ns: newest decision instant [ns UTC].

        Raises InvalidRequest without a reason.
        """
        _require(reason)
        is_new = self._ledger.halt(reason, event_ns)
        if is_new:
            log.warning("halted", code="Halted", reason=reason, event_ns=event_ns, remedy=RESUME)
        return is_new

    async def resume(self, reason: str, event_ns: int) -> None:
        """Let trading go on from the next step.

        The peak starts anew, once, with the equity of that step: measured from the old one the
        drawdown would halt trading again at once, and the person has seen and accepted it.
        Arguments as of `halt`. Raises InvalidRequest if trading is not halted, or without a reason.
        """
        _require(reason)
        if not self._ledger.clear_halt(reason, event_ns):
            raise InvalidRequest(
                "resume: expected trading to be halted, was not; see `alphapulse status`"
            )
        log.info("resumed", reason=reason, event_ns=event_ns)

    def account_vectors(self) -> dict[str, Tensor]:
        """Return what the models are told of the account, by symbol.

        float32 (4,): position -1, 0 or 1; unrealised result [R]; whole seconds in trade / 300,
        60 a bar where a run decides by minutes; drawdown. At the prices of the newest step, with
        the fills after it.
        """
        account = self._account()
        return {symbol: vector(account, symbol, stop_r=self._stop_r) for symbol in self._rules}

    def summary(self) -> dict[str, Any]:
        """Return what was traded in the run so far as plain values; money is text."""
        gross, fees = self._portfolio.gross(self._prices), self._portfolio.fees
        return {
            **self._ledger.counts(),
            "is_halted": any(halt.cleared_ns is None for halt in self._ledger.halts()),
            "unsent": self.unsent,
            "pnl": {"gross": text(gross), "fees": text(fees), "net": text(gross - fees)},
            "equity": text(self._account().equity),
            "positions": [as_plain(position) for position in self._portfolio.positions],
        }

    def risk(self, limits: Risk) -> dict[str, Any]:
        """Return where the account stands against `limits`, and every halt, as plain values."""
        return stands(self._account(), self._ledger.halts(), limits)

    def positions(self) -> list[dict[str, Any]]:
        """Return what is open at the newest prices, as plain values."""
        return opened(self._account())

    async def _sent(self, point: DecisionPoint) -> bool:
        """Return whether what is durable was sent and its fills are durable too."""
        try:
            await self._outbox.send()
        except StoreError as error:
            _report("fills not stored", point, error)
            return False
        return True

    def _recall(self, step: Step) -> None:
        """Take `step` and its orders from the ledger."""
        self._outbox.recall(self._ledger.orders_until(step.event_ns, from_ns=step.event_ns))
        self._portfolio.peak = step.peak
        self._stand(step)

    def _decide(
        self, point: DecisionPoint, decisions: Sequence[Decision], *, stored: bool, entries: bool
    ) -> None:
        """Make the step of `point` durable and hand its approved orders to the outbox."""
        peak = self._portfolio.peak
        try:
            account = self._marked(point)
            halt = None if account.is_halted else self._gate.breach(account)
            account = replace(account, is_halted=account.is_halted or halt is not None)
            verdicts = self._intents.of(
                account, decisions, point.marks, is_stored=stored, entries=entries
            )
            step = step_of(account)
            self._ledger.step(step, verdicts, halt=halt)
        except BaseException:
            self._portfolio.peak = peak  # the instant did not happen
            raise
        self._stand(step)
        self._outbox.add([verdict for verdict in verdicts if isinstance(verdict, Approved)])
        announce(account, verdicts, halt)

    def _stand(self, step: Step) -> None:
        """Take `step` as the newest durable one."""
        self.at_ns, self._prices, self._drawdown = step.event_ns, step.prices, step.drawdown
        self._extremes = {}

    def _widen(self, point: DecisionPoint) -> None:
        """Keep how far prices went until a step that saw it is durable."""
        for symbol, mark in point.marks.items():
            tick = self._rules[symbol].tick_size
            low, high = (decimal_of(value, step=tick) for value in (mark.low, mark.high))
            lowest, highest = self._extremes.get(symbol, (low, high))
            self._extremes[symbol] = min(low, lowest), max(high, highest)

    def _marked(self, point: DecisionPoint) -> Account:
        """Return the account at the prices of `point`, its peak raised to them."""
        prices = {
            symbol: decimal_of(mark.price, step=self._rules[symbol].tick_size)
            for symbol, mark in point.marks.items()
        }
        halts = self._ledger.halts()
        # a halt cleared at the newest step: one at its peak has seen it, or needs no other peak
        since_ns = self.at_ns if self._drawdown else self.at_ns + 1
        cleared = [halt.cleared_ns for halt in halts if halt.cleared_ns is not None]
        if any(since_ns <= cleared_ns <= point.event_ns for cleared_ns in cleared):
            self._portfolio.peak = ZERO  # see `resume`
        self._portfolio.mark(prices)
        is_halted = any(halt.holds_at(point.event_ns) for halt in halts)
        return self._portfolio.account(
            point.event_ns, prices, extremes=self._extremes, is_halted=is_halted
        )

    def _account(self) -> Account:
        return self._portfolio.account(self.at_ns, self._prices)


def _report(event: str, point: DecisionPoint, error: StoreError | Unavailable) -> None:
    log.error(
        event,
        **describe(error),
        event_ns=point.event_ns,
        remedy="nothing more is sent until it is well again; see `alphapulse doctor` for the disk",
    )


def _require(reason: str) -> None:
    if not reason.strip():
        raise InvalidRequest("expected a reason, was none; say why with --reason TEXT")
