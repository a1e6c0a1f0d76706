"""Sessions, tools, calls by hand, warnings."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mcpd.config.diff import diff
from mcpd.errors import ClientFault, Problem, ServerFault
from mcpd.fleet import operators
from mcpd.sandbox.policy import SandboxFacts
from mcpd.store.store import Store
from mcpd.wire.address import View
from support.fleets import Push, command, registry, sailing, spec

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

        with pytest.raises(ServerFault, match="is not running: it failed \\(exec: /nowhere/x"):
            await ship.fleet.call("time", "echo", b"{}", 5.0)


async def test_sessions_show_who_is_there_but_not_the_key_to_it(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        session = ship.relay.open_session(View("server", "time"), "default", "http+sse", Push())
        session.client_info = {"name": "cursor", "version": 7}
        session.protocol_version = "2024-11-05"
        (shown,) = ship.fleet.sessions()

        assert (shown.principal, shown.view, shown.transport) == ("default", "server:time", "http+sse")
        assert (shown.client_name, shown.client_version, shown.protocol) == ("cursor", "", "2024-11-05")
        assert (len(shown.id), session.id.startswith(shown.id)) == (8, True)
        assert abs(shown.since - ship.clock.wall()) < 60
        assert shown.in_flight == 0


def test_warnings_are_what_the_machine_the_store_and_the_registry_have_to_say(tmp_path: Path) -> None:
    problem = Problem(tmp_path / "mcpd.toml", 3, "servers.time", "odd", "look at it")
    wanted = registry(tmp_path).model_copy(update={"warnings": (problem,)})
    (tmp_path / "mcpd.db").write_bytes(b"this is no database" * 100)
    store = Store.open(tmp_path / "mcpd.db")
    try:
        found = operators.warnings(wanted, SandboxFacts(None, "", "bubblewrap is not installed"), store)
    finally:
        store.close()

    assert found[0] == "not contained: bubblewrap is not installed"
    assert "cannot be used" in found[1]
    assert found[2] == str(problem)


def test_without_anything_odd_there_are_no_warnings(tmp_path: Path) -> None:
    assert operators.warnings(registry(tmp_path), SandboxFacts("/usr/bin/bwrap", "0.8", ""), None) == ()


def test_the_launcher_is_found() -> None:
    path = operators.launcher_path()

    assert path is not None
    assert path.endswith("mcpworker/launcher/__main__.py")


def test_the_summary_names_what_changed(tmp_path: Path) -> None:
    old, new = registry(tmp_path, spec("a"), spec("b")), registry(tmp_path, spec("b", args=("-v",)), spec("c"))
    report = operators.report(diff(old, new), new)

    assert operators.summary(report) == "registry reloaded: added c; removed a; restarting b"
    assert operators.summary(operators.report(diff(new, new), new)) == "registry reloaded: no server changed"
