"""What passes a single-server view stays the bytes that it is, but for CR and LF between tokens; nothing is smuggled.

Over real HTTP and a real child, that tells what it got as hexadecimal digits and answers with the bytes it is told to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpx2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from e2e.clients import SERVERS
from e2e.raw import INITIALIZE, Connect, Http, connect, http, request
from support.daemon import DEADLINE, Daemon, python_server, running

REGISTRY = (
    python_server("quick", SERVERS / "quick.py")
    + python_server("guarded", SERVERS / "quick.py")
    + '[servers.guarded.tools]\ndeny = ["grumble"]\n'
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(REGISTRY) as daemon:
        yield daemon


class Wire(Protocol):
    """A session that is given a frame and gives back the frame that answers it, both as bytes."""

    def exchange(self, frame: bytes) -> bytes: ...


class OverHttp:
    def __init__(self, client: Http) -> None:
        self._client = client

    def exchange(self, frame: bytes) -> bytes:
        answer = self._client.post(frame)
        assert answer.headers["content-type"] == "application/json", answer.text
        return bytes(answer.content)


class OverSse:
    """HTTP+SSE. Events are taken apart as the HTML standard says: an empty line ends one, and CR alone is a break."""

    def __init__(self, daemon: Daemon, path: str) -> None:
        self._client = httpx2.Client(headers=daemon.headers, timeout=DEADLINE)
        wanted = self._client.build_request("GET", daemon.url + path + "/sse")
        self._stream = self._client.send(wanted, stream=True)
        self._chunks = self._stream.iter_raw()
        self._held = b""
        self._address = daemon.url + self._event().decode()
        self.exchange(json.dumps(request(0, "initialize", **INITIALIZE)).encode())
        self._post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')

    def _event(self) -> bytes:
        """The data of the next event that has any."""
        while True:
            while (end := re.search(rb"\r\n\r\n|\n\n|\r\r", self._held)) is None:
                self._held += next(self._chunks)
            event, self._held = self._held[: end.start()], self._held[end.end() :]
            lines = re.split(rb"\r\n|\n|\r", event)
            data = [line.removeprefix(b"data:").removeprefix(b" ") for line in lines if line.startswith(b"data:")]
            if data:
                return b"\n".join(data)

    def _post(self, frame: bytes) -> None:
        answer = self._client.post(self._address, content=frame, headers={"Content-Type": "application/json"})
        assert answer.status_code == 202, answer.text

    def exchange(self, frame: bytes) -> bytes:
        self._post(frame)
        return self._event()

    def close(self) -> None:
        self._stream.close()
        self._client.close()


class OverStdio:
    """`mcpctl connect`, where a frame is a line: line breaks in it have to go first."""

    def __init__(self, client: Connect) -> None:
        self._client = client

    def exchange(self, frame: bytes) -> bytes:
        self._client.send(frame.translate(None, b"\r\n") + b"\n")
        return self._client.line()


@contextmanager
def wire(daemon: Daemon, transport: str, server: str = "quick") -> Iterator[Wire]:
    path = f"/servers/{server}"
    if transport == "http":
        with http(daemon, path + "/mcp", session=True) as client:
            yield OverHttp(client)
    elif transport == "stdio":
        with connect(daemon, server) as local:
            yield OverStdio(local)
    else:
        stream = OverSse(daemon, path)
        try:
            yield stream
        finally:
            stream.close()


# Any JSON text, written in any way

SPACE = st.sampled_from(["", "", "", " ", "\t", "\n", "\r\n", "\r", "\n \n"])
NUMBER = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
FRAGMENT = st.one_of(
    st.text(st.characters(min_codepoint=0x20, exclude_characters='"\\', exclude_categories=["Cs"]), max_size=5),
    st.sampled_from(
        [r"\"", r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", r"\u0041", r"\u00e9", r"\u00E9", r"\u2028"]
    ),
    st.sampled_from(
        [r"\ud83d\ude00", r"\uD83D", r"\ude00", r"\ude00\ud83d", "\u2028", "\u2029", "\ufeff", "\U0010ffff"]
    ),
    st.sampled_from(["progressToken", "_meta", "mcpd", "data: ", "id: 1", "mcpd-1"]),
)
STRING = st.lists(FRAGMENT, max_size=5).map(lambda parts: '"' + "".join(parts) + '"')
SCALAR = st.one_of(NUMBER, STRING, st.sampled_from(["true", "false", "null", "-0", "1e400", "0.1e-400"]))


@st.composite
def objects(draw: Any, values: st.SearchStrategy[str], *, unique: bool = False) -> str:
    """An object; unless `unique`, a key may stand in it twice, since what is not looked at is not judged."""
    keys = draw(st.lists(STRING, max_size=4, unique_by=json.loads if unique else None))
    members = (f"{draw(SPACE)}{key}{draw(SPACE)}:{draw(SPACE)}{draw(values)}{draw(SPACE)}" for key in keys)
    return "{" + ",".join(members) + draw(SPACE if not keys else st.just("")) + "}"


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    padded = st.tuples(SPACE, values, SPACE).map("".join)
    return st.lists(padded, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]")


JSON = st.recursive(SCALAR, lambda values: st.one_of(arrays(values), objects(values)), max_leaves=12)
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FEW = settings(MANY, max_examples=30)
NASTY = (
    '{"big":123456789012345678901234567890,"f":1.0E+2,"e":1e400,"z":-0,"twice":1,"twice":2,'
    '"s":"\\ud83d \\/ \\u0041 \u2028 \U0001f600","deep":[[[[{"":{}}]]]],\r\n "gap" :\t[ ] }'
)


def seen_by_child(sent: Wire, params: str, extra: str = "") -> bytes:
    """The line that a call with these params was in the child's hands."""
    frame = f'{{"jsonrpc":"2.0","id":7,"method":"tools/call"{extra},"params":{params}}}'
    answer = sent.exchange(frame.encode())
    return bytes.fromhex(json.loads(answer)["result"]["content"][0]["text"])


