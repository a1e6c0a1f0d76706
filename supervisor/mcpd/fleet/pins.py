"""Pinning: what a server offered when it was first seen, and whether it still offers the same.

A server that is trusted for what its tools say can change what they say later (a "rug pull"), and a model takes what
stands there for instructions. So the first catalogue is kept in a lock file beside the registry, and each later one is
compared with it: tools, prompts, resource templates and instructions. Not resources: they are data that comes and goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog

from mcpd.config.registry import ServerSpec
from mcpd.fleet.oddities import hidden_characters, oddities
from mcpd.routing.correlation import Hold
from mcpd.routing.info import Lists, ServerInfo
from mcpd.wire.jsonrpc import WireError, dump, members, pack, text, value_of

LOCK_FILE: Final = "mcpd.lock.json"
VERSION: Final = 1
LARGEST: Final = 64 * 2**20
MOST_FLAGS: Final = 20
"""So many oddities of one catalogue are told; the rest is only counted."""

Kind = Literal["tool", "prompt", "template", "instructions"]
KINDS: Final[tuple[Kind, ...]] = ("tool", "prompt", "template")
log = structlog.get_logger("mcpd.pins")


class Pinned(msgspec.Struct, frozen=True, omit_defaults=True):
    """A server as it was pinned: by name (templates by URI), canonical JSON (sorted keys, no blanks) of whole entries.

    `prompts` and `templates` are None where it was pinned by a version that did not look at them.
    """

    sha256: str
    instructions: str | None
    tools: dict[str, str]
    prompts: dict[str, str] | None = None
    templates: dict[str, str] | None = None

    def of(self, kind: Kind) -> dict[str, str]:
        """The entries of a kind."""
        return (self.tools if kind == "tool" else self.prompts if kind == "prompt" else self.templates) or {}


class _LockFile(msgspec.Struct, frozen=True):
    version: int
    servers: dict[str, Pinned]


class Difference(msgspec.Struct, frozen=True):
    """What is other than it was pinned. Values are canonical JSON; `before` is None for what is new."""

    kind: Kind
    name: str  # "" for the instructions
    before: str | None
    after: str | None

    @property
    def label(self) -> str:
        """What it is, for people: tools by their name, others by what they are too."""
        return self.name if self.kind == "tool" else f"{self.kind} {self.name}".rstrip()


class Pins:
    """`review` is asked about each catalogue before clients see it. `tell` takes (server, text) of each event."""

    def __init__(
        self,
        path: Path,
        tell: Callable[[str, str], None] = lambda server, text: None,
        soon: Callable[[Callable[[], None]], object] = lambda write: write(),
    ) -> None:
        """`soon` calls what it gets a moment later: servers that are seen first come in swarms, and are written
        together. Raises nothing: a lock file that cannot be read is told, and left alone."""
        self.path = path
        self.tell = tell
        self._broken = ""
        self._pinned: dict[str, Pinned] = {}
        self._seen: dict[str, Pinned] = {}
        self._told: dict[str, str] = {}
        self._soon = soon
        self._unwritten: list[str] = []
        self._read()

    # what the relay asks

    def review(self, spec: ServerSpec, info: ServerInfo, servers: Collection[str]) -> tuple[ServerInfo, Hold | None]:
        """What clients get to see of a server that says this of itself, and which of its tools are held back.

        `servers`: the names of all, for tools that take another one's.
        """
        now = pinned_of(info)
        first_look = self._seen.get(spec.name) != now
        self._seen[spec.name] = now
        if first_look:
            self._flag(spec.name, now, servers)
        if spec.pin == "allow":
            return info, None
        before = self._pinned.get(spec.name)
        if before is not None and before.prompts is None:
            before = _completed(before, now)
            self._pin(spec.name, before)
            if len(self._unwritten) == 1:
                self._soon(self.write)
        if before is None:
            self._pin(spec.name, now)
            if len(self._unwritten) == 1:
                self._soon(self.write)
            before = now
        if before.sha256 != now.sha256:
            self._tell_once(spec, before, now)
        if spec.pin == "warn":
            return info, None
        return _held(before, now, info)

    def forget(self, server: str) -> None:
        """It is not in the registry any more; its pins stay in the file, for when it comes back."""
        self._seen.pop(server, None)

    # what operators ask

    @property
    def problem(self) -> str:
        """Why the lock file cannot be used; empty if it can."""
        return self._broken

    def pinned(self, server: str) -> Pinned | None:
        return self._pinned.get(server)

    def seen(self, server: str) -> Pinned | None:
        """What it offered last; None if this daemon has not seen it yet."""
        return self._seen.get(server)

    def differences(self, server: str) -> list[Difference]:
        """What is other than it was pinned; nothing if either is not known."""
        before, after = self._pinned.get(server), self._seen.get(server)
        return list(_differences(before, after)) if before is not None and after is not None else []

    def approve(self, server: str) -> bool:
        """Pin what the server offers now; False if that is not known."""
        now = self._seen.get(server)
        if now is None:
            return False
        self._pin(server, now)
        self.write()
        self._told.pop(server, None)
        return True

    def write(self) -> None:
        """Write what is pinned and not in the file yet, if anything is."""
        servers, self._unwritten = self._unwritten, []
        if not servers:
            return
        content = msgspec.json.format(msgspec.json.encode(_LockFile(VERSION, self._pinned)), indent=1) + b"\n"
        aside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            aside.write_bytes(content)
            os.replace(aside, self.path)
        except OSError as problem:
            with contextlib.suppress(OSError):
                aside.unlink()
            log.error("pins.unwritten", path=str(self.path), reason=problem.strerror)
            for server in servers:
                self.tell(server, f"it is pinned until the daemon ends only: {self.path}: {problem.strerror}")

    # in here

    def _tell_once(self, spec: ServerSpec, before: Pinned, now: Pinned) -> None:
        if self._told.get(spec.name) == now.sha256:
            return
        self._told[spec.name] = now.sha256
        words = summary(_differences(before, now))
        held = "; they are held back" if spec.pin == "hold" else ""
        self.tell(spec.name, f"its catalogue is not the pinned one: {words}{held}; see `mcpctl pins diff {spec.name}`")

    def _flag(self, server: str, now: Pinned, servers: Collection[str]) -> None:
        before = self._pinned.get(server)
        found = list(self._oddities(server, now, servers, before))
        for one in found[:MOST_FLAGS]:
            self.tell(server, one)
        if len(found) > MOST_FLAGS:
            self.tell(server, f"{len(found) - MOST_FLAGS} more oddities in its catalogue")

    def _oddities(self, server: str, now: Pinned, servers: Collection[str], known: Pinned | None) -> Iterator[str]:
        """What is odd in what is new since `known`."""
        if now.instructions is not None and (known is None or known.instructions != now.instructions):
            yield from (f"its instructions have {one}" for one in hidden_characters(now.instructions))
        for kind in KINDS:
            before = {} if known is None else known.of(kind)
            for name, entry in now.of(kind).items():
                if before.get(name) != entry:
                    yield from oddities(server, kind, name, entry, servers)

    def _pin(self, server: str, now: Pinned) -> None:
        self._pinned[server] = now
        if not self._broken:
            self._unwritten.append(server)

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
            if len(content) > LARGEST:
                raise ValueError("too large")
            found = msgspec.json.decode(content, type=_LockFile)
            if found.version != VERSION:
                raise ValueError(f"of version {found.version}, which is not known")
        except FileNotFoundError:
            return
        except (OSError, ValueError, msgspec.MsgspecError) as problem:
            self._broken = f"{self.path} cannot be used: {problem}; nothing is pinned until it is mended or removed"
            log.error("pins.unreadable", path=str(self.path), reason=str(problem))
            return
        self._pinned = {name: one for name, one in found.servers.items() if one.sha256 == _digest(one)}
        for name in found.servers.keys() - self._pinned.keys():
            log.error("pins.changed", path=str(self.path), server=name, next="its digest does not fit: pinned anew")


def canonical(raw: bytes) -> str:
    """One spelling for equal JSON: sorted keys, no blanks, only needed escapes (as RFC 8785, but for numbers)."""
    return json.dumps(value_of(raw), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def pinned_of(info: ServerInfo) -> Pinned:
    """What there is to pin: entries without a usable name are shown to nobody."""
    found = Pinned(
        "",
        None if info.instructions is None else _encodable(info.instructions),
        _entries(info.lists.tools, "name"),
        _entries(info.lists.prompts, "name"),
        _entries(info.lists.templates, "uriTemplate"),
    )
    return msgspec.structs.replace(found, sha256=_digest(found))


def _completed(before: Pinned, now: Pinned) -> Pinned:
    """What was pinned when only tools were, with what else there is now."""
    whole = msgspec.structs.replace(before, prompts=now.prompts, templates=now.templates)
    return msgspec.structs.replace(whole, sha256=_digest(whole))


def _entries(listed: Iterable[bytes], key: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in listed:
        with contextlib.suppress(WireError, KeyError):
            found.setdefault(text(members(entry)[key]), canonical(entry))
    # what cannot be encoded (half a surrogate pair) could not be kept
    return {_encodable(name): _encodable(entry) for name, entry in found.items()}


def _encodable(found: str) -> str:
    return found.encode(errors="backslashreplace").decode()


def _digest(pinned: Pinned) -> str:
    parts: list[Any] = [pinned.instructions, pinned.tools]
    if pinned.prompts or pinned.templates:  # without any the digest is that of a version that knew none
        parts += [pinned.prompts, pinned.templates]
    whole = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()


def _differences(before: Pinned, after: Pinned) -> Iterator[Difference]:
    if before.instructions != after.instructions:
        spelt = [None if one.instructions is None else json.dumps(one.instructions) for one in (before, after)]
        yield Difference("instructions", "", *spelt)
    for kind in KINDS:
        for name in {**before.of(kind), **after.of(kind)}:
            old, new = before.of(kind).get(name), after.of(kind).get(name)
            if old != new:
                yield Difference(kind, name, old, new)


def summary(differences: Iterable[Difference]) -> str:
    """In a few words."""
    words: dict[str, list[str]] = {"changed": [], "new": [], "gone": []}
    instructions = ""
    for one in differences:
        if one.kind == "instructions":
            instructions = "other instructions"
        else:
            words["new" if one.before is None else "gone" if one.after is None else "changed"].append(one.label)
    parts = [f"{word}: {_some(names)}" for word, names in words.items() if names]
    return "; ".join([*parts, *([instructions] if instructions else [])]) or "nothing"


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _held(before: Pinned, now: Pinned, info: ServerInfo) -> tuple[ServerInfo, Hold]:
    """The pinned version of all that is there."""
    tools, prompts = _good(before, now, "tool"), _good(before, now, "prompt")
    hold = Hold(tools, frozenset(now.of("tool")) - tools, prompts, frozenset(now.of("prompt")) - prompts)
    lists: Lists = replace(
        info.lists,
        tools=_kept(info.lists.tools, "name", before.of("tool"), tools),
        prompts=_kept(info.lists.prompts, "name", before.of("prompt"), prompts),
        templates=_kept(info.lists.templates, "uriTemplate", before.of("template"), _good(before, now, "template")),
    )
    if before.instructions == now.instructions:
        return replace(info, lists=lists), hold
    result: dict[str, Any] = dict(members(info.result))
    result.pop("instructions", None)
    if before.instructions is not None:
        result["instructions"] = dump(before.instructions)
    return replace(info, lists=lists, instructions=before.instructions, result=pack(result)), hold


def _good(before: Pinned, now: Pinned, kind: Kind) -> frozenset[str]:
    """The names of what is as it was pinned."""
    pinned = before.of(kind)
    return frozenset(name for name, entry in now.of(kind).items() if pinned.get(name) == entry)


def _kept(listed: Iterable[bytes], key: str, pinned: Mapping[str, str], good: Collection[str]) -> tuple[bytes, ...]:
    """A list in which what is new is left out, and what is other is as it was pinned."""
    kept: list[bytes] = []
    for entry in listed:
        with contextlib.suppress(WireError, KeyError):
            name = text(members(entry)[key])
            if name in good:
                kept.append(entry)
            elif name in pinned:
                kept.append(pinned[name].encode())
    return tuple(kept)
