"""The only door to Ray for the rest of the package: names, and typed proxies over actor handles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from alphapulse.domain.errors import AlphaPulseError, ClusterError, Unavailable
from alphapulse.domain.inference import DecisionPoint, DecisionRecord, Prediction, Thresholds
from alphapulse.domain.inputs import Tensor
from alphapulse.domain.learning import Cursor, Followed, Outcome, Promotion
from alphapulse.domain.trading import Quote
from alphapulse.domain.windows import CacheView
from alphapulse.interfaces import Query

if TYPE_CHECKING:
    import pandas as pd

    from alphapulse.data.shard import Ahead, Shown

NAMESPACE = "alphapulse"
MARKET_DATA = "market_data"
INFERENCE_HISTORY = "inference_history"
TRADER = "trader"
FEEDBACK = "feedback"
ACTORS = (MARKET_DATA, INFERENCE_HISTORY, TRADER, FEEDBACK)
SHARD = "market_data_shard_"  # and its number; on whatever node, found by name
SERVE_APP = "alphapulse"


def connect(address: str) -> None:
    """Join the Ray cluster at `address` as a driver; raises ClusterError if it refuses us."""
    # its word about a signal handler it does not set is of no use to anybody
    logging.getLogger("ray._private.worker").setLevel(logging.ERROR)
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except Exception as error:  # ray raises ConnectionError, RuntimeError and ValueError alike
        raise ClusterError(
            f"Ray at {address}: expected to join, was refused: {str(error).splitlines()[0]}; "
            "check `ray status` and the token"
        ) from error


def disconnect() -> None:
    """Leave the cluster."""
    ray.shutdown()


class ActorProxy:
    """A named actor seen from outside.

    A dead or missing one raises Unavailable, a failed call its own error.
    """

    name: str

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            handle = ray.get_actor(self.name, namespace=NAMESPACE)
            return await getattr(handle, method).remote(*args, **kwargs)
        except RayTaskError as error:
            if isinstance(error.cause, AlphaPulseError):
                raise error.cause from None
            raise ClusterError(
                f"{self.name}.{method}: expected an answer, it failed: {error.cause!r}; "
                f"see logs/{self.name}.jsonl in the home"
            ) from error
        except (RayActorError, GetTimeoutError) as error:
            raise Unavailable(
                f"{self.name}: expected an answer, was {type(error).__name__}; Ray restarts it"
            ) from error
        except ValueError as error:  # ray's answer to a name nobody has
            raise Unavailable(
                f"{self.name}: expected a running actor, was none; start one with `alphapulse up`"
            ) from error

    async def pid(self) -> int:
        """Return the process id of the actor."""
        pid: int = await self._call("pid")
        return pid


class MarketData(ActorProxy):
    """The owner of ticks, book, bars and the last outputs of every model."""

    name = MARKET_DATA

    async def open(self, until_ns: int) -> None:
        """Seed the cache and replay up to and including the instant `until_ns`, -1 for none."""
        await self._call("open", until_ns)

    async def advance(
        self,
        *,
        after_ns: int,
        outputs: Sequence[Prediction],
        accounts: Mapping[str, Tensor],
    ) -> DecisionPoint | None:
        """Return the next decision point after `after_ns`, None at the end.

        `outputs` fill the peer slots, `accounts` the account fields of the inputs, by symbol.
        """
        point: DecisionPoint | None = await self._call(
            "advance", after_ns, list(outputs), dict(accounts)
        )
        return point

    async def quote(self, symbol: str, at_ns: int, *, after_ns: int) -> Quote | None:
        """Return what an order sent at the instant `after_ns` meets at `at_ns`; None at the end."""
        quote: Quote | None = await self._call("quote", symbol, at_ns, after_ns)
        return quote

    async def latest(self) -> DecisionPoint:
        """Return the newest decision point; raises Unavailable before the first."""
        point: DecisionPoint = await self._call("latest")
        return point

    async def view(self, what: str, **arguments: Any) -> Any:
        """Return a view for people: `snapshot`, `candles`, `book`, `pivots` or `counters`."""
        return await self._call("view", what, arguments)

    async def cached(self, symbol: str) -> CacheView:
        """Return all that is kept of `symbol` now, the models' last outputs for it included.

        Its arrays lie in the object store: readers on a node share them without a copy.
        """
        view: CacheView = await self._call("cached", symbol)
        return view


class MarketShard(ActorProxy):
    """A shard of the market in a process of its own; `data.shard.Shard` says what each does."""

    def __init__(self, number: int) -> None:
        self.name = f"{SHARD}{number}"

    async def open(self) -> None:
        """Fill the cache with the bars before the first event, from the start again."""
        await self._call("open")

    async def look(self) -> Ahead:
        """Return the next tick or bar of the lowest timeframe."""
        ahead: Ahead = await self._call("ask", "look")
        return ahead

    async def lead(self, instant_ns: int, *, has_ticks: bool) -> Ahead:
        """Apply every event before `instant_ns` [ns UTC]."""
        ahead: Ahead = await self._call("ask", "lead", instant_ns, has_ticks=has_ticks)
        return ahead

    async def show(self, instant_ns: int, *, has_ticks: bool, is_wanted: bool = True) -> Shown:
        """Close what ends at `instant_ns`; arrays come by way of the object store, not copied."""
        shown: Shown = await self._call(
            "ask", "show", instant_ns, has_ticks=has_ticks, is_wanted=is_wanted
        )
        return shown

    async def quote(self, symbol: str, at_ns: int, *, has_ticks: bool) -> Quote | None:
        """Return what an order of `symbol` meets at `at_ns` [ns UTC]."""
        quote: Quote | None = await self._call("ask", "quote", symbol, at_ns, has_ticks=has_ticks)
        return quote

    async def has_passed(self, symbol: str, at_ns: int) -> bool:
        """Return whether events at or after `at_ns` [ns UTC] have been applied already."""
        passed: bool = await self._call("ask", "has_passed", symbol, at_ns)
        return passed

    async def view(self, what: str, arguments: Mapping[str, Any]) -> Any:
        """Return a view for people."""
        return await self._call("ask", "view", what, dict(arguments))


class History(ActorProxy):
    """The owner of the inference history."""

    name = INFERENCE_HISTORY

    async def append(self, records: Sequence[DecisionRecord]) -> int:
        """Make records durable and return how many were new."""
        count: int = await self._call("append", list(records))
        return count

    async def query(self, query: Query) -> pd.DataFrame:
        """Return the rows asked for."""
        frame: pd.DataFrame = await self._call("query", query)
        return frame

    async def show(self, inference_id: str) -> Mapping[str, Any] | None:
        """Return all that is kept of an inference, its input rebuilt; None if it is not stored."""
        shown: Mapping[str, Any] | None = await self._call("show", inference_id)
        return shown

    async def last(self, model: str | None = None) -> Mapping[str, tuple[Prediction, ...]]:
        """Return, by symbol, the newest durable predictions of one model or all, from memory."""
        last: Mapping[str, tuple[Prediction, ...]] = await self._call("last", model)
        return last

    async def at(self, event_ns: int) -> Mapping[str, tuple[Prediction, ...]]:
        """Return, by symbol, the predictions of the newest decision at or before `event_ns`."""
        found: Mapping[str, tuple[Prediction, ...]] = await self._call("at", event_ns)
        return found

    async def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Make outcomes durable and return how many were new."""
        count: int = await self._call("settle", list(outcomes))
        return count

    async def note(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Make rows of a table beside the inferences durable and return how many were new."""
        count: int = await self._call("note", table, list(rows))
        return count

    async def follow(self, after: Cursor, *, limit: int) -> Followed:
        """Return what was appended after a cursor, in order, at most `limit` decisions."""
        followed: Followed = await self._call("follow", after, limit)
        return followed

    async def flush(self) -> int:
        """Move what the journal holds to the lake and return the number of batches."""
        count: int = await self._call("flush")
        return count

    async def metrics(self) -> Mapping[str, Any]:
        """Return counters, and what the batches to the lake held."""
        metrics: Mapping[str, Any] = await self._call("metrics")
        return metrics

    async def end(self, ended_ns: int) -> None:
        """Write down that the source of the run ended at `ended_ns` [ns UTC]."""
        await self._call("end", ended_ns)

    async def counters(self) -> Mapping[str, int]:
        """Return what was stored, flushed and failed."""
        counters: Mapping[str, int] = await self._call("counters")
        return counters


class Trader(ActorProxy):
    """The loop that decides."""

    name = TRADER

    async def status(self) -> Mapping[str, Any]:
        """Return the tally and the newest decisions."""
        status: Mapping[str, Any] = await self._call("status")
        return status

    async def recover(self) -> int:
        """Hand the history what is in the spill and return how many records still wait."""
        left: int = await self._call("recover")
        return left

    async def thresholds(self, new: Thresholds | None = None) -> Thresholds:
        """Return the thresholds in force, after setting `new` ones if given."""
        thresholds: Thresholds = await self._call("set_thresholds", new)
        return thresholds

    async def stop(self) -> None:
        """End the loop after the decision in flight."""
        await self._call("stop")

    async def versions(self) -> Mapping[str, str]:
        """Return the checkpoint that answers the next decision, by model."""
        versions: Mapping[str, str] = await self._call("versions")
        return versions

    async def promote(self, model: str, checkpoint: str, *, reason: str) -> Promotion:
        """Let `checkpoint` answer for `model` from the next decision on."""
        promotion: Promotion = await self._call("promote", model, checkpoint, reason)
        return promotion

    async def rollback(self, model: str, *, reason: str) -> Promotion:
        """Let the checkpoint before the present one answer again from the next decision on."""
        promotion: Promotion = await self._call("rollback", model, reason)
        return promotion

    async def halt(self, reason: str) -> None:
        """Halt trading: what is open is closed, nothing is opened until `resume`."""
        await self._call("halt", reason)

    async def resume(self, reason: str) -> None:
        """Clear the halt; raises InvalidRequest if there is none."""
        await self._call("resume", reason)

    async def view(self, what: str, **arguments: Any) -> Any:
        """Return a view for people: `orders`, `fills`, `equity`, `positions`, `risk`..."""
        return await self._call("view", what, arguments)


class Feedback(ActorProxy):
    """Settles what was predicted, and starts training rounds on it."""

    name = FEEDBACK

    async def status(self) -> Mapping[str, Any]:
        """Return what is settled and pending, and the rounds."""
        status: Mapping[str, Any] = await self._call("status")
        return status

    async def drain(self, until_ns: int, *, is_over: bool) -> bool:
        """Return whether everything up to `until_ns` [ns UTC] that can be settled is.

        With `is_over` nothing comes after it, ever: what is still pending is void.
        """
        done: bool = await self._call("drain", until_ns, is_over)
        return done

    async def finish(self, timeout_s: float) -> bool:
        """Wait for a running round, at most `timeout_s` [s], and return whether none runs."""
        done: bool = await self._call("finish", timeout_s)
        return done


def shard_names() -> list[str]:
    """Return the names of the market's shards that are there, on whatever node."""
    named = ray.util.list_named_actors(all_namespaces=True)
    mine = [row["name"] for row in named if row["namespace"] == NAMESPACE]
    return sorted(name for name in mine if name.startswith(SHARD))


async def processes() -> list[dict[str, Any]]:
    """Return name, kind, process id and state of every actor and replica of this cluster."""
    proxies: dict[str, ActorProxy] = {
        MARKET_DATA: MarketData(),
        INFERENCE_HISTORY: History(),
        TRADER: Trader(),
        FEEDBACK: Feedback(),
        **{name: MarketShard(int(name.removeprefix(SHARD))) for name in shard_names()},
    }
    pids = await asyncio.gather(*(p.pid() for p in proxies.values()), return_exceptions=True)
    return [
        {
            "name": name,
            "kind": "actor",
            "pid": None if isinstance(pid, BaseException) else pid,
            "state": "unavailable" if isinstance(pid, BaseException) else "running",
        }
        for name, pid in zip(proxies, pids, strict=True)
    ]