def flat(text: str) -> bytes:
    return text.encode().translate(None, b"\r\n")


def check_requests(sent: Wire, arguments: str, meta: str, unknown: str) -> None:
    params = f'{{"name":"mirror", "arguments":{arguments},"_meta":{meta},"unknown":{unknown}}}'
    line = seen_by_child(sent, params, f',"beside":{unknown}')

    assert b'"params":' + flat(params) in line
    assert b'"beside":' + flat(unknown) in line
    assert b"\n" not in line
    assert b"\r" not in line


def check_results(sent: Wire, text: str) -> None:
    result = f'{{"content":[],"structuredContent":{text},"_meta":{{"x/y":{text}}}}}'
    told = json.dumps({"name": "say", "arguments": {"result": flat(result).hex()}})
    answer = sent.exchange(b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":%b}' % told.encode())

    assert answer == b'{"jsonrpc":"2.0","id":8,"result":%b}' % flat(result)


@pytest.fixture(scope="module")
def over_http(daemon: Daemon) -> Iterator[Wire]:
    with wire(daemon, "http") as one:
        yield one


@pytest.fixture(scope="module")
def over_sse(daemon: Daemon) -> Iterator[Wire]:
    with wire(daemon, "sse") as one:
        yield one


@pytest.fixture(scope="module")
def over_stdio(daemon: Daemon) -> Iterator[Wire]:
    with wire(daemon, "stdio") as one:
        yield one


META = objects(JSON, unique=True).filter(lambda text: "progressToken" not in json.loads(text))


@MANY
@example(NASTY, '{"io.example/x":1e999,"traceparent":"00-\\ud800"}', NASTY)
@given(arguments=objects(JSON), meta=META, unknown=JSON)
def test_params_reach_the_child_byte_by_byte(over_http: Wire, arguments: str, meta: str, unknown: str) -> None:
    check_requests(over_http, arguments, meta, unknown)


@MANY
@example(NASTY)
@given(text=JSON)
def test_results_reach_the_client_byte_by_byte(over_http: Wire, text: str) -> None:
    check_results(over_http, text)


@FEW
@example(NASTY, "{}", NASTY)
@given(arguments=objects(JSON), meta=META, unknown=JSON)
def test_both_ways_over_sse(over_sse: Wire, arguments: str, meta: str, unknown: str) -> None:
    check_requests(over_sse, arguments, meta, unknown)
    check_results(over_sse, arguments)


@FEW
@example(NASTY, "{}", NASTY)
@given(arguments=objects(JSON), meta=META, unknown=JSON)
def test_both_ways_over_stdio(over_stdio: Wire, arguments: str, meta: str, unknown: str) -> None:
    check_requests(over_stdio, arguments, meta, unknown)
    check_results(over_stdio, arguments)


@FEW
@given(text=objects(JSON, unique=True))
def test_errors_and_unknown_methods_pass_as_they_are(over_http: Wire, text: str) -> None:
    error = b'{"code":-32099,"message":"m","data":%b}' % flat(text)
    told = json.dumps({"name": "say", "arguments": {"error": error.hex()}})
    answer = over_http.exchange(b'{"jsonrpc":"2.0","id":"\\u0069d","method":"tools/call","params":%b}' % told.encode())
    assert answer.endswith(b'"error":%b}' % error)
    assert json.loads(answer)["id"] == "id"

    unknown = b'{"jsonrpc":"2.0","id":9,"method":"x-vendor/any","params":%b}' % text.encode()
    line = bytes.fromhex(json.loads(over_http.exchange(unknown))["result"]["content"][0]["text"])
    assert line.endswith(b'"method":"x-vendor/any","params":%b}' % flat(text))


def test_progress_token_is_all_that_is_rewritten(over_http: Wire) -> None:
    params = '{"name":"mirror","_meta":{"a":1.50,"progressToken":"mine","b":"\\/"},"arguments":{"n":1E2}}'

    line = seen_by_child(over_http, params)

    token = re.search(rb'"progressToken":(\d+)', line)
    assert token
    assert b'"params":' + flat(params).replace(b'"mine"', token[1]) in line


# Smuggling

FORGED = '{"jsonrpc":"2.0","id":666,"method":"tools/call","params":{"name":"grumble","arguments":{"text":"SMUGGLED"}}}'
BREAKS = ["\n", "\r\n", "\r", "\n\n", " \n\t"]


@pytest.mark.parametrize("gap", BREAKS, ids=repr)
@pytest.mark.parametrize("transport", ["http", "sse"])
def test_forged_call_between_line_breaks_stays_data(daemon: Daemon, transport: str, gap: str) -> None:
    """Written to the child's pipe as it came, the middle line would be a call of its own, of a tool that is denied."""
    with wire(daemon, transport, "guarded") as sent:
        before = daemon.server("guarded")["calls_total"]
        params = f'{{"name":"mirror","arguments":{{"x":{gap}{FORGED}{gap}}}}}'

        line = seen_by_child(sent, params)

        assert line.endswith(b'"params":' + flat(params) + b"}")
        assert line.count(b"SMUGGLED") == 1
        refused = json.loads(sent.exchange(FORGED.encode()))
        assert "grumble" in refused["error"]["message"], "the tool is denied to whoever asks openly"
        assert daemon.server("guarded")["calls_total"] == before + 1
    assert "SMUGGLED" not in daemon.ctl("logs", "guarded").stdout


@pytest.mark.parametrize("gap", ["\r", "\t", " "])
@pytest.mark.parametrize("transport", ["http", "sse", "stdio"])
def test_forged_event_in_a_result_stays_data(daemon: Daemon, transport: str, gap: str) -> None:
    """A CR between tokens would end a line of an event stream, and what follows would be a field of it."""
    with wire(daemon, transport) as sent:
        result = f'{{"content":[],{gap}"x":0,{gap}"event: endpoint":{gap}"data: /evil"}}'
        told = json.dumps({"name": "say", "arguments": {"result": result.encode().hex()}})

        answer = sent.exchange(b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":%b}' % told.encode())

        assert answer == b'{"jsonrpc":"2.0","id":8,"result":%b}' % flat(result)


@pytest.mark.parametrize(
    "params",
    [
        '{"name":"mirror","name":"grumble","arguments":{"text":"SMUGGLED"}}',
        '{"name":"mirror","n\\u0061me":"grumble","arguments":{"text":"SMUGGLED"}}',
        '{"name":"mirror","arguments":{},"_meta":{"progressToken":1,"progressToken":2}}',
    ],
)
def test_name_that_stands_twice_is_refused(daemon: Daemon, params: str) -> None:
    """The child may take the other one."""
    with http(daemon, "/servers/guarded/mcp", session=True) as client:
        answer = client.post(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params.encode())

        assert answer.json()["error"]["code"] in (-32600, -32602)
        assert "twice" in answer.json()["error"]["message"]
    assert "SMUGGLED" not in daemon.ctl("logs", "guarded").stdout
