"""Tools as operators see them, and calls by hand, with real children."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mcpd.errors import ClientFault, ServerFault
from support.fleets import command, registry, sailing, spec

pytestmark = pytest.mark.anyio

RULES = {"allow": ["echo", "pid", "exit"], "deny": ["exit"], "rename": {"echo": "say-again"}}


async def test_tools_have_their_own_and_their_public_name_and_hidden_ones_are_not_there(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", tools=RULES), spec("other"))) as ship:
        await ship.ready()

        assert [(one.name, one.public_name) for one in await ship.fleet.tools("time")] == [
            ("echo", "time__say-again"),
            ("pid", "time__pid"),
        ]
        assert len(await ship.fleet.tools(None)) == 2 + 7
        assert msgspec.json.decode((await ship.fleet.tools("other"))[0].input_schema) == {"type": "object"}


async def test_a_stopped_server_has_the_tools_that_are_remembered(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        await command(ship.fleet.stop("time"))

        assert len(await ship.fleet.tools("time")) == 7


async def test_a_tool_is_called_by_the_servers_own_name_for_it(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", tools=RULES))) as ship:
        await ship.ready()

        assert await ship.call("time", "echo", n=1) == '{"n": 1}'


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("exit", b"{}", "servers.time.tools does not allow 'exit'"),
        ("nothing", b"{}", "does not allow 'nothing'"),
        ("echo", b"[]", "no JSON object"),
        ("echo", b'{"a":1,"a":2}', "stands twice"),
    ],
)
async def test_what_cannot_be_called_is_the_callers_fault(
    tmp_path: Path, tool: str, arguments: bytes, why: str
) -> None:
    async with sailing(registry(tmp_path, spec("time", tools=RULES))) as ship:
        await ship.ready()

        with pytest.raises(ClientFault, match=why):
            await ship.fleet.call("time", tool, arguments, 5.0)


async def test_an_unknown_tool_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()

        with pytest.raises(ClientFault, match="has no tool 'tell'; it has echo, pid, exit"):
            await ship.fleet.call("time", "tell", b"{}", 5.0)


async def test_a_call_to_a_server_that_is_down_is_the_servers_fault(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", command=("/nowhere/x",)))) as ship:
        outcome = await command(ship.fleet.start("time"))
        assert not outcome.ok

        with pytest.raises(ServerFault, match="is not running: it failed \\(exec: could not be executed: /nowhere/x"):
            await ship.fleet.call("time", "echo", b"{}", 5.0)
