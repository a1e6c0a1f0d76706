"""Roots: what may be given, and what a server is told."""

from collections.abc import Sequence
from pathlib import Path

import mcp_types as types
import pytest
from mcp import MCPError
from pydantic import FileUrl

from mcpworker.client import Client
from mcpworker.client.roots import convert_roots_list
from mcpworker.errors import ClientError
from support import sdk_server


def test_roots_may_be_given_in_many_ways() -> None:
    root = types.Root(uri=FileUrl("file:///srv/d"), name="named")
    roots = convert_roots_list(["/srv/a", "file:///srv/b", Path("/srv/c d"), FileUrl("file:///srv/e"), root])
    assert [str(item.uri) for item in roots] == [
        "file:///srv/a",
        "file:///srv/b",
        "file:///srv/c%20d",
        "file:///srv/e",
        "file:///srv/d",
    ]
    assert roots[-1] is root


@pytest.mark.parametrize("item", ["relative", "http://example.com/", ""])
def test_what_is_no_root_is_refused(item: str) -> None:
    with pytest.raises(ValueError, match="invalid root"):
        convert_roots_list([item])


@pytest.mark.anyio
async def test_a_function_may_be_async() -> None:
    async def roots(context: object) -> Sequence[str]:
        return ["/srv/async"]

    async with Client(sdk_server.server, roots=roots) as client:
        [block] = await client.call_tool("ask_roots")
    assert isinstance(block, types.TextContent)
    assert block.text == "file:///srv/async"


@pytest.mark.anyio
async def test_an_exception_in_the_function_is_an_error_for_the_server() -> None:
    def roots(context: object) -> Sequence[str]:
        raise RuntimeError("no disk")

    async with Client(sdk_server.server, roots=roots) as client:
        with pytest.raises((MCPError, ClientError), match="no disk"):
            await client.call_tool("ask_roots")
