"""`Context`: what a tool, resource or prompt may do while it serves one request."""

import dataclasses
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import mcp_types
from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp.server.elicitation import (
    AcceptedElicitation,
    AcceptedUrlElicitation,
    CancelledElicitation,
    DeclinedElicitation,
    ElicitationResult,
    UrlElicitationResult,
    render_elicitation_schema,
)
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.session import ServerSession
from mcp.server.validation import (
    check_sampling_tools_capability,
    validate_tool_use_result_messages,
    wants_sampling_tools,
)
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    ElicitResult,
    ListRootsRequest,
    ListRootsResult,
    LoggingLevel,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    Root,
    SamplingMessage,
    TextContent,
)
from pydantic import AnyUrl, BaseModel, ValidationError

from mcpworker.errors import CapabilityError, ResourceError
from mcpworker.logs import get_logger
from mcpworker.rounds import Call
from mcpworker.sessions import wanted_levels

if TYPE_CHECKING:
    from mcpworker.server import FastMCP

__all__ = ["Context", "current_context"]

logger = get_logger("context")

_ModelT = TypeVar("_ModelT", bound=BaseModel)
_AnswerT = TypeVar("_AnswerT", CreateMessageResult, CreateMessageResultWithTools, ElicitResult, ListRootsResult)
_OUTSIDE = "Context is not available outside of a request"

current_context: ContextVar["Context | None"] = ContextVar("mcpworker_context", default=None)
"""The context of the request that is being served in this task."""


