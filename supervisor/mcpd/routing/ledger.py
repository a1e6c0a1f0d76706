"""What each principal has under way and may ask for, and what became of the calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from mcpd.wire import methods
from mcpd.wire.address import View
from mcpd.wire.jsonrpc import Bytes, WireError, members, text

_TAIL = 2048  # bytes of a large result in which `isError` is looked for: it stands behind the content, or before it
_IS_ERROR = b'"isError"'
_NO_ERROR = b'"isError":false}'


class Entry(NamedTuple):
    """One call of a tool, prompt or resource that is over. `began` and `ended` are monotonic.

    `server` is empty where there is none of that name for this client; `arguments` are the call's params, where they
    are wanted. `code` is that of a JSON-RPC error.
    """

    began: float
    ended: float
    principal: str
    session: str
    transport: str
    view: View
    server: str
    method: str
    name: str
    outcome: str
    code: int
    arguments: bytes


Note: TypeAlias = tuple[float, float, str, str, str, View, str, str, str, str, int, bytes]
"""An Entry as it is noted: a bare tuple costs a third."""


class Bucket:
    """A token bucket: `interval` seconds bring one back, `burst` are in it when it is full.

    One number is enough: when all that was taken will have come back (GCRA).
    """

    __slots__ = ("whole_at",)

    def __init__(self) -> None:
        self.whole_at = 0.0

    def wait(self, at: float, interval: float, burst: int) -> float:
        """Seconds until one can be taken; 0: now."""
        early = self.whole_at - at - (burst - 1) * interval
        return early if early > 1e-9 else 0.0

    def take(self, at: float, interval: float) -> None:
        self.whole_at = max(self.whole_at, at) + interval


class Account:
    """One principal: the calls that have no answer yet, the sessions, and how soon it may ask which server again."""

    __slots__ = ("_buckets", "in_flight", "sessions")

    def __init__(self) -> None:
        self.in_flight = 0
        self.sessions = 0
        self._buckets: dict[str, Bucket] = {}  # by server

    def bucket(self, server: str) -> Bucket:
        """Out of which its requests to a server are taken."""
        found = self._buckets.get(server)
        if found is None:
            found = self._buckets[server] = Bucket()
        return found

    def is_idle(self, at: float) -> bool:
        """Whether nothing would be lost if it were forgotten."""
        return not self.in_flight and not self.sessions and all(one.whole_at <= at for one in self._buckets.values())


class _Name(msgspec.Struct):
    name: str = ""


class _Uri(msgspec.Struct, rename={"name": "uri"}):
    name: str = ""


_BACKSLASH = 0x5C
_NAME = b'"name"'
_NAME_FIRST = b'{"name":"'
_NAME_AT = len(_NAME_FIRST)
_BY_NAME = (_NAME, msgspec.json.Decoder(_Name))
_BY_URI = (b'"uri"', msgspec.json.Decoder(_Uri))


def named(method: str, params: bytes) -> str:
    """What a request names, without taking it apart if that can be; "?" where the server may read it otherwise."""
    try:
        if params.startswith(_NAME_FIRST) and method == methods.TOOLS_CALL:
            end = params.find(b'"', _NAME_AT)
            # what is not there is not found several times as fast from the end
            if end > 0 and params.rfind(_NAME) == 1 and params.find(_BACKSLASH, _NAME_AT) < 0:
                return params[_NAME_AT:end].decode()
        quoted, decoder = _BY_URI if method == methods.RESOURCES_READ else _BY_NAME
        if params.count(quoted) == 1 and params.find(_BACKSLASH) < 0:
            return decoder.decode(params).name
        return name_of(method, members(params))
    except (msgspec.MsgspecError, WireError, ValueError):
        return "?"


def name_of(method: str, given: Mapping[str, Bytes]) -> str:
    """What a request names whose params are taken apart; "?" where the server may read it otherwise."""
    key = "uri" if method == methods.RESOURCES_READ else "name"
    if key not in given:
        return ""
    try:
        return text(given[key])
    except (WireError, ValueError):
        return "?"


def outcome_of(method: str, value: bytes) -> str:
    """How a call ended that has a result."""
    if value.endswith(_NO_ERROR) or method != methods.TOOLS_CALL:
        return "ok"
    if len(value) <= 2 * _TAIL:
        failed = _says_error(value)
    else:
        failed = _says_error(value[-_TAIL:]) or _says_error(value[:_TAIL])
    return "tool-error" if failed else "ok"


def _says_error(part: bytes) -> bool:
    at = part.rfind(_IS_ERROR)
    return at >= 0 and part[at + len(_IS_ERROR) : at + 32].lstrip(b" \t:").startswith(b"true")


def refusal_of(code: int) -> str:
    """How a call ended that mcpd answered with an error of its own."""
    return _REFUSALS.get(code, "refused")


_REFUSALS = {methods.REQUEST_TIMEOUT: "timeout", methods.SERVER_UNAVAILABLE: "unavailable"}
