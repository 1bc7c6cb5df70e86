"""Check cluster.yaml by Ray's own schema and by what the project promises of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

CLUSTER = Path(__file__).resolve().parent.parent / "cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CLUSTER.read_text())
    return loaded


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config as `ray up` prepares it; raises what `ray up` would."""
    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def commands(config: dict[str, Any]) -> list[str]:
    return [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    prepared = checked(config)

    assert set(prepared["available_node_types"]) == {"head", "cpu_worker", "gpu_worker"}


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("worker_types", {}, jsonschema.ValidationError),
        ("max_workers", "many", jsonschema.ValidationError),
        ("head_node_type", "chief", ValueError),
        ("max_workers", -1, jsonschema.ValidationError),
    ],
)
def test_ray_refuses_a_planted_mistake(
    config: dict[str, Any], key: str, value: Any, error: type[Exception]
) -> None:
    config[key] = value

    with pytest.raises(error):
        checked(config)


def test_only_gpu_workers_have_a_gpu_and_none_waits_for_work(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]

    assert [name for name, node in nodes.items() if "GPU" in node["resources"]] == ["gpu_worker"]
    assert all(node.get("min_workers", 0) == 0 for node in nodes.values())


def test_every_ray_command_states_its_authentication(config: dict[str, Any]) -> None:
    assert [c for c in commands(config) if "RAY_AUTH_MODE=token" not in c] == []
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_every_flag_is_one_ray_start_knows(config: dict[str, Any]) -> None:
    known = {option for parameter in start.params for option in parameter.opts}
    words = [word for c in commands(config) if "ray start" in c for word in shlex.split(c)]
    flags = {word.split("=")[0] for word in words if word.startswith("--")}

    assert flags <= known
    assert flags >= {"--head", "--address", "--dashboard-host", "--autoscaling-config"}


def test_nodes_install_the_lock(config: dict[str, Any]) -> None:
    assert "make --directory ~/alphapulse setup" in config["setup_commands"]
    assert config["file_mounts"]["~/alphapulse"] == "."


def test_every_line_to_edit_says_so(config: dict[str, Any]) -> None:
    text = CLUSTER.read_text()

    assert all(
        "EDIT" in n["node_config"]["ImageId"] for n in config["available_node_types"].values()
    )
    assert text.count("EDIT:") >= 5
