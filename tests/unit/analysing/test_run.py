"""Catch every planted leak by column and place, and let pass what is honest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alphapulse.analysing.run import Wish, analyse
from alphapulse.analysing.telling import for_people
from alphapulse.domain.errors import InvalidRequest, NoData

LEAKS = Path(__file__).parent / "leaks.py"


@pytest.fixture
def check(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the checks on ETH/USDT of the recording."""
    monkeypatch.setenv("ALPHAPULSE_RECORDINGS", str(recordings.parent))  # what a leak reads

    def run(**wish: Any) -> dict[str, Any]:
        return analyse(tmp_path, recordings, Wish(**{"num_bars": 1_500, **wish}))

    return run


def named(*names: str) -> list[str]:
    return [f"{LEAKS}:{name}" for name in names]


def places(rows: list[dict[str, Any]]) -> set[tuple[str, str, int | None]]:
    return {(row["column"], row["check"], row["bars_ahead"]) for row in rows}


@pytest.mark.parametrize("timeframe", ["1s", "1m", "1h", "1d"])
def test_honest_features_are_clean(check: Any, timeframe: str) -> None:
    answer = check(features=named("honest", "volume_balance"), timeframes=[timeframe])

    assert answer["leaks"] == []
    assert answer["clean"]


@pytest.mark.parametrize(
    ("name", "timeframe", "column", "check_name", "bars_ahead"),
    [
        ("centred", "1m", "centred", "poison", 3),
        ("centred", "1d", "centred", "prefix", 3),
        ("filled_back", "1m", "filled", "poison", None),
        ("warmed_up_backwards", "1m", "mean", "prefix", 30),  # bar 1 of 30 known reads the 50th
        ("scaled", "1h", "scaled", "prefix", 1_455),  # every bar from the first on
        ("early_hour", "1m", "hour_close", "poison", None),
        ("extremes", "1m", "peak", "prefix", None),
        ("pivots_at_their_bar", "1h", "pivot_high", "poison", None),
        ("next_return_from_a_file", "1h", "told", "skill", 1),
        ("unsteady", "1h", "noise", "repeat", None),
    ],
)
def test_leak_of_a_feature_is_found_by_column_and_place(
    check: Any, name: str, timeframe: str, column: str, check_name: str, bars_ahead: int | None
) -> None:
    answer = check(features=named(name), timeframes=[timeframe])

    assert not answer["clean"]
    assert {row["column"] for row in answer["leaks"]} == {column}
    (row,) = [row for row in answer["leaks"] if row["check"] == check_name]
    assert bars_ahead in (None, row["bars_ahead"])
    assert row["at"].startswith("20")
    assert row["was"] != row["became"]


def test_honest_column_beside_a_leak_is_not_accused(check: Any) -> None:
    answer = check(features=named("centred"), timeframes=["1m"])

    assert "fair" not in {row["column"] for row in answer["leaks"]}


def test_short_warm_up_and_path_dependence_are_warned_of(check: Any) -> None:
    answer = check(features=named("slow_mean", "volume_balance"), num_bars=3_000, timeframes=["1m"])

    notes = {row["column"]: row["note"] for row in answer["warnings"]}
    assert answer["clean"]
    assert notes["slow"].startswith("warm-up too short: after 600 bars")
    assert notes["obv"].startswith("path dependent")


@pytest.mark.parametrize("timeframe", ["1m", "1d"])
def test_labels_known_with_their_outcome_are_clean(check: Any, timeframe: str) -> None:
    own = [f"experiments.known_labels:{name}" for name in ("next_pivots", "entries", "settled")]

    answer = check(labels=[*named("ten_bars_on"), *own], timeframes=[timeframe])

    assert answer["leaks"] == []
    assert answer["warnings"] == []


@pytest.mark.parametrize(
    ("name", "column", "check_name", "bars_ahead"),
    [
        ("ten_bars_at_once", "ten", "early", 10),
        ("best_so_far", "best", "revised", 10),
        ("pivots_by_their_bar", "pivot", "early", None),
    ],
)
def test_label_known_too_early_is_found(
    check: Any, name: str, column: str, check_name: str, bars_ahead: int | None
) -> None:
    answer = check(labels=named(name), timeframes=["1m"])

    assert not answer["clean"]
    (row,) = answer["leaks"]
    assert (row["column"], row["check"]) == (column, check_name)
    assert bars_ahead in (None, row["bars_ahead"])


def test_fair_model_is_clean(check: Any) -> None:
    answer = check(models=named("Fair"), timeframes=["1d"])

    assert answer["leaks"] == []


def test_checkpoints_are_clean(check: Any) -> None:
    kept = Path(__file__).parents[2] / "golden" / "run"

    answer = check(models=[str(kept / name) for name in ("cnn", "rl", "moe")], timeframes=["1d"])

    assert answer["leaks"] == []
    assert [row["what"] for row in answer["checked"]] == ["built-in inputs", "models"]


@pytest.mark.parametrize(
    ("name", "column", "check_name"),
    [("Remembering", "p_buy", "order"), ("Peeking", "p_buy - p_sell", "skill")],
)
def test_model_that_peeks_is_found(check: Any, name: str, column: str, check_name: str) -> None:
    answer = check(models=named(name), timeframes=["1d"])

    assert not answer["clean"]
    assert (column, check_name) in {(row["column"], row["check"]) for row in answer["leaks"]}


def test_all_that_is_built_in_is_clean(check: Any) -> None:
    own = [f"experiments.known_labels:{name}" for name in ("next_pivots", "entries")]

    answer = check(own_labels=own)

    assert answer["leaks"] == []
    assert {row["subject"] for row in answer["checked"]} >= {
        "rows 1s", "rows 1m", "rows 1h", "rows 1d", "inputs", f"{own[0]} 1d",
    }  # fmt: skip
    json.dumps(answer, allow_nan=False)
    assert len(for_people(answer)["skill"]) <= 5 * 4


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"features": ["nothing"]}, "expected module:function"),
        ({"features": ["no.such.module:f"]}, "expected to find it"),
        ({"features": named("no_such_function")}, "expected to find it"),
        ({"features": named("too_few"), "timeframes": ["1d"]}, "expected a row for each"),
        ({"features": ["builtins:open"], "timeframes": ["1d"]}, "expected columns for 1500 bars"),
        ({"models": ["builtins:dict"], "timeframes": ["1d"]}, "expected a model with `predict`"),
        ({"symbol": "DOGE/USDT"}, "expected one of ETH/USDT, BTC/USDT"),
    ],
)
def test_what_cannot_be_checked_is_refused(check: Any, wish: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        check(**wish)


def test_recording_without_enough_bars_is_no_data(check: Any) -> None:
    with pytest.raises(NoData, match="without a gap"):
        check(features=named("honest"), timeframes=["1s"], num_bars=199)
