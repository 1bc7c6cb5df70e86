"""Say prices, money, shares, times and durations the way people read them, and say what is missing.

None is never a number: it reads `not known`, or a dash in the cell of a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

UNKNOWN = "not known"
NONE = "–"  # an empty cell
SECOND_NS = 1_000_000_000
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#$~:|]")


def price(value: float | str | None, *, none: str = UNKNOWN) -> str:
    """Return a price or an amount of money [quote currency] with two decimals.

    >>> price("10000.456"), price(None)
    ('10,000.46', 'not known')
    """
    return none if value is None else f"{Decimal(str(value)):,.2f}"


def signed(value: float | str | None, *, none: str = UNKNOWN) -> str:
    """Return an amount of money [quote currency] with its sign.

    >>> signed("-3.5"), signed(2)
    ('−3.50', '+2.00')
    """
    return none if value is None else f"{Decimal(str(value)):+,.2f}".replace("-", "−")


def quantity(value: float | str | None, *, none: str = NONE) -> str:
    """Return a signed quantity [base currency] without trailing zeros.

    >>> quantity("0.5000"), quantity("-12")
    ('+0.5', '−12')
    """
    if value is None:
        return none
    return f"{Decimal(str(value)).normalize():+f}".replace("-", "−")


def share(value: float | str | None, *, decimals: int = 0, none: str = UNKNOWN) -> str:
    """Return a share of one as a percentage.

    >>> share(0.613), share("0.0123", decimals=2)
    ('61 %', '1.23 %')
    """
    return none if value is None else percent(100 * float(value), decimals=decimals)


def percent(value: float | str | None, *, decimals: int = 0, none: str = UNKNOWN) -> str:
    """Return a percentage.

    >>> percent(10.0), percent(None)
    ('10 %', 'not known')
    """
    return none if value is None else f"{float(value):.{decimals}f} %"


def number(value: float | None, *, decimals: int = 0, none: str = UNKNOWN) -> str:
    """Return a number with thousands apart.

    >>> number(12345), number(None)
    ('12,345', 'not known')
    """
    return none if value is None else f"{value:,.{decimals}f}"


def moment(at: int | str | None, *, none: str = UNKNOWN) -> str:
    """Return day and time of an instant [ns UTC, or ISO-8601 Z].

    >>> moment(1_723_161_317_000_000_000), moment("2024-08-08T23:55:17Z")
    ('2024-08-08 23:55:17', '2024-08-08 23:55:17')
    """
    return none if not at else _instant(at).strftime("%Y-%m-%d %H:%M:%S")


def time_of_day(at: int | str | None, *, none: str = NONE) -> str:
    """Return the time of an instant [ns UTC, or ISO-8601 Z].

    >>> time_of_day("2024-08-08T23:55:17Z")
    '23:55:17'
    """
    return none if not at else _instant(at).strftime("%H:%M:%S")


def iso(at_ns: int) -> str:
    """Return an instant [ns UTC] as ISO-8601 Z to the millisecond.

    >>> iso(1_723_161_317_572_987_125)
    '2024-08-08T23:55:17.572Z'
    """
    return f"{_instant(at_ns).strftime('%Y-%m-%dT%H:%M:%S')}.{at_ns % SECOND_NS // 1_000_000:03d}Z"


def nanoseconds(at: str) -> int:
    """Return an instant given as ISO-8601 Z [ns UTC].

    >>> nanoseconds("2024-08-08T23:55:17Z")
    1723161317000000000
    """
    instant = datetime.fromisoformat(at)
    return int(instant.timestamp()) * SECOND_NS + instant.microsecond * 1000


def duration(seconds: float | None, *, none: str = UNKNOWN) -> str:
    """Return a duration in its two largest units.

    >>> duration(4.2), duration(326), duration(7_260), duration(250_000)
    ('4 s', '5 min 26 s', '2 h 1 min', '2 d 21 h')
    """
    if seconds is None:
        return none
    left, words = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if left >= size:
            words.append(f"{left // size} {unit}")
            left %= size
    return " ".join(words[:2]) or "0 s"


def weights(text: str | Mapping[str, float] | None, *, none: str = NONE) -> str:
    """Return the experts' weights, given as JSON text or a mapping, largest first.

    >>> weights('{"flat":0.25,"rl":0.75}')
    'rl 75 % · flat 25 %'
    """
    if not text:
        return none
    shares: Mapping[str, Any] = json.loads(text) if isinstance(text, str) else text
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return " · ".join(f"{name} {share(value)}" for name, value in ordered) or none


def words(code: str | None, *, none: str = NONE) -> str:
    """Return a code such as `flat_preferred` as words.

    >>> words("flat_preferred")
    'flat preferred'
    """
    return none if not code else code.replace("_", " ")


def literal(text: str | None, *, none: str = NONE) -> str:
    r"""Return text of others so that the page, which reads Markdown, shows it letter by letter.

    >>> print(literal("a*b* costs $5"))
    a\*b\* costs \$5
    """
    return none if not text else _SPECIAL.sub(r"\\\g<0>", text)


def _instant(at: int | str) -> datetime:
    if isinstance(at, str):
        return datetime.fromisoformat(at).astimezone(UTC)
    return datetime.fromtimestamp(at // SECOND_NS, tz=UTC)
