"""A checkpoint is there whole or not at all, and the registry knows who is champion."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphapulse.domain.errors import CheckpointError
from alphapulse.domain.inputs import ModelInput
from alphapulse.models.checkpoints import (
    LAYOUT_FILE,
    WEIGHTS_FILE,
    Entry,
    Registry,
    directory_of,
)
from alphapulse.models.cnn import CNN
from alphapulse.models.loading import load_model
from alphapulse.models.moe import Orchestrator
from alphapulse.models.rl import RL


@pytest.fixture
def saved(cnn: CNN, tmp_path: Path) -> Path:
    directory = directory_of(tmp_path, model="cnn", id=cnn.version)
    cnn.save(directory)
    return directory


def test_what_is_loaded_is_what_was_saved(
    cnn: CNN, rl: RL, moe: Orchestrator, seen: ModelInput, tmp_path: Path
) -> None:
    for model in (cnn, rl, moe):
        id = model.save(tmp_path / model.name)
        kept = load_model(tmp_path / model.name)

        assert type(kept) is type(model)
        assert kept.version == model.version == id
    first, again = cnn, load_model(tmp_path / "cnn")
    assert again.predict(seen, upstream={}).forecasts == first.predict(seen, upstream={}).forecasts


def test_saving_again_changes_nothing(cnn: CNN, saved: Path) -> None:
    before = (saved / WEIGHTS_FILE).stat().st_mtime_ns

    assert cnn.save(saved) == cnn.version
    assert (saved / WEIGHTS_FILE).stat().st_mtime_ns == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_another_checkpoint_in_its_place_is_kept(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="empty or new folder"):
        CNN.fresh(seed=9, cost_bps=10.0).save(saved)


@pytest.mark.parametrize("file", [WEIGHTS_FILE, LAYOUT_FILE])
def test_missing_and_damaged_files_are_named_with_a_remedy(saved: Path, file: str) -> None:
    content = (saved / file).read_bytes()
    (saved / file).write_bytes(content[:-8] + b"01234567")
    with pytest.raises(CheckpointError, match="first training again"):
        CNN.load(saved)

    (saved / file).unlink()
    with pytest.raises(CheckpointError, match="first training again"):
        CNN.load(saved)


def test_a_changed_layout_is_damage(saved: Path) -> None:
    text = (saved / LAYOUT_FILE).read_text()
    (saved / LAYOUT_FILE).write_text(text.replace('"cost_bps": 10.0', '"cost_bps": 0.0'))

    with pytest.raises(CheckpointError, match="was something else"):
        load_model(saved)


def test_a_checkpoint_of_another_model_is_foreign(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a checkpoint of rl"):
        RL.load(saved)


def entry(id: str, *, model: str = "cnn", role: str = "champion", config: str = "c") -> Entry:
    return Entry(id, model, role, "d", config, 5, {"num_examples": 3})


def test_a_new_champion_retires_the_one_before(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    assert registry.champion("cnn") is None

    registry.register(entry("a"))
    registry.register(entry("b", role="challenger"))
    assert registry.champion("cnn") == "a"

    registry.promote("b")
    assert Registry(tmp_path / "registry.sqlite").champion("cnn") == "b"
    assert [e.role for e in registry.entries()] == ["retired", "champion"]
    with pytest.raises(CheckpointError, match="register it first"):
        registry.promote("z")


def test_the_first_training_is_found_by_data_and_settings(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    registry.register(entry("a"))
    assert registry.find_first("d", "c") is None

    registry.register(entry("r", model="rl"))
    registry.register(entry("m", model="moe"))
    registry.register(entry("later", role="challenger"))

    assert registry.find_first("d", "c") == {"cnn": "a", "rl": "r", "moe": "m"}
    assert registry.find_first("d", "other") is None


def test_the_same_weights_under_other_settings_are_a_row_of_their_own(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    for config in ("c", "other"):
        for model in ("cnn", "rl", "moe"):
            registry.register(entry(model, model=model, config=config))

    assert registry.find_first("d", "other") == {"cnn": "cnn", "rl": "rl", "moe": "moe"}
    assert registry.champion("rl") == "rl"
