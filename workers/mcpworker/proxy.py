"""A server whose components live in another server: local, behind a command, or behind HTTP."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import mcp_types as types
from mcp import MCPError
from mcp.client.session import ClientSession
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged
from pydantic import TypeAdapter

from mcpworker.backend import Backend, progress_of, request_meta
from mcpworker.catalogue import Catalogue, Readable
from mcpworker.client import Client
from mcpworker.client.input_rounds import complete
from mcpworker.client.pages import all_pages
from mcpworker.completion import Reference
from mcpworker.components.prompts import Prompt
from mcpworker.components.resources import Resource
from mcpworker.components.template import ResourceTemplate
from mcpworker.components.tools import Tool
from mcpworker.context import Context, current_context
from mcpworker.errors import NotFoundError
from mcpworker.proxied import ProxyPrompt, ProxyResource, ProxyTemplate, ProxyTool
from mcpworker.results import error_result
from mcpworker.server import FastMCP

__all__ = ["FastMCPProxy", "ProxyPrompt", "ProxyResource", "ProxyTemplate", "ProxyTool"]

T = TypeVar("T")

_CALL_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)


class FastMCPProxy(FastMCP[Any]):
    """A server that offers what the server behind `client` offers, live, and what is added to it besides.

    What was added wins over what the backend has under the same name. The connection is made by the first request
    that needs it and kept while the proxy is served; see `Backend`. Progress, cancellation, log messages, sampling,
    elicitation, completions and word of changes are passed on.

    Args:
        client: a `Client`, or anything that one can be made of.
        **settings: keywords of `FastMCP`.
    """

    def __init__(self, client: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.client = client if isinstance(client, Client) else Client(client)
        self._backend = Backend(self.client, self._backend_changed)
        self._lists: dict[str, tuple[float, dict[str, Any]]] = {}

    @contextlib.asynccontextmanager
    async def _open_lifespan(self) -> AsyncIterator[Any]:
        async with self._backend.held(), super()._open_lifespan() as value:
            yield value

    # Lists --------------------------------------------------------------------------------------------------------

    async def get_tools(self) -> dict[str, Tool]:
        """All tools: the backend's, and what was added to the proxy."""

        async def ask(session: ClientSession) -> dict[str, Tool]:
            found = await all_pages(lambda params: session.list_tools(params=params), lambda page: page.tools)
            return {tool.name: ProxyTool(self, tool) for tool in found}

        return {**await self._listed("tools", ask), **await super().get_tools()}

    async def get_resources(self) -> dict[str, Resource]:
        """All resources: the backend's, and what was added to the proxy."""

        async def ask(session: ClientSession) -> dict[str, Resource]:
            found = await all_pages(lambda params: session.list_resources(params=params), lambda page: page.resources)
            return {str(resource.uri): ProxyResource(self, resource) for resource in found}

        return {**await self._listed("resources", ask), **await super().get_resources()}

    async def get_resource_templates(self) -> dict[str, ResourceTemplate]:
        """All templates: the backend's, and what was added to the proxy."""

        async def ask(session: ClientSession) -> dict[str, ResourceTemplate]:
            found = await all_pages(
                lambda params: session.list_resource_templates(params=params), lambda page: page.resource_templates
            )
            return {template.uri_template: ProxyTemplate(self, template) for template in found}

        return {**await self._listed("templates", ask), **await super().get_resource_templates()}

    async def get_prompts(self) -> dict[str, Prompt]:
        """All prompts: the backend's, and what was added to the proxy."""

        async def ask(session: ClientSession) -> dict[str, Prompt]:
            found = await all_pages(lambda params: session.list_prompts(params=params), lambda page: page.prompts)
            return {prompt.name: ProxyPrompt(self, prompt) for prompt in found}

        return {**await self._listed("prompts", ask), **await super().get_prompts()}

    async def _listed(self, kind: str, ask: Callable[[ClientSession], Awaitable[dict[str, T]]]) -> dict[str, T]:
        """Ask the backend for a list, or take the last answer for as long as the settings say; none is no error."""
        kept = self._lists.get(kind)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        try:
            found = await self._backend.request(ask, _current(self))
        except MCPError as error:
            if error.code != types.METHOD_NOT_FOUND:
                raise
            found = {}
        if (seconds := self.settings.cache_expiration_seconds) > 0:
            self._lists[kind] = (time.monotonic() + seconds, found)
        return found

    # Look-ups: what is not known here is the backend's, listed or not ---------------------------------------------

    async def _find_tool(self, name: str) -> tuple[Catalogue, Tool] | None:
        found = await super()._find_tool(name)
        return found or (self, ProxyTool(self, types.Tool(name=name, input_schema={"type": "object"})))

    async def _find_resource(self, uri: str) -> tuple[Catalogue, Readable] | None:
        found = await super()._find_resource(uri)
        return found or (self, ProxyResource(self, types.Resource(name=uri, uri=uri)))

    async def _find_prompt(self, name: str) -> tuple[Catalogue, Prompt] | None:
        found = await super()._find_prompt(name)
        return found or (self, ProxyPrompt(self, types.Prompt(name=name)))

    async def _complete(
        self,
        reference: Reference,
        argument: types.CompletionArgument,
        known: types.CompletionContext | None,
        context: Context,
    ) -> types.Completion:
        try:
            return await super()._complete(reference, argument, known, context)
        except NotFoundError:
            pass  # then the backend knows, or nobody
        params = types.CompleteRequestParams(ref=reference, argument=argument, context=known)

        async def ask(session: ClientSession) -> types.CompleteResult:
            return await session.send_request(types.CompleteRequest(params=params), types.CompleteResult)

        try:
            return (await self._backend.request(ask, context.of(self))).completion
        except MCPError as error:
            if error.code != types.METHOD_NOT_FOUND:
                raise
            return types.Completion(values=[])

    def _can_complete(self) -> bool:
        return True  # nobody knows before the backend is connected

    # Requests -----------------------------------------------------------------------------------------------------

    async def _forward(
        self,
        send: Callable[
            [ClientSession, types.RequestParamsMeta | None, types.InputResponses | None, str | None],
            Awaitable[T | types.InputRequiredResult],
        ],
        context: Context | None,
    ) -> T:
        """Send a call to the backend for the client behind `context`."""
        inner = _current(self) if context is None else context.of(self)
        if inner is not None:
            await inner._ready()  # where the component was imported, nobody entered this server's lifespan yet

        async def call(session: ClientSession) -> T:
            meta = request_meta(inner, session)
            return await complete(session, lambda responses, state: send(session, meta, responses, state))

        return await self._backend.request(call, inner, call=True)

    async def _forward_tool(
        self, name: str, arguments: dict[str, Any], context: Context | None
    ) -> types.CallToolResult:
        inner = _current(self) if context is None else context
        progress = progress_of(inner)

        async def send(
            session: ClientSession,
            meta: types.RequestParamsMeta | None,
            responses: types.InputResponses | None,
            state: str | None,
        ) -> types.CallToolResult | types.InputRequiredResult:
            params = types.CallToolRequestParams(
                name=name, arguments=arguments, input_responses=responses, request_state=state, _meta=meta
            )
            return await _call_tool(session, params, progress)

        try:
            return await self._forward(send, inner)
        except MCPError as error:
            if error.code != types.INTERNAL_ERROR:
                raise
            return error_result(error.message)  # a model can do something about it, a protocol error ends its turn

    async def _forward_read(self, uri: str, context: Context | None) -> types.ReadResourceResult:
        async def send(
            session: ClientSession,
            meta: types.RequestParamsMeta | None,
            responses: types.InputResponses | None,
            state: str | None,
        ) -> types.ReadResourceResult | types.InputRequiredResult:
            return await session.read_resource(
                uri, input_responses=responses, request_state=state, meta=meta, allow_input_required=True
            )

        return await self._forward(send, context)

    async def _forward_prompt(
        self, name: str, arguments: Mapping[str, Any] | None, context: Context | None
    ) -> types.GetPromptResult:
        async def send(
            session: ClientSession,
            meta: types.RequestParamsMeta | None,
            responses: types.InputResponses | None,
            state: str | None,
        ) -> types.GetPromptResult | types.InputRequiredResult:
            given = None if arguments is None else {key: str(value) for key, value in arguments.items()}
            return await session.get_prompt(
                name, given, input_responses=responses, request_state=state, meta=meta, allow_input_required=True
            )

        return await self._forward(send, context)

    # Changes ------------------------------------------------------------------------------------------------------

    async def _followed(self, uri: str) -> None:
        await super()._followed(uri)
        if uri not in self._resources and not any(self._mounts.for_resource(uri)):
            await self._backend.follow(uri)

    def _backend_changed(self, notification: types.ServerNotification) -> None:
        match notification:
            case types.ToolListChangedNotification():
                self._lists.pop("tools", None)
                self._emit(ToolsListChanged())
            case types.PromptListChangedNotification():
                self._lists.pop("prompts", None)
                self._emit(PromptsListChanged())
            case types.ResourceListChangedNotification():
                self._lists.pop("resources", None)
                self._lists.pop("templates", None)
                self._emit(ResourcesListChanged())
            case types.ResourceUpdatedNotification(params=params):
                self._emit(ResourceUpdated(str(params.uri)))


def _current(server: FastMCP[Any]) -> Context | None:
    context = current_context.get()
    return None if context is None else context.of(server)


async def _call_tool(
    session: ClientSession, params: types.CallToolRequestParams, progress: ProgressFnT | None
) -> types.CallToolResult | types.InputRequiredResult:
    """Call without the session's own check of the result against the tool's schema: that is the client's to do."""
    request = types.CallToolRequest(params=params)
    try:
        return await session.send_request(request, _CALL_RESULT, progress_callback=progress)
    except MCPError as error:
        if error.code != types.HEADER_MISMATCH:
            raise
    # 2026-07-28 Streamable HTTP: arguments that the schema mirrors into headers are known only from the listing.
    await all_pages(lambda page: session.list_tools(params=page), lambda page: page.tools)
    return await session.send_request(request, _CALL_RESULT, progress_callback=progress)
