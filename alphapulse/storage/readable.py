"""Ask the history of a home, in any process, also while another one writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from alphapulse.domain.inputs import ModelInput
from alphapulse.interfaces import Query
from alphapulse.storage.asking.conditions import Where
from alphapulse.storage.asking.reader import HistoryReader
from alphapulse.storage.asking.showing import Shown, show
from alphapulse.storage.asking.sql import answer_sql
from alphapulse.storage.asking.stats import stats
from alphapulse.storage.asking.verifying import Verified, verify
from alphapulse.storage.home import Home

if TYPE_CHECKING:
    import pandas as pd


class ReadableHistory:
    """What can be asked of journals and lake alike; no question waits for a writer."""

    def __init__(self, home: Home, reader: HistoryReader) -> None:
        self._home = home
        self._reader = reader

    async def query(self, query: Query) -> pd.DataFrame:
        """Return the rows asked for, ordered by (event_ns, symbol, model, ...), each once."""
        return await asyncio.to_thread(self._reader.query, query)

    async def rebuild(self, inference_id: str) -> ModelInput:
        """Return the input of a stored inference, bit for bit what the model was fed.

        Raises StoreError if there is no such inference, or a row it needs is not stored.
        """
        return await asyncio.to_thread(self._reader.rebuild, inference_id)

    async def inputs(self, ids: Sequence[str]) -> dict[str, ModelInput]:
        """Return the inputs of many stored inferences by id, each bit for bit what was fed.

        The rows of their whole span are read once, so that ids close in time cost the least.
        Inferences of one decision share its input. Raises StoreError as `rebuild` does.
        """
        return await asyncio.to_thread(self._reader.inputs, ids)

    async def show(self, inference_id: str) -> Shown | None:
        """Return all that is kept of an inference, its input rebuilt; None if it is not stored.

        Raises StoreError if journal or lake cannot be read; an input that cannot be rebuilt is
        told in the answer.
        """
        return await asyncio.to_thread(show, self._reader, inference_id)

    async def verify(
        self, where: Where, *, tell: Callable[[int, int], None] = lambda done, total: None
    ) -> Verified:
        """Rebuild every input of a range and compare its hash: see `storage.verifying.verify`."""
        return await asyncio.to_thread(verify, self._reader, where, tell=tell)

    async def stats(self) -> dict[str, Any]:
        """Return how much history there is and where it lies: see `storage.stats.stats`."""
        return await asyncio.to_thread(stats, self._reader, self._home.path)

    async def sql(self, statement: str) -> pd.DataFrame:
        """Return what a SELECT over the tables finds: see `storage.sql.answer_sql`."""
        answer = await asyncio.to_thread(answer_sql, self._reader, statement)
        return answer.to_pandas()
