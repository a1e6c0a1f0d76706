"""JSON-RPC 2.0 envelopes: decoded without looking into `params` and `result`, encoded around the bytes that came.

What makes forwarding undecoded bytes safe, all of it checked here once a frame:

- a frame is valid UTF-8 and valid JSON of bounded depth (`MAX_DEPTH`);
- line breaks between tokens are taken out, so that one message never becomes two lines on a pipe;
- a member that stands twice in an object on which mcpd decides something is refused, because the reader behind
  mcpd may take the other one;
- lone surrogate escapes (`"\\ud83d"`, which real clients send for text cut inside an emoji) pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

import msgspec
from msgspec import Raw

from mcpd.wire import methods

MAX_DEPTH = 256
MAX_ID = 512
MAX_BATCH = 100

Bytes: TypeAlias = bytes | Raw
ABSENT = Raw()
BOM = b"\xef\xbb\xbf"


class WireError(Exception):
    """A frame that is not an acceptable JSON-RPC message; `code` is what to answer, `id` whom (raw JSON).

    `limit` names the bound that was reached, if it was one.
    """

    def __init__(self, code: int, message: str, id: bytes = b"null", limit: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id
        self.limit = limit

    def answer(self) -> bytes:
        """The error response to send for it."""
        return error(self.id, self.code, self.message)


class Message(msgspec.Struct, gc=False):
    """One envelope. Absent members are empty: `""` for the method, zero-length `Raw` for the rest."""

    id: Raw = ABSENT
    method: str = ""
    params: Raw = ABSENT
    result: Raw = ABSENT
    error: Raw = ABSENT
    jsonrpc: str = ""
    extra: Raw = msgspec.field(default=ABSENT, name="(further members)")  # further members, as `,"key":value`
    parts: dict[str, Raw] | None = msgspec.field(default=None, name="(params)")  # what `given` remembers

    @property
    def is_request(self) -> bool:
        return bool(self.method) and len(self.id) > 0

    @property
    def is_notification(self) -> bool:
        return bool(self.method) and not len(self.id)

    @property
    def is_response(self) -> bool:
        return not self.method

    @property
    def key(self) -> bytes:
        """The id as bytes that compare equal exactly if the ids are equal: `1` is not `"1"`."""
        return bytes(self.id)

    @property
    def given(self) -> dict[str, Raw]:
        """The members of `params`, taken apart once; none where there are no params. Raises WireError as `members`."""
        if self.parts is None:
            self.parts = members(self.params) if len(self.params) else {}
        return self.parts


class _Parts(msgspec.Struct, gc=False):
    name: Raw = ABSENT
    arguments: Raw = ABSENT
    meta: Raw = msgspec.field(default=ABSENT, name="_meta")


class _Call(msgspec.Struct, gc=False):
    id: Raw
    method: str
    params: _Parts
    jsonrpc: str


_ENVELOPE = msgspec.json.Decoder(Message)
_CALL = msgspec.json.Decoder(_Call)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ARRAY = msgspec.json.Decoder(list[Raw])
_ANY = msgspec.json.Decoder()
_LF, _CR, _BACKSLASH = b"\n\r\\"  # as numbers: bytes look for a number without asking first what it is
_LARGE = 8192
_SHALLOW = 2 * MAX_DEPTH  # every bracket that opens is closed: in a shorter frame there cannot be too many
# {"jsonrpc":"2.0"} and, for each other member, its key, two quotes, a colon and a comma
_BARE = 17
_BARE_REQUEST = _BARE + 6 + 12 + 10  # with id, method and params
_BARE_RESPONSE = _BARE + 6 + 10  # with id and result
_BARE_PARTS = 31  # {"name":,"arguments":,"_meta":}
_PARAMS = b'"params":{'
_NAME_FIRST = b'{"name":'
_META_FIRST = b'{"_meta":'
_NAME_NEXT = b',"name":'
_OPENING = b"{["
_ENVELOPE_MEMBERS = frozenset({"id", "method", "params", "result", "error", "jsonrpc"})


def decode(frame: bytes) -> Message:
    """The envelope of one frame.

    Raises WireError: PARSE_ERROR if it is no JSON (or not UTF-8, or too deep), INVALID_REQUEST if it is JSON but no
    JSON-RPC message.
    """
    if not frame.isascii():
        _check_utf8(frame)
    try:
        message = _ENVELOPE.decode(frame)
    except msgspec.ValidationError:
        return _decode_exactly(frame)
    except (msgspec.DecodeError, RecursionError):
        if frame.startswith(BOM) and not frame.startswith(BOM, len(BOM)):
            return decode(frame.removeprefix(BOM))  # a reader may ignore it (RFC 8259, section 8.1)
        _check_depth(frame)
        return _decode_exactly(frame)
    if _LF in frame or _CR in frame:
        return decode(frame.translate(None, b"\r\n"))
    length = len(frame)
    if length > _SHALLOW:
        _bound_depth(frame)
    id = bytes(message.id)
    if message.jsonrpc == "2.0" and id.isdigit() and len(id) <= MAX_ID:  # the two usual kinds of messages, quickly
        if message.method:
            params = message.params
            bare = length - _BARE_REQUEST - len(id) - len(message.method)
            if bare == len(params) and bare and memoryview(params)[0] in _OPENING:
                return message
        elif (bare := len(message.result)) and bare == length - _BARE_RESPONSE - len(id):
            return message
    if length != _compact_length(message) or _BACKSLASH in id:
        return _decode_exactly(frame)
    _check(message, id)
    return message


def decode_call(frame: bytes) -> Message:
    """The same as `decode`, for a request that may be large and have `name`, `arguments` and `_meta`: these are then
    taken apart in the same pass (`given`)."""
    if len(frame) <= _LARGE or not frame.isascii():
        return decode(frame)
    try:
        call = _CALL.decode(frame)
    except (msgspec.MsgspecError, RecursionError):
        return decode(frame)
    id, parts, length = bytes(call.id), call.params, len(frame)
    name, meta = bytes(parts.name), bytes(parts.meta)
    size = _BARE_PARTS + len(name) + len(parts.arguments) + len(meta)
    if (
        not (name and meta and len(parts.arguments))
        or length != _BARE_REQUEST + len(id) + len(call.method) + size
        or call.jsonrpc != "2.0"
        or not (id.isdigit() and len(id) <= MAX_ID)
        or _LF in frame
        or _CR in frame
    ):
        return decode(frame)
    _bound_depth(frame)
    # what stands before the envelope's params holds no other key of that name: only scalars
    at = frame.find(_PARAMS) + len(_PARAMS) - 1
    if frame.startswith(_NAME_FIRST, at) and frame.endswith(b'"_meta":%b}' % meta, at, at + size):
        given = {"name": parts.name, "arguments": parts.arguments, "_meta": parts.meta}
    elif frame.startswith(_META_FIRST, at) and frame.startswith(_NAME_NEXT, at + len(_META_FIRST) + len(meta)):
        given = {"_meta": parts.meta, "name": parts.name, "arguments": parts.arguments}
    else:
        return decode(frame)
    return Message(id=call.id, method=call.method, params=Raw(frame[at : at + size]), jsonrpc="2.0", parts=given)


def _bound_depth(frame: bytes) -> None:
    if len(frame) > _LARGE:
        if _opens_often(frame):
            _check_depth(frame)
    elif frame.count(b"{") + frame.count(b"[") > MAX_DEPTH:
        _check_depth(frame)


def _opens_often(frame: bytes) -> bool:
    """Whether there are more than MAX_DEPTH brackets: for large frames, in which find is far faster than count."""
    found = 0
    for mark in (b"{", b"["):
        at = frame.find(mark)
        while at >= 0:
            found += 1
            if found > MAX_DEPTH:
                return True
            at = frame.find(mark, at + 1)
    return False


def _compact_length(message: Message) -> int:
    """The length of a frame of exactly these members without any whitespace: another one has more in it."""
    length = _BARE
    if n := len(message.id):
        length += n + 6
    if message.method:
        length += len(message.method) + 12
    if n := len(message.params):
        length += n + 10
    if n := len(message.result):
        length += n + 10
    if n := len(message.error):
        length += n + 9
    return length


def _check(message: Message, id: bytes) -> None:
    """Raise unless these members make a request, a notification or a response (JSON-RPC 2.0, sections 4 and 5)."""
    numeric = id.isdigit() or (id[:1] == b"-" and id[1:].isdigit())
    if id and not numeric and id[:1] != b'"' and (id != b"null" or message.method or not len(message.error)):
        # null is right in one place: an error answer to something that could not be read
        raise WireError(methods.INVALID_REQUEST, "id must be a string or an integer")
    if len(id) > MAX_ID:
        raise WireError(methods.INVALID_REQUEST, f"id is longer than {MAX_ID} bytes")
    if message.jsonrpc != "2.0":
        _refuse(message, 'not a JSON-RPC 2.0 message: "jsonrpc" must be "2.0"')
    if message.method:
        if len(message.result) or len(message.error):
            _refuse(message, "a request cannot carry a result or an error")
        if len(message.params) and bytes(message.params)[:1] not in (b"{", b"["):
            if bytes(message.params) != b"null":
                _refuse(message, "params must be an object")
            message.params = ABSENT  # peers whose language knows no absent members write null
    elif bool(len(message.result)) == bool(len(message.error)):
        _refuse(message, "not a JSON-RPC message: it has neither a method nor exactly one of result and error")
    elif not id and not len(message.error):
        _refuse(message, "a response needs the id of its request")


def _refuse(message: Message, why: str) -> NoReturn:
    identified = message.method and len(message.id)
    raise WireError(methods.INVALID_REQUEST, why, bytes(message.id) if identified else b"null")


def _decode_exactly(frame: bytes) -> Message:
    """The way for frames with whitespace, escapes in keys, unknown or repeated members, or lone surrogates."""
    found = members(frame)
    for name in found.keys() & {"method", "jsonrpc"}:
        if bytes(found[name])[:1] != b'"':
            raise WireError(methods.INVALID_REQUEST, f"{name} must be a string")
    message = Message(
        id=Raw(canonical_id(bytes(found["id"]))) if "id" in found else ABSENT,
        method=text(found["method"]) if "method" in found else "",
        params=Raw(bytes(found["params"])) if "params" in found else ABSENT,
        result=Raw(bytes(found["result"])) if "result" in found else ABSENT,
        error=Raw(bytes(found["error"])) if "error" in found else ABSENT,
        jsonrpc=text(found["jsonrpc"]) if "jsonrpc" in found else "",
        extra=Raw(b"".join(b",%b:%b" % (dump(key), found[key]) for key in found if key not in _ENVELOPE_MEMBERS)),
    )
    _check(message, bytes(message.id))
    return message


def canonical_id(raw: bytes) -> bytes:
    """A raw id in the one spelling under which it is remembered (string escapes may be written in several ways)."""
    if raw[:1] == b'"' and b"\\" in raw:
        return json.dumps(json.loads(raw)).encode()
    return raw


def members(raw: Bytes) -> dict[str, Raw]:
    """The members of an object, values as the bytes that came (without CR and LF between tokens).

    Raises WireError(INVALID_REQUEST) if it is no object or a key stands twice, WireError(PARSE_ERROR) if it is no JSON.
    """
    frame = raw if isinstance(raw, bytes) else bytes(raw)
    try:
        found = _OBJECT.decode(frame)
    except msgspec.ValidationError:
        raise WireError(methods.INVALID_REQUEST, "a JSON object was expected") from None
    except (msgspec.DecodeError, RecursionError):
        return _scan(frame)
    length = 1 + 4 * len(found) + sum(map(len, found)) + sum(map(len, found.values()))
    if len(frame) in (length, length + (not found)) and _LF not in frame and _CR not in frame:
        return found
    spaced = (
        b"{" + b", ".join(b'"%b": %b' % (key.encode(errors="replace"), value) for key, value in found.items()) + b"}"
    )
    return found if spaced == frame else _scan(frame)


def _scan(frame: bytes) -> dict[str, Raw]:
    """Members by the standard library's scanner: exact about repeated keys, and lenient about lone surrogates only."""
    source = frame.translate(None, b"\r\n").decode() if _is_json(frame) else ""
    found: dict[str, Raw] = {}
    at = _skip(source, 0)
    if source[at : at + 1] != "{":
        raise WireError(methods.INVALID_REQUEST, "a JSON object was expected")
    at = _skip(source, at + 1)
    while source[at] != "}":
        key, at = _STRICT.raw_decode(source, at)
        start = _skip(source, _skip(source, at) + 1)
        _, at = _STRICT.raw_decode(source, start)
        if key in found:
            raise WireError(methods.INVALID_REQUEST, f"the member {key!r} stands twice")
        found[key] = Raw(source[start:at].encode())
        at = _skip(source, at)
        if source[at] == ",":
            at = _skip(source, at + 1)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_no_constant, parse_int=str, parse_float=str)
