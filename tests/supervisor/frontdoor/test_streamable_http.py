"""Streamable HTTP by hand: what goes over the wire, revision by revision; through ASGI and below it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from mcpd.frontdoor import streamable_http
from support import door as door_module
from support.door import BOTH, OTHER_TOKEN, Client, Events, call, initialize, open_door
from support.waiting import until

pytestmark = pytest.mark.anyio

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
CHANGED = {"method": "notifications/tools/list_changed"}
CANCEL = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}


@pytest.fixture(autouse=True, params=["direct", "asgi"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "DIRECT", request.param == "direct")


def text_of(answer: dict[str, Any]) -> str:
    text: str = answer["result"]["content"][0]["text"]
    return text


def error_of(response: httpx2.Response) -> tuple[int, int]:
    """Status and JSON-RPC code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


# calls


@pytest.mark.parametrize("version", REVISIONS)
async def test_a_plain_call_is_one_json_body(version: str) -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize(version)
        response = await client.post(call("a", "echo", word="hi"))

        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.json()["id"] == "a"
        assert json.loads(text_of(response.json())) == {"word": "hi"}
        assert client.version == version


async def test_all_servers_are_served_under_prefixed_names() -> None:
    async with open_door("one", "two") as door, Client(door, "/mcp") as client:
        await client.initialize()
        answers = [(await client.post(call(1, f"{name}__echo", n=name))).json() for name in ("one", "two")]

        assert [json.loads(text_of(answer)) for answer in answers] == [{"n": "one"}, {"n": "two"}]


async def test_calls_of_many_sessions_find_their_way_back() -> None:
    async with open_door() as door:

        async def session(number: int) -> None:
            async with Client(door) as client:
                await client.initialize()
                for turn in range(5):
                    answer = (await client.post(call(turn, "echo", n=number))).json()
                    assert (answer["id"], json.loads(text_of(answer))) == (turn, {"n": number})

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(session(number))


async def test_progress_turns_the_answer_into_a_stream() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.stream(call(1, "steps", progress="p", count=3)) as response:
            events = Events(response)
            primed = await events.next()
            notices = [await events.message() for _ in range(3)]
            answer = await events.message()

            assert primed["data"] == ""
            assert primed["id"] == "c1-1"
            assert [notice["params"] for notice in notices] == [{"progressToken": "p", "progress": n} for n in range(3)]
            assert text_of(answer) == "done"
            assert events.last_id == "c1-5"
            assert await events.ended()


async def test_older_clients_are_not_sent_an_event_without_data() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize("2025-06-18")
        async with client.stream(call(1, "steps", progress=1, count=1)) as response:
            first = await Events(response).next()

            assert first["event"] == "message"
            assert first["id"] == "c1-1"


async def test_a_slow_answer_is_kept_alive_by_a_stream() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        post = asyncio.create_task(client.post(call(1, "hold")))
        await door.child.arrived(1)
        door.pass_time(streamable_http.STREAM_AFTER + 1)
        await until(lambda: len(door.context.streams) == 1)
        for _ in range(3):
            door.pass_time(5)
        door.child.release()
        response = await post

        assert response.headers["content-type"] == "text/event-stream"
        assert ": keep-alive" in response.text
        assert "released" in response.text


async def test_a_cancelled_request_is_ended_by_an_error() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        post = asyncio.create_task(client.post(call(1, "hold")))
        await door.child.arrived(1)
        assert (await client.post(CANCEL)).status_code == 202

        assert (await post).json()["error"]["code"] == -32800
        await door.child.arrived(2)
        assert len(door.child.cancelled) == 1


async def test_a_cancelled_stream_is_ended_by_an_error() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        post = asyncio.create_task(client.post(call(1, "hold")))
        await door.child.arrived(1)
        door.pass_time(streamable_http.STREAM_AFTER + 1)
        assert (await client.post(CANCEL)).status_code == 202
        response = await post

        assert response.headers["content-type"] == "text/event-stream"
        assert '"code":-32800' in response.text


