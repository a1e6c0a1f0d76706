"""What a client's conversation must not lose while the daemon restarts under it.

Pure: complete lines of both directions come in, and what has to be said to either side after a restart comes out. The
lines have been forwarded already when they are looked at (the other side works meanwhile), so nothing in here delays
a message; and of the messages that make up nearly all traffic only the head is read.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone would take a tenth of the time that starting takes
    from typing import Any, Final

MAX_PENDING: Final = 65_536
MAX_ASKED: Final = 4_096
MAX_SUBSCRIPTIONS: Final = 4_096
MAX_ID: Final = 512

ORDINARY: Final = b""
INITIALIZE: Final = b"initialize"
SET_LEVEL: Final = b"logging/setLevel"
SUBSCRIBE: Final = b"resources/subscribe"
UNSUBSCRIBE: Final = b"resources/unsubscribe"
LISTEN: Final = b"subscriptions/listen"
_REMEMBERED: Final = frozenset({INITIALIZE, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE, LISTEN})

SERVER_UNAVAILABLE: Final = -32000
INVALID_REQUEST: Final = -32600
LOST: Final = "the connection to mcpd was lost while this request was in flight: what became of it is unknown"
LIST_KINDS: Final = ("tools", "prompts", "resources")

_WITH_ID = b'{"jsonrpc":"2.0","id":'
_ANSWERS = (b',"result":', b',"error":')
_METHOD_NEXT = b',"method":"'
_METHOD_FIRST = b'{"method":"'
_ID_LAST = b',"jsonrpc":"2.0","id":'
_NOTICE = b'{"jsonrpc":"2.0","method":"'
_CANCELLED = b'notifications/cancelled"'
_INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
_LONGEST_METHOD = 128
_LONGEST_NUMBER = 32
_QUOTE = 0x22


class Conversation:
    """One client's conversation, as far as a new daemon has to be told of it.

    `awaited` are the client's requests that have no answer yet, by id (`b'1'` is not `b'"1"'`); `asked` the ids of the
    server's own requests that the client has not answered; `stale` those of them whose connection is gone.
    """

    __slots__ = (
        "asked",
        "awaited",
        "initialize",
        "initialize_answer",
        "initialized",
        "level",
        "stale",
        "subscriptions",
    )

    def __init__(self) -> None:
        self.awaited: dict[bytes, bytes] = {}
        self.asked: dict[bytes, None] = {}
        self.stale: dict[bytes, None] = {}
        self.initialize: bytes | None = None
        self.initialize_answer: bytes | None = None
        self.initialized: bytes | None = None
        self.level: bytes | None = None
        self.subscriptions: dict[str, bytes] = {}

    @property
    def waits(self) -> bool:
        """Whether an answer is still to come; a subscription stream of 2026-07-28 has none while it lives."""
        return any(method != LISTEN for method in self.awaited.values())

    def client_said(self, data: bytes | bytearray, end: int) -> None:
        """`data[:end]` are complete lines that went to the daemon."""
        at = 0
        while at < end:
            stop = data.find(b"\n", at, end)
            self._from_client(data, at, stop)
            at = stop + 1

    def server_said(self, data: bytes | bytearray, end: int) -> None:
        """`data[:end]` are complete lines that went to the client."""
        at = 0
        while at < end:
            stop = data.find(b"\n", at, end)
            self._from_server(data, at, stop)
            at = stop + 1

    def answers_stale(self, line: bytes) -> bool:
        """Whether this line of the client answers a request of a daemon that is gone; asked once for each line."""
        if not self.stale or _request_head(line, 0, len(line)) is not None:
            return False
        found = [_key(message["id"]) for message in _messages(line) if "id" in message and "method" not in message]
        gone = [id for id in found if id in self.stale]
        for id in gone:
            del self.stale[id]
        return bool(gone)

    def repeats_stale(self, line: bytes) -> bytes | None:
        """The id of a server's request if the client may still hold one of that id from a daemon that is gone."""
        if not self.stale or not line.startswith(_WITH_ID):
            return None
        found = _id_at(line, len(_WITH_ID), len(line))
        if found is None or found[0] not in self.stale or not line.startswith(_METHOD_NEXT, found[1]):
            return None
        return found[0]

    def lost(self, why: str) -> list[bytes]:
        """The connection is gone. What the client has to be told: an error for each request in flight, and that nobody
        waits for its answers any more. An `initialize` in flight stays: it will be put to the next daemon."""
        lines = [error(id, SERVER_UNAVAILABLE, why) for id, method in self.awaited.items() if method != INITIALIZE]
        lines += [
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%b,"reason":"mcpd restarted"}}'
            % id
            for id in self.asked
        ]
        self.awaited = {id: method for id, method in self.awaited.items() if method == INITIALIZE}
        for id in self.asked:
            _add(self.stale, id, None, MAX_ASKED)
        self.asked.clear()
        return lines

    def settings(self) -> list[bytes]:
        """The lines that bring a new session to where the old one was, after `initialize`."""
        return [line for line in (self.initialized, self.level, *self.subscriptions.values()) if line is not None]

    def _from_client(self, data: bytes | bytearray, at: int, stop: int) -> None:
        head = _request_head(data, at, stop)
        if head is not None and head[1] not in _REMEMBERED:
            _add(self.awaited, head[0], ORDINARY, MAX_PENDING)
            return
        line = bytes(data[at:stop])
        if head is not None and head[1] == INITIALIZE:
            self._initialize_asked(head[0], line)
            return
        if line.rstrip() == _INITIALIZED:
            self.initialized = line
            return
        for message in _messages(line):
            self._client_message(message, line)

    def _client_message(self, message: dict[str, Any], line: bytes) -> None:
        method = message.get("method")
        if not isinstance(method, str):
            if "id" in message:
                self.asked.pop(_key(message["id"]), None)
        elif "id" in message:
            name = method.encode(errors="replace")
            if name == INITIALIZE:
                self._initialize_asked(_key(message["id"]), line)
                return
            if name in _REMEMBERED:
                self._remember(name, message, line)
            else:
                name = ORDINARY
            _add(self.awaited, _key(message["id"]), name, MAX_PENDING)
        elif method == "notifications/initialized":
            self.initialized = line
        elif method == "notifications/cancelled":
            # nothing answers a cancelled request (MCP 2025-11-25, cancellation, behavior requirements)
            self.awaited.pop(_key(_param(message, "requestId")), None)

    def _initialize_asked(self, id: bytes, line: bytes) -> None:
        self.initialize = line
        self.initialize_answer = None
        _add(self.awaited, id, INITIALIZE, MAX_PENDING)

    def _remember(self, name: bytes, message: dict[str, Any], line: bytes) -> None:
        if name == SET_LEVEL:
            self.level = line
        elif isinstance(uri := _param(message, "uri"), str):
            if name == SUBSCRIBE:
                _add(self.subscriptions, uri, line, MAX_SUBSCRIPTIONS)
            elif name == UNSUBSCRIBE:
                self.subscriptions.pop(uri, None)

    def _from_server(self, data: bytes | bytearray, at: int, stop: int) -> None:
        if data.startswith(_NOTICE, at, stop):
            if not data.startswith(_CANCELLED, at + len(_NOTICE), stop):
                return
        elif data.startswith(_WITH_ID, at, stop) and (found := _id_at(data, at + len(_WITH_ID), stop)):
            id, after = found
            if data.startswith(_ANSWERS, after, stop):
                if self.awaited.pop(id, ORDINARY) == INITIALIZE:
                    self.initialize_answer = bytes(data[at:stop])
                return
            if data.startswith(_METHOD_NEXT, after, stop):
                _add(self.asked, id, None, MAX_ASKED)
                return
        line = bytes(data[at:stop])
        for message in _messages(line):
            self._server_message(message, line)

    def _server_message(self, message: dict[str, Any], line: bytes) -> None:
        if "method" not in message:
            if self.awaited.pop(_key(message.get("id")), ORDINARY) == INITIALIZE:
                self.initialize_answer = line
        elif "id" in message:
            _add(self.asked, _key(message["id"]), None, MAX_ASKED)
        elif message["method"] == "notifications/cancelled":
            self.asked.pop(_key(_param(message, "requestId")), None)


