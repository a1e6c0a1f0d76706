"""What the router wants done. The relay carries these out, in order; nothing else leaves the router."""

from __future__ import annotations

from typing import Any

import msgspec


class WriteLine(msgspec.Struct, frozen=True, gc=False):
    """Write `frame` to an instance. `call`: the upstream id in it, to be taken back if it cannot be written."""

    instance: str
    frame: bytes
    call: int = 0


class Deliver(msgspec.Struct, frozen=True):
    """Give `frame` to a client's sink; `final`: it is the answer to that sink's request."""

    sink: Any
    frame: bytes
    final: bool = False


class End(msgspec.Struct, frozen=True):
    """Nothing more comes on this sink."""

    sink: Any


class Stale(msgspec.Struct, frozen=True, gc=False):
    """An instance said that one of its lists changed: fetch it anew (`kind`: tools, prompts, resources)."""

    instance: str
    kind: str


class MarkInteractive(msgspec.Struct, frozen=True, gc=False):
    """This server asks its clients for things: remember that it has to serve one session at a time."""

    server: str


class ServerLog(msgspec.Struct, frozen=True, gc=False):
    """A message of an instance that belongs to no session: for the server's own log."""

    instance: str
    frame: bytes


class Notice(msgspec.Struct, frozen=True, gc=False):
    """Something the operator should know about a server's names."""

    server: str
    text: str


class Wake(msgspec.Struct, frozen=True, gc=False):
    """A call waits for a server that is not running because nobody used it: start it."""

    server: str


class Claim(msgspec.Struct, frozen=True):
    """`party` needs an instance of a server for itself, initialised with these capabilities (raw JSON)."""

    server: str
    party: str
    capabilities: bytes


class Release(msgspec.Struct, frozen=True, gc=False):
    """`party` does not need its instance any more."""

    server: str
    party: str


class Timer(msgspec.Struct, frozen=True):
    """Hand `call` to `Router.timer` after so many seconds."""

    seconds: float
    call: Any


Effect = WriteLine | Deliver | End | Stale | MarkInteractive | ServerLog | Notice | Timer | Wake | Claim | Release