class Context:
    """The request that is being served, and its client.

    Declare a parameter of this type in a tool, resource, template or prompt; it is left out of the schema. The same
    methods work for clients of every protocol revision: where requests of a server to its client are not part of the
    revision (2026-07-28), `sample`, `elicit` and `list_roots` end the round with `input_required`, and the function
    goes on where it waited when the client calls again with the answers.

    Outside a request every member but `fastmcp` raises ValueError.
    """

    def __init__(self, fastmcp: "FastMCP[Any]", call: Call | None = None) -> None:
        self._fastmcp = fastmcp
        self._call = call

    def of(self, server: "FastMCP[Any]") -> "Context":
        """The same request, as a mounted server sees it."""
        return self if server is self._fastmcp else Context(server, self._call)

    async def _ready(self) -> None:
        """See that the server's lifespan is open: it may have been mounted after the start."""
        if self._call is not None:
            await self._call.run.ensure(self._fastmcp)

    @property
    def _current(self) -> Call:
        if self._call is None:
            raise ValueError(_OUTSIDE)
        return self._call

    @property
    def fastmcp(self) -> "FastMCP[Any]":
        """The server whose function this is: the mounted one, where it is mounted."""
        return self._fastmcp

    @property
    def request_context(self) -> ServerRequestContext[Any, Any]:
        """The SDK's view of the request; `lifespan_context` is what this server's lifespan yielded."""
        call = self._current
        lifespan = call.run.lifespan_value(self._fastmcp)
        return dataclasses.replace(call.request, lifespan_context=lifespan)

    @property
    def lifespan_context(self) -> Any:
        """What this server's lifespan yielded."""
        return self._current.run.lifespan_value(self._fastmcp)

    @property
    def request_id(self) -> str:
        """The id of the request."""
        return str(self._current.request.request_id)

    @property
    def client_id(self) -> str | None:
        """The client's id, if it sent one in the request's `_meta`."""
        meta = self._current.request.meta
        value = (meta or {}).get("client_id")
        return value if isinstance(value, str) else None

    @property
    def session(self) -> ServerSession:
        """The SDK's session."""
        return self._current.request.session

    @property
    def protocol_version(self) -> str:
        """The protocol revision that the client speaks."""
        return self._current.request.protocol_version

    @property
    def client_capabilities(self) -> ClientCapabilities | None:
        """What the client said that it can do."""
        return self.session.client_capabilities

    @property
    def input_responses(self) -> mcp_types.InputResponses | None:
        """What the client answered to an `InputRequiredResult` that the function returned itself."""
        params = self._current.params
        return None if params is None else params.input_responses

    @property
    def request_state(self) -> str | None:
        """The state of an `InputRequiredResult` that the function returned itself, as it came back."""
        params = self._current.params
        return None if params is None else params.request_state

    @property
    def headers(self) -> Mapping[str, str] | None:
        """HTTP headers of the request, None on stdio. They are the client's word, never proof of who it is."""
        return getattr(self._current.request.request, "headers", None)

    async def report_progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tell a client that asked for it how far the work is."""
        await self.session.report_progress(progress, total, message)

    async def read_resource(self, uri: str | AnyUrl) -> list[ReadResourceContents]:
        """Read one of this server's resources, mounted ones included.

        Raises:
            NotFoundError: there is none under this URI.
            ResourceError: it cannot be read, or asks the client for input.
        """
        result = await self._fastmcp._read(str(uri), self)
        if isinstance(result, mcp_types.InputRequiredResult):
            raise ResourceError(f"resource {uri} asks the client for input; it cannot be read inside another request")
        return [_helper_contents(item) for item in result.contents]

    # Logging ------------------------------------------------------------------------------------------------------

    async def log(
        self,
        level: LoggingLevel,
        message: Any,
        *,
        logger_name: str | None = None,
    ) -> None:
        """Send a log message, if the client wants messages of this level."""
        request = self._current.request
        if level not in wanted_levels(request.session):
            return
        if level not in allowed_log_levels(request.protocol_version, request.meta):
            return
        params = LoggingMessageNotificationParams(level=level, data=message, logger=logger_name)
        await request.session.send_notification(
            LoggingMessageNotification(params=params), related_request_id=request.request_id
        )

    async def debug(self, message: Any, *, logger_name: str | None = None) -> None:
        """Send a log message of level debug."""
        await self.log("debug", message, logger_name=logger_name)

    async def info(self, message: Any, *, logger_name: str | None = None) -> None:
        """Send a log message of level info."""
        await self.log("info", message, logger_name=logger_name)

    async def warning(self, message: Any, *, logger_name: str | None = None) -> None:
        """Send a log message of level warning."""
        await self.log("warning", message, logger_name=logger_name)

    async def error(self, message: Any, *, logger_name: str | None = None) -> None:
        """Send a log message of level error."""
        await self.log("error", message, logger_name=logger_name)

    # Asking the client --------------------------------------------------------------------------------------------

    async def list_roots(self) -> list[Root]:
        """The directories that the client lets servers work in.

        Raises:
            CapabilityError: the client has no roots.
        """
        self._require("roots")
        return (await self._ask(ListRootsRequest(), ListRootsResult)).roots

    async def sample(
        self,
        messages: str | SamplingMessage | list[str | SamplingMessage],
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        **params: Any,
    ) -> Any:
        """Let the client's model answer; the answer's content block.

        Further keywords are those of `CreateMessageRequestParams`. With `tools` or `tool_choice` the whole result
        comes back, because the model may want to use a tool.

        Raises:
            CapabilityError: the client has no sampling, or none with tools.
        """
        self._require("sampling")
        conversation = _sampling_messages(messages)
        validate_tool_use_result_messages(conversation)
        tools, choice = params.get("tools"), params.get("tool_choice")
        if wants_sampling_tools(tools, choice) and not check_sampling_tools_capability(self.client_capabilities):
            raise CapabilityError("the client does not support tools in sampling")
        request = CreateMessageRequest(
            params=CreateMessageRequestParams(
                messages=conversation,
                system_prompt=system_prompt,
                temperature=temperature,
                max_tokens=512 if max_tokens is None else max_tokens,
                **params,
            )
        )
        if wants_sampling_tools(tools, choice):
            return await self._ask(request, CreateMessageResultWithTools)
        return (await self._ask(request, CreateMessageResult)).content

    async def elicit(self, message: str, schema: type[_ModelT]) -> ElicitationResult[_ModelT]:
        """Ask the client's user for the fields of `schema`, a model of plain values.

        Look at the result's `action`: `accept` carries `data`, `decline` and `cancel` do not.

        Raises:
            CapabilityError: the client cannot ask its user.
            TypeError: the schema has a field that the protocol has no form for.
            ValueError: the client accepted with content that does not fit.
        """
        self._require("elicitation")
        params = ElicitRequestFormParams(message=message, requested_schema=render_elicitation_schema(schema))
        answer = await self._ask(ElicitRequest(params=params), ElicitResult)
        if answer.action == "accept":
            return AcceptedElicitation(data=_accepted(answer, schema))
        return DeclinedElicitation() if answer.action == "decline" else CancelledElicitation()

    async def elicit_url(self, message: str, url: str, elicitation_id: str) -> UrlElicitationResult:
        """Ask the client's user to visit a page, for what must not pass through the client.

        Raises:
            CapabilityError: the client cannot send its user to a page.
        """
        self._require("elicitation")
        params = ElicitRequestURLParams(message=message, url=url, elicitation_id=elicitation_id)
        answer = await self._ask(ElicitRequest(params=params), ElicitResult)
        if answer.action == "accept":
            return AcceptedUrlElicitation()
        return DeclinedElicitation() if answer.action == "decline" else CancelledElicitation()

    def _require(self, capability: str) -> None:
        if getattr(self.client_capabilities, capability, None) is None:
            raise CapabilityError(f"the client does not support {capability}")

    async def _ask(self, request: mcp_types.InputRequest, result_type: type[_AnswerT]) -> _AnswerT:
        call = self._current
        if call.conversation is not None:
            answer = await call.conversation.ask(request)
            if isinstance(answer, result_type):
                return answer
            # The answers' kinds are told apart by their fields only, and some fit more than one kind.
            return result_type.model_validate(answer.model_dump(by_alias=True, exclude_unset=True), by_name=False)
        metadata = ServerMessageMetadata(related_request_id=call.request.request_id)
        try:
            return await call.request.session.send_request(request, result_type, metadata=metadata)
        except NoBackChannelError as error:
            raise CapabilityError("this transport has no way to ask the client anything") from error

    # Telling clients of changes -----------------------------------------------------------------------------------

    async def notify_resource_updated(self, uri: str | AnyUrl) -> None:
        """Tell the clients that subscribed to a resource that it changed."""
        self._fastmcp.notify_resource_updated(str(uri))


def _accepted(answer: ElicitResult, schema: type[_ModelT]) -> _ModelT:
    if answer.content is None:
        raise ValueError("the client accepted the question but sent no answer")
    try:
        return schema.model_validate(answer.content)
    except ValidationError as error:
        raise ValueError(f"the client's answer does not fit the question: {error}") from error


def _sampling_messages(messages: str | SamplingMessage | list[str | SamplingMessage]) -> list[SamplingMessage]:
    items = messages if isinstance(messages, list) else [messages]
    return [
        SamplingMessage(role="user", content=TextContent(type="text", text=item)) if isinstance(item, str) else item
        for item in items
    ]


def _helper_contents(
    item: mcp_types.TextResourceContents | mcp_types.BlobResourceContents,
) -> ReadResourceContents:
    import base64

    if isinstance(item, mcp_types.TextResourceContents):
        return ReadResourceContents(content=item.text, mime_type=item.mime_type)
    return ReadResourceContents(content=base64.b64decode(item.blob), mime_type=item.mime_type)
