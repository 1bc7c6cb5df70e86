"""Say what goes wrong, where and when: the faults an exchange can be told to have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong with `count` messages of one stream, or requests to one path.

    It begins at the first that is both number `first` or later and not before `after_ns`.

    Attributes:
        target: a stream such as `ethusdt@trade`, or a path such as `/api/v3/depth`; `/stream/ws`
            is the opening of a WebSocket.
        first: number of the first message hit, from 0 at the start of the play; a candle stream
            counts from its first subscription, a path from its first request.
        count: how many are hit.
        after_ns: event time before which nothing is hit [ns UTC].
    """

    target: str
    first: int = 0
    count: int = 1
    after_ns: int = 0


class Drop(Fault):
    """The messages are never sent; in a depth stream that is a sequence gap."""

    __slots__ = ()


class Duplicate(Fault):
    """Each message is sent twice."""

    __slots__ = ()


class Reorder(Fault):
    """Each message is sent after the one that follows it."""

    __slots__ = ()


class Hang(Fault):
    """The stream falls silent on an open connection, until somebody subscribes to it anew."""

    __slots__ = ()


class HalfClose(Fault):
    """The exchange shuts its sending half of the connection without a word and goes on reading."""

    __slots__ = ()


class Stall(Fault):
    """The request is never answered."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay(Fault):
    """The messages come late in event time, and those behind them wait, as in one connection.

    Attributes:
        by_ns: how late [ns].
    """

    by_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongType(Fault):
    """A field of the message holds something else.

    Attributes:
        field: name of the field, such as `p`.
        value: what it holds.
    """

    field: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Fault):
    """The exchange closes the connection with a close frame before the message.

    Attributes:
        code: close code; 1001 is going away.
    """

    code: int = 1001


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(Fault):
    """The request, or the opening of a WebSocket, is answered with an error status.

    Attributes:
        status: 429 (slow down), 418 (banned), 5xx.
        retry_after_s: Retry-After header [s]; None is no header.
    """

    status: int
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSkew:
    """The exchange's clock is off, in `/api/v3/time` and in the E of its messages.

    Attributes:
        by_ms: how far it is ahead [ms]; negative is behind.
        after_ns: event time from which on [ns UTC].
    """

    by_ms: int
    after_ns: int = 0