async def test_big_answers_come_whole() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        answer = (await client.post(call(1, "big", size=3_000_000))).json()

        assert text_of(answer) == "x" * 3_000_000


async def test_messages_of_servers_that_ask_go_on_the_stream_of_the_call() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize(sampling={})
        async with client.stream(call(1, "ask")) as response:
            events = Events(response)
            asked = await events.message()
            assert asked["method"] == "sampling/createMessage"
            sample = {"role": "assistant", "content": {"type": "text", "text": "sampled"}, "model": "m"}
            accepted = await client.post({"jsonrpc": "2.0", "id": asked["id"], "result": sample})
            assert (accepted.status_code, accepted.content) == (202, b"")

            assert "sampled" in text_of(await events.message())


# batches


async def test_a_batch_is_answered_by_an_array() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize("2025-03-26")
        notice = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        batch = [call(1, "echo", n=1), notice, {"jsonrpc": "2.0", "id": 9}, call("1", "echo", n=2)]
        response = await client.post(batch)
        answers = response.json()

        assert response.headers["content-type"] == "application/json"
        assert {json.dumps(answer["id"]) for answer in answers} == {"1", '"1"', "null"}
        assert sum("error" in answer for answer in answers) == 1


async def test_a_batch_may_be_streamed() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize("2025-03-26")
        batch = [call(1, "echo"), call(2, "steps", progress=2, count=2), call(3, "echo")]
        async with client.stream(batch) as response:
            events = Events(response)
            got = [await events.message() for _ in range(5)]

            assert sorted(message["id"] for message in got if "id" in message) == [1, 2, 3]
            assert await events.ended()


async def test_a_batch_without_requests_is_accepted() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize("2025-03-26")
        response = await client.post([{"jsonrpc": "2.0", "method": "notifications/x"}])

        assert (response.status_code, response.content) == (202, b"")


async def test_cancelled_requests_of_a_batch_are_answered_too() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize("2025-03-26")
        post = asyncio.create_task(client.post([call(1, "hold"), call(2, "echo")]))
        await door.child.arrived(2)
        await client.post(CANCEL)

        assert {answer["id"]: "error" in answer for answer in (await post).json()} == {1: True, 2: False}


@pytest.mark.parametrize(
    ("version", "batch"),
    [
        ("2025-06-18", [call(1, "echo")]),
        ("2025-11-25", [call(1, "echo")]),
        ("2025-03-26", []),
        ("2025-03-26", [initialize()]),
        ("2025-03-26", [call(n, "echo") for n in range(101)]),
    ],
)
async def test_batches_that_are_refused(version: str, batch: list[Any]) -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize(version)

        assert error_of(await client.post(batch)) == (400, -32600)


async def test_an_overloaded_server_fails_only_its_part_of_a_batch() -> None:
    async with open_door("one", "two") as door, Client(door, "/mcp") as client:
        await client.initialize("2025-03-26")
        door.children["one"].full = True
        answers = (await client.post([call(1, "one__echo"), call(2, "two__echo")])).json()

        assert {answer["id"]: "error" in answer for answer in answers} == {1: True, 2: False}


# the stream of a GET


async def test_what_belongs_to_no_call_goes_on_the_stream_of_a_get() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.listen() as response:
            events = Events(response)
            assert (await events.next())["id"] == "p1-1"
            door.child.say(CHANGED)

            assert (await events.message())["method"] == "notifications/tools/list_changed"


async def test_two_streams_never_get_the_same_message() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.listen() as first, client.listen() as second:
            old, new = Events(first), Events(second)
            await old.next()
            await new.next()
            door.child.say(CHANGED)

            assert (await new.message())["method"] == "notifications/tools/list_changed"
            await client.delete()
            assert await old.ended()


async def test_what_came_while_nobody_listened_waits_once() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        for _ in range(3):
            door.child.say(CHANGED)
        async with client.listen() as response:
            events = Events(response)
            await events.next()

            assert (await events.message())["method"] == "notifications/tools/list_changed"
            await client.delete()
            assert await events.ended()


