"""Content negotiation as the MCP transports want it: JSON in, JSON and event streams out."""

from __future__ import annotations

from typing import Final

from mcpd.frontdoor.asgi import Headers, refusal

CACHED: Final = 64
_POSTABLE: set[tuple[bytes | None, bytes | None]] = set()
_ANY: Final = frozenset({"*/*"})
_JSON: Final = _ANY | {"application/json", "application/*"}
_EVENTS: Final = _ANY | {"text/event-stream", "text/*"}


def check_post(headers: Headers) -> None:
    """415 unless the body is JSON; 406 unless both JSON and event streams are accepted (MCP transports, Sending
    Messages to the Server). A request without Accept takes anything (RFC 9110, section 12.5.1)."""
    pair = (headers.get(b"content-type"), headers.get(b"accept"))
    if pair in _POSTABLE:
        return
    check_json(headers)
    taken = _accepted(headers)
    if not (taken & _JSON and taken & _EVENTS):
        raise refusal(406, "Accept must list both application/json and text/event-stream")
    if len(_POSTABLE) < CACHED:
        _POSTABLE.add(pair)


def check_json(headers: Headers) -> None:
    """415 unless the body is declared as JSON."""
    declared = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if declared != b"application/json":
        raise refusal(415, "Content-Type must be application/json")


def check_events(headers: Headers) -> None:
    """406 unless event streams are accepted."""
    if not _accepted(headers) & _EVENTS:
        raise refusal(406, "Accept must list text/event-stream")


def _accepted(headers: Headers) -> set[str]:
    accept = headers.get(b"accept", b"*/*").decode("latin-1").lower()
    return {part.partition(";")[0].strip() for part in accept.split(",")}
