"""The commands by which packages are installed, and by which their newest version is asked for. Pure."""

from __future__ import annotations

import json
import re
from typing import Final, Literal

import msgspec

from mcpd.config.registry import Package
from mcpd.packages.shelf import VENV

Tool = Literal["npm", "pip", "uv"]

_NPM: Final = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=http")
_PIP: Final = ("--no-input", "--disable-pip-version-check", "--no-cache-dir")
_ASKING: Final = "mcpd-asks"
_COMPILED: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*==(?P<version>[^\s;\\]+)", re.MULTILINE)


class Tools(msgspec.Struct, frozen=True):
    """Absolute paths of what installs."""

    tool: Tool
    program: str
    """npm or uv; for pip the interpreter that makes the virtual environment."""
    python: str


class Step(msgspec.Struct, frozen=True):
    """One command. `runs_package`: code of the package may run in it, so it does not see how registries are reached."""

    argv: tuple[str, ...]
    runs_package: bool = False
    needs: tuple[str, ...] = ()
    """Programs that it runs, or links to, besides those of its words."""


def install(package: Package, tools: Tools, directory: str, home: str, *, scripts: bool) -> tuple[Step, ...]:
    """Put `package` into `directory`, which is empty. Nothing of it runs, unless `scripts` says that it may."""
    if tools.tool == "npm":
        wanted = f"{package.name}@{package.version}"
        where = ("--prefix", directory, "--cache", f"{home}/npm-cache")
        steps = [
            Step(
                (tools.program, "install", *where, *_NPM, "--ignore-scripts", "--save-exact", "--omit=dev", wanted),
            )
        ]
        if scripts:
            steps.append(Step((tools.program, "rebuild", *where, *_NPM, "--no-ignore-scripts"), runs_package=True))
        return tuple(steps)
    wanted = f"{package.name}=={package.version}"
    venv = f"{directory}/{VENV}"
    build: tuple[str, ...]
    if tools.tool == "uv":
        build = () if scripts else ("--no-build",)
        into = ("--python", f"{venv}/bin/python", "--compile-bytecode", "--link-mode", "copy")
        return (
            Step((tools.program, "venv", "--quiet", "--python", tools.python, venv)),
            Step((tools.program, "pip", "install", *into, *build, wanted), needs=(tools.python,)),
        )
    build = () if scripts else ("--only-binary", ":all:")
    return (
        Step((tools.python, "-m", "venv", venv)),
        Step(
            (f"{venv}/bin/python", "-m", "pip", "install", *_PIP, "--progress-bar", "off", *build, wanted),
            needs=(tools.python,),
        ),
    )


def newest(package: Package, tools: Tools, home: str) -> tuple[Step, ...]:
    """Ask for the newest version; what the last step prints is for `parse_newest`."""
    if tools.tool == "npm":
        cache = ("--cache", f"{home}/npm-cache")
        return (Step((tools.program, "view", package.name, "version", "--json", *cache, *_NPM)),)
    if tools.tool == "uv":
        wanted = f"{home}/{_ASKING}.in"
        options = ("--no-deps", "--no-header", "--no-annotate", "--quiet", "--no-build", "--python", tools.python)
        return (
            Step(("/bin/sh", "-c", 'echo "$1" > "$2"', _ASKING, package.name, wanted)),
            Step((tools.program, "pip", "compile", *options, wanted)),
        )
    venv = f"{home}/{_ASKING}"
    asked = ("--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:", "--quiet", "--report", "-")
    return (
        Step((tools.python, "-m", "venv", venv)),
        Step((f"{venv}/bin/python", "-m", "pip", "install", *_PIP, *asked, package.name), needs=(tools.python,)),
    )


def parse_newest(tool: Tool, output: str) -> str | None:
    """The version in what the tool printed."""
    if tool == "uv":
        match = _COMPILED.search(output)
        return match["version"] if match else None
    try:
        found = json.loads(output)
        version = found if tool == "npm" else found["install"][0]["metadata"]["version"]
    except (ValueError, LookupError, TypeError):
        return None
    return version if isinstance(version, str) else None
