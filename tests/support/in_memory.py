"""A client and a `FastMCP` server in one process, for what does not depend on the transport."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import mcp_types as types
from mcp import Client, MCPError

if TYPE_CHECKING:
    from mcpworker import FastMCP

T = TypeVar("T")
LEGACY, MODERN = "legacy", "2026-07-28"


def in_memory(server: "FastMCP[Any]", mode: str = LEGACY, **options: Any) -> Client:
    """The official client, connected to a server object."""
    return Client(server._mcp_server, mode=mode, cache=None, **options)  # type: ignore[arg-type]


def text_of(result: types.CallToolResult) -> str:
    """The text of a result that is one text."""
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


async def asked(server: "FastMCP[Any]", question: Callable[[Client], Awaitable[T]], mode: str = LEGACY) -> T:
    """What a client gets for one question; a protocol error is raised bare, not in the client's exception group."""
    async with in_memory(server, mode) as client:
        try:
            return await question(client)
        except MCPError as error:
            caught = error
    raise caught


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def logged(name: str) -> Iterator[list[logging.LogRecord]]:
    """What the framework's logger of this name logs meanwhile."""
    keeper = _Keeper()
    logger = logging.getLogger(f"FastMCP.{name}")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(keeper)
    try:
        yield keeper.records
    finally:
        logger.removeHandler(keeper)
        logger.setLevel(before)
