"""Which programs an installation brings, and which of them is the server."""

from __future__ import annotations

import importlib.metadata
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mcpd.config.registry import Package
from mcpd.errors import SpawnError
from mcpd.packages.shelf import VENV, Program, directory_name


def find(package: Package, directory: Path) -> tuple[str, dict[str, Program]]:
    """The version that is installed in `directory`, and the package's own programs by name. Raises SpawnError."""
    return _of_npm(package, directory) if package.registry == "npm" else _of_pypi(package, directory)


def choose(package: Package, programs: Mapping[str, Program], wanted: str | None, server: str) -> Program:
    """The program that is the server: the one that the entry names, the only one, or the one with the package's name.

    As `npx` and `uvx` choose. Raises SpawnError that names all.
    """
    names = ", ".join(sorted(programs))
    where = f"servers.{server}"
    if not programs:
        raise SpawnError("exec", f"{where}.package: {package} brings no program; is it a server?")
    if wanted is not None:
        if wanted not in programs:
            raise SpawnError("exec", f"{where}.bin: {package} has no program {wanted!r}; it has {names}")
        return programs[wanted]
    own = package.name.rpartition("/")[2]
    if own in programs:
        return programs[own]
    if package.registry == "pypi":
        for name, program in programs.items():
            if directory_name(package) == directory_name(package.model_copy(update={"name": name})):
                return program
    if len(set(programs.values())) == 1:
        return next(iter(programs.values()))
    raise SpawnError("exec", f"{where}: {package} has several programs; choose one with bin = NAME: {names}")


def _of_npm(package: Package, directory: Path) -> tuple[str, dict[str, Program]]:
    """package.json, `bin`: one path, or several by name (npm, "package.json")."""
    home = f"node_modules/{package.name}"
    try:
        manifest = msgspec.json.decode((directory / home / "package.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise SpawnError("exec", f"{package}: its package.json cannot be read: {error}") from None
    given = manifest.get("bin")
    if isinstance(given, str):
        given = {package.name.rpartition("/")[2]: given}
    found: dict[str, Program] = {}
    for name, path in given.items() if isinstance(given, dict) else ():
        if isinstance(path, str):
            inside = posixpath.normpath(f"{home}/{path}")
            if _is_within(directory, inside):
                found[name] = Program(inside, "node" if _is_for_node(directory / inside) else "")
    version = manifest.get("version")
    return version if isinstance(version, str) else "", found


def _of_pypi(package: Package, directory: Path) -> tuple[str, dict[str, Program]]:
    """The entry points `console_scripts` (packaging.python.org, "Entry points specification")."""
    sites = [str(one) for one in directory.glob(f"{VENV}/lib/python*/site-packages")]
    wanted = directory_name(package)
    for one in importlib.metadata.distributions(path=sites):
        name = one.metadata["Name"] or ""
        if directory_name(package.model_copy(update={"name": name})) == wanted:
            paths = {
                point.name: f"{VENV}/bin/{point.name}" for point in one.entry_points if point.group == "console_scripts"
            }
            found = {key: Program(path, "python") for key, path in paths.items() if _is_within(directory, path)}
            return one.version, found
    raise SpawnError("exec", f"{package}: it is not there after its installation")


def _is_within(directory: Path, path: str) -> bool:
    """Whether it is a file of the installation, all links followed."""
    real = os.path.realpath(directory / path)
    return os.path.isfile(real) and real.startswith(f"{os.path.realpath(directory)}/")


def _is_for_node(path: Path) -> bool:
    """By its first line; a script without one is for node all the same, since npm's are."""
    with open(path, "rb") as file:
        line = file.readline(256)
    if line.startswith(b"#!"):
        return b"node" in line
    return not line.startswith(b"\x7fELF")
