"""Ask, steer and end a running `up` from outside: announcement, HTTP endpoint, jobs, files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import psutil

from alphapulse.config import load_settings
from alphapulse.data.recordings import list_recordings
from alphapulse.data.tape import VARIABLE, find_recording
from alphapulse.domain.errors import ClusterError, InvalidRequest, NoData, Unavailable
from alphapulse.domain.market import Timeframe
from alphapulse.interfaces import Query
from alphapulse.models.checkpoints import Registry
from alphapulse.models.versions import Versions
from alphapulse.storage.history import InferenceHistory
from alphapulse.storage.home import Home, Run

ANSWER_S = 20.0  # how long the endpoint may take
END_S = 90.0  # how long an `up` may take to end


def read_status(home: Path) -> dict[str, Any]:
    """Return the state of the `up` in `home`.

    It is `stopped`, `starting` or `running`, the last with what its API says.
    """
    place = Home(home)
    holder = place.holder()
    if holder is None:
        return {"state": "stopped", "home": str(home)}
    announced = place.announcement()
    if announced is None or announced["pid"] != holder:
        return {"state": "starting", "home": str(home), "pid": holder}
    return {"state": "running", "home": str(home), **announced, **ask(home, "status")}


def ask(home: Path, path: str, *, method: str = "GET", body: dict[str, Any] | None = None) -> Any:
    """Return what the running `up` of `home` answers on a route below /api/v1.

    Raises InvalidRequest with what the API says of a request that cannot be met, Unavailable if no
    `up` is running, ClusterError if it does not answer.
    """
    place = Home(home)
    announced = place.announcement()
    if not is_up(home) or announced is None:
        raise Unavailable(
            f"{home}: expected a running `alphapulse up`, was none; start it, then ask again"
        )
    url = f"{announced['urls']['api']}/{path}"
    headers = {"Authorization": f"Bearer {place.token()}"}
    try:
        answer = httpx.request(method, url, headers=headers, json=body, timeout=ANSWER_S)
        if answer.status_code == 422:
            raise InvalidRequest(answer.json()["came"])
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ClusterError(
            f"{url}: expected an answer, was {type(error).__name__}: {error}; "
            f"see {place.path / 'logs'}"
        ) from error
    return answer.json()


def is_up(home: Path) -> bool:
    """Return whether an `up` that has announced itself works in `home`."""
    holder, announced = Home(home).holder(), Home(home).announcement()
    return holder is not None and announced is not None and announced["pid"] == holder


def end_up(home: Path) -> dict[str, Any]:
    """Ask the `up` in `home` to end and return once it has; nothing happens if none is running."""
    holder = Home(home).holder()
    if holder is None:
        return {"state": "stopped", "ended": False}
    os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while psutil.pid_exists(holder) and Home(home).holder() == holder:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"up (process {holder}): expected to end within {END_S:.0f} s, is still there; "
                f"see {home / 'logs' / 'main.jsonl'}"
            )
        time.sleep(0.1)
    return {"state": "stopped", "ended": True, "pid": holder}


def query_history(home: Path, query: Query) -> list[dict[str, Any]]:
    """Return the rows asked for as plain values, from the files of `home`: no cluster is needed."""
    settings = load_settings(home)
    history = InferenceHistory(Home(home), settings=settings.storage)
    try:
        frame = asyncio.run(history.query(query))
    finally:
        history.close()
    return [
        {key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]


def prune_history(home: Path, *, dry_run: bool) -> dict[str, Any]:
    """Bring the history of a stopped home within its limits and return what left.

    With `dry_run` it may run; nothing is touched. Raises HomeInUse if it runs without.
    """
    with nullcontext() if dry_run else Home(home).lock():
        history = InferenceHistory(Home(home), settings=load_settings(home).storage)
        try:
            return asdict(asyncio.run(history.prune(dry_run=dry_run)))
        finally:
            history.close()


def halt(home: Path, reason: str) -> dict[str, Any]:
    """Halt trading in the running `up` and return where the account stands."""
    answer: dict[str, Any] = ask(home, "halt", method="POST", body={"reason": reason})
    return answer


def resume(home: Path, reason: str) -> dict[str, Any]:
    """Clear the halt of the running `up`, or of the newest run while none is running.

    Raises InvalidRequest if trading is not halted.
    """
    if Home(home).holder() is not None:
        answer: dict[str, Any] = ask(home, "resume", method="POST", body={"reason": reason})
        return answer
    from alphapulse.assembly import stopped_desk

    run = _newest_run(home)

    async def clear() -> None:
        desk = await stopped_desk(run, load_settings(home))
        await desk.resume(reason, desk.at_ns)

    asyncio.run(clear())
    return {"run": run.id, "is_halted": False, "reason": reason}


def read_orders(home: Path, limit: int) -> dict[str, Any]:
    """Return the newest orders of the newest run and their fills, from its ledger."""
    from alphapulse.execution.ledger_reader import LedgerReader

    run = _newest_run(home)
    ledger = LedgerReader(run.path / "ledger.sqlite")
    return {
        "run": run.id,
        "orders": list(ledger.orders(limit=limit)),
        "fills": list(ledger.fills(limit=limit)),
    }


def read_models(home: Path) -> dict[str, Any]:
    """Return every registered checkpoint, and what answers where an `up` is running."""
    live: dict[str, str] = ask(home, "models")["live"] if is_up(home) else {}
    rows = [
        {
            "id": entry.id,
            "model": entry.model,
            "role": entry.role,
            "answers": live.get(entry.model) == entry.id,
            "created_event_ns": entry.created_event_ns,
        }
        for entry in Registry(Home(home).registry_path).entries()
    ]
    return {"models": rows}


def promote(home: Path, checkpoint: str, reason: str) -> dict[str, Any]:
    """Let a checkpoint answer from the next decision on: of the running `up`, or of the newest run.

    It is the model's champion then, of which a fresh live run starts. Raises CheckpointError if it
    is not registered, InvalidRequest if it answers already.
    """
    registry = Registry(Home(home).registry_path)
    model = registry.model_of(checkpoint)
    if is_up(home):
        body = {"model": model, "reason": reason}
        answer: dict[str, Any] = ask(home, f"models/{checkpoint}/promote", method="POST", body=body)
        return answer
    if Home(home).holder() is not None:
        raise Unavailable(f"{home}: `alphapulse up` is starting or ending there; ask again")
    event_ns = _promote_in_newest_run(home, model, checkpoint, reason)
    registry.promote(checkpoint)
    return {"model": model, "checkpoint": checkpoint, "event_ns": event_ns, "reason": reason}


def _promote_in_newest_run(home: Path, model: str, checkpoint: str, reason: str) -> int | None:
    """Have the newest run go on with a checkpoint, and return from when [ns UTC]; None without."""
    from alphapulse.execution.ledger import Ledger

    runs = Home(home).runs()
    if not runs:
        return None
    run = runs[-1]
    ledger = Ledger(run.path / "ledger.sqlite", run=run.id)
    last_ns = ledger.last_step()
    promotion = Versions(run.manifest.checkpoints, ledger.promotions()).promotion(
        run.id, model, checkpoint, after_ns=-1 if last_ns is None else last_ns, reason=reason
    )
    ledger.promote(promotion)
    return promotion.event_ns


def rollback(home: Path, model: str, reason: str) -> dict[str, Any]:
    """Let the checkpoint before answer again in the running `up`."""
    body = {"model": model, "reason": reason}
    answer: dict[str, Any] = ask(home, "models/rollback", method="POST", body=body)
    return answer


def train(home: Path, model: str, algorithm: str, recording: Path | None) -> dict[str, Any]:
    """Train a challenger on the newest run's answers (or the recording, for PPO); return its round.

    It runs as a job of the running `up`'s cluster, else as a process of its own.
    """
    words = ["-m", f"experiments.train_{model}", "--home", str(home.absolute())]
    if is_up(home):
        words += ["--champion", ask(home, "models")["live"][model]]
    if model == "rl":
        words += ["--algorithm", algorithm]
    if model == "rl" and algorithm == "ppo":
        words += ["--recording", str(_recording(home, recording))]
    else:
        words += ["--run", str(_newest_run(home).number)]
    return _run(home, words)


def sweep(home: Path, model: str, trials: int, recording: Path | None) -> dict[str, Any]:
    """Search training settings and return the trials, best first."""
    words = ["-m", "experiments.sweep", model, "--home", str(home.absolute())]
    words += ["--recording", str(_recording(home, recording)), "--trials", str(trials)]
    return _run(home, words)


def read_recordings(home: Path, recording: Path | None) -> dict[str, Any]:
    """Return every recording `up` could find, and every file in them, read from end to end.

    What a killed `alphapulse record` left there is made a recording first.
    """
    from alphapulse.data.pieces import finish, finish_all

    instruments = load_settings(home).market.instruments
    roots = [Home(home).path / "market"]
    named = recording or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None:
        finish(named)
    for root in roots if named is None else [named]:
        finish_all(root)
    found = list_recordings(recording, instruments, os.environ, roots=roots)
    return {
        "recordings": [one.as_row() for one in found],
        "files": [asdict(file) for one in found for file in one.files],
    }


def download(
    home: Path,
    exchange: str,
    symbol: str,
    timeframe: str,
    since_ns: int,
    until_ns: int | None,
    *,
    venue: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Bring a candle file in HOME/market up to what the venue has; a bar on stderr shows how far.

    `venue` makes the exchange, in place of ccxt.pro's. Raises ConfigError if ccxt does not know the
    venue, NoData if it does not answer or has none of the candles.
    """
    from alphapulse.data.download import download_span
    from alphapulse.data.live import Live, reachable

    feed = load_settings(home).feed
    if not asyncio.run(reachable(exchange, timeout_s=feed.probe_s, exchange=venue)):
        raise NoData(
            f"{exchange}: expected an answer within {feed.probe_s:g} s, was none; check the "
            "network, or ask another exchange"
        )
    source = Live(exchange, (), feed, exchange=venue)
    folder = Home(home).path / "market" / f"{exchange}-download"
    with progress(f"{symbol} {timeframe}") as tell:
        done = asyncio.run(
            download_span(
                source,
                symbol,
                Timeframe(timeframe),
                folder,
                since_ns=since_ns,
                until_ns=until_ns,
                tell=tell,
            )
        )
    names = ("rows", "new_rows", "first_ns", "last_ns", "missing")
    told = {name: getattr(done, name) for name in names}
    length_ns = Timeframe(timeframe).ns
    gaps = [
        {"from_ns": from_ns, "until_ns": to_ns, "missing": (to_ns - from_ns) // length_ns}
        for from_ns, to_ns in done.gaps
    ]
    return {"downloaded": [{"file": str(done.file), **told}], "gaps": gaps}


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on stderr; what is given moves it to so many done of so many, None is unknown."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _run(home: Path, words: list[str]) -> dict[str, Any]:
    command = ["nice", "-n", "10", sys.executable, *words, "--json"]
    if is_up(home):
        urls = (Home(home).announcement() or {})["urls"]
        submit = [str(Path(sys.executable).with_name("ray")), "job", "submit"]
        submit += ["--address", urls.get("ray dashboard", "http://127.0.0.1:8265")]
        submit += ["--log-style", "record", "--", *command]
        environ, token = dict(os.environ), (home / "ray_token").absolute()
        if token.exists():  # a head of our own; another's token is in the environment
            environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        ended = subprocess.run(submit, stdout=subprocess.PIPE, text=True, check=False, env=environ)
    else:
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    answers = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode != 0 or not answers:
        raise ClusterError(
            f"{' '.join(words[1:2])}: expected an answer, it ended with {ended.returncode}; "
            "its own message stands above"
        )
    answer: dict[str, Any] = json.loads(answers[-1])
    return answer


def _recording(home: Path, given: Path | None) -> Path:
    instruments = load_settings(home).market.instruments
    found = find_recording(given, instruments, os.environ, roots=[Home(home).path / "market"])
    return found.absolute()


def _newest_run(home: Path) -> Run:
    runs = Home(home).runs()
    if not runs:
        raise Unavailable(f"{home}: expected a run, was none; start one with `alphapulse up`")
    return runs[-1]
