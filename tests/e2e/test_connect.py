"""`mcpctl connect`, as a desktop client's configuration names it: without a daemon, with one, across restarts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from e2e.clients import SERVERS, VIEW, Recorder, Way, connected, text_of
from e2e.raw import INITIALIZE, call, connect, request
from support.daemon import ROOT, Daemon, python_server, wait_for

EVERYTHING = ROOT / "tests" / "contract" / "everything.py"
QUICK = python_server("quick", SERVERS / "quick.py")
NO_DAEMON = 69

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")


@pytest.fixture
def stopped() -> Iterator[Daemon]:
    """The registry of a daemon that does not run (yet)."""
    daemon = Daemon(QUICK, views=f'[views.{VIEW}]\nservers = ["quick"]')
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def daemon(stopped: Daemon) -> Daemon:
    stopped.start()
    return stopped


def test_without_a_daemon_the_first_request_gets_an_error(stopped: Daemon) -> None:
    with connect(stopped, initialized=False) as client:
        client.send(request("first", "initialize", **INITIALIZE))

        error = client.answer("first")["error"]
        code, told = client.ended()

    assert code == NO_DAEMON
    assert "mcpd start" in error["message"]
    assert "mcpd start" in told
    assert client.others == []


def test_without_a_daemon_spawn_starts_one_that_stays(stopped: Daemon) -> None:
    try:
        with connect(stopped, "--spawn") as client:
            assert client.ask(call(1, "quick__pid"))["result"]["content"][0]["text"].isdigit()
        with connect(stopped, "--spawn", "quick") as second:
            assert second.ask(call(1, "pid"))["result"]
        stopped.wait_ready()
        pid = stopped.control.daemon().pid
    finally:
        told = stopped.run("mcpd", "stop", check=False)
    assert told.returncode == 0, told.stderr
    assert f"pid {pid}" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "tool"), [((), "quick__pid"), (("quick",), "pid"), (("--view", VIEW), "quick__pid")]
)
def test_arguments_choose_what_is_seen(daemon: Daemon, arguments: tuple[str, ...], tool: str) -> None:
    with connect(daemon, *arguments) as client:
        listed = client.ask(request(1, "tools/list"))["result"]["tools"]

        assert tool in [one["name"] for one in listed]
        assert client.ask(call(2, tool))["result"]["content"][0]["text"].isdigit()


def test_unknown_server_is_told_with_those_that_there_are(daemon: Daemon) -> None:
    with connect(daemon, "qick", initialized=False) as client:
        client.send(request(1, "initialize", **INITIALIZE))

        assert "qick" in client.answer(1)["error"]["message"]
        code, told = client.ended()
    assert code != 0
    assert "qick" in told


def test_end_of_input_ends_it_and_its_session(daemon: Daemon) -> None:
    with connect(daemon, "quick") as client:
        wait_for(lambda: [one.transport for one in daemon.control.sessions()] == ["stdio"], "its session is listed")
        client.end_input()

        assert client.process.wait(10) == 0
    wait_for(lambda: daemon.control.sessions() == [], "its session is gone")


def restart_in_order(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    daemon.start()


def restart_after_kill(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start()


RESTARTS: dict[str, Callable[[Daemon], None]] = {"SIGTERM": restart_in_order, "SIGKILL": restart_after_kill}


@pytest.mark.parametrize("restart", RESTARTS)
def test_session_goes_on_when_the_daemon_is_restarted(daemon: Daemon, restart: str) -> None:
    daemon.write(QUICK.replace("[servers.quick]", '[servers.quick]\ndrain_timeout = "100ms"'))
    daemon.ctl("reload")
    with connect(daemon, "quick") as client:
        before = daemon.server("quick")["pid"]
        client.send(call("held", "hold"))
        daemon.wait_until("quick", lambda one: one["calls"] == 1, "a call is held")

        RESTARTS[restart](daemon)

        assert "error" in client.answer("held"), "what was in flight gets an answer"
        assert "result" in client.ask(call("next", "pid"))
        assert daemon.server("quick")["pid"] != before
        assert client.process.poll() is None
        assert [one["method"] for one in client.others if "id" in one] == [], "the replay's answers are swallowed"
        (session,) = daemon.control.sessions()
        assert (session.client_name, session.protocol) == ("raw", "2025-11-25")


@pytest.mark.anyio
async def test_official_client_keeps_level_and_subscriptions_over_a_restart() -> None:
    daemon = Daemon(python_server("everything", EVERYTHING))
    heard = Recorder()

    def updates() -> list[str]:
        return [notice.params.uri for notice in heard.notices_of(types.ResourceUpdatedNotification)]

    try:
        daemon.start()
        async with connected(daemon, Way("stdio", "everything"), heard) as client:
            await client.set_logging_level("error")
            await client.subscribe_resource("test://watched-resource")

            await anyio.to_thread.run_sync(restart_after_kill, daemon)

            await heard.until(lambda: heard.notices_of(types.ToolListChangedNotification))
            await client.call_tool("test_trigger_resource_update", {"uri": "test://watched-resource"})
            await heard.until(lambda: updates() == ["test://watched-resource"])
            await client.call_tool("test_tool_with_logging", {})
            await client.call_tool("test_logging_tool", {})
            await heard.until(lambda: heard.logs)
            assert [log.level for log in heard.logs] == ["error"]
            assert text_of(await client.call_tool("test_simple_text", {}))
            with pytest.raises(MCPError):
                await client.call_tool("no_such_tool", {})
    finally:
        daemon.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_it_and_its_calls(daemon: Daemon, number: signal.Signals) -> None:
    with connect(daemon, "quick") as client:
        client.send(call(1, "hold"))
        daemon.wait_until("quick", lambda one: one["calls"] == 1, "a call is held")

        os.kill(client.process.pid, number)

        client.ended()
    wait_for(lambda: daemon.control.sessions() == [], "its session is gone")