async def test_the_oldest_of_too_many_streams_is_closed() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.listen() as response:
            oldest = Events(response)
            await oldest.next()
            async with client.listen(), client.listen(), client.listen(), client.listen():
                assert await oldest.ended()


# resuming


async def test_a_lost_stream_is_taken_up_where_it_broke_off() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.stream(call(1, "steps", progress="p", count=4)) as response:
            events = Events(response)
            await events.message()
            last = events.last_id
        async with client.listen(last) as response:
            events = Events(response)
            again = [await events.message() for _ in range(4)]

            assert [message["params"]["progress"] for message in again[:-1]] == [1, 2, 3]
            assert text_of(again[-1]) == "done"
            assert await events.ended()


async def test_the_answer_to_a_lost_connection_waits_for_the_client() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        lost = asyncio.create_task(_first_event(client, call(1, "hold")))
        await door.child.arrived(1)
        door.pass_time(streamable_http.STREAM_AFTER + 1)
        last = await lost
        door.child.release()
        async with client.listen(last) as response:
            events = Events(response)

            assert text_of(await events.message()) == "released"
            assert await events.ended()


async def test_a_call_that_is_still_under_way_is_joined_again() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        lost = asyncio.create_task(_first_event(client, call(1, "hold")))
        await door.child.arrived(1)
        door.pass_time(streamable_http.STREAM_AFTER + 1)
        async with client.listen(await lost) as response:
            door.child.release()
            events = Events(response)

            assert text_of(await events.message()) == "released"
            assert await events.ended()
        assert door.context.counters.resumed == 1


async def test_a_question_is_asked_where_somebody_listens() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize(sampling={})
        async with client.listen() as response:
            events = Events(response)
            await events.next()
            lost = asyncio.create_task(_first_event(client, call(1, "hold")))
            await door.child.arrived(1)
            door.pass_time(streamable_http.STREAM_AFTER + 1)
            await lost
            await until(lambda: len(door.context.streams) == 1)
            sample = {"messages": [], "maxTokens": 1}
            door.child.say({"id": "q", "method": "sampling/createMessage", "params": sample})

            assert (await events.message())["method"] == "sampling/createMessage"


async def test_a_listener_that_comes_back_gets_only_its_own_stream() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.listen() as response:
            events = Events(response)
            await events.next()
            door.child.say(CHANGED)
            await events.message()
            first = "p1-1"
        async with client.stream(call(1, "steps", progress="p", count=2)) as response:
            await Events(response).message()
        async with client.listen(first) as response:
            events = Events(response)

            assert (await events.message())["method"] == "notifications/tools/list_changed"
            door.child.say(CHANGED)
            assert (await events.message())["method"] == "notifications/tools/list_changed"
            assert events.last_id.startswith("p1-")


async def test_a_listener_takes_over_from_its_dead_connection() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.listen() as dead:
            await Events(dead).next()
            async with client.listen("p1-1") as response:
                door.child.say(CHANGED)

                assert (await Events(response).message())["method"] == "notifications/tools/list_changed"


@pytest.mark.parametrize("last", ["nonsense", "c1-1", "p9-1", "p1-9999", "c1-", "-1"])
async def test_event_ids_that_never_were_are_refused(last: str) -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.listen() as response:
            await Events(response).next()
            async with client.listen(last) as refused:
                assert refused.status_code == 400


async def test_events_are_not_kept_for_ever() -> None:
    async with open_door(session_idle_timeout=1e6) as door, Client(door) as client:
        await client.initialize()
        async with client.stream(call(1, "steps", progress="p", count=2)) as response:
            events = Events(response)
            while not await events.ended():
                pass
        door.pass_time(3600)
        async with client.listen("c1-1") as response:
            assert response.status_code == 400


async def test_another_session_cannot_replay() -> None:
    async with open_door() as door, Client(door) as owner, Client(door) as thief:
        await owner.initialize()
        await thief.initialize()
        async with owner.stream(call(1, "steps", progress="p", count=2)) as response:
            await Events(response).message()
        async with thief.listen("c1-1") as response:
            assert response.status_code == 400


