"""Structured log lines (JSON, one file a process) and the table of errors every process adds to."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import MutableMapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from alphapulse.domain.status import ErrorRow

SCHEMA = """
CREATE TABLE IF NOT EXISTS errors (
    session TEXT NOT NULL, code TEXT NOT NULL, count INTEGER NOT NULL,
    first_at TEXT NOT NULL, last_at TEXT NOT NULL, trace_id TEXT NOT NULL,
    message TEXT NOT NULL, remedy TEXT NOT NULL, schema_version INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (session, code))
"""
UPSERT = """
INSERT INTO errors (session, code, count, first_at, last_at, trace_id, message, remedy)
VALUES (?, ?, 1, ?, ?, ?, ?, ?)
ON CONFLICT (session, code) DO UPDATE SET count = count + 1, last_at = excluded.last_at,
    trace_id = excluded.trace_id, message = excluded.message, remedy = excluded.remedy
"""
_sink: _Sink | None = None


class _Sink:
    """Writes events of one process to its file, and the errors among them to the shared table."""

    def __init__(self, folder: Path, process: str, session: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.process = process
        self.session = session
        path = folder / f"{process}.jsonl"
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.errors_path = folder / "errors.sqlite"
        self.lock = threading.Lock()

    def write(self, event: MutableMapping[str, Any]) -> None:
        line = json.dumps(event, default=str)
        with self.lock:
            try:
                os.write(self.file, f"{line}\n".encode())
            except OSError as error:
                # a full disk must not stop the work
                print(f"log file of {self.process}: {error}: {line}", file=sys.stderr)
            if event["level"] in ("error", "critical"):
                self._count(event)

    def _count(self, event: MutableMapping[str, Any]) -> None:
        code = str(event.get("code", event["event"]))
        row = (self.session, code, event["at"], event["at"], str(event.get("trace_id", "")))
        text = str(event.get("reason", event["event"]))
        try:
            with closing(sqlite3.connect(self.errors_path, timeout=5)) as table, table:
                table.execute(SCHEMA)
                table.execute(UPSERT, (*row, text, str(event.get("remedy", ""))))
        except sqlite3.Error as error:
            # the line is in the file already; the table must not stop the work
            print(f"errors table {self.errors_path}: {error}", file=sys.stderr)


def configure(folder: Path, *, process: str, session: str) -> None:
    """Send this process's log lines to FOLDER/PROCESS.jsonl.

    Its errors go to FOLDER/errors.sqlite too, under `session`.
    """
    global _sink
    if _sink is not None:
        os.close(_sink.file)
    _sink = _Sink(folder, process, session)


def get_logger(room: str) -> Any:
    """Return the structlog logger of a room.

    Before `configure` it prints warnings and errors only, to stderr.
    """
    return structlog.wrap_logger(
        None, processors=[_emit], wrapper_class=structlog.BoundLogger, room=room
    )


def _emit(_: Any, level: str, event: MutableMapping[str, Any]) -> Any:
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "error" if level == "exception" else level,
        **structlog.contextvars.get_contextvars(),
        **event,
    }
    if _sink is not None:
        _sink.write({"process": _sink.process, **line})
    elif logging.getLevelNamesMapping()[line["level"].upper()] >= logging.WARNING:
        print(json.dumps(line, default=str), file=sys.stderr)
    raise structlog.DropEvent


def read_errors(folder: Path, *, session: str | None = None) -> list[ErrorRow]:
    """Return the errors table, newest first; of one session, or of all added up."""
    path = folder / "errors.sqlite"
    if not path.exists():
        return []
    where, arguments = ("WHERE session = ?", (session,)) if session else ("", ())
    query = (
        "SELECT code, SUM(count), MIN(first_at), MAX(last_at) AS last, trace_id, message, remedy "
        f"FROM errors {where} GROUP BY code ORDER BY last DESC"
    )
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as table:
        return [ErrorRow(*row) for row in table.execute(query, arguments)]


def describe(error: BaseException) -> dict[str, str]:
    """Return the fields every logged error carries: its code and its own sentence."""
    return {"code": type(error).__name__, "reason": str(error)}
