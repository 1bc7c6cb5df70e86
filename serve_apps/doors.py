"""What every route may ask: actors, models, tables and settings of the run."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BaseModel
from ray.serve.handle import DeploymentHandle

from alphapulse import cluster, interfaces
from alphapulse.config import Settings
from alphapulse.domain.errors import ConfigError, InvalidRequest, Unavailable
from alphapulse.models.checkpoints import Registry
from alphapulse.models.rounds import Rounds
from alphapulse.storage.asking.pages import after_of, cursor_of, next_page
from alphapulse.storage.control import Control
from alphapulse.storage.home import Home
from serve_apps.plain import plain

MAX_ROWS = 10_000
WORKERS = {  # the actor that does a process's work
    "feed": cluster.MARKET_DATA,
    "trader": cluster.TRADER,
    "settlement": cluster.FEEDBACK,
    "training": cluster.FEEDBACK,
}
PID_S = 2.0  # how long a replica may take to say its process id
Limit = Annotated[int, Query(ge=1, le=MAX_ROWS)]


@dataclass(frozen=True)
class Doors:
    """The way from the HTTP door to everything behind it."""

    home: Home
    token: str
    run: dict[str, Any]
    settings: Settings
    models: dict[str, DeploymentHandle]
    market: cluster.MarketData
    history: cluster.History
    trader: cluster.Trader
    feedback: cluster.Feedback
    control: Control
    registry: Registry
    rounds: Rounds

    def known(self, symbol: str | None) -> str | None:
        """Return `symbol`, or raise InvalidRequest if it is not watched."""
        symbols = self.settings.market.symbols
        if symbol is not None and symbol not in symbols:
            raise InvalidRequest(f"symbol: expected one of {', '.join(symbols)}, was {symbol!r}")
        return symbol

    async def rows(self, query: interfaces.Query) -> Any:
        """Return the rows of the history a query asks for, as plain values."""
        frame = await self.history.query(query)
        return plain(frame.to_dict(orient="records"))

    async def page(self, table: str, asked: BaseModel) -> Any:
        """Return a page of a table of the history, and `next`, what asks for the one before it.

        Rows are oldest first; the first page ends with the newest. Raises InvalidRequest if what
        is asked cannot be.
        """
        wanted = asked.model_dump(exclude_none=True)
        self.known(wanted.get("symbol"))
        if "after" in wanted:
            wanted["after"] = after_of(table, wanted["after"])
        try:
            query = interfaces.Query(table=table, **wanted)
            frame = await self.history.query(query)
        except ConfigError as error:  # to whoever asks over HTTP it is no setting
            raise InvalidRequest(str(error)) from None
        rows = plain(frame.to_dict(orient="records"))
        return {"rows": rows, "next": cursor_of(next_page(query, frame))}

    async def processes(self) -> list[dict[str, Any]]:
        """Return name, kind, process id and state of every actor and replica."""
        rows = await cluster.processes()
        pids = await asyncio.gather(
            *(asyncio.wait_for(_pid(h), PID_S) for h in self.models.values()),
            return_exceptions=True,
        )
        for name, pid in zip(self.models, pids, strict=True):
            lost = isinstance(pid, BaseException)
            state = "unavailable" if lost else "running"
            rows.append(
                {"name": name, "kind": "replica", "pid": None if lost else pid, "state": state}
            )
        rows.append({"name": "ingress", "kind": "replica", "pid": os.getpid(), "state": "running"})
        return rows

    def wishes(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return every process that people may start and stop: the wish for it, and its state.

        Args:
            rows: of `processes`: a wanted process is as well as the actor that does its work.
        """
        actors = {row["name"]: row["state"] for row in rows if row["kind"] == "actor"}
        found = []
        for wish in self.control.wishes():
            state = actors.get(WORKERS.get(wish["name"], ""), "running")
            if wish["name"] in self.run["off"]:
                state = "off"
            elif wish["wanted"] == "stopped":
                state = "stopped"
            found.append(wish | {"kind": "process", "pid": None, "state": state})
        return found

    def wish(self, name: str, *, is_wanted: bool) -> bool:
        """Start or stop a process, and return whether that changed anything.

        Raises InvalidRequest if there is none of that name, or this `up` leaves it out.
        """
        if is_wanted and name in self.run["off"]:
            raise InvalidRequest(
                f"{name}: expected a process of this `up`, was left out by --no-{name}; "
                "start `alphapulse up` without that"
            )
        return self.control.wish(name, is_wanted=is_wanted, asked_by="http")


async def _pid(handle: DeploymentHandle) -> int:
    pid: int = await handle.pid.remote()
    return pid


_opened: list[Doors] = []  # Serve copies the application, and what is set on it; not a module


def open_doors(doors: Doors) -> None:
    """Let the routes of this process ask `doors`."""
    _opened[:] = [doors]


def opened() -> Doors:
    """Return what the routes of this process may ask; raises Unavailable before it is known."""
    if not _opened:
        raise Unavailable("the HTTP door is still opening; ask again in a second")
    return _opened[0]


Behind = Annotated[Doors, Depends(opened)]
