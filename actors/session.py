"""The actors and the Serve graph of one run on one Ray cluster, from start to end."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError

from actors.feedback import FeedbackActor
from actors.inference_history import InferenceHistoryActor
from actors.launch import Launch
from actors.market_data import MarketDataActor
from actors.market_shard import MarketShardActor
from actors.resume import resume_point
from actors.trader import TraderActor
from alphapulse import cluster, logs
from alphapulse.alerting import Watch
from alphapulse.data.shards import dealt
from alphapulse.domain.errors import AlphaPulseError, Unavailable

POLL_S = 0.5  # between two looks at the trader
WATCH_S = 5.0  # between two looks for what a person must know
ROUND_S = 120.0  # how long the end of a recording waits for a running round
GRAPH = "serve_apps.graph"  # by import path: roof folders do not import each other
log = logs.get_logger("main")


class Session:
    """Holds what it started; `run` returns when the source ended or a stop was asked for."""

    def __init__(self, launch: Launch, graph_args: dict[str, Any]) -> None:
        self._launch = launch
        self._graph_args = graph_args
        self._trader: Any = None

    async def start(self) -> None:
        """Start actors and graph side by side, and replay the feed to where the history ends."""
        _end_leftovers()
        _actor(InferenceHistoryActor, cluster.INFERENCE_HISTORY, self._launch)
        self._start_shards()
        _actor(MarketDataActor, cluster.MARKET_DATA, self._launch)
        self._trader = _actor(TraderActor, cluster.TRADER, self._launch)
        _actor(FeedbackActor, cluster.FEEDBACK, self._launch)
        graph = asyncio.to_thread(self._start_graph)
        await asyncio.gather(graph, self._open_market())

    def _start_shards(self) -> None:
        """Start a process a shard, on different nodes if there are; none where one has it all."""
        settings = self._launch.settings
        if settings.ray.market_shards == 1:
            return
        for number in range(len(dealt(settings.market.symbols, settings.ray.market_shards))):
            name = f"{cluster.SHARD}{number}"
            _actor(MarketShardActor, name, self._launch, number, scheduling_strategy="SPREAD")

    async def _open_market(self) -> None:
        await cluster.Trader().recover()  # what a kill left in its spill: the run goes on after it
        await cluster.MarketData().open(await resume_point(self._launch))
        log.info("market opened")

    def _start_graph(self) -> None:
        server = self._launch.settings.server
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(http_options={"host": server.host, "port": server.http_port})
        log.info("serve started")
        app = importlib.import_module(GRAPH).app(self._graph_args)
        serve.run(
            app,
            name=cluster.SERVE_APP,
            route_prefix="/",
            logging_config={"enable_access_log": False},
        )
        log.info("graph serves")

    async def run(
        self, *, stop_asked: Callable[[], bool], show: Callable[[dict[str, Any]], None]
    ) -> None:
        """Return when the trader's loop has ended; a trader that died is started again.

        Raises Unavailable when the cluster itself no longer answers.
        """
        watching = asyncio.create_task(self._watch())
        try:
            await self._run(stop_asked=stop_asked, show=show)
        finally:
            watching.cancel()  # a session that ends early must not ask the next one's actors

    async def _run(
        self, *, stop_asked: Callable[[], bool], show: Callable[[dict[str, Any]], None]
    ) -> None:
        trader = cluster.Trader()
        loop = asyncio.ensure_future(_result(self._trader))
        stopping = False
        while not loop.done():
            await asyncio.wait([loop], timeout=POLL_S)
            try:
                if stop_asked() and not stopping:
                    await trader.stop()
                    stopping = True
                show(dict(await trader.status()))
            except Unavailable as error:
                log.warning("trader does not answer", **logs.describe(error))
            try:
                await cluster.Feedback().status()  # a restarted one goes on when it is asked
            except AlphaPulseError as error:  # trading needs nothing of it
                log.warning("feedback does not answer", **logs.describe(error))
            if loop.done() and isinstance(loop.exception(), RayActorError):
                log.warning("trader is being restarted")
                loop = asyncio.ensure_future(_result(self._trader))
        await loop

    async def _watch(self) -> None:
        watch = Watch(
            self._launch.run,
            self._launch.settings,
            trader=cluster.Trader(),
            market=cluster.MarketData(),
            history=cluster.History(),
        )
        while True:
            try:
                await watch.look()
            except AlphaPulseError as error:  # an actor is being replaced, a disk is full
                log.warning("no look for alerts", **logs.describe(error))
            await asyncio.sleep(WATCH_S)

    async def end(
        self, *, say: Callable[[str], None], stop_asked: Callable[[], bool]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Settle what can be, wait for a running round, and move what is left to the lake.

        A run has ended once its source gives no more, all of it is stored, and all of it is
        settled; else the next start goes on with it. Returns the trader's status, the feed's
        counters, and what was learned.
        """
        status = dict(await cluster.Trader().status())
        at_ns = status["resumed_ns"] if status["to_ns"] is None else status["to_ns"]
        is_whole = status["ended"] and not status["pending"]
        is_over = is_whole and bool(self._launch.recording)
        is_settled = await cluster.Feedback().drain(at_ns, is_over=is_over)
        if status["ended"] and not stop_asked():
            await self._finish_round(say, stop_asked)
        learning = dict(await cluster.Feedback().status())
        status = dict(await cluster.Trader().status())
        feed = dict(await cluster.MarketData().view("counters"))
        await cluster.History().flush()
        if is_whole and is_settled:
            await cluster.History().end(at_ns)
        return status, feed, learning

    async def _finish_round(
        self, say: Callable[[str], None], stop_asked: Callable[[], bool]
    ) -> None:
        """Wait for a running round, at most ROUND_S and until a stop is asked for."""
        give_up_at = time.monotonic() + ROUND_S
        said = False
        while not await cluster.Feedback().finish(POLL_S):
            if stop_asked() or time.monotonic() > give_up_at:
                log.warning("round left behind", waited_s=ROUND_S)
                return
            if not said:
                say("the recording has ended: waiting for the running training round")
                said = True

    def remove(self) -> None:
        """Take the application and the actors off a cluster that is not ours to end."""
        serve.delete(cluster.SERVE_APP)
        if not serve.status().applications:  # nobody else's: the proxy gives its port back
            serve.shutdown()
        _end_leftovers()


def _actor(cls: type, name: str, *given: Any, **options: Any) -> Any:
    described = ray.remote(cls).options(
        name=name,
        namespace=cluster.NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,  # whoever asked knows whether it may ask again
        **options,
    )
    return described.remote(*given)


def _end_leftovers() -> None:
    for name in (*cluster.ACTORS, *cluster.shard_names()):
        try:
            ray.kill(ray.get_actor(name, namespace=cluster.NAMESPACE))
        except ValueError:  # none of that name
            continue


async def _result(trader: Any) -> Any:
    return await trader.run.remote()
