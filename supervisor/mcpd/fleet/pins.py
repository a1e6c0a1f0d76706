"""Tool pinning: what a server offered when it was first seen, and whether it still offers the same.

A server that is trusted for what its tools say can change what they say later (a "rug pull"), and a model takes what
stands there for instructions. So the first catalogue is kept in a lock file beside the registry, and each later one is
compared with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from mcpd.config.registry import ServerSpec
from mcpd.routing.correlation import Hold
from mcpd.routing.info import Lists, ServerInfo
from mcpd.wire.jsonrpc import WireError, dump, members, pack, text, value_of

LOCK_FILE: Final = "mcpd.lock.json"
VERSION: Final = 1
LARGEST: Final = 64 * 2**20
MOST_FLAGS: Final = 20
"""So many oddities of one catalogue are told; the rest is only counted."""
JOINERS: Final = frozenset("\u200d\ufe0e\ufe0f")
"""What stands inside emoji, and hides nothing."""

log = structlog.get_logger("mcpd.pins")


class Pinned(msgspec.Struct, frozen=True):
    """A server as it was pinned. `tools`: by name, canonical JSON (sorted keys, no blanks) of the whole entry."""

    sha256: str
    instructions: str | None
    tools: dict[str, str]


class _LockFile(msgspec.Struct, frozen=True):
    version: int
    servers: dict[str, Pinned]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is other than it was pinned. Values are canonical JSON; `before` is None for what is new."""

    tool: str  # "" for the instructions
    before: str | None
    after: str | None


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
        found = list(oddities(server, now, servers, known=before))
        for one in found[:MOST_FLAGS]:
            self.tell(server, one)
        if len(found) > MOST_FLAGS:
            self.tell(server, f"{len(found) - MOST_FLAGS} more oddities in its catalogue")

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
    tools: dict[str, str] = {}
    for entry in info.lists.tools:
        with contextlib.suppress(WireError, KeyError):
            tools.setdefault(text(members(entry)["name"]), canonical(entry))
    # what cannot be encoded (half a surrogate pair) could not be kept
    clean = {_encodable(name): _encodable(entry) for name, entry in tools.items()}
    found = Pinned("", None if info.instructions is None else _encodable(info.instructions), clean)
    return msgspec.structs.replace(found, sha256=_digest(found))


def _encodable(found: str) -> str:
    return found.encode(errors="backslashreplace").decode()


def _digest(pinned: Pinned) -> str:
    whole = json.dumps([pinned.instructions, pinned.tools], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()


def _differences(before: Pinned, after: Pinned) -> Iterator[Difference]:
    if before.instructions != after.instructions:
        spelt = [None if one.instructions is None else json.dumps(one.instructions) for one in (before, after)]
        yield Difference("", *spelt)
    for name in {**before.tools, **after.tools}:
        old, new = before.tools.get(name), after.tools.get(name)
        if old != new:
            yield Difference(name, old, new)


def summary(differences: Iterable[Difference]) -> str:
    """In a few words."""
    words: dict[str, list[str]] = {"changed": [], "new": [], "gone": []}
    instructions = ""
    for one in differences:
        if not one.tool:
            instructions = "other instructions"
        else:
            words["new" if one.before is None else "gone" if one.after is None else "changed"].append(one.tool)
    parts = [f"{word}: {_some(names)}" for word, names in words.items() if names]
    return "; ".join([*parts, *([instructions] if instructions else [])]) or "nothing"


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _held(before: Pinned, now: Pinned, info: ServerInfo) -> tuple[ServerInfo, Hold]:
    """The pinned version of all that is there."""
    good = frozenset(name for name, entry in now.tools.items() if before.tools.get(name) == entry)
    kept: list[bytes] = []
    for entry in info.lists.tools:
        with contextlib.suppress(WireError, KeyError):
            name = text(members(entry)["name"])
            if name in good:
                kept.append(entry)
            elif name in before.tools:
                kept.append(before.tools[name].encode())
    hold = Hold(good, frozenset(now.tools) - good)
    lists: Lists = replace(info.lists, tools=tuple(kept))
    if before.instructions == now.instructions:
        return replace(info, lists=lists), hold
    result: dict[str, Any] = dict(members(info.result))
    result.pop("instructions", None)
    if before.instructions is not None:
        result["instructions"] = dump(before.instructions)
    return replace(info, lists=lists, instructions=before.instructions, result=pack(result)), hold


# what is odd in a catalogue


def oddities(server: str, now: Pinned, servers: Collection[str], known: Pinned | None = None) -> Iterator[str]:
    """What a person would not see, or would mistake, in what is new in a catalogue since `known`."""
    if now.instructions is not None and (known is None or known.instructions != now.instructions):
        yield from (f"its instructions have {one}" for one in hidden_characters(now.instructions))
    for name, entry in now.tools.items():
        if known is not None and known.tools.get(name) == entry:
            continue
        yield from (f"tool {shown(name)!r} has {one}" for one in hidden_characters("".join(_strings(entry))))
        other = claimed(name, server, servers)
        if other is not None:
            yield f"tool {shown(name)!r} has a name that looks like one of server {other!r}"


def hidden_characters(found: str) -> list[str]:
    """The kinds of characters in a text that are not seen, or that turn around what is."""
    kinds: dict[str, str] = {}
    for char in set(found):
        category = unicodedata.category(char)
        if char in JOINERS or char in "\n\t\r" or category not in ("Cf", "Cc", "Co", "Cn", "Zl", "Zp"):
            continue
        bidirectional = unicodedata.bidirectional(char) in _TURNING
        kinds[char] = f"{'a bidirectional control' if bidirectional else 'a hidden character'} (U+{ord(char):04X})"
    return [kinds[char] for char in sorted(kinds)]


_TURNING: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def claimed(tool: str, server: str, servers: Collection[str]) -> str | None:
    """Another server whose name a tool takes, so that it looks like one of that server's."""
    lowered = unicodedata.normalize("NFKC", tool).lower()
    for other in servers:
        if other != server and any(lowered.startswith(other + mark) for mark in ("__", ".", "/")):
            return other
        if other != server and lowered == other:
            return other
    return None


def shown(found: str) -> str:
    """Text in which nothing is hidden."""
    return "".join(
        f"<U+{ord(char):04X}>" if char not in "\n\t" and unicodedata.category(char)[0] in "CZ" and char != " " else char
        for char in found
    )


def _strings(entry: str) -> Iterator[str]:
    """All texts in a JSON value, keys too."""
    waiting: list[Any] = [json.loads(entry)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
