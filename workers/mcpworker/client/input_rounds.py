"""The 2026-07-28 exchange in which a server answers a request with questions of its own."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from mcp import MCPError
from mcp.client.session import ClientRequestContext, ClientSession
from mcp_types import ErrorData, InputRequest, InputRequiredResult, InputResponses

ResultT = TypeVar("ResultT")

MAX_ROUNDS = 10
"""How often a server may ask before the call is given up; what the official SDKs use."""

STATE_ONLY_DELAY = 0.05
STATE_ONLY_MAX_DELAY = 0.25
"""Pause before a retry for which the server wants no input, doubled up to the second value."""


async def complete(
    session: ClientSession,
    send: Callable[[InputResponses | None, str | None], Awaitable[ResultT | InputRequiredResult]],
) -> ResultT:
    """Send a request with `send(responses, state)` until its result needs no more input.

    The session's callbacks answer what the server asks for. Handshake-era servers never ask this way: their
    first result is the last one.

    Raises:
        MCPError: the request failed, a callback refused, or the server asked more than `MAX_ROUNDS` times.
    """
    result = await send(None, None)
    delay = STATE_ONLY_DELAY
    for _ in range(MAX_ROUNDS):
        if not isinstance(result, InputRequiredResult):
            return result
        responses: InputResponses | None = None
        if result.input_requests:
            delay = STATE_ONLY_DELAY
            responses = await _answer(session, result.input_requests)
        else:
            await anyio.sleep(delay)
            delay = min(2 * delay, STATE_ONLY_MAX_DELAY)
        result = await send(responses, result.request_state)
    if not isinstance(result, InputRequiredResult):
        return result
    raise MCPError(code=-32603, message=f"the server asked for input more than {MAX_ROUNDS} times in one request")


async def _answer(session: ClientSession, requests: dict[str, InputRequest]) -> InputResponses:
    """Ask the callbacks for all of `requests` at once; the first refusal ends the others."""
    responses: InputResponses = {}
    refusals: list[MCPError] = []

    async def ask(group: anyio.abc.TaskGroup, key: str, request: InputRequest) -> None:
        meta = request.params.meta if request.params else None
        context = ClientRequestContext(session=session, request_id=key, meta=meta)
        answer = await session.dispatch_input_request(context, request)
        if isinstance(answer, ErrorData):
            refusals.append(MCPError.from_error_data(answer))
            group.cancel_scope.cancel()
        else:
            responses[key] = answer

    async with anyio.create_task_group() as group:
        for key, request in requests.items():
            group.start_soon(ask, group, key, request)
    if refusals:
        raise refusals[0]
    return responses
