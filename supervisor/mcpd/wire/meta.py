"""What a request of the per-request era (2026-07-28) says of its client in `params._meta`, and results in that era."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from mcpd.wire import methods
from mcpd.wire.jsonrpc import Bytes, WireError, dump, members, pack, text

PREFIX: Final = "io.modelcontextprotocol/"
VERSION: Final = PREFIX + "protocolVersion"
CLIENT_INFO: Final = PREFIX + "clientInfo"
CAPABILITIES: Final = PREFIX + "clientCapabilities"
LOG_LEVEL: Final = PREFIX + "logLevel"
SERVER_INFO: Final = PREFIX + "serverInfo"
SUBSCRIPTION: Final = PREFIX + "subscriptionId"
_OF_THE_CLIENT: Final = frozenset({VERSION, CLIENT_INFO, CAPABILITIES, LOG_LEVEL})
NAMES_CLIENT: Final = b"/protocolVersion"  # in the bytes of params; many encoders write `/` as `\\/`
_BACKSLASH: Final = ord("\\")
_ESCAPE: Final = b"\\u"  # a key may be spelled with escapes
_META: Final = b'"_meta"'
_FIRST_MEMBER: Final = b'{"'
RESULT_TYPE: Final = b'"resultType"'
_NAMED: Final = b'"_meta":{"%b":' % SERVER_INFO.encode()
_HEAD: Final = b'{"resultType":"complete",' + _NAMED
_HEAD_CACHEABLE: Final = b'{"resultType":"complete","ttlMs":0,"cacheScope":"private",' + _NAMED

_REMEMBERED: Final = 256  # metadata of clients that is not read again; the same client says the same each time
_REMEMBERED_BYTES: Final = 2048

CACHEABLE: Final = frozenset(
    {
        methods.TOOLS_LIST,
        methods.PROMPTS_LIST,
        methods.RESOURCES_LIST,
        methods.TEMPLATES_LIST,
        methods.RESOURCES_READ,
        methods.DISCOVER,
    }
)


class RequestMeta(msgspec.Struct, frozen=True):
    """The client of one request: its revision, capabilities (raw values by name), the rest as raw JSON or None.

    `raw` is the whole `_meta`, `others` what is left of it without all this (nothing, if nothing is). `first` and
    `last` are how it reads as the first or the last of several params, each with what it is to be replaced by.
    """

    version: str
    capabilities: Mapping[str, Raw]
    client_info: Raw | None
    log_level: str | None
    raw: bytes
    others: bytes
    first: tuple[bytes, bytes]
    last: tuple[bytes, bytes]


_remembered: dict[bytes, RequestMeta] = {}


def request_meta(params: Bytes) -> RequestMeta | None:
    """What `params._meta` says of the client; None if it names no revision, so is of the handshake era.

    Raises WireError(INVALID_PARAMS) if it names one, but the rest is missing or of the wrong shape.
    """
    raw = bytes(params)
    if NAMES_CLIENT not in raw and _ESCAPE not in raw:
        return None
    return client_of(members(raw)) if raw[:1] == b"{" else None


def client_of(params: Mapping[str, Raw]) -> RequestMeta | None:
    """The same, of params that have been taken apart already."""
    if "_meta" not in params:
        return None
    raw = bytes(params["_meta"])
    known = _remembered.get(raw)
    if known is not None:
        return known
    if raw[:1] != b"{":
        return None
    meta = members(raw)
    if VERSION not in meta:
        return None
    try:
        found = _client(raw, meta)
    except WireError as problem:
        raise WireError(methods.INVALID_PARAMS, problem.message) from None
    if len(raw) <= _REMEMBERED_BYTES and b"progressToken" not in raw:
        if len(_remembered) >= _REMEMBERED:
            _remembered.clear()
        _remembered[raw] = found
    return found


def _client(raw: bytes, meta: Mapping[str, Raw]) -> RequestMeta:
    version = text(meta[VERSION])
    if CAPABILITIES not in meta:
        raise WireError(methods.INVALID_PARAMS, f"params._meta: {CAPABILITIES} is missing")
    kept = {key: value for key, value in meta.items() if key not in _OF_THE_CLIENT}
    others = pack(kept) if kept else b""
    return RequestMeta(
        version=version,
        capabilities=members(meta[CAPABILITIES]),
        client_info=meta.get(CLIENT_INFO),
        log_level=text(meta[LOG_LEVEL]) if LOG_LEVEL in meta else None,
        raw=raw,
        others=others,
        first=(b'{"_meta":%b,' % raw, b'{"_meta":%b,' % others if others else b"{"),
        last=(b',"_meta":%b}' % raw, b',"_meta":%b}' % others if others else b"}"),
    )


def without_client(params: bytes, client: RequestMeta, found: Mapping[str, Bytes]) -> bytes:
    """Params for a handshake-era server: without what `_meta` says of the client, and without answers to questions.

    `found` are the members of `params`, in their order. Where `_meta` is the first or the last of them it is cut out.
    """
    if "inputResponses" not in found and "requestState" not in found:
        written, kept = client.first
        if params.startswith(written):
            return kept + params[len(written) :]
        written, kept = client.last
        if params.endswith(written) and [*found][-1] == "_meta":
            return params[: -len(written)] + kept
    rest = {key: value for key, value in found.items() if key not in ("inputResponses", "requestState", "_meta")}
    if client.others:
        rest["_meta"] = client.others
    return pack(rest)


def with_client(params: bytes, capabilities: Bytes, client_info: Bytes, version: str, level: str | None) -> bytes:
    """Params for a per-request server, on behalf of a client that said all this once, at `initialize`."""
    found: dict[str, Bytes] = dict(members(params)) if params else {}
    meta: dict[str, Bytes] = dict(members(found["_meta"])) if "_meta" in found else {}
    meta[VERSION] = dump(version)
    meta[CAPABILITIES] = capabilities
    meta[CLIENT_INFO] = client_info
    if level is not None:
        meta[LOG_LEVEL] = dump(level)
    found["_meta"] = pack(meta)
    return pack(found)


def complete(value: bytes, method: str, server_info: bytes) -> bytes:
    """A handshake-era result as the per-request era wants it: complete, with caching fields and the server's name.

    Raises WireError if it is no object, or if a member in which something has to be changed stands twice.
    """
    # what is not there is not found several times as fast from the end (CPython's rfind against find, 100 kB)
    escaped = _BACKSLASH in value and value.rfind(_ESCAPE) >= 0
    if escaped or value[:2] != _FIRST_MEMBER or value.rfind(RESULT_TYPE) >= 0 or value.rfind(_META) >= 0:
        return _complete_exactly(value, method, server_info)
    head = _HEAD_CACHEABLE if method in CACHEABLE else _HEAD
    return b"".join((head, server_info, b"},", memoryview(value)[1:]))


def _complete_exactly(value: bytes, method: str, server_info: bytes) -> bytes:
    found: dict[str, Bytes] = {"resultType": b'"complete"'}
    if method in CACHEABLE:
        found |= {"ttlMs": b"0", "cacheScope": b'"private"'}
    inside = members(value)
    meta: dict[str, Bytes] = {SERVER_INFO: server_info}
    if "_meta" in inside and bytes(inside["_meta"])[:1] == b"{":
        meta |= members(inside["_meta"])
    return pack({**found, **inside, "_meta": pack(meta)})


def plain(value: bytes) -> bytes:
    """A per-request result as handshake-era clients know results: without what only the newer era has."""
    return pack({key: one for key, one in members(value).items() if key not in ("resultType", "ttlMs", "cacheScope")})


def tagged(params: Bytes, subscription: bytes) -> bytes:
    """Params of a notice on a `subscriptions/listen` stream, with the id (raw JSON) of the request that opened it."""
    found: dict[str, Bytes] = dict(members(params)) if len(params) else {}
    meta: dict[str, Bytes] = dict(members(found["_meta"])) if "_meta" in found else {}
    meta[SUBSCRIPTION] = subscription
    found["_meta"] = pack(meta)
    return pack(found)
