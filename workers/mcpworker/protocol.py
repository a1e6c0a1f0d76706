"""The SDK's low-level server on one side, a `FastMCP` server on the other: requests in, results out."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    Icon,
    InputRequiredResult,
    InputResponseRequestParams,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    NotificationParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ServerCapabilities,
    SetLevelRequestParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)
from pydantic import ValidationError

from mcpworker import sessions
from mcpworker.components.base import error_text
from mcpworker.context import Context, current_context
from mcpworker.errors import FastMCPError, NotFoundError, Overloaded
from mcpworker.logs import get_logger
from mcpworker.results import error_result
from mcpworker.rounds import Call, converse
from mcpworker.runs import Run, open_run

if TYPE_CHECKING:
    from mcpworker.server import FastMCP

__all__ = ["LowLevelServer"]

logger = get_logger("protocol")

_Request = ServerRequestContext[Run, Any]


class LowLevelServer(Server[Run]):
    """Serves one `FastMCP` server: every list is asked of it anew, every call is handed to it."""

    def __init__(
        self,
        fastmcp: "FastMCP[Any]",
        name: str,
        *,
        version: str,
        title: str | None,
        instructions: str | None,
        website_url: str | None,
        icons: list[Icon] | None,
    ) -> None:
        self._fastmcp = fastmcp
        super().__init__(
            name,
            version=version,
            title=title,
            instructions=instructions,
            website_url=website_url,
            icons=icons,
            lifespan=self._run,
            get_tool_input_schema=self._input_schema,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_subscriptions_listen=self._listen,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
        )
        # By these methods and not by keywords: the keywords warn that 2026-07-28 has them no more.
        self.add_request_handler("logging/setLevel", SetLevelRequestParams, self._set_level)
        self.add_notification_handler("notifications/initialized", NotificationParams, self._initialized)
        # A state names a parked call, and a client must not be able to name another client's.
        self.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=name))

    @asynccontextmanager
    async def _run(self, _: Server[Run]) -> AsyncIterator[Run]:
        async with open_run(self._fastmcp) as run:
            yield run

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As the SDK's, but list changes are always told."""
        options = notification_options or NotificationOptions(True, True, True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)

    def get_capabilities(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
        *,
        protocol_version: str | None = None,
    ) -> ServerCapabilities:
        """As the SDK's, but completions are claimed only where something can be completed."""
        capabilities = super().get_capabilities(
            notification_options, experimental_capabilities, extensions, protocol_version=protocol_version
        )
        if not self._fastmcp._can_complete():
            capabilities.completions = None
        return capabilities

    # Lists --------------------------------------------------------------------------------------------------------

    def _input_schema(self, name: str) -> dict[str, Any] | None:
        tool = self._fastmcp._tools.get(name)
        return None if tool is None else tool.parameters

    async def _list_tools(self, request: _Request, params: PaginatedRequestParams | None) -> ListToolsResult:
        with self._in(request):
            tools = await self._fastmcp.get_tools()
        return ListToolsResult(tools=[tool.to_mcp_tool(key) for key, tool in tools.items()])

    async def _list_resources(self, request: _Request, params: PaginatedRequestParams | None) -> ListResourcesResult:
        with self._in(request):
            resources = await self._fastmcp.get_resources()
        return ListResourcesResult(resources=[item.to_mcp_resource(key) for key, item in resources.items()])

    async def _list_templates(
        self, request: _Request, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        with self._in(request):
            templates = await self._fastmcp.get_resource_templates()
        return ListResourceTemplatesResult(
            resource_templates=[item.to_mcp_template(key) for key, item in templates.items()]
        )

    async def _list_prompts(self, request: _Request, params: PaginatedRequestParams | None) -> ListPromptsResult:
        with self._in(request):
            prompts = await self._fastmcp.get_prompts()
        return ListPromptsResult(prompts=[item.to_mcp_prompt(key) for key, item in prompts.items()])

    # Calls --------------------------------------------------------------------------------------------------------

    async def _call_tool(
        self, request: _Request, params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult:
        async def run(context: Context) -> CallToolResult | InputRequiredResult:
            try:
                return await self._fastmcp._call(params.name, params.arguments or {}, context)
            except NotFoundError as error:
                return error_result(str(error))
            except (FastMCPError, Overloaded) as error:
                return error_result(f"Error executing tool {params.name}: {error_text(error)}")

        result: CallToolResult | InputRequiredResult = await self._serve(request, params, run)
        return result

    async def _read_resource(
        self, request: _Request, params: ReadResourceRequestParams
    ) -> ReadResourceResult | InputRequiredResult:
        uri = str(params.uri)

        async def run(context: Context) -> ReadResourceResult | InputRequiredResult:
            try:
                return await self._fastmcp._read(uri, context)
            except MCPError:
                raise
            except NotFoundError as error:
                raise MCPError(INVALID_PARAMS, str(error), {"uri": uri}) from error
            except Exception as error:
                _log_failure(error, f"resource {uri!r}")
                raise MCPError(INTERNAL_ERROR, f"Error reading resource {uri}: {error_text(error)}") from error

        result: ReadResourceResult | InputRequiredResult = await self._serve(request, params, run)
        return result

    async def _get_prompt(
        self, request: _Request, params: GetPromptRequestParams
    ) -> GetPromptResult | InputRequiredResult:
        async def run(context: Context) -> GetPromptResult | InputRequiredResult:
            try:
                return await self._fastmcp._render(params.name, params.arguments, context)
            except MCPError:
                raise
            except NotFoundError as error:
                raise MCPError(INVALID_PARAMS, str(error)) from error
            except (FastMCPError, ValidationError) as error:
                raise MCPError(INVALID_PARAMS, f"Error rendering prompt {params.name}: {error_text(error)}") from error
            except Exception as error:
                _log_failure(error, f"prompt {params.name!r}")
                raise MCPError(INTERNAL_ERROR, f"Error rendering prompt {params.name}: {error_text(error)}") from error

        result: GetPromptResult | InputRequiredResult = await self._serve(request, params, run)
        return result

    async def _serve(
        self, request: _Request, params: InputResponseRequestParams, function: Callable[[Context], Awaitable[Any]]
    ) -> Any:
        call = Call(request.lifespan_context, request, params)
        context = Context(self._fastmcp, call)

        async def run() -> Any:
            token = current_context.set(context)
            try:
                return await function(context)
            finally:
                current_context.reset(token)

        return await converse(call, run)

    def _in(self, request: _Request) -> "_Current":
        return _Current(Context(self._fastmcp, Call(request.lifespan_context, request)))

    async def _complete(self, request: _Request, params: CompleteRequestParams) -> CompleteResult:
        context = Context(self._fastmcp, Call(request.lifespan_context, request))
        try:
            with _Current(context):
                return CompleteResult(
                    completion=await self._fastmcp._complete(params.ref, params.argument, params.context, context)
                )
        except MCPError:
            raise
        except NotFoundError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error
        except Exception as error:
            _log_failure(error, f"completion of {params.argument.name!r}")
            raise MCPError(
                INTERNAL_ERROR, f"Error completing argument {params.argument.name}: {error_text(error)}"
            ) from error

    # Clients ------------------------------------------------------------------------------------------------------

    async def _initialized(self, request: _Request, params: NotificationParams) -> None:
        request.lifespan_context.add_session(request.session)

    async def _set_level(self, request: _Request, params: SetLevelRequestParams) -> EmptyResult:
        sessions.set_level(request.session, params.level)
        return EmptyResult()

    async def _subscribe(self, request: _Request, params: SubscribeRequestParams) -> EmptyResult:
        try:
            sessions.follow(request.session, str(params.uri))
        except Overloaded as error:
            raise MCPError(INTERNAL_ERROR, str(error)) from error
        await self._fastmcp._followed(str(params.uri))
        return EmptyResult()

    async def _listen(self, request: _Request, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        for uri in params.notifications.resource_subscriptions or ():
            await self._fastmcp._followed(str(uri))
        return await request.lifespan_context.listeners(request, params)

    async def _unsubscribe(self, request: _Request, params: UnsubscribeRequestParams) -> EmptyResult:
        sessions.unfollow(request.session, str(params.uri))
        return EmptyResult()


class _Current:
    """Makes a context the current one for a block."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = current_context.set(self._context)

    def __exit__(self, *_: object) -> None:
        current_context.reset(self._token)


def _log_failure(error: Exception, what: str) -> None:
    """Failures that somebody foresaw get a line, others their traceback."""
    if isinstance(error, FastMCPError | Overloaded | ValidationError):
        logger.info("%s failed: %r", what, str(error))
    else:
        logger.exception("%s raised an exception", what, exc_info=error)
