"""Servers that ask their clients for input, used by many at once: whose question it is, and how long it may take."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mcpd.wire.address import View
from mcpd.wire.jsonrpc import Message, decode
from mcpd.wire.meta import request_meta
from support.fleets import Client as Session
from support.fleets import Push, Ship, load_registry, sailing, within
from support.processes import DEADLINE, script

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SESSIONS = 12
CALLS = 5
SAMPLING, ELICITATION = "sampling/createMessage", "elicitation/create"
ABLE = {"sampling": {}, "elicitation": {}}


class Voice(Push):
    """A client's sink that answers questions with the client's name; one that is mute never does."""

    def __init__(self, name: str, *, mute: bool = False) -> None:
        super().__init__()
        self.name = name
        self.mute = mute
        self.questions: list[str] = []
        self.session: Session | None = None

    def deliver(self, frame: bytes, final: bool) -> None:
        message = msgspec.json.decode(frame)
        if message.get("method") in (SAMPLING, ELICITATION):
            self.questions.append(text_of(message["params"]))
            if not self.mute:
                asyncio.get_running_loop().call_soon(self._answer, message["id"])
        super().deliver(frame, final)

    def _answer(self, number: int) -> None:
        assert self.session is not None
        self.session.answer(number, {"by": self.name})


def text_of(params: Any) -> str:
    """What is asked in a question of either kind."""
    return str(params["message"] if "message" in params else params["messages"][0]["content"]["text"])


async def opened(ship: Ship, server: str, name: str, *, mute: bool = False) -> tuple[Session, Voice]:
    voice = Voice(name, mute=mute)
    voice.session = Session(ship, server, push=voice, **ABLE)
    await voice.session.initialize()
    return voice.session, voice


async def ask(session: Session, text: str, method: str = SAMPLING) -> Any:
    """What the child heard to its question."""
    said = json.loads(await session.call("ask", text=text, method=method))
    assert said["text"] == text
    return said["heard"]


async def ask_often(session: Session, voice: Voice, calls: int = CALLS) -> list[Any]:
    return [await ask(session, f"{voice.name}-{n}", (SAMPLING, ELICITATION)[n % 2]) for n in range(calls)]


@asynccontextmanager
async def asking(root: Path, keys: str = "", *, input_timeout: str = "2m") -> AsyncIterator[Ship]:
    """A fleet of one server that asks, and one that does not."""
    command = json.dumps(script("mcp_asks.py"))
    servers = f"[servers.asks]\ncommand = {command}\n{keys}\n[servers.good]\ncommand = PEER\n"
    frontdoor = f'[frontdoor]\ninput_timeout = "{input_timeout}"\n'
    async with sailing(load_registry(root, frontdoor + servers)) as ship:
        yield ship


async def test_answers_of_many_never_cross_at_a_shared_child_and_after_the_first_doubt_all_are_asked(
    tmp_path: Path,
) -> None:
    async with asking(tmp_path) as ship:
        await ship.ready()
        users = [await opened(ship, "asks", f"user{number}") for number in range(SESSIONS)]

        first = await gathered(ask_often(*user) for user in users)
        assert is_one_at_a_time(ship)
        second = await gathered(ask_often(*user) for user in users)
        meanwhile = await within(ship.call("good", "echo", text="hi"))

        assert json.loads(meanwhile) == {"text": "hi"}
        for (_, voice), in_doubt, settled in zip(users, first, second, strict=True):
            mine = {"by": voice.name}
            assert all(heard == mine or "calls of several clients" in heard["message"] for heard in in_doubt)
            assert settled == [mine] * CALLS
            assert {question.partition("-")[0] for question in voice.questions} == {voice.name}


async def test_sessions_with_children_of_their_own_are_asked_side_by_side(tmp_path: Path) -> None:
    async with asking(tmp_path, 'sharing = "session"') as ship:
        await ship.ready("good")
        users = [await opened(ship, "asks", f"user{number}") for number in range(SESSIONS // 2)]
        mute, silent = await opened(ship, "asks", "mute", mute=True)
        waiting = asyncio.ensure_future(ask(mute, "mute-0"))
        await silent.until(lambda: silent.questions)

        heard = await gathered(ask_often(*user) for user in users)

        assert heard == [[{"by": voice.name}] * CALLS for _, voice in users]
        assert not is_one_at_a_time(ship)
        assert not waiting.done()
        mute.answer(json.loads(question_of(silent))["id"], {"by": "mute"})
        assert await within(waiting) == {"by": "mute"}


async def test_a_client_that_does_not_answer_holds_an_interactive_child_for_input_timeout_only(tmp_path: Path) -> None:
    async with asking(tmp_path, input_timeout="300ms") as ship:
        await ship.ready()
        ship.relay.set_interactive("asks")
        mute, silent = await opened(ship, "asks", "mute", mute=True)
        users = [await opened(ship, "asks", f"user{number}") for number in range(SESSIONS)]
        waiting = asyncio.ensure_future(ask(mute, "mute-0"))
        await silent.until(lambda: silent.questions)

        heard = await gathered(ask_often(*user, calls=2) for user in users)

        assert heard == [[{"by": voice.name}] * 2 for _, voice in users]
        assert (await within(waiting))["message"] == "the client did not answer in time"
        assert any(json.loads(frame).get("method") == "notifications/cancelled" for frame in silent.frames)
        silent.mute = False
        assert await within(ask(mute, "mute-1")) == {"by": "mute"}


async def test_a_parked_call_ends_after_input_timeout_and_others_go_on(tmp_path: Path) -> None:
    """Clients of the per-request era: the call waits at mcpd for its client to come back with the answer."""
    async with asking(tmp_path, input_timeout="300ms") as ship:
        await ship.ready()
        ship.relay.set_interactive("asks")
        lost = await once(ship, "lost", {"text": "lost-0"})
        [question] = lost["inputRequests"].values()
        assert (lost["resultType"], text_of(question["params"])) == ("input_required", "lost-0")

        heard = await gathered(round_trip(ship, f"user{number}") for number in range(SESSIONS))

        assert heard == [{"text": f"user{number}-0", "heard": {"by": f"user{number}"}} for number in range(SESSIONS)]
        refused = await once(ship, "lost", {"text": "lost-0"}, requestState=lost["requestState"], inputResponses={})
        assert "requestState: not known (any more)" in refused["message"]
        assert "call again without it" in refused["message"]


async def round_trip(ship: Ship, who: str) -> Any:
    """A call, the question that it leads to, and the retry with the answer."""
    arguments = {"text": f"{who}-0"}
    asked = await once(ship, who, arguments)
    [(key, question)] = asked["inputRequests"].items()
    assert text_of(question["params"]) == f"{who}-0"
    answers = {key: {"by": who}}
    done = await once(ship, who, arguments, requestState=asked["requestState"], inputResponses=answers)
    return json.loads(done["content"][0]["text"])


_numbers = itertools.count(1)


async def once(ship: Ship, who: str, arguments: dict[str, Any], **more: Any) -> Any:
    """The result, or the error, of one request of the per-request era."""
    prefix = "io.modelcontextprotocol/"
    meta = {f"{prefix}protocolVersion": "2026-07-28", f"{prefix}clientCapabilities": ABLE}
    params = {"name": "ask", "arguments": arguments, "_meta": meta, **more}
    body = {"jsonrpc": "2.0", "id": next(_numbers), "method": "tools/call", "params": params}
    message = decode(json.dumps(body).encode())
    assert isinstance(message, Message)
    client = request_meta(message.params)
    assert client is not None
    push = Push()
    ship.relay.ask(View("server", "asks"), who, "streamable-http", message, client, push)
    await push.until(lambda: push.frames)
    answer = json.loads(push.frames[-1])
    return answer.get("result", answer.get("error"))


def is_one_at_a_time(ship: Ship) -> bool:
    """Whether the child was found to ask while several use it."""
    return any(one.server == "asks" and "one session at a time" in one.reason for one in ship.events())


def question_of(voice: Voice) -> bytes:
    """The last question, as it came."""
    return next(frame for frame in reversed(voice.frames) if json.loads(frame).get("method") == SAMPLING)


async def gathered(works: Any) -> list[Any]:
    """The results of all, side by side."""
    async with asyncio.timeout(6 * DEADLINE):
        return list(await asyncio.gather(*works))
