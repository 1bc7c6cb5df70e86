"""Own the feed and the cache of some of the symbols; the market actor leads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from actors.launch import Launch
from alphapulse import cluster, logs
from alphapulse.data.shard import Shard
from alphapulse.data.shards import dealt
from alphapulse.domain.errors import Unavailable


class MarketShardActor:
    """Holds one shard; a restarted one knows nothing until the market actor opens it again."""

    def __init__(self, launch: Launch, number: int) -> None:
        name = f"{cluster.SHARD}{number}"
        logs.configure(Path(launch.home) / "logs", process=name, session=launch.session)
        settings = launch.settings
        own = dealt(settings.market.symbols, settings.ray.market_shards)[number]
        self._name = name
        self._launch = launch
        self._instruments = [i for i in settings.market.instruments if i.symbol in own]
        self._shard: Shard | None = None

    async def open(self) -> None:
        """Begin at the start of the source, with an empty cache."""
        provider = self._launch.provider(self._instruments)
        self._shard = Shard(provider, self._instruments, self._launch.settings.feed)
        await self._shard.open()

    async def ask(self, method: str, *given: Any, **named: Any) -> Any:
        """Return what `method` of the shard answers."""
        if self._shard is None:
            raise Unavailable(
                f"{self._name}: expected open() first, was restarted; the market actor opens it"
            )
        return await getattr(self._shard, method)(*given, **named)

    async def pid(self) -> int:
        """Return the process id."""
        return os.getpid()
