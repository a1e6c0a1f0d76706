"""What a request of the per-request era (2026-07-28) says of its client in `params._meta`, and results in that era."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

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
_VERSION_BYTES: Final = VERSION.encode()
_BACKSLASH: Final = b"\\"  # a key may be spelled with escapes
RESULT_TYPE: Final = b'"resultType"'
CACHE_FIELDS: Final = b'"ttlMs":0,"cacheScope":"private",'

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


@dataclass(frozen=True, slots=True)
class RequestMeta:
    """The client of one request: its revision, capabilities (raw values by name), the rest as raw JSON or None.

    `raw` is the whole `_meta`, `others` what is left of it without all this (nothing, if nothing is).
    """

    version: str
    capabilities: Mapping[str, Raw]
    client_info: Raw | None
    log_level: str | None
    raw: bytes
    others: bytes


_remembered: dict[bytes, RequestMeta] = {}


def request_meta(params: Bytes) -> RequestMeta | None:
    """What `params._meta` says of the client; None if it names no revision, so is of the handshake era.

    Raises WireError(INVALID_PARAMS) if it names one, but the rest is missing or of the wrong shape.
    """
    raw = bytes(params)
    if _VERSION_BYTES not in raw and _BACKSLASH not in raw:
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
    others = {key: value for key, value in meta.items() if key not in _OF_THE_CLIENT}
    return RequestMeta(
        version=version,
        capabilities=members(meta[CAPABILITIES]),
        client_info=meta.get(CLIENT_INFO),
        log_level=text(meta[LOG_LEVEL]) if LOG_LEVEL in meta else None,
        raw=raw,
        others=pack(others) if others else b"",
    )


def without_client(params: bytes, client: RequestMeta) -> bytes:
    """Params for a handshake-era server: without what `_meta` says of the client, and without answers to questions.

    Where `_meta` is the first or the last member it is cut out; nothing else can stand there and read like it.
    """
    if b'"inputResponses"' not in params and b'"requestState"' not in params and _BACKSLASH not in params:
        at_front = b'{"_meta":%b,' % client.raw
        if params.startswith(at_front):
            kept = b'"_meta":%b,' % client.others if client.others else b""
            return b"{%b%b" % (kept, params[len(at_front) :])
        at_end = b',"_meta":%b}' % client.raw
        if params.endswith(at_end):
            kept = b',"_meta":%b' % client.others if client.others else b""
            return b"%b%b}" % (params[: -len(at_end)], kept)
    found = {key: value for key, value in members(params).items() if key not in ("inputResponses", "requestState")}
    if client.others:
        found["_meta"] = Raw(client.others)
    else:
        del found["_meta"]
    return pack(found)


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
    """A handshake-era result as the per-request era wants it: complete, with caching fields and the server's name."""
    head = b'{"resultType":"complete",' + (CACHE_FIELDS if method in CACHEABLE else b"")
    if RESULT_TYPE in value or b'"_meta"' in value or _BACKSLASH in value:
        return _complete_exactly(value, method, server_info)
    named = b'%b"_meta":{"%b":%b}' % (head, SERVER_INFO.encode(), server_info)
    return named + (b"}" if value == b"{}" else b"," + value[1:])


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
