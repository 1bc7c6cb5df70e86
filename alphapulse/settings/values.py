"""Turn what TOML and environment say into the values of frozen sections, or say what is wrong."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from alphapulse.domain.errors import ConfigError

PREFIX = "ALPHAPULSE__"


def from_environ(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the variables that name a setting, as text by section and key."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in environ.items():
        if key.startswith(PREFIX):
            parts = key.removeprefix(PREFIX).lower().split("__")
            if len(parts) != 2:
                raise ConfigError(
                    f"{key}: expected {PREFIX}SECTION__KEY; see `alphapulse config show`"
                )
            found.setdefault(parts[0], {})[parts[1]] = value
    return found


def merge(
    into: dict[str, dict[str, Any]], new: Mapping[str, Any], hints: Mapping[str, Any], *, where: str
) -> None:
    """Add values by section and key, over those that are there.

    Args:
        into: what they are added to.
        new: the values.
        hints: the class of each section.
        where: they come from.

    Raises ConfigError on an unknown section or key.
    """
    for section, content in new.items():
        if section not in hints or not isinstance(content, Mapping):
            raise ConfigError(
                f"{where}: unknown section {section!r}; expected one of {', '.join(hints)}"
            )
        known = {f.name for f in dataclasses.fields(hints[section])}
        for key, value in content.items():
            if key not in known:
                raise ConfigError(
                    f"{where}: unknown key {section}.{key}; "
                    f"expected one of {', '.join(sorted(known))}"
                )
            into.setdefault(section, {})[key] = value


def build(cls: Any, section: str, values: Mapping[str, Any]) -> Any:
    """Return a section of some values and its defaults; raises ConfigError on a wrong type."""
    hints = typing.get_type_hints(cls)
    return cls(
        **{key: _convert(value, hints[key], f"{section}.{key}") for key, value in values.items()}
    )


def _convert(value: Any, wanted: Any, where: str) -> Any:
    """Return `value` as `wanted`; text (from the environment) is parsed, all else must fit."""
    if isinstance(wanted, types.GenericAlias) or typing.get_origin(wanted) is tuple:
        item = typing.get_args(wanted)[0]
        items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ConfigError(f"{where}: expected a list, was {value!r}")
        return tuple(_convert(part, item, where) for part in items)
    if isinstance(value, str) and wanted is bool:
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"{where}: expected true or false, was {value!r}")
        return value.lower() == "true"
    if isinstance(value, str) and wanted is not str:
        try:
            return wanted(value)
        except ValueError:
            raise ConfigError(f"{where}: expected {wanted.__name__}, was {value!r}") from None
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{where}: expected {wanted.__name__}, was {value!r}")
    return value
