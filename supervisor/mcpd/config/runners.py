"""Commands that download what they run, such as `npx` and `uvx`: what they would run, as a pinned package."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from mcpd.config.checks import Finding
from mcpd.config.profiles import effective
from mcpd.config.registry import Package, ProfileSpec, ServerSpec

_NPM: Final = (("npx",), ("bunx",), ("npm", "exec"), ("npm", "x"), ("pnpm", "dlx"), ("pnpx",), ("yarn", "dlx"))
_PYPI: Final = (("uvx",), ("uv", "tool", "run"), ("pipx", "run"))
_OFFLINE: Final = frozenset({"--offline", "--no", "--no-install"})
"""With these nothing is downloaded: what runs was installed by somebody else."""
_FROM: Final = frozenset({"-p", "--package", "--from", "--spec"})
_WITH_VALUE: Final = {
    "npm": frozenset({"--prefix", "--registry", "--userconfig", "-w", "--workspace"}),
    "pypi": frozenset({"--python", "-p", "--index", "--index-url", "-i", "--directory", "--cache-dir", "--link-mode"}),
}
_TOO_MUCH: Final = frozenset({"-c", "--call", "--with", "--with-editable", "--with-requirements", "-w"})
_SPEC: Final = {
    "npm": re.compile(r"(?P<name>(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*)(?:@(?P<version>.+))?"),
    "pypi": re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:(?:==|@)(?P<version>.+))?"),
}
_EXACT: Final = re.compile(r"v?\d+(?:[.!]\d+)+[0-9A-Za-z.+-]*|\d+(?:\.\d+)*(?:[a-z]+\d+)?")


class Download(msgspec.Struct, frozen=True):
    """What such a command runs. `version` is None where it is not exact; `program` where it is the package's own."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str | None
    program: str | None
    args: tuple[str, ...]

    def package(self, version: str) -> str:
        """As it is written in a registry."""
        return str(Package(registry=self.registry, name=self.name, version=version))

    @property
    def ask(self) -> str:
        """The command that tells the newest version."""
        return f"npm view {self.name} version" if self.registry == "npm" else f"pip index versions {self.name}"

    @property
    def lines(self) -> str:
        """What to write instead of the command."""
        keys = [f"package = {json.dumps(self.package(self.version or 'VERSION'))}"]
        if self.program is not None:
            keys.append(f"bin = {json.dumps(self.program)}")
        if self.args:
            keys.append(f"args = {json.dumps(list(self.args), ensure_ascii=False)}")
        return ", ".join(keys)


def runner(command: Sequence[str]) -> str | None:
    """The words by which a command downloads what it runs; None for one that does not."""
    found = _split(command)
    if found is None or _OFFLINE & set(_before_double_dash(found[2])):
        return None
    return " ".join(found[1])


def download(command: Sequence[str]) -> Download | None:
    """What it downloads; None where it is none of those commands, or more than one pinned package can stand for."""
    found = _split(command)
    if found is None or runner(command) is None:
        return None
    registry, _, rest = found
    words = list(rest)
    source: str | None = None
    while words and words[0].startswith("-") and words[0] != "-":
        word, _, value = words.pop(0).partition("=")
        if word == "--":
            break
        if word in _TOO_MUCH:
            return None
        if word in _FROM and not (word == "-p" and registry == "pypi"):
            if source is not None or not (value or words):
                return None
            source = value or words.pop(0)
        elif word in _WITH_VALUE[registry] and not value and words:
            words.pop(0)
    if not words:
        return None
    program, *args = words
    match = _SPEC[registry].fullmatch(program if source is None else source)
    if match is None:
        return None
    version = match["version"]
    exact = version is not None and _EXACT.fullmatch(version) is not None
    own = match["name"].rpartition("/")[2]
    return Download(
        registry,
        match["name"],
        version.removeprefix("v") if exact and version is not None else None,
        program if source is not None and program != own else None,
        tuple(args),
    )


def findings(spec: ServerSpec, own_profiles: Mapping[str, ProfileSpec]) -> Iterator[Finding]:
    """A server without network cannot be started by a command that downloads."""
    name = runner(spec.command) if spec.command else None
    if name is None:
        return
    try:
        rules = effective(spec.sandbox, own_profiles)
    except (KeyError, ValueError):
        return  # told already
    if not rules.contained or rules.network != "none":
        return
    message = f"{name!r} downloads what it runs, and the profile {rules.profile!r} has no network"
    found = download((*spec.command, *spec.args))
    if found is None:
        remedy = "install it yourself and name its program, or set package"
    else:
        remedy = f"write {found.lines} instead of command"
        if found.version is None:
            remedy += f"; `{found.ask}` tells the newest VERSION"
    yield Finding(("command",), message, remedy, fatal=spec.enabled)


def _split(command: Sequence[str]) -> tuple[Literal["npm", "pypi"], tuple[str, ...], Sequence[str]] | None:
    """The registry, the words that are the runner, and all that follows."""
    if not command:
        return None
    words = (os.path.basename(command[0]), *command[1:])
    kinds: tuple[tuple[Literal["npm", "pypi"], tuple[tuple[str, ...], ...]], ...] = (("npm", _NPM), ("pypi", _PYPI))
    for registry, runners in kinds:
        for one in runners:
            if tuple(words[: len(one)]) == one:
                return registry, one, words[len(one) :]
    return None


def _before_double_dash(words: Sequence[str]) -> list[str]:
    """The runner's own options: those before the first word that is none."""
    found = []
    for word in words:
        if not word.startswith("-") or word == "--":
            break
        found.append(word)
    return found
