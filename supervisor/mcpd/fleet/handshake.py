"""The first conversation with a new process: `initialize` or `server/discover`, then all pages of the lists that it
says it has.

Sources: 2025-11-25 basic/lifecycle and server/utilities/pagination; 2026-07-28 server/discover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from mcpd.errors import ServerFault
from mcpd.fleet.calls import ErrorAnswer, OwnCalls
from mcpd.routing.info import LIST_KINDS, ListKind, Lists, ServerInfo
from mcpd.wire import eras, jsonrpc, meta, methods
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import Message, WireError

MAX_PAGES: Final = 1000
MAX_ENTRIES: Final = 10_000
MAX_LIST_BYTES: Final = 32 * 1024 * 1024

_METHODS: Final[dict[ListKind, str]] = {
    "tools": methods.TOOLS_LIST,
    "prompts": methods.PROMPTS_LIST,
    "resources": methods.RESOURCES_LIST,
    "templates": methods.TEMPLATES_LIST,
}
_MEMBERS: Final[dict[ListKind, str]] = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "templates": "resourceTemplates",
}
_CAPABILITIES: Final[dict[ListKind, str]] = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "templates": "resources",
}


async def shake_hands(
    calls: OwnCalls,
    version: str,
    with_roots: bool,
    note: Callable[[str], None],
    *,
    claims: bytes | None = None,
    known: Lists | None = None,
) -> ServerInfo:
    """Initialise a server as a client named mcpd would, and learn its lists.

    It is told of sampling and elicitation, which clients of the front door may have; of roots only where the registry
    has some for it. Or, where it is to serve one client, of that client's own capabilities (`claims`, a JSON object).
    `known`: the lists of another process of it; then it is not asked for any, and may be spoken with at once. `note`
    gets what is odd but no reason to end it. Raises ServerFault if it cannot be used.
    """
    claims = _capabilities(with_roots) if claims is None else claims
    result = await calls.request(methods.INITIALIZE, _initialize_params(version, claims))
    calls.notify(methods.INITIALIZED)
    try:
        found = jsonrpc.members(result)
        revision = jsonrpc.text(found["protocolVersion"])
        capabilities = {name: bytes(raw) for name, raw in jsonrpc.members(found["capabilities"]).items()}
        instructions = jsonrpc.text(found["instructions"]) if "instructions" in found else None
    except KeyError as missing:
        raise ServerFault(f"its answer to initialize has no {missing}") from None
    except WireError as problem:
        raise ServerFault(f"its answer to initialize makes no sense: {problem}") from None
    if revision not in eras.HANDSHAKE_REVISIONS:
        ours = ", ".join(eras.HANDSHAKE_REVISIONS)
        raise ServerFault(f"it answered initialize with the revision {revision!r}; mcpd speaks {ours}")
    kinds = [kind for kind in LIST_KINDS if _CAPABILITIES[kind] in capabilities]
    return ServerInfo(
        protocol_version=revision,
        result=result,
        capabilities=capabilities,
        server_info=bytes(found.get("serverInfo", b"{}")),
        instructions=instructions,
        lists=await fetch_lists(calls, kinds, Lists(), note) if known is None else known,
    )


async def discover(
    calls: OwnCalls, version: str, note: Callable[[str], None], *, known: Lists | None = None
) -> ServerInfo:
    """Ask a server of the per-request era what it is, and learn its lists; every own request from now on says who asks.

    `known` as for `shake_hands`. Raises ServerFault if it cannot be used.
    """
    calls.client = jsonrpc.dump(_client(version))
    result = await calls.request(methods.DISCOVER)
    try:
        found = jsonrpc.members(result)
        revisions = [jsonrpc.text(one) for one in jsonrpc.array_items(found["supportedVersions"])]
        capabilities = {name: bytes(raw) for name, raw in jsonrpc.members(found["capabilities"]).items()}
        instructions = jsonrpc.text(found["instructions"]) if "instructions" in found else None
        about = jsonrpc.members(found["_meta"]) if "_meta" in found else {}
    except KeyError as missing:
        raise ServerFault(f"its answer to server/discover has no {missing}") from None
    except WireError as problem:
        raise ServerFault(f"its answer to server/discover makes no sense: {problem}") from None
    common = [revision for revision in eras.PER_REQUEST_REVISIONS if revision in revisions]
    if not common:
        ours, told = ", ".join(eras.PER_REQUEST_REVISIONS), ", ".join(revisions) or "none"
        raise ServerFault(f"it serves the revisions {told}; mcpd speaks {ours} without a handshake")
    kinds = [kind for kind in LIST_KINDS if _CAPABILITIES[kind] in capabilities]
    return ServerInfo(
        protocol_version=common[-1],
        result=result,
        capabilities=capabilities,
        server_info=bytes(about.get(meta.SERVER_INFO, b"{}")),
        instructions=instructions,
        lists=await fetch_lists(calls, kinds, Lists(), note) if known is None else known,
        era=Era.PER_REQUEST,
    )


def _client(version: str) -> dict[str, str]:
    return {"name": "mcpd", "version": version}


def _capabilities(with_roots: bool) -> bytes:
    capabilities: dict[str, Any] = {"sampling": {}, "elicitation": {"form": {}, "url": {}}}
    if with_roots:
        capabilities["roots"] = {"listChanged": False}
    return jsonrpc.dump(capabilities)


def _initialize_params(version: str, capabilities: bytes) -> bytes:
    return jsonrpc.pack(
        {
            "protocolVersion": jsonrpc.dump(eras.LATEST_HANDSHAKE),
            "capabilities": capabilities,
            "clientInfo": jsonrpc.dump(_client(version)),
        }
    )


async def fetch_lists(
    calls: OwnCalls,
    kinds: Iterable[ListKind],
    known: Lists,
    note: Callable[[str], None],
    timeout: float | None = None,
) -> Lists:
    """`known` with the lists of `kinds` fetched anew; `timeout` is for each page.

    A server that has no such method has an empty list. One that cannot tell its tools is of no use: ServerFault; for
    the other kinds an error answer is noted and what was known stays.
    """
    lists: dict[ListKind, tuple[bytes, ...]] = {kind: getattr(known, kind) for kind in LIST_KINDS}
    for kind in kinds:
        try:
            lists[kind] = await _all_pages(calls, kind, note, timeout)
        except ErrorAnswer as refused:
            if refused.code == methods.METHOD_NOT_FOUND:
                lists[kind] = ()
            elif kind == "tools":
                raise
            else:
                note(str(refused))
    return Lists(**lists)


async def _all_pages(
    calls: OwnCalls, kind: ListKind, note: Callable[[str], None], timeout: float | None
) -> tuple[bytes, ...]:
    entries: list[bytes] = []
    size = 0
    cursor: bytes | None = None
    seen: set[bytes] = set()
    for _ in range(MAX_PAGES):
        params = b"{}" if cursor is None else b'{"cursor":%b}' % cursor
        page, cursor = _page(kind, await calls.request(_METHODS[kind], params, timeout), note)
        entries += page
        size += sum(map(len, page))
        if len(entries) > MAX_ENTRIES or size > MAX_LIST_BYTES:
            raise ServerFault(f"{_METHODS[kind]} has over {MAX_ENTRIES} entries or {MAX_LIST_BYTES >> 20} MiB")
        if cursor is None:
            return tuple(entries)
        if cursor in seen:
            raise ServerFault(f"{_METHODS[kind]} gave the cursor {cursor.decode(errors='replace')} twice: no end of it")
        seen.add(cursor)
    raise ServerFault(f"{_METHODS[kind]} has over {MAX_PAGES} pages")


def _page(kind: ListKind, result: bytes, note: Callable[[str], None]) -> tuple[list[bytes], bytes | None]:
    """The entries of one page and the cursor of the next. What is no object is left out, and that is noted."""
    try:
        found = jsonrpc.members(result)
        raw = jsonrpc.array_items(found[_MEMBERS[kind]])
    except (WireError, KeyError):
        raise ServerFault(f"its answer to {_METHODS[kind]} has no array {_MEMBERS[kind]!r}") from None
    entries = [entry for entry in raw if entry[:1] == b"{"]
    if len(entries) < len(raw):
        note(f"{_METHODS[kind]}: {len(raw) - len(entries)} entries are no objects; left out")
    cursor = bytes(found.get("nextCursor", b"null"))
    return entries, None if cursor in (b"null", b'""') else cursor


class Lobby:
    """Takes a process's frames until it is READY: its answers to mcpd, and the few things that it may ask by then.

    2025-11-25, lifecycle: before `initialized` a server should send nothing but pings and log messages; servers do ask
    for roots.
    """

    def __init__(
        self,
        calls: OwnCalls,
        roots: Iterable[str],
        *,
        noise: Callable[[bytes], None],
        stale: Callable[[str], None],
        said: Callable[[bytes], None],
    ) -> None:
        """`stale` gets the kind of a list that changed meanwhile, `said` a log message."""
        self._calls = calls
        self._roots = tuple(roots)
        self._noise = noise
        self._stale = stale
        self._said = said

    def receive(self, frame: bytes) -> None:
        try:
            message = jsonrpc.decode(frame)
        except WireError:
            self._noise(frame)
            return
        if message.is_response:
            if not self._calls.answer(message):
                self._noise(frame)
        elif message.is_request:
            self._calls.offer(self._reply(message))
        elif message.method in methods.LIST_CHANGED:
            self._stale(methods.LIST_CHANGED[message.method])
        elif message.method == methods.MESSAGE:
            self._said(frame)

    def _reply(self, message: Message) -> bytes:
        id = bytes(message.id)
        if message.method == methods.PING:
            return jsonrpc.result(id, b"{}")
        if message.method == methods.ROOTS_LIST:
            return jsonrpc.result(id, jsonrpc.dump({"roots": [{"uri": uri} for uri in self._roots]}))
        return jsonrpc.error(id, methods.INVALID_REQUEST, "no client is there yet: the handshake is not done")
