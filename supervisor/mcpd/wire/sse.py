"""Server-sent events (WHATWG HTML, section 9.2) as MCP transports use them."""

from __future__ import annotations

KEEP_ALIVE = b": keep-alive\r\n\r\n"


def encode(data: bytes, *, event: bytes = b"message", event_id: bytes | None = None) -> bytes:
    """One event. `data` must not contain line breaks: frames never do (see `jsonrpc.decode`)."""
    if event_id is None:
        return b"event: %b\r\ndata: %b\r\n\r\n" % (event, data)
    return b"id: %b\r\nevent: %b\r\ndata: %b\r\n\r\n" % (event_id, event, data)


def priming(event_id: bytes, retry_ms: int | None = None) -> bytes:
    """An event that only carries an id, so that a client can resume before any message came (2025-11-25)."""
    retry = b"" if retry_ms is None else b"retry: %d\r\n" % retry_ms
    return b"id: %b\r\n%bdata: \r\n\r\n" % (event_id, retry)
