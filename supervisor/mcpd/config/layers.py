"""Tables that stand over one another: a server over [defaults], the environment over [daemon]."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mcpd.config.positions import KeyPath
from mcpd.config.registry import SOURCES
from mcpd.config.report import Place


class Layer(msgspec.Struct, frozen=True):
    """One table as it was written, and where each of its keys stands."""

    data: Mapping[str, Any]
    locate: Callable[[KeyPath], Place]
    is_table: bool = True  # False: the environment, which has no place for what it does not say


class Layered(msgspec.Struct, frozen=True):
    """Several layers as one table, the strongest first."""

    layers: Sequence[Layer]
    merged: dict[str, Any]

    def place(self, path: KeyPath) -> Place:
        """Where the key at `path` stands: in the strongest layer that has all of it, else the table around it."""
        for layer in self.layers:
            if depth(layer.data, path) == len(path):
                return layer.locate(path)
        deepest = max(self.layers, key=lambda layer: (depth(layer.data, path), layer.is_table))
        return deepest.locate(path)


def lay(*layers: Layer) -> Layered:
    """Merge: tables key by key, anything else as a whole; a script, command or package hides all weaker ones."""
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        if any(source in layer.data for source in SOURCES):
            merged = {key: value for key, value in merged.items() if key not in SOURCES}
        merged = _merge(merged, layer.data)
    return Layered(layers, merged)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            # A value of `env` is text or { secret = … }, and is taken whole.
            merged[key] = {**below, **value} if key == "env" else _merge(below, value)
        else:
            merged[key] = value
    return merged


def depth(data: Any, path: KeyPath) -> int:
    """How many steps of `path` lead somewhere in `data`."""
    for steps, key in enumerate(path):
        is_there = key in data if isinstance(data, Mapping) else isinstance(data, list) and key in range(len(data))
        if not is_there:
            return steps
        data = data[key]
    return len(path)


def anchor(data: Mapping[str, Any], base: Path, home: Path) -> dict[str, Any]:
    """`data` with its relative paths made absolute; what is no path is left for the validation to find."""

    def path(value: Any) -> Any:
        return anchored(value, base, home) if isinstance(value, str) and value else value

    def program(value: Any) -> Any:
        return path(value) if isinstance(value, str) and "/" in value else value

    def paths(value: Any) -> Any:
        return [path(element) for element in value] if isinstance(value, list) else value

    def command(value: Any) -> Any:
        return [program(value[0]), *value[1:]] if isinstance(value, list) and value else value

    def roots(value: Any) -> Any:
        return [_uri(element) for element in paths(value)] if isinstance(value, list) else value

    def sandbox(value: Any) -> Any:
        return _mapped(value, {"read": paths, "write": paths}) if isinstance(value, dict) else value

    def jwt(value: Any) -> Any:
        return _mapped(value, {"jwks": path}) if isinstance(value, dict) else value

    return _mapped(
        data,
        {
            "script": path,
            "python": program,
            "cwd": path,
            "command": command,
            "roots": roots,
            "sandbox": sandbox,
            "jwt": jwt,
        }
        | {"read": paths, "write": paths}
        | dict.fromkeys(("state_dir", "runtime_dir", "secrets_dir", "logs_dir", "tls_cert", "tls_key"), path),
    )


def _mapped(data: Mapping[str, Any], changes: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    return {key: changes[key](value) if key in changes else value for key, value in data.items()}


def _uri(value: Any) -> Any:
    return Path(value).as_uri() if isinstance(value, str) and value.startswith("/") else value


def anchored(value: str, base: Path, home: Path) -> str:
    """`value` as an absolute path, `~` being `home`; a URI stays as it is.

    `..` is resolved by its letters only where that leads to the same file, that is, across no symbolic link.
    """
    if "://" in value:
        return value
    below_home = value == "~" or value.startswith("~/")
    joined = os.path.join(home, value[2:]) if below_home else os.path.join(base, value)
    tidy = os.path.normpath(joined)
    return tidy if os.path.realpath(tidy) == os.path.realpath(joined) else joined