# sessions


async def test_a_deleted_session_is_gone() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        post = asyncio.create_task(client.post(call(1, "hold")))
        await door.child.arrived(1)
        async with client.listen() as response:
            events = Events(response)
            await events.next()
            deleted = await client.delete()

            assert (deleted.status_code, deleted.content) == (204, b"")
            assert await events.ended()
        assert error_of(await post) == (404, -32600)
        assert error_of(await client.post(call(2, "echo"))) == (404, -32600)
        assert (await client.delete()).status_code == 404
        await door.child.arrived(2)
        assert len(door.child.cancelled) == 1
        assert door.context.quota.total() == 0
        assert not list(door.relay.sessions)


async def test_a_deleted_session_ends_the_streams_of_its_calls() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        post = asyncio.create_task(client.post(call(1, "hold")))
        await door.child.arrived(1)
        door.pass_time(streamable_http.STREAM_AFTER + 1)
        await client.delete()

        assert "result" not in (await post).text


async def test_idle_sessions_are_closed_but_not_busy_ones() -> None:
    async with open_door(session_idle_timeout=100) as door, Client(door) as idle, Client(door) as busy:
        await idle.initialize()
        await busy.initialize()
        async with busy.listen() as response:
            await Events(response).next()
            door.pass_time(99)
            assert len(list(door.relay.sessions)) == 2
            door.pass_time(2)

            assert error_of(await idle.post(call(1, "echo"))) == (404, -32600)
            assert (await busy.post(call(1, "echo"))).status_code == 200


async def test_a_session_that_the_relay_ends_is_gone() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.listen() as response:
            door.relay.end_sessions()
            assert await Events(response).ended()
        assert error_of(await client.post(call(1, "echo"))) == (404, -32600)


async def test_a_session_belongs_to_its_principal_and_its_endpoint() -> None:
    async with open_door("one", "two") as door, Client(door) as client:
        await client.initialize()
        session = client.http.headers["mcp-session-id"]
        async with Client(door, token=OTHER_TOKEN) as thief, Client(door, "/servers/two/mcp") as elsewhere:
            for other in (thief, elsewhere):
                other.http.headers["mcp-session-id"] = session
                assert error_of(await other.post(call(1, "echo"))) == (404, -32600)
                assert (await other.delete()).status_code == 404
                async with other.listen() as response:
                    assert response.status_code == 404
        assert (await client.post(call(1, "echo"))).status_code == 200


async def test_the_session_that_was_idle_longest_makes_room() -> None:
    async with open_door() as door:
        door.context.quota.limit = 2
        async with Client(door) as oldest, Client(door) as newer, Client(door) as newest:
            await oldest.initialize()
            door.pass_time(200)
            await newer.initialize()
            assert error_of(await _try(newest, 0)) == (200, 0)

            assert error_of(await oldest.post(call(1, "echo"))) == (404, -32600)
            assert (await newer.post(call(1, "echo"))).status_code == 200


async def test_without_an_idle_session_the_limit_holds() -> None:
    async with open_door() as door:
        door.context.quota.limit = 1
        async with Client(door) as first, Client(door) as second, Client(door, token=OTHER_TOKEN) as other:
            await first.initialize()
            response = await second.post(initialize())

            assert error_of(response) == (429, -32000)
            assert response.headers["retry-after"] == "10"
            await other.initialize()


async def test_initialize_that_is_refused_opens_no_session() -> None:
    async with open_door() as door, Client(door) as client:
        broken = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": 5}}
        response = await client.post(broken)

        assert "error" in response.json()
        assert "mcp-session-id" not in response.headers
        assert door.context.quota.total() == 0


async def test_initialize_twice_is_refused() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        assert error_of(await client.post(initialize())) == (400, -32600)


# what is refused


@pytest.mark.parametrize(
    "message",
    [
        call(1, "echo"),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        [initialize()],
    ],
)
async def test_a_request_without_a_session_must_be_initialize(message: Any) -> None:
    async with open_door() as door, Client(door) as client:
        assert error_of(await client.post(message)) == (400, -32600)


