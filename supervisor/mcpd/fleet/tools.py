"""Servers' tools as operators see them, and call them by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
from msgspec import Raw

from mcpd.config.registry import Registry, ServerSpec
from mcpd.control.view import ToolStatus
from mcpd.errors import CallTimeout, ClientFault, ServerFault
from mcpd.fleet.relay import Relay
from mcpd.lifecycle.states import State
from mcpd.routing.correlation import allowed, shown_name
from mcpd.routing.names import public_name
from mcpd.wire import eras, jsonrpc, methods
from mcpd.wire.address import View
from mcpd.wire.jsonrpc import Message, WireError


def tools(registry: Registry, relay: Relay, server: str) -> list[ToolStatus]:
    """The tools of one server that clients may use."""
    rules = registry.servers[server].tools
    return [
        ToolStatus(
            server=server,
            name=tool.name,
            public_name=public_name(server, shown_name(rules, tool.name), registry.frontdoor.separator),
            description=tool.description,
            input_schema=tool.schema,
        )
        for tool in _tools_of(relay, server)
        if allowed(rules, tool.name)
    ]


async def call(
    relay: Relay, spec: ServerSpec, tool: str, arguments: bytes, timeout: float, caller: str = "operator"
) -> bytes:
    """Call a tool; see `FleetView.call`."""
    try:
        given = jsonrpc.pack(jsonrpc.members(arguments))
    except WireError as problem:
        raise ClientFault(f"the arguments are no JSON object: {problem}") from None
    if not allowed(spec.tools, tool):
        raise ClientFault(f"servers.{spec.name}.tools does not allow {tool!r}")
    known = [one.name for one in _tools_of(relay, spec.name)]
    if known and tool not in known:
        raise ClientFault(f"server {spec.name!r} has no tool {tool!r}; it has {', '.join(known)}")
    name = jsonrpc.dump(shown_name(spec.tools, tool))
    params = b'{"name":%b,"arguments":%b}' % (name, given)
    return await _ask(relay, spec.name, methods.TOOLS_CALL, params, timeout, caller)


def remedy(server: str, heading: State | None, fault: ServerFault) -> str:
    """What an operator can do about a call that failed, at a server that is in this state or on its way there."""
    if isinstance(fault, CallTimeout):
        return f"give more time with --timeout, or see `mcpctl logs {server}`"
    if heading is State.DISABLED:
        return f"`mcpctl enable {server}` lets it run"
    if heading is State.STOPPED:
        return f"`mcpctl start {server}` starts it"
    return f"see `mcpctl status {server}` and `mcpctl logs {server}`"


class _Tool(msgspec.Struct, frozen=True):
    name: str
    description: str
    schema: Raw


def _tools_of(relay: Relay, server: str) -> Iterator[_Tool]:
    for entry in relay.tools(server):
        try:
            found = jsonrpc.members(entry)
            name = jsonrpc.text(found["name"])
            description = jsonrpc.value_of(found.get("description", Raw(b'""')))
        except (WireError, KeyError):
            continue  # it is in no catalogue either, and that was told
        yield _Tool(
            name, description if isinstance(description, str) else "", Raw(bytes(found.get("inputSchema", b"{}")))
        )


async def _ask(relay: Relay, server: str, method: str, params: bytes, timeout: float, caller: str) -> bytes:
    """One request to a server, in a session of its own; returns the result object.

    Raises NotFound, ServerFault (also for an error answer, whose text it carries), CallTimeout, Overloaded.
    """
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    sink = _FutureSink(answer)
    session = relay.open_session(View("server", server), caller, "stdio", sink)
    session.protocol_version = eras.LATEST_HANDSHAKE
    try:
        relay.submit(session, Message(id=Raw(b"1"), method=method, params=Raw(params)), sink)
        async with asyncio.timeout(timeout):
            found = jsonrpc.decode(await answer)
    except TimeoutError:
        raise CallTimeout(f"server {server!r} did not answer {method} within {timeout:g} s") from None
    finally:
        relay.close_session(session)
    if len(found.error):
        raise ServerFault(_error_text(found))
    return bytes(found.result)


class _FutureSink:
    """Takes the one answer of an operator's call."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def deliver(self, frame: bytes, final: bool) -> None:
        if final and not self._answer.done():
            self._answer.set_result(frame)

    def end(self) -> None:
        if not self._answer.done():
            self._answer.set_exception(ServerFault("the call was given up"))


def _error_text(message: Message) -> str:
    found = jsonrpc.value_of(message.error)
    return str(found.get("message", found)) if isinstance(found, dict) else str(found)
