"""Calls that ask their client for something, for clients that are answered with `input_required` (2026-07-28).

In that revision a server sends no requests. A function that asks parks where it waits; the client's call is answered
with the question and a state; the client calls again with the state and the answer, and the parked function goes on.
So its code reads the same in every era, and nothing of it runs twice.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp_types import INVALID_PARAMS, InputRequest, InputRequiredResult, InputResponseRequestParams, InputResponses
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpworker.errors import Overloaded
from mcpworker.logs import get_logger

if TYPE_CHECKING:
    from mcpworker.runs import Run

__all__ = ["Call", "Conversation", "Parked", "converse", "may_converse"]

logger = get_logger("rounds")

MAX_PARKED = 256
PARKED_SECONDS = 600.0
MAX_QUESTIONS = 64
_STATE_PREFIX = "parked:"


@dataclass
class Call:
    """One call of a client; `request` is replaced when a further round of it arrives."""

    run: "Run"
    request: ServerRequestContext[Any, Any]
    params: InputResponseRequestParams | None = None
    conversation: "Conversation | None" = None


@dataclass
class _Question:
    request: InputRequest
    answer: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Conversation:
    """One call that may take several rounds: the function's task, its open questions, and its outcome."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._questions: dict[str, _Question] = {}
        self._asked = 0
        self._news = asyncio.Event()
        self._scope = anyio.CancelScope()
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._finished = False
        self._expiry: asyncio.TimerHandle | None = None

    async def ask(self, request: InputRequest) -> Any:
        """The client's answer, whenever its next round brings it.

        Raises:
            Overloaded: one call asked too many questions.
        """
        if self._asked >= MAX_QUESTIONS:
            raise Overloaded(f"one call may ask its client at most {MAX_QUESTIONS} questions")
        self._asked += 1
        key = f"q{self._asked}"
        question = self._questions[key] = _Question(request)
        self._news.set()
        try:
            return await question.answer
        finally:
            self._questions.pop(key, None)

    async def work(self, function: Callable[[], Awaitable[Any]]) -> None:
        """Run the function to its end; its outcome is kept for the round that waits then."""
        try:
            with self._scope:
                self._outcome = await function()
        except Exception as error:  # noqa: BLE001 - raised again in the round that waits
            self._error = error
        finally:
            self._finished = True
            self._news.set()

    def resume(self, request: ServerRequestContext[Any, Any], answers: InputResponses | None) -> None:
        """Take the next round's answers."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.call.request = request
        for key, answer in (answers or {}).items():
            question = self._questions.get(key)
            if question is not None and not question.answer.done():
                question.answer.set_result(answer)
        unanswered = any(not question.answer.done() for question in self._questions.values())
        if unanswered or self._finished:  # it may have ended by itself meanwhile
            self._news.set()
        else:
            self._news.clear()

    async def next(self) -> Any:
        """The outcome, or `InputRequiredResult` with the questions that are open now (its state left empty)."""
        try:
            await self._news.wait()
            # Questions that are asked side by side go out in one round.
            await anyio.lowlevel.checkpoint()
        except BaseException:
            self.cancel()
            raise
        if self._finished:
            if self._error is not None:
                raise self._error
            if self._scope.cancelled_caught:
                raise MCPError(INVALID_PARAMS, "the call was given up while it waited for input; call again")
            return self._outcome
        self._news.clear()
        open_questions = {key: item.request for key, item in self._questions.items() if not item.answer.done()}
        return InputRequiredResult(input_requests=open_questions, request_state="")

    def park(self, give_up: Callable[[], None]) -> None:
        """Wait for the next round, but not for ever."""
        self._expiry = asyncio.get_running_loop().call_later(PARKED_SECONDS, give_up)

    def cancel(self) -> None:
        """End the function."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._scope.cancel()


class Parked:
    """The conversations of one run that wait for their client's next round, by state."""

    def __init__(self) -> None:
        self._waiting: dict[str, Conversation] = {}

    def add(self, conversation: Conversation) -> str:
        """Keep a conversation; the oldest goes where there are too many."""
        while len(self._waiting) >= MAX_PARKED:
            oldest = next(iter(self._waiting))
            logger.warning("%d calls wait for input already; the oldest is given up", MAX_PARKED)
            self._waiting.pop(oldest).cancel()
        state = _STATE_PREFIX + secrets.token_urlsafe(16)
        self._waiting[state] = conversation
        conversation.park(lambda: self._give_up(state))
        return state

    def take(self, state: str) -> Conversation:
        """The conversation of a state, once.

        Raises:
            MCPError: there is none: it took too long, or the server was restarted.
        """
        conversation = self._waiting.pop(state, None)
        if conversation is None:
            raise MCPError(INVALID_PARAMS, "this call can no longer be continued; call again without requestState")
        return conversation

    def close(self) -> None:
        """End them all."""
        while self._waiting:
            self._waiting.popitem()[1].cancel()

    def _give_up(self, state: str) -> None:
        conversation = self._waiting.pop(state, None)
        if conversation is not None:
            logger.warning("no answer for %s seconds; the call is given up", PARKED_SECONDS)
            conversation.cancel()


def may_converse(request: ServerRequestContext[Any, Any]) -> bool:
    """Whether a client has to be asked by rounds, and can be asked anything at all."""
    if request.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return False
    able = request.session.client_capabilities
    return able is not None and (able.elicitation is not None or able.sampling is not None or able.roots is not None)


async def converse(call: Call, function: Callable[[], Awaitable[Any]]) -> Any:
    """One round: begin the call, or go on with a parked one; what to answer the client.

    A function that returns `InputRequiredResult` itself keeps its own state, and is simply called again.
    """
    run, params = call.run, call.params
    state = None if params is None else params.request_state
    if state is not None and state.startswith(_STATE_PREFIX):
        conversation = run.parked.take(state)
        conversation.resume(call.request, None if params is None else params.input_responses)
    elif not may_converse(call.request):
        return await function()
    else:
        conversation = call.conversation = Conversation(call)
        run.tasks.start_soon(conversation.work, function, name="conversation")
    result = await conversation.next()
    if isinstance(result, InputRequiredResult) and result.request_state == "":
        result.request_state = run.parked.add(conversation)
    return result
