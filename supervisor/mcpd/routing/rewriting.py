"""Params on their way up and results on their way down, where what a client sees is not what the server has."""

from __future__ import annotations

from collections.abc import Mapping

from mcpd.routing.correlation import Call
from mcpd.wire import methods
from mcpd.wire.jsonrpc import (
    Bytes,
    Message,
    WireError,
    array_items,
    dump,
    members,
    notification,
    pack,
    pack_array,
    text,
    value_of,
)

MAX_DIGITS = 20  # of an id that we gave; a conversion takes time that grows with their square, and fails at 4,300


def mint_token(call: Call, number: int, params: bytes) -> bytes:
    """The params with the upstream id for a progress token, where the client gave one."""
    found = members(params)
    call.token = progress_token(found)
    if call.token is None:
        return params
    return pack({**found, "_meta": pack({**members(found["_meta"]), "progressToken": b"%d" % number})})


def number_of(token: bytes) -> int:
    """The number that a token of ours is, as raw JSON; 0, which is never one, for anything else."""
    return int(token) if token.isdigit() and len(token) <= MAX_DIGITS else 0


def progress_token(params: Mapping[str, Bytes]) -> bytes | None:
    """The token in a request's params, as raw JSON; None if it wants to hear of no progress."""
    token = members(params["_meta"]).get("progressToken") if "_meta" in params else None
    return None if token is None else bytes(token)


def linked_uris(value: bytes) -> list[str]:
    """The URIs of resources that a tool's result links to or holds."""
    uris = []
    try:
        for block in value_of(members(value).get("content", b"[]")):
            uri = block.get("uri") or (block.get("resource") or {}).get("uri")
            if isinstance(uri, str):
                uris.append(uri)
    except (WireError, AttributeError, TypeError):
        return []  # not of the shape that the protocol has: nothing to learn from it
    return uris


def rename_contents(value: bytes, own: str, public: str) -> bytes:
    """A read result whose contents carry the URI that the client asked for."""
    try:
        found = members(value)
        contents = []
        for item in map(members, array_items(found["contents"])):
            same = "uri" in item and text(item["uri"]) == own
            contents.append(pack({**item, "uri": dump(public)} if same else item))
        return pack({**found, "contents": pack_array(contents)})
    except (WireError, KeyError):
        return value


def cancelled(number: int, message: Message) -> bytes:
    """A client's notice of cancellation, with the upstream id."""
    params = pack({**members(message.params), "requestId": b"%d" % number})
    return notification(methods.CANCELLED, params, message.extra)


def newer_code(refused: Bytes) -> Bytes:
    """An error as the per-request era has it: an unknown resource is a bad parameter there."""
    if str(methods.RESOURCE_NOT_FOUND).encode() not in bytes(refused):
        return refused
    found: dict[str, Bytes] = dict(members(refused))
    if bytes(found.get("code", b"")) == b"%d" % methods.RESOURCE_NOT_FOUND:
        found["code"] = b"%d" % methods.INVALID_PARAMS
    return pack(found)
