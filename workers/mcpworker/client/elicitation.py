"""What a client answers when a server asks its user for input."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import mcp_types as types
from mcp.client.session import ClientRequestContext, ElicitationFnT
from mcp_types import ElicitRequestParams, ElicitResult

RequestContext: TypeAlias = ClientRequestContext
ElicitationAnswer: TypeAlias = ElicitResult | Mapping[str, Any] | None
ElicitationHandler: TypeAlias = Callable[
    [str, ElicitRequestParams, RequestContext], ElicitationAnswer | Awaitable[ElicitationAnswer]
]

__all__ = ["ElicitRequestParams", "ElicitResult", "ElicitationHandler", "RequestContext", "create_elicitation_callback"]


def create_elicitation_callback(handler: ElicitationHandler) -> ElicitationFnT:
    """Return the SDK's callback that asks `handler(message, params, context)`.

    The handler, async or not, gives the form's values (accepted), None (declined) or a whole `ElicitResult`.
    Its exception becomes the error that the server gets.
    """

    async def answer(
        context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        try:
            given = handler(params.message, params, context)
            if inspect.isawaitable(given):
                given = await given
        except Exception as error:  # noqa: BLE001 - user code; its text is the peer's answer
            return types.ErrorData(code=types.INTERNAL_ERROR, message=str(error))
        if given is None:
            return ElicitResult(action="decline")
        if isinstance(given, ElicitResult):
            return given
        return ElicitResult(action="accept", content=dict(given))

    return answer
