"""Envelopes: what is accepted, what is refused and how, and that everything inside stays the bytes that came."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.wire import jsonrpc, methods
from mcpd.wire.jsonrpc import MAX_DEPTH, Message, WireError, decode, members

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
STYLES: list[dict[str, Any]] = [
    {"separators": (",", ":")},
    {},
    {"indent": 1},
    {"separators": (",", ":"), "ensure_ascii": False},
    {"separators": (" , ", " : ")},
]


def refusal(frame: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(frame)
    return caught.value


def shape(message: Message) -> str:
    return "request" if message.is_request else "notification" if message.is_notification else "response"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "request"),
        (b'{"jsonrpc":"2.0","id":"a","method":"ping","params":{}}', "request"),
        (b'{"jsonrpc":"2.0","id":-3,"method":"ping"}', "request"),
        (b'{"jsonrpc":"2.0","method":"notifications/x","params":{"a":1}}', "notification"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', "response"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}', "response"),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}', "response"),
    ],
)
def test_messages_are_told_apart(frame: bytes, expected: str) -> None:
    assert shape(decode(frame)) == expected


@pytest.mark.parametrize(
    ("frame", "code", "part"),
    [
        (b"", methods.PARSE_ERROR, "not JSON"),
        (b"hello", methods.PARSE_ERROR, "not JSON"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x"', methods.PARSE_ERROR, "not JSON"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x"} {}', methods.PARSE_ERROR, "not JSON"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}', methods.PARSE_ERROR, "NaN"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\x00"}}', methods.PARSE_ERROR, "not JSON"),
        (b"3", methods.INVALID_REQUEST, "object"),
        (b"[]", methods.INVALID_REQUEST, "object"),
        (b"{}", methods.INVALID_REQUEST, "jsonrpc"),
        (b'{"jsonrpc":"1.0","id":1,"method":"x"}', methods.INVALID_REQUEST, "jsonrpc"),
        (b'{"jsonrpc":"2.0","id":1}', methods.INVALID_REQUEST, "neither"),
        (b'{"jsonrpc":"2.0","id":1,"result":1,"error":2}', methods.INVALID_REQUEST, "exactly one"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","result":1}', methods.INVALID_REQUEST, "cannot carry"),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', methods.INVALID_REQUEST, "method"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":"y"}', methods.INVALID_REQUEST, "params"),
        (b'{"jsonrpc":"2.0","id":null,"method":"x"}', methods.INVALID_REQUEST, "id"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', methods.INVALID_REQUEST, "id"),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', methods.INVALID_REQUEST, "id"),
        (b'{"jsonrpc":"2.0","id":{},"method":"x"}', methods.INVALID_REQUEST, "id"),
        (b'{"jsonrpc":"2.0","id":"%b","method":"x"}' % (b"x" * 600), methods.INVALID_REQUEST, "longer"),
        (b'{"jsonrpc":"2.0","result":{}}', methods.INVALID_REQUEST, "id"),
    ],
)
def test_what_is_no_message_is_refused_with_a_reason(frame: bytes, code: int, part: str) -> None:
    problem = refusal(frame)
    assert (problem.code, part in problem.message) == (code, True), problem.message
    assert json.loads(problem.answer())["error"]["code"] == code


def test_refusal_names_the_request_where_it_can() -> None:
    assert refusal(b'{"jsonrpc":"1.0","id":"q","method":"x"}').id == b'"q"'


def test_smuggled_message_stays_inside_its_frame() -> None:
    """Raw JSON may hold line breaks between tokens: on a pipe, the second line here would be a message of its own."""
    forged = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"rm"}}'
    frame = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":\r\n%b\n}}}' % forged
    )
    message = decode(frame)
    line = jsonrpc.request(b"7", message.method, message.params)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line)["params"]["arguments"]["a"] == json.loads(forged)


def test_line_break_inside_a_string_is_no_json() -> None:
    assert refusal(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"1\n2"}}').code == methods.PARSE_ERROR


@pytest.mark.parametrize("escape", [b"\\ud83d", b"\\uD83D", b"x\\ude00\\ud83d"])
def test_lone_surrogates_pass_unchanged(escape: bytes) -> None:
    message = decode(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"text":"%b"}}' % escape)
    assert bytes(message.params) == b'{"text":"%b"}' % escape
    assert bytes(members(message.params)["text"]) == b'"%b"' % escape


@pytest.mark.parametrize("junk", [b"\xff", b"\xc0\xaf", b"\xed\xa0\xbd", b"\xf8\x88\x80\x80\x80"])
def test_invalid_utf8_is_refused(junk: bytes) -> None:
    assert "UTF-8" in refusal(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"%b"}}' % junk).message


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 5000, 200_000])
def test_deep_json_is_refused(depth: int) -> None:
    nested = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":%b%b}}' % (b"[" * depth, b"]" * depth)
    assert "deeper" in refusal(nested).message


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"k":', b"}")])
def test_deep_json_is_refused_in_large_frames_too(opening: bytes, closing: bytes) -> None:
    deep, text = MAX_DEPTH + 1, b"x" * 100_000
    nested = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"t":"%b","a":%b1%b}}'
    assert refusal(nested % (text, opening * deep, closing * deep)).code == methods.PARSE_ERROR
    decode(nested % (text, opening * (MAX_DEPTH - 2), closing * (MAX_DEPTH - 2)))
    decode(nested % (text + b"[{" * 500, opening, closing))


def test_brackets_inside_of_strings_do_not_count_as_depth() -> None:
    frame = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"%b","b":"\\\\","c":"\\"[["}}' % (b"[{" * 5000)
    assert decode(frame).method == "x"


def test_wide_json_is_not_deep() -> None:
    items = b",".join([b"[{}]"] * 5000)
    assert decode(b'{"jsonrpc":"2.0","id":1,"result":[%b]}' % items).is_response


@pytest.mark.parametrize(
    "frame",
    [
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","method":"y"}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{},"params":{"a":1}}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","meth\\u006fd":"y"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "x", "method": "y"}',
        b'{"jsonrpc":"2.0","id":1,"id":22,"method":"abcd"}',
    ],
)
def test_member_that_stands_twice_is_refused(frame: bytes) -> None:
    assert "twice" in refusal(frame).message


@pytest.mark.parametrize("raw", [b'{"name":"a","name":"b"}', b'{"name":"a","n\\u0061me":"b"}', b'{"a":1, "a":2}'])
def test_member_that_stands_twice_in_params_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError, match="twice"):
        members(raw)


@given(st.integers() | st.text(max_size=20), st.text(min_size=1, max_size=20), st.dictionaries(st.text(), JSON_VALUES))
def test_every_style_of_json_decodes_to_the_same(id: int | str, method: str, params: dict[str, Any]) -> None:
    for style in STYLES:
        source = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        try:
            frame = json.dumps(source, **style).encode()
        except UnicodeEncodeError:
            continue  # a lone surrogate has no UTF-8
        message = decode(frame)
        assert json.loads(bytes(message.id)) == id
        assert message.method == method
        assert json.loads(bytes(message.params)) == params


@given(st.dictionaries(st.text(), JSON_VALUES), st.integers(0, len(STYLES) - 1))
def test_values_of_members_are_the_bytes_that_came(source: dict[str, Any], style: int) -> None:
    try:
        raw = json.dumps(source, **STYLES[style]).encode()
    except UnicodeEncodeError:
        return
    found = members(raw)
    assert list(found) == list(source)
    flat = raw.translate(None, b"\r\n")
    for key, value in found.items():
        assert bytes(value) in flat
        assert json.loads(bytes(value)) == source[key]


@given(JSON_VALUES.filter(lambda value: isinstance(value, dict)))
def test_compact_frame_is_forwarded_byte_for_byte(params: dict[str, Any]) -> None:
    raw = json.dumps(params, separators=(",", ":")).encode()
    message = decode(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % raw)
    assert bytes(message.params) == raw
    assert jsonrpc.pack(members(message.params)) == raw or "\\" in raw.decode()


CALLS = st.lists(
    st.tuples(st.sampled_from(["name", "arguments", "_meta", "extra"]), JSON_VALUES),
    max_size=4,
    unique_by=lambda x: x[0],
)


@given(
    CALLS,
    st.sampled_from([5, "a", '"params":{', None, -1]),
    st.integers(0, len(STYLES) - 1),
    st.permutations(["jsonrpc", "id", "method", "params"]),
    st.sampled_from(["x", "é", "\n", '"params":{"name":', "[", "\\"]),
)
def test_a_large_call_is_decoded_as_any_message_is(
    params: list[tuple[str, Any]], id: Any, style: int, order: list[str], pad: str
) -> None:
    given = {key: {"pad": pad * 9000, "value": value} if key == "arguments" else value for key, value in params}
    source = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": given}
    try:
        frame = json.dumps({key: source[key] for key in order}, **STYLES[style]).encode()
    except UnicodeEncodeError:
        return
    assert _result(jsonrpc.decode_call, frame) == _result(decode, frame)


@pytest.mark.parametrize(
    "params",
    [
        b'{"name":"a","arguments":%b,"_meta":{}}',
        b'{"_meta":{},"name":"a","arguments":%b}',
        b'{"name":"a","_meta":{},"arguments":%b}',
        b'{"name":"a","arguments":%b,"_meta":{},"name":"b"}',
        b'{"name":"a","arguments":%b,"_meta":{},"other":1}',
        b'{"n\\u0061me":"a","arguments":%b,"_meta":{}}',
        b'{"name":"a","arguments":%b}',
        b'{"name":"a","arguments":%b,"_meta":{}',
        b'{"name": "a","arguments":%b,"_meta":{}}',
        b'{"name":"a","arguments":%b,\n"_meta":{}}',
        b"[%b]",
    ],
)
@pytest.mark.parametrize(
    "frame", [b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}', b'{"params":%b,"id":1,"method":"m"}']
)
def test_large_calls_of_every_form(params: bytes, frame: bytes) -> None:
    for text in (b'{"text":"%b"}' % (b"x" * 9000), b'{"params":{"name":"%b"}}' % (b"x" * 9000), b"[" * 9000):
        whole = frame % (params % text)
        assert _result(jsonrpc.decode_call, whole) == _result(decode, whole)


def _result(decoder: Callable[[bytes], Message], frame: bytes) -> Any:
    """What a decoder makes of a frame, as plain values."""
    try:
        message = decoder(frame)
        given = [(key, bytes(value)) for key, value in message.given.items()]
    except WireError as problem:
        return problem.code, problem.id
    return message.key, message.method, bytes(message.params), message.jsonrpc, bytes(message.extra), given


def test_numbers_and_escapes_keep_their_spelling() -> None:
    raw = b'{"big":123456789012345678901234567890,"float":1.50e+03,"esc":"\\u0041\\/","neg":-0}'
    assert bytes(decode(b'{"jsonrpc":"2.0","id":1,"result":%b}' % raw).result) == raw


def test_unknown_members_of_the_envelope_are_kept() -> None:
    message = decode(b'{"jsonrpc":"2.0","id":1,"trace":{"a":1},"method":"x","zz":2}')
    line = jsonrpc.request(b"7", message.method, message.params, message.extra)
    assert json.loads(line) == {"jsonrpc": "2.0", "id": 7, "method": "x", "trace": {"a": 1}, "zz": 2}


def test_ids_are_equal_however_they_are_spelled_but_not_across_types() -> None:
    spelled = decode(b'{"jsonrpc":"2.0","id":"\\u0061","method":"x"}').key
    plain = decode(b'{"jsonrpc":"2.0","id":"a","method":"x"}').key
    assert spelled == plain
    assert (
        decode(b'{"jsonrpc":"2.0","id":1,"method":"x"}').key != decode(b'{"jsonrpc":"2.0","id":"1","method":"x"}').key
    )


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


@given(st.binary(max_size=30), st.integers(0, 60))
def test_damaged_frames_are_refused_or_valid(junk: bytes, at: int) -> None:
    frame = b'{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"echo"}}'
    damaged = frame[:at] + junk + frame[at + len(junk) :]
    try:
        message = decode(damaged)
    except WireError:
        return
    again = decode(jsonrpc.request(message.key or b"0", message.method, message.params, message.extra))
    assert (again.method, again.extra) == (message.method, message.extra)
    assert bytes(again.params) == bytes(message.params)


def test_batches() -> None:
    parts = jsonrpc.split_batch(b'[{"a":1}, {"b":2}]')
    assert parts == [b'{"a":1}', b'{"b":2}']
    assert jsonrpc.split_batch(b'[ {"a":"\\ud83d"} , 2]') == [b'{"a":"\\ud83d"}', b"2"]
    assert jsonrpc.is_batch(b" \n[1]")
    assert not jsonrpc.is_batch(b'{"a":[1]}')
    for bad in (b"[]", b"[1", b"{}", b"[" + b"1," * 200 + b"1]", b'["\xff"]', b'"\\ud83d"'):
        with pytest.raises(WireError):
            jsonrpc.split_batch(bad)


def test_encoders_make_messages_that_decode_to_their_parts() -> None:
    assert decode(jsonrpc.notification("n/x", b'{"a":1}')).is_notification
    assert decode(jsonrpc.notification("n/x")).method == "n/x"
    assert bytes(decode(jsonrpc.result(b"3", b'{"ok":true}')).result) == b'{"ok":true}'
    failed = decode(jsonrpc.error(b'"q"', -32000, "gone", {"server": "time"}))
    assert json.loads(bytes(failed.error)) == {"code": -32000, "message": "gone", "data": {"server": "time"}}


def test_text_and_values() -> None:
    assert jsonrpc.text(b'"\\ud83d!"') == "\ud83d!"
    assert jsonrpc.dump("\ud83d") == b'"\\ud83d"'
    with pytest.raises(WireError):
        jsonrpc.text(b"1")
    with pytest.raises(WireError):
        jsonrpc.value_of(b"{")
    assert jsonrpc.pack_array([b"1", b"{}"]) == b"[1,{}]"


def test_params_that_are_null_are_none() -> None:
    """As peers write them whose language knows no absent members."""
    message = decode(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":null}')
    assert len(message.params) == 0
    assert message.given == {}


def test_byte_order_mark_is_no_part_of_a_message() -> None:
    """Writers in .NET put one there; a reader may ignore it (RFC 8259, section 8.1). Not two, and not elsewhere."""
    mark, frame = b"\xef\xbb\xbf", b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    assert decode(mark + frame).method == "ping"
    for spoilt in (mark + mark + frame, frame + mark, mark):
        assert refusal(spoilt).code == methods.PARSE_ERROR
