"""Draw what goes wrong at an exchange from a seed: one to six faults of all kinds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.exchange.columns import MS, SECOND
from tests.exchange.faults import (
    ClockSkew,
    Close,
    Delay,
    Drop,
    Duplicate,
    Fault,
    HalfClose,
    Hang,
    Refuse,
    Reorder,
    Stall,
    WrongType,
)
from tests.exchange.server import STREAMS

VARIABLE = "ALPHAPULSE_FAULT_SEEDS"
SEEDS_IN_CI = 10
MOST_FAULTS = 6
AFTER_NS, BEFORE_NS = 2 * SECOND, 16 * SECOND  # of a slice: when faults begin

TRADES_PATHS = ("/api/v3/trades", "/api/v3/historicalTrades")
PATHS = (*TRADES_PATHS, "/api/v3/depth", "/api/v3/time", "/api/v3/klines")
KINDS_OF_STREAM = ("trade", "trade", "depth@100ms", "depth@100ms", "kline_1m")  # by weight
STATUSES = (429, 418, 500, 502, 503)
FIELDS = {"trade": ("t", "p", "q", "T", "m", "s", "e", "E"),
          "depth@100ms": ("U", "u", "b", "a", "s", "e", "E"),
          "kline_1m": ("k", "s", "e", "E")}  # fmt: skip
WRONG: Sequence[Any] = (None, {}, [], "x", "-1", "NaN", True, 1.5, [["x", "1"]], [["1"]])

Schedule = list[Fault | ClockSkew]
Draw = Callable[[random.Random, int, Sequence[str]], Schedule]


def seeds(environ: Mapping[str, str]) -> list[int]:
    """Return the seeds ALPHAPULSE_FAULT_SEEDS asks for; ten without it.

    `200` is 0 to 199, `50-99` those, `seed:17` the one.
    """
    asked = environ.get(VARIABLE, str(SEEDS_IN_CI))
    if asked.startswith("seed:"):
        return [int(asked.removeprefix("seed:"))]
    first, _, last = asked.rpartition("-")
    return list(range(int(first), int(last) + 1)) if first else list(range(int(last)))


def schedule(seed: int, from_ns: int, symbols: Sequence[str]) -> Schedule:
    """Return the faults of a seed.

    Args:
        seed: the same seed, the same faults.
        from_ns: where the slice begins [ns UTC].
        symbols: such as ETHUSDT.
    """
    rng = random.Random(seed)
    names = [symbol.lower() for symbol in symbols]
    drawn: Schedule = []
    wanted = rng.randint(1, MOST_FAULTS)
    while len(drawn) < wanted:
        drawn += rng.choice(DRAWS)(rng, from_ns, names)
    return drawn[:MOST_FAULTS]


def blocks_trades(faults: Schedule) -> bool:
    """Return whether REST cannot be asked for trades at times, so that some may be lost."""
    return any(isinstance(f, Refuse | Stall) and f.target in TRADES_PATHS for f in faults)


def written(faults: Schedule, from_ns: int) -> str:
    """Return the faults as lines, with times in seconds after `from_ns`."""
    lines = []
    for fault in faults:
        names = [n for kind in type(fault).__mro__ for n in getattr(kind, "__slots__", ())]
        facts = {n: getattr(fault, n) for n in names if n != "after_ns"}
        at_s = (fault.after_ns - from_ns) / SECOND
        lines.append(f"  at {at_s:.2f} s {type(fault).__name__} {facts}")
    return "\n".join(lines)


def _when(rng: random.Random, from_ns: int) -> int:
    return from_ns + rng.randrange(AFTER_NS, BEFORE_NS, MS)


def _stream(rng: random.Random, names: Sequence[str]) -> str:
    return f"{rng.choice(names)}@{rng.choice(KINDS_OF_STREAM)}"


def _messages(kind: type[Fault]) -> Draw:
    def draw(rng: random.Random, from_ns: int, names: Sequence[str]) -> Schedule:
        target, count = _stream(rng, names), rng.randint(1, 8)
        return [kind(target=target, count=count, after_ns=_when(rng, from_ns))]

    return draw


def _connection(kind: type[Fault]) -> Draw:
    def draw(rng: random.Random, from_ns: int, names: Sequence[str]) -> Schedule:
        return [kind(target=_stream(rng, names), after_ns=_when(rng, from_ns))]

    return draw


def _delay(rng: random.Random, from_ns: int, names: Sequence[str]) -> Schedule:
    by_ns = rng.randrange(50 * MS, 4 * SECOND, MS)
    target, count = _stream(rng, names), rng.randint(1, 5)
    return [Delay(target=target, count=count, after_ns=_when(rng, from_ns), by_ns=by_ns)]


def _wrong_type(rng: random.Random, from_ns: int, names: Sequence[str]) -> Schedule:
    kind = rng.choice(KINDS_OF_STREAM)
    target, count = f"{rng.choice(names)}@{kind}", rng.randint(1, 4)
    what = {"field": rng.choice(FIELDS[kind]), "value": rng.choice(WRONG)}
    if what["field"] in ("b", "a") and what["value"] == []:
        what["value"] = None  # no level at all is a change that can be
    return [WrongType(target=target, count=count, after_ns=_when(rng, from_ns), **what)]


def _refused_request(rng: random.Random, from_ns: int, names: Sequence[str]) -> Schedule:
    """Draw a request that is refused, and a hole that makes somebody ask."""
    hole = _messages(Drop)(rng, from_ns, names)
    wait_s = rng.choice((None, 1, 2, 4))
    status, count = rng.choice(STATUSES), rng.randint(1, 4)
    refused = Refuse(target=rng.choice(PATHS), status=status, count=count,
                     after_ns=hole[0].after_ns, retry_after_s=wait_s)  # fmt: skip
    return [*hole, refused]


def _refused_connection(rng: random.Random, from_ns: int, names: Sequence[str]) -> Schedule:
    """Draw a connection that closes, and a refusal of the next ones."""
    closed = _connection(rng.choice((Close, HalfClose)))(rng, from_ns, names)
    wait_s = rng.choice((None, 1, 2))
    status, count = rng.choice(STATUSES), rng.randint(1, 3)
    refused = Refuse(target=STREAMS, status=status, count=count, after_ns=closed[0].after_ns,
                     retry_after_s=wait_s)  # fmt: skip
    return [*closed, refused]


def _stall(rng: random.Random, from_ns: int, names: Sequence[str]) -> Schedule:
    """Draw a request that is never answered, and a hole that makes somebody ask."""
    hole = _messages(Drop)(rng, from_ns, names)
    return [*hole, Stall(target=rng.choice(PATHS), after_ns=hole[0].after_ns)]


def _skew(rng: random.Random, from_ns: int, names: Sequence[str]) -> Schedule:
    return [ClockSkew(by_ms=rng.randint(-200, 200), after_ns=_when(rng, from_ns))]


DRAWS: Sequence[Draw] = (
    _messages(Drop),
    _messages(Duplicate),
    _messages(Reorder),
    _connection(Hang),
    _connection(HalfClose),
    _connection(Close),
    _delay,
    _wrong_type,
    _refused_request,
    _refused_connection,
    _stall,
    _skew,
)
