"""`Client`: the requests of MCP as methods that return plain lists."""

import datetime
import itertools
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

import mcp_types as types
from mcp.client.session import ClientSession
from mcp.shared.dispatcher import ProgressFnT
from mcp_types.version import LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic import AnyUrl

from mcpworker.client import input_rounds
from mcpworker.client.connection import Connection
from mcpworker.client.elicitation import ElicitationHandler, create_elicitation_callback
from mcpworker.client.logging import LogHandler, MessageHandler, create_log_callback
from mcpworker.client.pages import all_pages
from mcpworker.client.roots import RootsHandler, RootsList, create_roots_callback
from mcpworker.client.sampling import SamplingHandler, create_sampling_callback
from mcpworker.client.session import Era, SessionKwargs
from mcpworker.client.transports import StreamTransport, infer_transport
from mcpworker.errors import ClientError

ToolContent: TypeAlias = types.ContentBlock
ResourceContents: TypeAlias = types.TextResourceContents | types.BlobResourceContents
ProgressHandler: TypeAlias = ProgressFnT

_numbers = itertools.count(1)


class Client:
    """A client of one MCP server, connected inside `async with`.

    The block may be entered again while it is open, by any task: all share one session, and the last to leave
    closes it.

    Args:
        transport: what to connect to; see `infer_transport`.
        roots: what the server may work in: a list, or a function that gives one.
        sampling_handler: answers the server's requests for a completion; see `client.sampling`.
        log_handler: gets the server's log messages; without it they go to the logger `FastMCP.client`.
        message_handler: gets each notification of the server, and each fault of the transport.
        read_timeout_seconds: how long a request waits for its answer; without it, as long as it takes.
        elicitation_handler: answers the server's questions to the user; see `client.elicitation`.
        progress_handler: gets the progress of tool calls that name no handler of their own.
        era: how to greet the server; see `client.session.Era`.
        log_level: the least severe messages that a per-request server is asked for. Default: all, if there is a
            `log_handler`, else none.
        client_info: name and version that the server is told.
    """

    def __init__(
        self,
        transport: Any,
        roots: RootsList | RootsHandler | None = None,
        sampling_handler: SamplingHandler | None = None,
        log_handler: LogHandler | None = None,
        message_handler: MessageHandler | None = None,
        read_timeout_seconds: float | datetime.timedelta | None = None,
        *,
        elicitation_handler: ElicitationHandler | None = None,
        progress_handler: ProgressHandler | None = None,
        era: Era | None = None,
        log_level: types.LoggingLevel | None = None,
        client_info: types.Implementation | None = None,
    ) -> None:
        self.transport = infer_transport(transport)
        if era is not None:
            if not isinstance(self.transport, StreamTransport):
                raise ValueError(f"era={era!r}: {self.transport!r} greets servers in its own way")
            self.transport.era = era
        if isinstance(read_timeout_seconds, datetime.timedelta):
            read_timeout_seconds = read_timeout_seconds.total_seconds()
        self.log_handler = log_handler
        self.session_kwargs: SessionKwargs = {
            "read_timeout_seconds": read_timeout_seconds,
            "logging_callback": create_log_callback(log_handler),
            "log_level": log_level or ("debug" if log_handler is not None else None),
            "message_handler": message_handler,
            "client_info": client_info,
        }
        if roots is not None:
            self.set_roots(roots)
        if sampling_handler is not None:
            self.set_sampling_callback(sampling_handler)
        if elicitation_handler is not None:
            self.set_elicitation_callback(elicitation_handler)
        self._progress_handler = progress_handler
        self._log_level_override: types.LoggingLevel | None = None
        self._connection: Connection | None = None
        self._session: ClientSession | None = None
        self._users = 0

    def __repr__(self) -> str:
        return f"<Client(transport={self.transport!r})>"

    def set_roots(self, roots: RootsList | RootsHandler) -> None:
        """Set the roots, before the connection is made."""
        self.session_kwargs["list_roots_callback"] = create_roots_callback(roots)

    def set_sampling_callback(self, sampling_callback: SamplingHandler) -> None:
        """Set the sampling handler, before the connection is made."""
        self.session_kwargs["sampling_callback"] = create_sampling_callback(sampling_callback)

    def set_elicitation_callback(self, elicitation_callback: ElicitationHandler) -> None:
        """Set the elicitation handler, before the connection is made."""
        self.session_kwargs["elicitation_callback"] = create_elicitation_callback(elicitation_callback)

    # --- the connection ----------------------------------------------------------------------------------------

    def connect_session(self, **overrides: Any) -> AbstractAsyncContextManager[ClientSession]:
        """Open a session of its own to the client's server, with the client's handlers, or those given here."""
        kwargs = cast("SessionKwargs", {**self.session_kwargs, **overrides})
        return self.transport.connect_session(**kwargs)

    @property
    def session(self) -> ClientSession:
        """The session, inside `async with`.

        Raises:
            RuntimeError: outside.
        """
        if self._session is None:
            raise RuntimeError("Client is not connected. Use 'async with client:' context manager first.")
        return self._session

    def is_connected(self) -> bool:
        """Whether the session is open, and the server has not gone."""
        return self._session is not None and self._connection is not None and self._connection.alive

    async def __aenter__(self) -> Self:
        self._users += 1
        try:
            if self._connection is None:
                self._connection = Connection(self.connect_session, name=f"mcp-client-{next(_numbers)}")
            self._session = await self._connection.open()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        self._users -= 1
        if self._users:
            return
        connection, self._connection = self._connection, None
        self._session = None
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """Close the session now, for all who have entered; their next request fails."""
        if self._connection is not None:
            await self._connection.close()

    # --- requests ----------------------------------------------------------------------------------------------

    @property
    def initialize_result(self) -> types.InitializeResult | types.DiscoverResult:
        """What the server said of itself in answer to the greeting, inside `async with`."""
        result = self.session.initialize_result or self.session.discover_result
        assert result is not None  # a session is handed out greeted
        return result

    async def ping(self) -> None:
        """Ask for a sign of life (`server/discover` where revision 2026-07-28 has no ping)."""
        if self._per_request:
            await self.session.send_discover(self.session.protocol_version or LATEST_MODERN_VERSION)
        else:
            await self.session.send_ping()

    async def progress(self, progress_token: str | int, progress: float, total: float | None = None) -> None:
        """Tell the server of progress; in revision 2026-07-28 clients have none to tell, and nothing is sent."""
        if not self._per_request:
            params = types.ProgressNotificationParams(progress_token=progress_token, progress=progress, total=total)
            await self.session.send_notification(types.ProgressNotification(params=params))

    async def set_logging_level(self, level: types.LoggingLevel) -> None:
        """Set the least severe log messages that the server shall send."""
        if self._per_request:
            _ = self.session
            self._log_level_override = level
        else:
            params = types.SetLevelRequestParams(level=level)
            await self.session.send_request(types.SetLevelRequest(params=params), types.EmptyResult)

    async def send_roots_list_changed(self) -> None:
        """Tell the server that the roots changed; a per-request server asks anew each time, and is told nothing."""
        if not self._per_request:
            await self.session.send_notification(types.RootsListChangedNotification())

    async def list_tools(self) -> list[types.Tool]:
        """Return the server's tools, of all pages."""
        return await all_pages(lambda params: self.session.list_tools(params=params), lambda page: page.tools)

    async def list_resources(self) -> list[types.Resource]:
        """Return the server's resources, of all pages."""
        return await all_pages(lambda params: self.session.list_resources(params=params), lambda page: page.resources)

    async def list_resource_templates(self) -> list[types.ResourceTemplate]:
        """Return the server's resource templates, of all pages."""
        return await all_pages(
            lambda params: self.session.list_resource_templates(params=params), lambda page: page.resource_templates
        )

    async def list_prompts(self) -> list[types.Prompt]:
        """Return the server's prompts, of all pages."""
        return await all_pages(lambda params: self.session.list_prompts(params=params), lambda page: page.prompts)

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        progress_handler: ProgressHandler | None = None,
    ) -> list[ToolContent]:
        """Call a tool and return its content.

        Raises:
            ClientError: the tool failed; the text is the tool's.
            MCPError: the request failed.
        """
        result = await self.call_tool_mcp(name, arguments, timeout=timeout, progress_handler=progress_handler)
        if result.is_error:
            texts = [block.text for block in result.content if isinstance(block, types.TextContent)]
            raise ClientError("\n".join(texts) or f"Tool {name} failed without saying why")
        return result.content

    async def call_tool_mcp(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        progress_handler: ProgressHandler | None = None,
    ) -> types.CallToolResult:
        """Call a tool and return the whole result, errors too.

        Raises:
            MCPError: the request failed.
        """
        session = self.session

        async def send(
            responses: types.InputResponses | None, state: str | None
        ) -> types.CallToolResult | types.InputRequiredResult:
            return await session.call_tool(
                name,
                dict(arguments or {}),
                read_timeout_seconds=timeout,
                progress_callback=progress_handler or self._progress_handler,
                input_responses=responses,
                request_state=state,
                meta=self._meta(),
                allow_input_required=True,
            )

        return await input_rounds.complete(session, send)

    async def read_resource(self, uri: str | AnyUrl) -> list[ResourceContents]:
        """Read a resource and return its contents.

        Raises:
            MCPError: the request failed.
        """
        session = self.session

        async def send(
            responses: types.InputResponses | None, state: str | None
        ) -> types.ReadResourceResult | types.InputRequiredResult:
            return await session.read_resource(
                str(uri), input_responses=responses, request_state=state, meta=self._meta(), allow_input_required=True
            )

        return list((await input_rounds.complete(session, send)).contents)

    async def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> list[types.PromptMessage]:
        """Render a prompt and return its messages.

        Raises:
            MCPError: the request failed.
        """
        return (await self.get_prompt_mcp(name, arguments)).messages

    async def get_prompt_mcp(self, name: str, arguments: Mapping[str, str] | None = None) -> types.GetPromptResult:
        """Render a prompt and return the whole result.

        Raises:
            MCPError: the request failed.
        """
        session = self.session

        async def send(
            responses: types.InputResponses | None, state: str | None
        ) -> types.GetPromptResult | types.InputRequiredResult:
            return await session.get_prompt(
                name,
                dict(arguments or {}),
                input_responses=responses,
                request_state=state,
                meta=self._meta(),
                allow_input_required=True,
            )

        return await input_rounds.complete(session, send)

    async def complete(
        self,
        ref: types.ResourceTemplateReference | types.PromptReference,
        argument: dict[str, str],
        context_arguments: dict[str, str] | None = None,
    ) -> types.Completion:
        """Return what an argument of a prompt or a template may be completed to.

        Raises:
            MCPError: the request failed.
        """
        return (await self.session.complete(ref, argument, context_arguments)).completion

    @property
    def _per_request(self) -> bool:
        return self.session.protocol_version in MODERN_PROTOCOL_VERSIONS

    def _meta(self) -> types.RequestParamsMeta | None:
        if self._log_level_override is None:
            return None
        return cast("types.RequestParamsMeta", {types.LOG_LEVEL_META_KEY: self._log_level_override})
