"""Training rows are the feed's own inputs, and a first training from end to end is repeatable."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from alphapulse.config import Settings, Training
from alphapulse.data.feed import MarketFeed
from alphapulse.data.tape import Tape
from alphapulse.domain.errors import NoData
from alphapulse.domain.inputs import ModelInput
from alphapulse.models.checkpoints import Registry, directory_of
from alphapulse.models.loading import load_model
from experiments import first_training
from experiments.dataset import HELD_OUT, Dataset, collect, input_pair, windows

MINUTE_NS = 60_000_000_000
FIRST_TICK_NS = 1_723_161_255_208_000_000  # 2024-08-08T23:54:15.208Z, of BTC/USDT
KEPT_MINUTES = 4_500


@pytest.fixture(scope="module")
def short(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the recording with its newest minutes only, so that a test can walk them."""
    folder = tmp_path_factory.mktemp("short")
    for file in recordings.iterdir():
        if file.name.startswith("candles-1m-"):
            table = pq.read_table(file)
            ts = table["ts"].cast("int64").to_numpy()
            end = int(np.searchsorted(ts, FIRST_TICK_NS))
            pq.write_table(table.slice(end - KEPT_MINUTES, KEPT_MINUTES + 20), folder / file.name)
        else:
            (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings(training=Training(num_train=180, num_held_out=60, epochs=1))


@pytest.fixture(scope="module")
def dataset(short: Path, settings: Settings) -> Dataset:
    return asyncio.run(collect(short, settings))


def test_rows_are_the_inputs_the_feed_would_give(recordings: Path) -> None:
    settings = Settings()
    instruments = settings.market.instruments
    symbols = tuple(i.symbol for i in instruments)
    at_N = FIRST_TICK_NS // MINUTE_NS * MINUTE_NS - np.array([9, 4, 0]) * MINUTE_NS
    bounds = {"from_ns": int(at_N[0]) - MINUTE_NS, "until_ns": int(at_N[-1])}

    async def walk() -> tuple[list[str], list[str]]:
        tape = Tape(recordings, instruments, with_ticks=False, **bounds)
        mine = [
            input.content_hash
            async for window in windows(tape, settings, at_N)
            for input in input_pair(window, symbols)
        ]
        feed = MarketFeed(tape, instruments, settings.feed)
        await feed.open()
        theirs = []
        while (point := await feed.advance()) is not None:
            if point.event_ns in at_N:
                found = [point.inputs[symbol] for symbol in symbols]
                theirs += [input.content_hash for input in found if isinstance(input, ModelInput)]
        return mine, theirs

    mine, theirs = asyncio.run(walk())

    assert len(mine) == 6
    assert mine == theirs


def test_parts_follow_each_other_and_are_answered_by_their_own_end(dataset: Dataset) -> None:
    parts = [dataset.parts[name] for name in ("cnn", "rl", "moe", HELD_OUT)]

    assert dataset.num_dropped == 0
    assert [p.begin for p in parts[1:]] == [p.end for p in parts[:-1]]
    assert parts[-1].end == len(dataset.at_N) == 120
    assert dataset.at_N[-1] <= parts[-1].cut_ns == FIRST_TICK_NS
    for part in parts:
        unanswered = dataset.at_N[part.begin : part.end] + 300 * MINUTE_NS > part.cut_ns
        assert np.isnan(part.results_NS2[unanswered]).all()
        assert np.isfinite(part.results_NS2[~unanswered]).all()


def test_an_example_holds_the_input_of_its_symbol_and_position(dataset: Dataset) -> None:
    rows = dataset.rows("rl", {}, positions=(0, 1))
    flat_eth, long_eth, flat_btc, _ = rows[0:4]

    assert len(rows) == 2 * 2 * (dataset.parts["rl"].end - dataset.parts["rl"].begin)
    assert [e.input.symbol for e in rows[0:4]] == ["ETH/USDT"] * 2 + ["BTC/USDT"] * 2
    assert (flat_eth.input.account_A[0], long_eth.input.account_A[0]) == (0, 1)
    assert np.array_equal(flat_eth.input.bars_SFTC, flat_btc.input.bars_SFTC[::-1])
    again = ModelInput._hash(flat_btc.input)
    assert again == flat_btc.input.content_hash


def test_too_short_a_history_says_how_much_is_needed(short: Path) -> None:
    with pytest.raises(NoData, match="expected at least 5000 minutes"):
        asyncio.run(
            collect(short, Settings(training=Training(num_train=9_000, num_held_out=1_000)))
        )


@pytest.mark.slow
def test_first_training_is_repeatable_registered_and_done_once(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "[training]\nnum_train = 180\nnum_held_out = 60\nepochs = 1\n"
    found = []
    for home in (tmp_path / "a", tmp_path / "b"):
        home.mkdir()
        (home / "config.toml").write_text(text)
        code = first_training.main(["--home", str(home), "--recording", str(short), "--json"])
        assert code == 0
        found.append(json.loads(capsys.readouterr().out))
    again = first_training.train_first(tmp_path / "a", short)
    registry = Registry(tmp_path / "a" / "registry.sqlite")

    assert found[0]["checkpoints"] == found[1]["checkpoints"] == again.checkpoints
    assert found[0]["losses"] == found[1]["losses"]
    assert (found[0]["trained"], again.trained) == (True, False)
    assert set(found[0]["losses"]) == {"cnn", "rl", "moe"}
    for model, id in again.checkpoints.items():
        assert registry.champion(model) == id
        kept = load_model(directory_of(tmp_path / "a", model=model, id=id))
        assert kept.version == id


def test_an_unusable_recording_ends_with_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = first_training.main(["--home", str(tmp_path), "--recording", str(tmp_path / "none")])

    assert code == 3
    assert "InvalidRecording" in capsys.readouterr().err