def quoted(text: str) -> bytes:
    """A text as JSON."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return b'"%b"' % text.encode()
    return _key(text)


def error(id: bytes, code: int, message: str) -> bytes:
    """A JSON-RPC error response; `id` is raw JSON."""
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":%b}}' % (id, code, quoted(message))


def request_ids(line: bytes) -> list[bytes]:
    """The ids of the requests in a client's line, raw."""
    return [_key(message["id"]) for message in _messages(line) if "id" in message and "method" in message]


def answer_id(line: bytes) -> bytes | None:
    """Whose answer this line of the server is; None if it is something else."""
    for message in _messages(line):
        if "id" in message and "method" not in message:
            return _key(message["id"])
    return None


def agreement(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """What an answer to `initialize` settles: revision and capabilities; None if it is an error."""
    for message in _messages(line):
        result = message.get("result")
        if isinstance(result, dict):
            capabilities = result.get("capabilities")
            return str(result.get("protocolVersion")), capabilities if isinstance(capabilities, dict) else {}
    return None


def changed_lists(capabilities: dict[str, Any]) -> list[bytes]:
    """A notice that each list may have changed, where the server said that it sends such notices."""
    return [
        b'{"jsonrpc":"2.0","method":"notifications/%b/list_changed"}' % kind.encode()
        for kind in LIST_KINDS
        if isinstance(offered := capabilities.get(kind), dict) and offered.get("listChanged") is True
    ]


def _request_head(data: bytes | bytearray, at: int, stop: int) -> tuple[bytes, bytes] | None:
    """Id and method of a request in one of the two shapes that clients write; None for anything else.

    The first shape is read from the front. In the second one the id is the last member, where it cannot be taken for
    anything else: what stands before a valid line's last brace is a member of the outermost object, and its key's
    quotes follow a comma and precede a colon, so they are no escaped ones inside of a string.
    """
    if data.startswith(_WITH_ID, at, stop):
        found = _id_at(data, at + len(_WITH_ID), stop)
        if found is None or not data.startswith(_METHOD_NEXT, found[1], stop):
            return None
        method = _string_at(data, found[1] + len(_METHOD_NEXT), stop)
        return None if method is None else (found[0], method)
    if data.startswith(_METHOD_FIRST, at, stop):
        method = _string_at(data, at + len(_METHOD_FIRST), stop)
        last = data.rfind(_ID_LAST, max(at, stop - len(_ID_LAST) - MAX_ID), stop)
        if method is None or last < 0:
            return None
        found = _id_at(data, last + len(_ID_LAST), stop, b"}")
        return None if found is None or found[1] + 1 != stop else (found[0], method)
    return None


def _string_at(data: bytes | bytearray, at: int, stop: int) -> bytes | None:
    """What stands from `at` to the quote that ends it, if it is short and has no escape in it."""
    quote = data.find(b'"', at, min(stop, at + _LONGEST_METHOD))
    if quote < 0:
        return None
    found = bytes(data[at:quote])
    return None if b"\\" in found else found


def _id_at(data: bytes | bytearray, at: int, stop: int, then: bytes = b",") -> tuple[bytes, int] | None:
    """The id that begins at `at`, and where it ends; None if it has to be looked at more closely."""
    if at < stop and data[at] == _QUOTE:
        quote = data.find(b'"', at + 1, min(stop, at + MAX_ID))
        if quote < 0:
            return None
        id = bytes(data[at : quote + 1])
        return None if b"\\" in id else (id, quote + 1)
    end = data.find(then, at, min(stop, at + _LONGEST_NUMBER))
    if end < 0:
        return None
    id = bytes(data[at:end])
    return (id, end) if id.removeprefix(b"-").isdigit() else None


def _messages(line: bytes) -> list[dict[str, Any]]:
    """The messages of a line, decoded; none if it is no JSON: then the other side answers or ignores it."""
    import json  # hardly ever needed, and a third of the time that starting takes

    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return []
    if isinstance(found, dict):
        return [found]
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []


def _param(message: dict[str, Any], name: str) -> Any:
    params = message.get("params")
    return params.get(name) if isinstance(params, dict) else None


def _key(value: Any) -> bytes:
    """A JSON value as bytes that are the same for the same value however it was written."""
    import json

    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate: only an escape can write it
        return json.dumps(value).encode()


def _add(kept: dict[Any, Any], key: Any, value: Any, limit: int) -> None:
    """Keep it; at the limit the oldest is forgotten, so that a peer that never answers costs a bounded amount."""
    kept[key] = value
    if len(kept) > limit:
        del kept[next(iter(kept))]
