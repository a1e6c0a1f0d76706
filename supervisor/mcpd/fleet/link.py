"""How the relay reaches one running instance."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mcpd.routing.info import ServerInfo
from mcpd.wire.jsonrpc import Message


class InstanceLink(msgspec.Struct, frozen=True):
    """A READY instance as the relay sees it.

    `offer` writes one frame (False: its queue is full, or its stdin is gone). `own_answer` gets answers to the
    instance's own calls, those whose id is a JSON string; `noise` gets frames that are no JSON-RPC. `party`: whom it
    was started for, where the server is not shared (`Relay.on_claim`).
    """

    key: str
    server: str
    generation: int
    offer: Callable[[bytes], bool]
    own_answer: Callable[[Message], None]
    noise: Callable[[bytes], None]
    info: ServerInfo
    party: str | None = None