_WHITESPACE = " \t\r\n"


def _skip(source: str, at: int) -> int:
    while at < len(source) and source[at] in _WHITESPACE:
        at += 1
    return at


def _is_json(frame: bytes) -> bool:
    """True; raises WireError(PARSE_ERROR) where the standard library, too, does not take it for JSON."""
    if not frame.strip():
        raise WireError(methods.PARSE_ERROR, "not JSON: there is nothing")
    try:
        _STRICT.decode(frame.decode())
    except RecursionError:
        raise WireError(methods.PARSE_ERROR, f"JSON is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as problem:
        raise WireError(methods.PARSE_ERROR, f"not JSON: {problem}") from None
    return True


def _check_utf8(frame: bytes) -> None:
    try:
        frame.decode()
    except UnicodeDecodeError as problem:
        raise WireError(methods.PARSE_ERROR, f"not UTF-8: byte {problem.start}") from None


_NOT_BRACKETS = bytes(set(range(256)) - set(b'[]{}"\\'))


def _check_depth(frame: bytes) -> None:
    """Raise if brackets outside of strings nest deeper than MAX_DEPTH."""
    depth = 0
    outside = True
    marks = frame.translate(None, _NOT_BRACKETS).replace(b"\\\\", b"").replace(b'\\"', b"")
    for part in marks.split(b'"'):
        if outside:
            nesting = part.translate(None, b"\\")
            for mark in nesting:
                depth += 1 if mark in b"[{" else -1
                if depth > MAX_DEPTH:
                    why = f"JSON is nested deeper than {MAX_DEPTH} levels"
                    raise WireError(methods.PARSE_ERROR, why, limit="json-depth")
        outside = not outside


def array_items(raw: Bytes) -> list[bytes]:
    """The values of an array, as the bytes that came; raises WireError."""
    frame = raw if isinstance(raw, bytes) else bytes(raw)
    if not frame.isascii():
        _check_utf8(frame)
    try:
        return [bytes(item) for item in _ARRAY.decode(frame)]
    except msgspec.ValidationError:
        raise WireError(methods.INVALID_REQUEST, "a JSON array was expected") from None
    except (msgspec.DecodeError, RecursionError):
        return _scan_array(frame)


def _scan_array(frame: bytes) -> list[bytes]:
    """Items by the standard library's scanner: lenient about lone surrogates only."""
    source = frame.decode() if _is_json(frame) else ""
    at = _skip(source, 0)
    if source[at] != "[":
        raise WireError(methods.INVALID_REQUEST, "a JSON array was expected")
    items: list[bytes] = []
    at = _skip(source, at + 1)
    while source[at] != "]":
        _, end = _STRICT.raw_decode(source, at)
        items.append(source[at:end].encode())
        at = _skip(source, end)
        if source[at] == ",":
            at = _skip(source, at + 1)
    return items


def split_batch(frame: bytes) -> list[bytes]:
    """The messages of a batch array (2025-03-26 only); raises WireError."""
    parts = array_items(frame)
    if not parts:
        raise WireError(methods.INVALID_REQUEST, "an empty batch")
    if len(parts) > MAX_BATCH:
        raise WireError(methods.INVALID_REQUEST, f"more than {MAX_BATCH} messages in a batch", limit="batch")
    return parts


def is_batch(frame: bytes) -> bool:
    """Whether a frame is a JSON array rather than an object."""
    return frame[:1] == b"[" or frame[:64].lstrip()[:1] == b"["


def text(raw: Bytes) -> str:
    """A JSON string as text; raises WireError(INVALID_PARAMS) if it is something else."""
    value = value_of(raw)
    if not isinstance(value, str):
        raise WireError(methods.INVALID_PARAMS, "a string was expected")
    return value


def text_at(found: Mapping[str, Bytes], key: str) -> str:
    """A member that has to be a string; raises WireError(INVALID_PARAMS), which names it."""
    value = value_of(found[key]) if key in found else None
    if not isinstance(value, str):
        raise WireError(methods.INVALID_PARAMS, f"{key} must be a string" if key in found else f"{key} is missing")
    return value


def value_of(raw: Bytes) -> Any:
    """Any JSON value, decoded: for the few that mcpd reads."""
    data = raw if isinstance(raw, bytes) else bytes(raw)
    try:
        return _ANY.decode(data)
    except (msgspec.DecodeError, RecursionError):
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as problem:
            raise WireError(methods.PARSE_ERROR, f"not JSON: {problem}") from None


def dump(value: Any) -> bytes:
    """A value as compact JSON."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate: only the standard library writes it as an escape
        return json.dumps(value, separators=(",", ":")).encode()


def pack(found: Mapping[str, Bytes]) -> bytes:
    """An object of these members, in this order, values untouched."""
    return b"{" + b",".join(b"%b:%b" % (dump(key), value) for key, value in found.items()) + b"}"


def pack_array(items: Iterable[Bytes]) -> bytes:
    """An array of these values, untouched."""
    return b"[" + b",".join(map(bytes, items)) + b"]"


def request(id: bytes, method: str, params: Bytes = ABSENT, extra: Bytes = ABSENT) -> bytes:
    """A request; `id` is raw JSON, `params` the bytes of an object or nothing, `extra` as in `Message`."""
    if len(params):
        return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b%b}' % (id, dump(method), params, extra)
    return b'{"jsonrpc":"2.0","id":%b,"method":%b%b}' % (id, dump(method), extra)


def notification(method: str, params: Bytes = ABSENT, extra: Bytes = ABSENT) -> bytes:
    """A notification; `params` are the bytes of an object or nothing."""
    if len(params):
        return b'{"jsonrpc":"2.0","method":%b,"params":%b%b}' % (dump(method), params, extra)
    return b'{"jsonrpc":"2.0","method":%b%b}' % (dump(method), extra)


def result(id: bytes, value: Bytes, extra: Bytes = ABSENT) -> bytes:
    """A successful response."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b%b}' % (id, value, extra)


def failure(id: bytes, value: Bytes, extra: Bytes = ABSENT) -> bytes:
    """An error response whose error object is already encoded."""
    return b'{"jsonrpc":"2.0","id":%b,"error":%b%b}' % (id, value, extra)


def error(id: bytes, code: int, message: str, data: Any = None) -> bytes:
    """An error response."""
    value: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        value["data"] = data
    return failure(id, dump(value))
