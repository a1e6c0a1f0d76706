"""What several transports have in common, most of it those that send everything on one stream: HTTP+SSE and the local
socket."""

from __future__ import annotations

from collections.abc import Callable

from mcpd.wire import jsonrpc, meta, methods
from mcpd.wire.eras import PER_REQUEST_REVISIONS
from mcpd.wire.jsonrpc import Message


class Answers:
    """The sink of all requests of a session. One for all: where everything goes to one place, only `end` differs from
    the session's own sink."""

    __slots__ = ("deliver",)

    def __init__(self, deliver: Callable[[bytes, bool], None]) -> None:
        self.deliver = deliver

    def end(self) -> None:
        """The request was cancelled: on a stream of messages there is nothing to end."""


def unsupported_version(id: bytes, version: str) -> bytes:
    """What answers a request of a revision that is not served (2026-07-28, basic, Protocol Version)."""
    data = {"supported": list(PER_REQUEST_REVISIONS), "requested": version}
    why = f"revision {version!r} is not served; see error.data.supported"
    return jsonrpc.error(id, methods.UNSUPPORTED_VERSION, why, data)


def per_request_refusal(message: Message) -> bytes | None:
    """What answers a request of the era without a handshake (2026-07-28, basic, `_meta`) as a server does that has
    never heard of it, so that its client falls back to `initialize`; None for any other message.

    To be asked only before `initialize`: reading the parameters costs as much as they are long.
    """
    if not message.is_request or message.method == methods.INITIALIZE:
        return None
    if message.method != methods.DISCOVER and meta.NAMES_CLIENT not in bytes(message.params):
        return None
    text = f"{message.method}: this revision of the protocol is not served here; begin with initialize"
    return jsonrpc.error(message.key, methods.METHOD_NOT_FOUND, text)
