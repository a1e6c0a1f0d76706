"""The first conversation, with a peer that is a script of answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from mcpd.errors import ServerFault
from mcpd.fleet.calls import ErrorAnswer, OwnCalls
from mcpd.fleet.handshake import MAX_ENTRIES, MAX_PAGES, Lobby, discover, fetch_lists, shake_hands
from mcpd.routing.info import Lists
from mcpd.wire import jsonrpc

pytestmark = pytest.mark.anyio

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
Answer = Callable[[dict[str, Any]], object] | object


class Peer:
    """Answers each method with what it was given: a value, or a function of the parameters; a tuple is an error."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = {name.replace("_", "/"): answer for name, answer in answers.items()}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.notes: list[str] = []
        self.calls = OwnCalls(self._take)

    def _take(self, frame: bytes) -> bool:
        message = json.loads(frame)
        params = message.get("params", {})
        self.asked.append((message["method"], params))
        if "id" in message:
            answer = self.answers.get(message["method"], (-32601, "unknown"))
            value = answer(params) if callable(answer) else answer
            member = (
                {"error": {"code": value[0], "message": value[1]}} if isinstance(value, tuple) else {"result": value}
            )
            reply = jsonrpc.decode(json.dumps({"jsonrpc": "2.0", "id": message["id"], **member}).encode())
            asyncio.get_running_loop().call_soon(self.calls.answer, reply)
        return True

    async def hello(self, with_roots: bool = False) -> Any:
        return await shake_hands(self.calls, "0.1", with_roots, self.notes.append)

    async def lists(self, *kinds: Any, known: Lists = Lists()) -> Lists:  # noqa: B008 - frozen
        return await fetch_lists(self.calls, kinds, known, self.notes.append, timeout=5.0)


ABOUT = {"io.modelcontextprotocol/serverInfo": {"name": "x", "version": "1"}}
FOUND = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "instructions": "Hi", "_meta": ABOUT}


async def test_a_server_without_a_handshake_is_discovered_and_told_each_time_who_asks() -> None:
    peer = Peer(server_discover=FOUND, tools_list={"tools": [{"name": "a"}]})

    info = await discover(peer.calls, "0.1", peer.notes.append)

    assert (info.era, info.protocol_version, info.instructions) == ("per-request", "2026-07-28", "Hi")
    assert json.loads(info.server_info) == {"name": "x", "version": "1"}
    assert json.loads(info.result) == FOUND
    assert info.lists == Lists(tools=(b'{"name": "a"}',))
    assert [method for method, _ in peer.asked] == ["server/discover", "tools/list"]
    for _, params in peer.asked:
        assert params["_meta"] == {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "mcpd", "version": "0.1"},
        }


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({**FOUND, "supportedVersions": ["2031-01-01"]}, "it serves the revisions 2031-01-01"),
        ({**FOUND, "supportedVersions": []}, "it serves the revisions none"),
        ({**FOUND, "supportedVersions": 7}, "makes no sense"),
        ({"supportedVersions": ["2026-07-28"]}, "has no 'capabilities'"),
        ({"capabilities": {}}, "has no 'supportedVersions'"),
    ],
)
async def test_a_discovery_that_is_of_no_use(answer: Any, why: str) -> None:
    with pytest.raises(ServerFault, match=why):
        await discover(Peer(server_discover=answer).calls, "0.1", print)


async def test_it_introduces_itself_as_mcpd_and_says_when_it_is_initialised() -> None:
    peer = Peer(initialize=HELLO)

    info = await peer.hello()

    method, params = peer.asked[0]
    assert (method, params["protocolVersion"]) == ("initialize", "2025-11-25")
    assert params["clientInfo"] == {"name": "mcpd", "version": "0.1"}
    assert params["capabilities"] == {"sampling": {}, "elicitation": {"form": {}, "url": {}}}
    assert peer.asked[1:] == [("notifications/initialized", {})]
    assert (info.protocol_version, info.instructions, info.lists) == ("2025-11-25", None, Lists())


async def test_roots_are_spoken_of_only_where_the_registry_has_some() -> None:
    peer = Peer(initialize=HELLO)

    await peer.hello(with_roots=True)

    assert peer.asked[0][1]["capabilities"]["roots"] == {"listChanged": False}


async def test_only_lists_that_its_capabilities_name_are_fetched() -> None:
    hello = {**HELLO, "capabilities": {"tools": {}, "resources": {"subscribe": True}}, "instructions": "Be kind."}
    peer = Peer(
        initialize=hello,
        tools_list={"tools": [{"name": "a"}]},
        resources_list={"resources": [{"uri": "x:y", "big": 123456789012345678901234567890}]},
        resources_templates_list={"resourceTemplates": [{"uriTemplate": "x:{y}"}]},
    )

    info = await peer.hello()

    assert info.lists == Lists(
        tools=(b'{"name": "a"}',),
        resources=(b'{"uri": "x:y", "big": 123456789012345678901234567890}',),
        templates=(b'{"uriTemplate": "x:{y}"}',),
    )
    assert info.capabilities["resources"] == b'{"subscribe": true}'
    assert info.instructions == "Be kind."


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_revision_of_the_handshake_era_is_spoken(revision: str) -> None:
    assert (await Peer(initialize={**HELLO, "protocolVersion": revision}).hello()).protocol_version == revision


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((-32600, "no"), "initialize was answered with error -32600: no"),
        ({"capabilities": {}}, "has no 'protocolVersion'"),
        ({"protocolVersion": "2025-11-25"}, "has no 'capabilities'"),
        ([], "makes no sense"),
        ({**HELLO, "protocolVersion": 3}, "makes no sense"),
        ({**HELLO, "capabilities": []}, "makes no sense"),
        ({**HELLO, "protocolVersion": "2026-07-28"}, "revision '2026-07-28'; mcpd speaks 2024-11-05"),
    ],
)
async def test_what_is_no_handshake_is_refused_with_the_reason(answer: object, why: str) -> None:
    with pytest.raises(ServerFault, match=why.replace("(", r"\(")):
        await Peer(initialize=answer).hello()


