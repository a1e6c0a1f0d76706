"""What `mcpctl connect` remembers of a conversation, from lines in every shape that clients write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.cli import conversation as module
from mcpd.cli.conversation import (
    INITIALIZE,
    LISTEN,
    LOST,
    ORDINARY,
    Conversation,
    agreement,
    answer_id,
    changed_lists,
    quoted,
    request_ids,
)


def said(conversation: Conversation, *lines: bytes) -> Conversation:
    data = bytearray(b"".join(line + b"\n" for line in lines))
    conversation.client_said(data, len(data))
    return conversation


def heard(conversation: Conversation, *lines: bytes) -> Conversation:
    data = bytearray(b"".join(line + b"\n" for line in lines))
    conversation.server_said(data, len(data))
    return conversation


CALLS = [
    pytest.param(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"id":8}}', b"7", id="python"),
    pytest.param(b'{"method":"tools/call","params":{"id":8},"jsonrpc":"2.0","id":7}', b"7", id="typescript"),
    pytest.param(b'{"jsonrpc":"2.0","id":"7","method":"ping"}', b'"7"', id="string"),
    pytest.param(b'{"method":"ping","jsonrpc":"2.0","id":"a-b"}', b'"a-b"', id="string-last"),
    pytest.param(b'{"jsonrpc":"2.0","id":-7,"method":"ping"}', b"-7", id="negative"),
    pytest.param(b'{"jsonrpc": "2.0", "id": 7, "method": "ping"}', b"7", id="spaced"),
    pytest.param(b'{"method":"ping","jsonrpc":"2.0","id":7}\r', b"7", id="crlf"),
    pytest.param(b'{"id":7,"jsonrpc":"2.0","params":{},"method":"ping"}', b"7", id="other-order"),
    pytest.param(b'{"jsonrpc":"2.0","id":"\\u0061","method":"ping"}', b'"a"', id="escaped-id"),
    pytest.param(b'{"jsonrpc":"2.0","id":7,"method":"pi\\u006eg"}', b"7", id="escaped-method"),
    pytest.param('{"jsonrpc":"2.0","id":"é","method":"ping"}'.encode(), '"é"'.encode(), id="not-ascii"),
    pytest.param(b'{"jsonrpc":"2.0","id":"\\ud83d","method":"ping"}', b'"\\ud83d"', id="lone-surrogate"),
    pytest.param(
        b'{"method":"x","params":{"t":",\\"jsonrpc\\":\\"2.0\\",\\"id\\":9}"},"jsonrpc":"2.0","id":7}',
        b"7",
        id="id-in-a-string",
    ),
    pytest.param(b'{"method":"' + b"m" * 300 + b'","jsonrpc":"2.0","id":7}', b"7", id="long-method"),
    pytest.param(
        b'{"jsonrpc":"2.0","id":"' + b"i" * 600 + b'","method":"ping"}', b'"' + b"i" * 600 + b'"', id="long-id"
    ),
]


@pytest.mark.parametrize(("line", "id"), CALLS)
def test_a_request_is_awaited_until_its_answer_came(line: bytes, id: bytes) -> None:
    conversation = said(Conversation(), line)

    assert conversation.awaited == {id: ORDINARY}
    assert conversation.waits

    heard(conversation, b'{"jsonrpc":"2.0","id":%b,"result":{}}' % id)

    assert not conversation.awaited
    assert not conversation.waits


@pytest.mark.parametrize(
    "answer",
    [
        b'{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}',
        b'{"result":{},"jsonrpc":"2.0","id":7}',
        b'[{"jsonrpc":"2.0","id":7,"result":{}}]',
    ],
)
def test_answers_of_other_shapes_are_answers_too(answer: bytes) -> None:
    conversation = said(Conversation(), b'{"jsonrpc":"2.0","id":7,"method":"ping"}')

    heard(conversation, b'{"jsonrpc":"2.0","id":"7","result":{}}', b'{"jsonrpc":"2.0","id":8,"result":{}}')
    assert list(conversation.awaited) == [b"7"]

    heard(conversation, answer)
    assert not conversation.awaited


_IDS = st.one_of(st.integers(-(10**20), 10**20), st.text(max_size=20))
_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.sampled_from(['","id":5}', '"id":5', "}"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=5), st.sampled_from(["id", "method", "jsonrpc"])), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


@given(_IDS, st.text(min_size=1, max_size=20), _VALUES, st.randoms(), st.booleans(), st.booleans())
def test_however_a_request_is_written_the_id_is_found(
    id: Any, method: str, params: Any, random: Any, ascii: bool, spaced: bool
) -> None:
    message = list({"jsonrpc": "2.0", "id": id, "method": method, "params": {"p": params}}.items())
    random.shuffle(message)
    separators = None if spaced else (",", ":")
    line = json.dumps(dict(message), ensure_ascii=ascii, separators=separators).encode(errors="surrogatepass")

    conversation = said(Conversation(), line)

    try:
        json.loads(line)
    except UnicodeDecodeError:
        return  # a surrogate in raw UTF-8: no JSON, and the daemon says so
    assert [json.loads(found) for found in conversation.awaited] == [id]
    heard(
        conversation,
        b'{"jsonrpc":"2.0","id":%b,"result":{}}' % json.dumps(id, ensure_ascii=ascii).encode(errors="surrogatepass"),
    )
    assert not conversation.awaited


def test_what_is_no_message_changes_nothing() -> None:
    conversation = said(
        Conversation(), b"", b"junk", b"{", b"[1]", b"7", b'"x"', b'{"jsonrpc":"2.0","id":', b"[" * 100_000
    )
    heard(conversation, b"junk", b"7", b"[null]", b'{"jsonrpc":"2.0","id":true}')

    assert not conversation.awaited
    assert not conversation.asked


def test_messages_of_a_batch_count_each() -> None:
    conversation = said(
        Conversation(),
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"logging/setLevel"},3]',
    )

    assert list(conversation.awaited) == [b"1", b"2"]


def test_a_cancelled_request_is_not_awaited() -> None:
    conversation = said(
        Conversation(),
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":7}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":7}',
    )

    assert not conversation.awaited
    assert conversation.lost(LOST) == []


def test_a_subscription_stream_is_not_waited_for() -> None:
    conversation = said(Conversation(), b'{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}')

    assert conversation.awaited == {b"1": LISTEN}
    assert not conversation.waits


def test_a_lost_connection_is_an_error_for_every_request_but_initialize() -> None:
    conversation = said(
        Conversation(),
        b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}',
        b'{"jsonrpc":"2.0","id":"a","method":"tools/call"}',
    )

    (line,) = conversation.lost(LOST)

    answer = json.loads(line)
    assert answer["id"] == "a"
    assert answer["error"] == {"code": -32000, "message": LOST}
    assert conversation.awaited == {b"0": INITIALIZE}


def test_requests_of_the_old_daemon_are_withdrawn_and_their_answers_kept_from_the_new_one() -> None:
    conversation = heard(
        Conversation(),
        b'{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{}}',
        b'{"method":"elicitation/create","jsonrpc":"2.0","id":6}',
        b'{"jsonrpc":"2.0","id":7,"method":"roots/list"}',
        b'{"jsonrpc":"2.0","id":8,"method":"roots/list"}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":8}}',
    )
    said(conversation, b'{"jsonrpc":"2.0","id":7,"result":{}}')

    assert [json.loads(line)["params"]["requestId"] for line in conversation.lost(LOST)] == [5, 6]
    assert list(conversation.stale) == [b"5", b"6"]

    assert conversation.repeats_stale(b'{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage"}') == b"5"
    assert conversation.repeats_stale(b'{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage"}') is None
    assert conversation.repeats_stale(b'{"jsonrpc":"2.0","id":5,"result":{}}') is None
    assert conversation.repeats_stale(b'{"jsonrpc":"2.0","method":"x"}') is None

    assert not conversation.answers_stale(b'{"jsonrpc":"2.0","id":5,"method":"ping"}')
    assert not conversation.answers_stale(b'{"jsonrpc":"2.0","id":"5","result":{}}')
    assert conversation.answers_stale(b'{"jsonrpc":"2.0","id":5,"result":{}}')
    assert not conversation.answers_stale(b'{"jsonrpc":"2.0","id":5,"result":{}}'), "only once"
    assert conversation.answers_stale(b'{"error":{"code":1,"message":""},"jsonrpc":"2.0","id":6}')
    assert not conversation.stale
    assert conversation.repeats_stale(b'{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage"}') is None


def test_settings_are_the_last_of_each() -> None:
    lines = {
        "initialized": b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        "info": b'{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"info"}}',
        "debug": b'{"jsonrpc":"2.0","id":2,"method":"logging/setLevel","params":{"level":"debug"}}',
        "a": b'{"jsonrpc":"2.0","id":3,"method":"resources/subscribe","params":{"uri":"a:"}}',
        "b": b'{"method":"resources/subscribe","params":{"uri":"b:"},"jsonrpc":"2.0","id":4}',
        "not a": b'{"jsonrpc":"2.0","id":5,"method":"resources/unsubscribe","params":{"uri":"a:"}}',
        "nothing": b'{"jsonrpc":"2.0","id":6,"method":"resources/subscribe","params":{"uri":7}}',
    }

    conversation = said(Conversation(), *lines.values())

    assert conversation.settings() == [lines["initialized"], lines["debug"], lines["b"]]


@pytest.mark.parametrize(
    "initialize",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}',
        b'{"jsonrpc": "2.0", "method": "initialize", "params": {}, "id": 1}',
    ],
)
@pytest.mark.parametrize(
    "answer",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}}',
        b'{"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}},"id":1,"jsonrpc":"2.0"}',
    ],
)
def test_the_handshake_is_kept(initialize: bytes, answer: bytes) -> None:
    conversation = said(Conversation(), initialize)
    assert conversation.awaited == {b"1": INITIALIZE}

    heard(conversation, answer)
    said(conversation, b'{"jsonrpc": "2.0", "method": "notifications/initialized"}')

    assert conversation.initialize == initialize
    assert conversation.initialize_answer == answer
    assert agreement(answer) == ("2025-11-25", {"tools": {}})
    assert conversation.initialized == b'{"jsonrpc": "2.0", "method": "notifications/initialized"}'


def test_everything_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_PENDING", "MAX_ASKED", "MAX_SUBSCRIPTIONS"):
        monkeypatch.setattr(module, name, 3)
    conversation = Conversation()
    for number in range(10):
        said(
            conversation,
            b'{"jsonrpc":"2.0","id":%d,"method":"resources/subscribe","params":{"uri":"%d:"}}' % (number, number),
        )
        heard(conversation, b'{"jsonrpc":"2.0","id":%d,"method":"roots/list"}' % number)

    assert list(conversation.awaited) == [b"7", b"8", b"9"]
    assert list(conversation.asked) == [b"7", b"8", b"9"]
    assert list(conversation.subscriptions) == ["7:", "8:", "9:"]


def test_helpers_read_single_lines() -> None:
    assert quoted("a b") == b'"a b"'
    assert json.loads(quoted('a"\\\n é')) == 'a"\\\n é'
    assert request_ids(b'[{"id":1,"method":"a"},{"id":"x","method":"b"},{"method":"c"},{"id":3,"result":{}}]') == [
        b"1",
        b'"x"',
    ]
    assert answer_id(b'{"id":3,"result":{}}') == b"3"
    assert answer_id(b'{"id":3,"method":"ping"}') is None
    assert agreement(b'{"id":3,"error":{}}') is None
    assert agreement(b'{"id":3,"result":{"protocolVersion":"1","capabilities":7}}') == ("1", {})
    assert [
        json.loads(line)["method"]
        for line in changed_lists({"tools": {"listChanged": True}, "prompts": {}, "resources": 7})
    ] == ["notifications/tools/list_changed"]
