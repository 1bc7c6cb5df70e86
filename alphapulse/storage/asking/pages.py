"""Turn the pages of a long answer, each from where the one before ended."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alphapulse.domain.errors import InvalidRequest
from alphapulse.interfaces import Query
from alphapulse.storage.tables import COLUMNS, KEYS

if TYPE_CHECKING:
    import pandas as pd


def next_page(query: Query, page: pd.DataFrame) -> Query | None:
    """Return the query for the rows before those of `page`, None if there are no more.

    ```python
    query = Query(symbol="ETH/USDT", limit=1000)
    while query:
        page = await history.query(query)
        query = next_page(query, page)
    ```
    """
    if query.limit is None or len(page) < query.limit:
        return None
    kinds, oldest = COLUMNS[query.table], page.iloc[0]
    return replace(query, after=tuple(kinds[name](oldest[name]) for name in KEYS[query.table]))


def cursor_of(query: Query | None) -> str | None:
    """Return `query.after` as one word for a URL, None where there is no page."""
    if query is None or query.after is None:
        return None
    said = json.dumps([query.table, *query.after], separators=(",", ":"))
    return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")


def after_of(table: str, cursor: str) -> tuple[Any, ...]:
    """Return what `cursor_of` wrote; raises InvalidRequest if it is no page of `table`."""
    kinds = [COLUMNS[table][name] for name in KEYS[table]]
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        named, *key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError):
        named, key = None, []
    if named != table or [type(value) for value in key] != kinds:
        raise InvalidRequest(
            f"after: expected the `next` of a page of {table}, was {cursor!r}; "
            "leave it out for the first page"
        )
    return tuple(key)