async def test_all_pages_are_read_in_their_order() -> None:
    pages = {None: ([1, 2], "p2"), "p2": ([3], "p3"), "p3": ([], "p4"), "p4": ([4], None)}

    def page(params: dict[str, Any]) -> object:
        entries, following = pages[params.get("cursor")]
        return {"tools": [{"name": str(one)} for one in entries], **({"nextCursor": following} if following else {})}

    lists = await Peer(tools_list=page).lists("tools")

    assert [json.loads(entry)["name"] for entry in lists.tools] == ["1", "2", "3", "4"]


async def test_pages_without_end_are_refused() -> None:
    numbers = iter(range(10 * MAX_PAGES))
    endless = Peer(tools_list=lambda _: {"tools": [], "nextCursor": str(next(numbers))})

    with pytest.raises(ServerFault, match="over 1000 pages"):
        await endless.lists("tools")


async def test_a_cursor_that_comes_back_is_no_end() -> None:
    with pytest.raises(ServerFault, match='the cursor "again" twice'):
        await Peer(tools_list={"tools": [], "nextCursor": "again"}).lists("tools")


async def test_a_list_too_long_is_refused() -> None:
    with pytest.raises(ServerFault, match=f"over {MAX_ENTRIES} entries"):
        await Peer(tools_list={"tools": [{}] * (MAX_ENTRIES + 1)}).lists("tools")


async def test_entries_that_are_no_objects_are_left_out_and_noted() -> None:
    peer = Peer(tools_list={"tools": [{"name": "a"}, 7, None]})

    lists = await peer.lists("tools")

    assert lists.tools == (b'{"name": "a"}',)
    assert peer.notes == ["tools/list: 2 entries are no objects; left out"]


@pytest.mark.parametrize("answer", [{}, {"tools": {}}, []])
async def test_an_answer_without_the_list_is_refused(answer: object) -> None:
    with pytest.raises(ServerFault, match="its answer to tools/list has no array 'tools'"):
        await Peer(tools_list=answer).lists("tools")


async def test_a_server_without_the_method_has_an_empty_list() -> None:
    assert (await Peer().lists("tools", "templates")) == Lists()


async def test_a_server_that_cannot_tell_its_tools_is_of_no_use_but_other_lists_may_fail() -> None:
    failing = (-32603, "the backend is down")
    with pytest.raises(ErrorAnswer, match="the backend is down"):
        await Peer(tools_list=failing).lists("tools")

    peer = Peer(tools_list={"tools": [{}]}, prompts_list=failing)
    lists = await peer.lists("tools", "prompts", known=Lists(prompts=(b"{}",)))

    assert lists == Lists(tools=(b"{}",), prompts=(b"{}",))
    assert peer.notes == ["prompts/list was answered with error -32603: the backend is down"]


async def test_a_list_without_lone_surrogates_or_with_passes_as_it_came() -> None:
    raw = rb'{"jsonrpc":"2.0","id":"mcpd-1","result":{"tools":[{"name":"a","description":"\ud83d"}]}}'
    calls = OwnCalls(lambda _: True)
    fetching = asyncio.ensure_future(fetch_lists(calls, ["tools"], Lists(), print))
    await asyncio.sleep(0)
    calls.answer(jsonrpc.decode(raw))

    assert (await fetching).tools == (rb'{"name":"a","description":"\ud83d"}',)


def lobby(sent: list[bytes]) -> tuple[Lobby, list[tuple[str, object]]]:
    heard: list[tuple[str, object]] = []

    def offer(frame: bytes) -> bool:
        sent.append(frame)
        return True

    one = Lobby(
        OwnCalls(offer),
        ["file:///a"],
        noise=lambda frame: heard.append(("noise", frame)),
        stale=lambda kind: heard.append(("stale", kind)),
        said=lambda frame: heard.append(("said", frame)),
    )
    return one, heard


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"ping"}', {"id": 7, "result": {}}),
        (
            b'{"jsonrpc":"2.0","id":"7","method":"roots/list"}',
            {"id": "7", "result": {"roots": [{"uri": "file:///a"}]}},
        ),
    ],
)
def test_the_lobby_answers_what_mcpd_knows(asked: bytes, answer: dict[str, object]) -> None:
    sent: list[bytes] = []
    lobby(sent)[0].receive(asked)

    assert [json.loads(frame) for frame in sent] == [{"jsonrpc": "2.0", **answer}]


def test_the_lobby_refuses_what_only_a_client_could_answer() -> None:
    sent: list[bytes] = []
    lobby(sent)[0].receive(b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}')

    assert json.loads(sent[0])["error"]["code"] == -32600


@pytest.mark.parametrize(
    ("frame", "heard"),
    [
        (b"Server started!", ("noise", b"Server started!")),
        (b'{"jsonrpc":"2.0","id":9,"result":{}}', ("noise", b'{"jsonrpc":"2.0","id":9,"result":{}}')),
        (b'{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}', ("stale", "prompts")),
        (
            b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}',
            ("said", b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'),
        ),
    ],
)
def test_the_lobby_passes_on_what_others_care_for(frame: bytes, heard: tuple[str, object]) -> None:
    one, found = lobby([])
    one.receive(frame)

    assert found == [heard]


def test_the_lobby_lets_other_notifications_pass_by() -> None:
    sent: list[bytes] = []
    one, heard = lobby(sent)
    one.receive(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}')

    assert (sent, heard) == ([], [])
