"""Name every way in which market data is refused or substituted, with its cause and its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why an event was refused, or what stands in for data that is not there."""

    # an event was refused: it is kept in a quarantine, and counted
    OUT_OF_ORDER = "out_of_order"
    DUPLICATE = "duplicate"
    CROSSED = "crossed"
    SEQUENCE_GAP = "sequence_gap"
    NOT_FINITE = "not_finite"
    NEGATIVE = "negative"
    PRICE_JUMP = "price_jump"
    STALE = "stale"
    AHEAD = "ahead"
    UNREADABLE = "unreadable"
    INVALID = "invalid"
    UNKNOWN_SYMBOL = "unknown_symbol"
    LATE_TRADE = "late_trade"
    LATE_BOOK = "late_book"
    LATE_BAR = "late_bar"
    LATE_GAP = "late_gap"
    # something stands in for what is not there: it is flagged, and lasts until it is over
    FEED_DOWN = "feed_down"
    NO_SECONDS = "no_seconds"
    BOOK_UNKNOWN = "book_unknown"
    FALLBACK_BOOK = "fallback_book"
    CLOCK_SKEW = "clock_skew"

    @property
    def alert_code(self) -> str:
        """Return the code of the alert that tells it, such as `PriceJump`."""
        return "".join(part.title() for part in self.value.split("_"))


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a person needs to know of a reason.

    Attributes:
        cause: what happened, one clause.
        remedy: what to do about it, one clause.
    """

    cause: str
    remedy: str


EXPLAINED: Mapping[Reason, Explanation] = {
    Reason.OUT_OF_ORDER: Explanation(
        "a number is lower than one before it, though its time is not",
        "nothing, if it was once; else look whether the venue numbers its events anew, and restart",
    ),
    Reason.DUPLICATE: Explanation(
        "the venue or a reconnect sent an event again", "nothing: it was taken once"
    ),
    Reason.CROSSED: Explanation(
        "a bid stands at or above an ask",
        "nothing: the book is unknown until the next snapshot; if it repeats, look at the venue",
    ),
    Reason.SEQUENCE_GAP: Explanation(
        "book messages were missed",
        "nothing: the book is unknown until the next snapshot; if it repeats, check the network",
    ),
    Reason.NOT_FINITE: Explanation(
        "a price or size is not a number or has no end", "report it to the venue"
    ),
    Reason.NEGATIVE: Explanation(
        "a price is not above 0, or a size is below 0", "report it to the venue"
    ),
    Reason.PRICE_JUMP: Explanation(
        "a trade far from those before it, which neither the book nor the next trade confirmed",
        "compare it with the venue's page; raise feed.price_jump_pct if the market moves like that",
    ),
    Reason.STALE: Explanation(
        "an event is much older than the newest one",
        "check the network; raise feed.stale_s if the venue is that slow",
    ),
    Reason.AHEAD: Explanation(
        "an event says it happens more than a minute after it was received",
        "let this machine keep time by NTP; if its clock is right, report it to the venue",
    ),
    Reason.UNREADABLE: Explanation(
        "a message could not be read as an event",
        "look at its text in the log; the venue may have changed its format: update ccxt",
    ),
    Reason.INVALID: Explanation(
        "a book message holds a price or a size its instrument cannot have",
        "correct market.tick_sizes, if the venue changed them",
    ),
    Reason.UNKNOWN_SYMBOL: Explanation(
        "an event of an instrument nobody watches", "add it to market.symbols, or unsubscribe"
    ),
    Reason.LATE_TRADE: Explanation(
        "a trade came after its place in the order was given away: it is kept, and what closed "
        "without it is flagged",
        "raise feed.watermark_ms, or check the network",
    ),
    Reason.LATE_BOOK: Explanation(
        "a book message came after its place in the order was given away",
        "raise feed.watermark_ms, or check the network",
    ),
    Reason.LATE_BAR: Explanation(
        "a bar came after its place in the order was given away",
        "raise feed.watermark_ms, or check the network",
    ),
    Reason.LATE_GAP: Explanation(
        "a gap was told after its place in the order was given away",
        "raise feed.watermark_ms, or check the network",
    ),
    Reason.FEED_DOWN: Explanation(
        "no events from the venue",
        "check the network and the venue; no prediction is made until it answers",
    ),
    Reason.NO_SECONDS: Explanation(
        "no one-second bar at the newest instant: 1m is the lowest timeframe models see",
        "check the venue's trades; what is missing is masked, and every record says so",
    ),
    Reason.BOOK_UNKNOWN: Explanation(
        "no order book at the newest instant",
        "wait for the next snapshot; what is missing is masked, and every record says so",
    ),
    Reason.FALLBACK_BOOK: Explanation(
        "the stream of book changes fell silent; snapshots asked for one by one stand in",
        "check the venue's streams; it goes back by itself when they speak again",
    ),
    Reason.CLOCK_SKEW: Explanation(
        "this machine's clock and the venue's differ",
        "let this machine keep time by NTP; raise feed.skew_ms if it is the venue's clock",
    ),
}


def reason_of(code: str) -> Reason:
    """Return the reason a word of a quarantine stands for.

    An event that could not be built carries the name of its error, such as `InvalidEvent`; that is
    UNREADABLE.
    """
    try:
        return Reason(code)
    except ValueError:
        return Reason.UNREADABLE
