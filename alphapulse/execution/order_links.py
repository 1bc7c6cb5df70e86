"""Tell the history which order followed from which inference; the ledger is the truth of both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from alphapulse.domain.errors import AlphaPulseError
from alphapulse.execution.ledger_reader import LedgerReader
from alphapulse.logs import describe, get_logger

log = get_logger("execution")
Note = Callable[[str, Sequence[Mapping[str, Any]]], Awaitable[int]]


class OrderLinks:
    """Sends the links of a ledger's orders beside the decisions, never in their way.

    What the history does not take is sent again with the next step, and all of it after a restart:
    a link is kept once. An order that was refused followed from nothing.
    """

    def __init__(self, ledger: LedgerReader, note: Note) -> None:
        self._ledger = ledger
        self._note = note
        self._from_ns = 0  # oldest step whose links may not be durable [ns UTC]
        self._sending: asyncio.Task[bool] | None = None

    def follow(self, event_ns: int) -> None:
        """Begin to send the links of the steps up to `event_ns`, unless a sending is under way."""
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self.send(event_ns))

    async def send(self, event_ns: int) -> bool:
        """Return whether the links of all steps up to `event_ns` [ns UTC] are durable."""
        try:
            known = self._ledger.orders_until(event_ns, from_ns=self._from_ns)
            rows = [
                {
                    "order_id": one.order.id,
                    "inference_id": one.order.inference_id,
                    "symbol": one.order.symbol,
                    "event_ns": one.order.event_ns,
                    "purpose": one.order.purpose.value,
                }
                for one in known
                if one.state != "refused"
            ]
            if rows:
                await self._note("orders", rows)
        except AlphaPulseError as error:
            log.warning("orders not linked", event_ns=event_ns, **describe(error))
            return False
        self._from_ns = event_ns + 1
        return True

    async def close(self, event_ns: int) -> None:
        """Send what is left, after what is under way."""
        if self._sending is not None:
            await self._sending
        await self.send(event_ns)
