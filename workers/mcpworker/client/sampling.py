"""What a client answers when a server asks for a completion of its model."""

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import mcp_types as types
from mcp.client.session import ClientRequestContext, SamplingFnT
from mcp_types import CreateMessageRequestParams as SamplingParams
from mcp_types import CreateMessageResult, CreateMessageResultWithTools, SamplingMessage

RequestContext: TypeAlias = ClientRequestContext
SamplingAnswer: TypeAlias = str | CreateMessageResult | CreateMessageResultWithTools
SamplingHandler: TypeAlias = Callable[
    [list[SamplingMessage], SamplingParams, RequestContext], SamplingAnswer | Awaitable[SamplingAnswer]
]

DEFAULT_MODEL_NAME = "fastmcp-client"
"""The model named in an answer for which the handler gave text only; the protocol demands a name."""

__all__ = [
    "CreateMessageResult",
    "RequestContext",
    "SamplingHandler",
    "SamplingMessage",
    "SamplingParams",
    "create_sampling_callback",
]


def create_sampling_callback(handler: SamplingHandler) -> SamplingFnT:
    """Return the SDK's callback that asks `handler(messages, params, context)`.

    The handler, async or not, gives text or a whole result. Its exception becomes the error that the server gets.
    """

    async def answer(
        context: ClientRequestContext, params: SamplingParams
    ) -> CreateMessageResult | CreateMessageResultWithTools | types.ErrorData:
        try:
            given = handler(params.messages, params, context)
            if inspect.isawaitable(given):
                given = await given
        except Exception as error:  # noqa: BLE001 - user code; its text is the peer's answer
            return types.ErrorData(code=types.INTERNAL_ERROR, message=str(error))
        if isinstance(given, str):
            return CreateMessageResult(
                role="assistant", model=DEFAULT_MODEL_NAME, content=types.TextContent(type="text", text=given)
            )
        return given

    return answer
