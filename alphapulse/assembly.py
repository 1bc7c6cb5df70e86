"""Put the desk of a run together: the one place where portfolio, risk and execution meet."""

from __future__ import annotations

from decimal import Decimal

from alphapulse.config import Settings
from alphapulse.domain.errors import Unavailable
from alphapulse.domain.trading import Quote
from alphapulse.execution.desk import Desk
from alphapulse.execution.ledger import Ledger
from alphapulse.execution.paper import AskQuote, PaperExecutor
from alphapulse.portfolio.accounting import Portfolio
from alphapulse.portfolio.allocation import Sizing
from alphapulse.risk.gate import Gate
from alphapulse.storage.home import Run


def make_desk(run: str, settings: Settings, *, ledger: Ledger, quote: AskQuote) -> Desk:
    """Return the desk of a run that trades on paper.

    Args:
        run: id of the run.
        settings: of market, trading and risk.
        ledger: of the run.
        quote: asks the market what an order meets, by symbol and time of arrival.
    """
    rules = settings.venue_rules
    return Desk(
        run=run,
        ledger=ledger,
        portfolio=Portfolio(Decimal(repr(settings.trading.initial_cash))),
        gate=Gate.of(settings),
        executor=PaperExecutor(quote, rules=rules, trading=settings.trading),
        size=Sizing(settings.risk, rules, fee_bps=settings.trading.fee_bps),
        rules=rules,
        stop_r=settings.risk.stop_r,
    )


async def stopped_desk(run: Run, settings: Settings) -> Desk:
    """Return the desk of a run that nobody works on, as its newest step left it."""

    async def no_quote(symbol: str, at_ns: int) -> Quote | None:
        raise Unavailable(
            f"quote of {symbol} at {at_ns}: expected a running `alphapulse up`, was none"
        )

    ledger = Ledger(run.path / "ledger.sqlite", run=run.id)
    desk = make_desk(run.id, settings, ledger=ledger, quote=no_quote)
    await desk.restore(ledger.last_step() or 0)
    return desk
