"""Run `alphapulse` as a user does, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from alphapulse.cli import main


class Answer(NamedTuple):
    """How a command ended and what it printed."""

    code: Any
    out: str
    err: str


Ask = Callable[..., Answer]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that runs `alphapulse` with arguments, far from any recording or home."""
    for name in ("ALPHAPULSE_RECORDINGS", "ALPHAPULSE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr("sys.argv", ["alphapulse", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return Answer(end.value.code, *capsys.readouterr())

    return run
