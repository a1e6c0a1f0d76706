"""mcpd's own requests: ids of their own, answers to whom they belong, ends."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec import Raw

from mcpd.errors import CallTimeout, Overloaded, ServerFault
from mcpd.fleet.calls import MAX_PENDING, ErrorAnswer, OwnCalls
from mcpd.wire import jsonrpc

pytestmark = pytest.mark.anyio


class Pipe:
    """What was written, and whether there is room for more."""

    def __init__(self) -> None:
        self.frames: list[dict[str, object]] = []
        self.full = False

    def offer(self, frame: bytes) -> bool:
        if not self.full:
            self.frames.append(json.loads(frame))
        return not self.full


async def begun(calls: OwnCalls, method: str, timeout: float | None = None) -> asyncio.Future[bytes]:
    request = asyncio.ensure_future(calls.request(method, timeout=timeout))
    await asyncio.sleep(0)
    return request


async def test_each_answer_goes_to_its_request_whatever_the_order() -> None:
    pipe = Pipe()
    calls = OwnCalls(pipe.offer)
    first, second = await begun(calls, "ping"), await begun(calls, "tools/list")

    assert [frame["id"] for frame in pipe.frames] == ["mcpd-1", "mcpd-2"]
    assert calls.answer(jsonrpc.Message(id=Raw(b'"mcpd-2"'), result=Raw(b'{"n":2}')))
    assert calls.answer(jsonrpc.Message(id=Raw(b'"mcpd-1"'), result=Raw(b'{"n":1}')))

    assert (await first, await second) == (b'{"n":1}', b'{"n":2}')


async def test_answers_to_nothing_and_second_answers_are_refused() -> None:
    calls = OwnCalls(Pipe().offer)
    request = await begun(calls, "ping")
    answer = jsonrpc.Message(id=Raw(b'"mcpd-1"'), result=Raw(b"{}"))

    assert [calls.answer(answer), calls.answer(answer)] == [True, False]
    await request
    assert not calls.answer(answer)
    assert not calls.answer(jsonrpc.Message(id=Raw(b"1"), result=Raw(b"{}")))


async def test_an_error_answer_carries_its_code_and_text() -> None:
    calls = OwnCalls(Pipe().offer)
    request = await begun(calls, "tools/list")
    calls.answer(jsonrpc.Message(id=Raw(b'"mcpd-1"'), error=Raw(b'{"code":-32601,"message":"no"}')))

    with pytest.raises(ErrorAnswer, match="tools/list was answered with error -32601: no") as caught:
        await request
    assert caught.value.code == -32601


@pytest.mark.parametrize("error", [b'"odd"', b'{"code":"x"}', b"{}"])
async def test_an_error_of_an_odd_shape_is_an_error_all_the_same(error: bytes) -> None:
    calls = OwnCalls(Pipe().offer)
    request = await begun(calls, "ping")
    calls.answer(jsonrpc.Message(id=Raw(b'"mcpd-1"'), error=Raw(error)))

    with pytest.raises(ErrorAnswer) as caught:
        await request
    assert caught.value.code == 0


@pytest.mark.parametrize(("method", "cancelled"), [("tools/list", True), ("ping", False), ("initialize", False)])
async def test_no_answer_in_time(method: str, cancelled: bool) -> None:
    pipe = Pipe()
    calls = OwnCalls(pipe.offer)

    with pytest.raises(CallTimeout, match=f"{method} was not answered within 0.01 s"):
        await calls.request(method, timeout=0.01)

    assert [frame["method"] for frame in pipe.frames[1:]] == ["notifications/cancelled"] * cancelled
    assert not calls.answer(jsonrpc.Message(id=Raw(b'"mcpd-1"'), result=Raw(b"{}")))


async def test_a_full_pipe_and_too_many_requests_are_overload() -> None:
    pipe = Pipe()
    calls = OwnCalls(pipe.offer)
    waiting = [await begun(calls, "ping") for _ in range(MAX_PENDING)]
    with pytest.raises(Overloaded, match="wait for an answer"):
        await calls.request("ping")
    calls.close("over")
    await asyncio.gather(*waiting, return_exceptions=True)

    pipe.full = True
    with pytest.raises(Overloaded, match="does not read"):
        await OwnCalls(pipe.offer).request("ping")


async def test_when_the_process_is_gone_every_request_ends_and_no_new_one_begins() -> None:
    calls = OwnCalls(Pipe().offer)
    request = await begun(calls, "ping")

    calls.close("it is gone")

    with pytest.raises(ServerFault, match="it is gone"):
        await request
    with pytest.raises(ServerFault, match="it is gone"):
        await calls.request("ping")