@pytest.mark.parametrize(
    ("negotiated", "sent", "expected"),
    [
        ("2025-11-25", "2025-11-25", 200),
        ("2025-11-25", "2025-06-18", 200),
        ("2025-11-25", "nonsense", 400),
        ("2025-06-18", "2025-06-18", 200),
        ("2025-06-18", "2026-07-28", 400),
        ("2025-03-26", "2025-06-18", 200),
        ("2025-03-26", "2026-07-28", 400),
    ],
)
async def test_the_revision_header_must_name_a_revision_of_ours(negotiated: str, sent: str, expected: int) -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize(negotiated)
        response = await client.post(call(1, "echo"), mcp_protocol_version=sent)
        assert response.status_code == expected


async def test_the_revision_header_may_be_missing() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        del client.http.headers["mcp-protocol-version"]
        assert (await client.post(call(1, "echo"))).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"nonsense", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"x"', -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 1000, -32700),
        (b"1", -32600),
        (b"{}", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"x"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}', -32600),
    ],
)
async def test_what_is_no_message_is_refused(body: bytes, code: int) -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize("2025-03-26")
        assert error_of(await client.post(body)) == (400, code)
        del client.http.headers["mcp-session-id"]
        assert (await client.post(body)).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"accept": "application/json"}, 406),
        ({"authorization": "Bearer wrong"}, 401),
        ({"host": "evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"mcp_session_id": "0" * 32}, 404),
        ({"accept": BOTH, "origin": "http://localhost:6274"}, 200),
    ],
)
async def test_headers_are_checked(headers: dict[str, str], status: int) -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        assert (await client.post(call(1, "echo"), **headers)).status_code == status


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"])
async def test_other_methods_are_refused(method: str) -> None:
    async with open_door() as door, Client(door) as client:
        response = await client.http.request(method, client.path)

        assert response.status_code == 405
        assert response.headers["allow"] == "GET, POST, DELETE"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(("revision", "status"), [(None, 405), ("2026-07-28", 405), ("2025-11-25", 400)])
async def test_get_and_delete_need_a_session(method: str, revision: str | None, status: int) -> None:
    async with open_door() as door, Client(door) as client:
        headers = {"accept": "text/event-stream", **({"mcp-protocol-version": revision} if revision else {})}
        response = await client.http.request(method, client.path, headers=headers)
        assert response.status_code == status
        assert response.headers.get("allow") == ("POST" if status == 405 else None)


async def test_get_must_accept_events() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        response = await client.http.get(client.path, headers={"accept": "application/json"})
        assert response.status_code == 406


async def test_a_body_over_the_limit_is_refused() -> None:
    async with open_door(max_body=2048) as door, Client(door) as client:
        await client.initialize()
        assert (await client.post(call(1, "echo", x="y" * 3000))).status_code == 413
        assert (await client.post(call(1, "echo", x="y" * 1000))).status_code == 200


async def test_a_server_that_does_not_read_is_an_overload() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        door.child.full = True
        response = await client.post(call(3, "echo"))

        assert error_of(response) == (503, -32000)
        assert response.json()["id"] == 3
        assert response.headers["retry-after"] == "1"


async def test_ending_the_front_door_ends_its_sessions() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        async with client.listen() as listening:
            post = asyncio.create_task(client.post(call(1, "hold")))
            await door.child.arrived(1)
            events = Events(listening)
            await events.next()
            door.listener.stop()

            assert await events.ended()
            assert error_of(await post) == (404, -32600)


async def _first_event(client: Client, message: Any) -> str:
    """Send a request, read one event of its answer, and lose the connection; returns the event's id."""
    async with client.stream(message) as response:
        events = Events(response)
        await events.next()
        return events.last_id


async def _try(client: Client, code: int) -> httpx2.Response:
    await client.initialize()
    return httpx2.Response(200, json={"error": {"code": code}})
