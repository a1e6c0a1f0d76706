"""How the server under test asks its client for input: by requests of its own, or by `input_required` results.

Handshake era: every question of a round is a request, all at once. Per-request era (2026-07-28, server/tools,
"input required"): the questions are in the result, the answers in the retry, and what was answered in earlier rounds
is carried by the client in a `requestState` that this server has signed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

RESULTS: dict[type, type[Any]] = {
    types.ElicitRequest: types.ElicitResult,
    types.CreateMessageRequest: types.CreateMessageResult,
    types.ListRootsRequest: types.ListRootsResult,
}

Context = ServerRequestContext[Any, Any]
Questions = Mapping[str, types.InputRequest]
Answers = dict[str, dict[str, Any]]

_KEY = secrets.token_bytes(32)


@dataclass(frozen=True)
class Unanswered(Exception):
    """The client has to be asked first: what the handler's result must be instead."""

    result: types.InputRequiredResult


def elicitation(message: str, properties: dict[str, Any], required: Sequence[str] = ()) -> types.ElicitRequest:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def page(url: str) -> types.ElicitRequest:
    """Send the user to a page."""
    params = types.ElicitRequestURLParams(message="Please sign in", url=url, elicitation_id="sign-in-1")
    return types.ElicitRequest(params=params)


def sampling(prompt: str, max_tokens: int = 100) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    )


def roots() -> types.ListRootsRequest:
    return types.ListRootsRequest(params=types.RequestParams())


def is_per_request(ctx: Context) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def declared(ctx: Context) -> set[str]:
    """The capabilities that the client said it has: of this request, or of its `initialize`."""
    capabilities = ctx.session.client_capabilities
    return set(capabilities.model_dump(by_alias=True, exclude_none=True)) if capabilities else set()


def demand(ctx: Context, capability: str) -> None:
    """Refuse a per-request client that has not declared `capability` (-32021). A handshake client is simply asked."""
    if is_per_request(ctx) and capability not in declared(ctx):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"this needs the client capability {capability!r}",
            {"requiredCapabilities": {capability: {}}},
        )


async def ask(
    ctx: Context, params: types.InputResponseRequestParams, *rounds: Questions, sealed: bool = False
) -> Answers:
    """Ask the questions, one round after the other, and return all answers by their keys.

    `sealed`: the first round already has a signed `requestState`, without which a retry begins anew; later rounds
    always have one. Raises `Unanswered` (per-request era), or `MCPError`: the client's own, or -32602 for a state that
    this server has not signed for this call.
    """
    if is_per_request(ctx):
        return _from_retry(ctx, params, rounds, sealed)
    answers: Answers = {}
    for questions in rounds:
        for key, outcome in (await ask_all(ctx, questions)).items():
            if isinstance(outcome, MCPError):
                raise outcome
            answers[key] = outcome
    return answers


async def ask_all(ctx: Context, questions: Questions) -> dict[str, dict[str, Any] | MCPError]:
    """Handshake era: ask all at once; each answer, or the error that the client gave, by its key."""
    outcomes: dict[str, dict[str, Any] | MCPError] = {}

    async def one(key: str, request: types.InputRequest) -> None:
        try:
            result = await ctx.session.send_request(
                request,
                RESULTS[type(request)],
                metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
            )
            outcomes[key] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        except MCPError as error:
            outcomes[key] = error

    async with anyio.create_task_group() as group:
        for key, request in questions.items():
            group.start_soon(one, key, request)
    return {key: outcomes[key] for key in questions}


def _from_retry(
    ctx: Context, params: types.InputResponseRequestParams, rounds: Sequence[Questions], sealed: bool
) -> Answers:
    subject = _subject(ctx, params)
    earlier: Answers = {}
    number = 0
    if params.request_state is not None:
        state = _open(subject, params.request_state)
        number, earlier = state["round"], state["answers"]
    given = {
        key: answer.model_dump(by_alias=True, mode="json", exclude_none=True)
        for key, answer in (params.input_responses or {}).items()
    }
    if sealed and params.request_state is None:
        given = {}
    while number < len(rounds):
        questions = rounds[number]
        if not questions.keys() <= given.keys():
            state_now = _seal(subject, {"round": number, "answers": earlier}) if sealed or number else None
            raise Unanswered(types.InputRequiredResult(input_requests=dict(questions), request_state=state_now))
        earlier |= {key: given[key] for key in questions}
        given = {}
        number += 1
    return earlier


def _subject(ctx: Context, params: types.InputResponseRequestParams) -> str:
    """What a state is good for: this method with this name."""
    return f"{ctx.method} {getattr(params, 'name', '')}"


def _seal(subject: str, state: dict[str, Any]) -> str:
    body = json.dumps(state, separators=(",", ":")).encode()
    return f"{_mac(subject, body)}.{body.hex()}"


def _open(subject: str, text: str) -> dict[str, Any]:
    mac, _, encoded = text.partition(".")
    try:
        body = bytes.fromhex(encoded)
    except ValueError:
        body = b""
    if not body or not hmac.compare_digest(mac.encode(), _mac(subject, body).encode()):
        raise MCPError(types.INVALID_PARAMS, "requestState is not one that this server gave for this call")
    state: dict[str, Any] = json.loads(body)
    return state


def _mac(subject: str, body: bytes) -> str:
    return hmac.new(_KEY, subject.encode() + b"\0" + body, hashlib.sha256).hexdigest()
