"""However the daemon ends, nothing of any tree is left, and the next start finds nothing in its way."""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Callable, Iterator

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from e2e.clients import SERVERS, Way, connected
from e2e.raw import call, connect
from support.daemon import CHILDREN, DEADLINE, Daemon, Tree, carriers, python_server, wait_for

FAST = {"stop_timeout": '"300ms"', "drain_timeout": '"300ms"'}
REGISTRY = (
    python_server("quick", SERVERS / "quick.py", **FAST)
    + python_server("stubborn", CHILDREN / "mcp_stubborn.py", **FAST)
    + python_server("contained", SERVERS / "quick.py", **FAST)
    + '[servers.contained.sandbox]\nprofile = "strict"\n'
)
KILL_LIMIT = 2.0  # seconds in which children are gone when the daemon is killed (faults, 28)

pytestmark = pytest.mark.anyio


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon(REGISTRY)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def breed(daemon: Daemon) -> Tree:
    """Let servers have grandchildren, half of them in sessions of their own; returns everything that runs."""
    small = daemon.tree()
    for server in ("quick", "contained"):
        daemon.control.call(server, "breed", b"{}", 30.0)
    large = daemon.tree()
    assert len(large.pids) == len(small.pids) + 4
    small.close()
    return large


def by_command(daemon: Daemon) -> int:
    done = daemon.run("mcpd", "stop", check=True)
    assert f"pid {daemon.pid}" in done.stdout
    assert daemon.process is not None
    return daemon.process.wait(1.0)  # the command returns when the daemon is gone


ENDS: dict[str, Callable[[Daemon], int]] = {
    "command": by_command,
    "SIGTERM": lambda daemon: daemon.stop(signal.SIGTERM),
    "SIGINT": lambda daemon: daemon.stop(signal.SIGINT),
}


@pytest.mark.parametrize("end", ENDS)
async def test_ordered_end_leaves_no_process(daemon: Daemon, end: str) -> None:
    """With calls in flight, streams open, a child that ignores SIGTERM, and grandchildren that ran away."""
    tree = breed(daemon)
    try:
        async with anyio.create_task_group() as group:
            for transport in ("http", "sse", "stdio"):
                group.start_soon(hold, daemon, Way(transport, "quick"))
            await anyio.to_thread.run_sync(
                lambda: daemon.wait_until("quick", lambda one: one["calls"] == 3, "three calls are held")
            )
            code = await anyio.to_thread.run_sync(ENDS[end], daemon)
            assert code == 0, daemon.output()
            group.cancel_scope.cancel()
        tree.wait_gone(KILL_LIMIT)
    finally:
        tree.close()

    assert not (daemon.home / "run" / "control.sock").exists()
    assert not (daemon.home / "run" / "mcp.sock").exists()
    assert "daemon.stopped" in daemon.output()
    assert "Traceback" not in daemon.output()
    daemon.start()
    assert set(daemon.states().values()) == {"READY"}


async def hold(daemon: Daemon, way: Way) -> None:
    """A call that is in flight when the end comes; it gets an error, or its client sees the connection end."""
    async with connected(daemon, way) as client:
        with pytest.raises(MCPError):
            await client.call_tool("hold", {})
        await anyio.sleep_forever()


def test_killed_daemon_leaves_no_process_and_the_next_starts(daemon: Daemon) -> None:
    tree = breed(daemon)
    token = daemon.token

    daemon.kill()

    tree.wait_gone(KILL_LIMIT)
    tree.close()
    assert (daemon.home / "run" / "control.sock").exists(), "it had no time to unlink it"
    daemon.start()
    assert set(daemon.states().values()) == {"READY"}
    assert daemon.token == token


def test_second_daemon_is_turned_away_and_the_first_goes_on(daemon: Daemon) -> None:
    before = {name: daemon.server(name)["pid"] for name in daemon.states()}

    second = daemon.run("mcpd", "start", check=False)

    assert second.returncode == 1
    assert f"already running (pid {daemon.pid})" in " ".join(second.stderr.split())
    assert {name: daemon.server(name)["pid"] for name in daemon.states()} == before
    assert daemon.ctl("call", "quick", "pid").stdout.strip()


def test_second_signal_skips_the_drain(daemon: Daemon) -> None:
    """The first lets calls finish for `drain_timeout`; whoever does not want to wait says it twice."""
    daemon.write(REGISTRY.replace('drain_timeout = "300ms"', 'drain_timeout = "10m"'))
    assert "quick" in daemon.ctl("reload").stdout
    tree = daemon.tree()
    with connect(daemon, "quick") as client:
        client.send(call(1, "hold"))
        daemon.wait_until("quick", lambda one: one["calls"] == 1, "a call is held")
        assert daemon.process is not None
        daemon.process.terminate()
        daemon.wait_until("quick", lambda one: one["state"] == "STOPPING", "the drain has begun")

        code = daemon.stop()

        assert code == 0
        assert "quick" in client.answer(1)["error"]["message"]
    tree.wait_gone(KILL_LIMIT)
    tree.close()


class SlowSandbox:
    """A bubblewrap that waits at a gate when the daemon tries out the sandbox, before its first server."""

    def __init__(self, daemon: Daemon) -> None:
        here = daemon.home / "slow"
        here.mkdir()
        self._waits = here / "waits"
        self._gate = here / "gate"
        os.mkfifo(self._gate)
        real = shutil.which("bwrap")
        program = here / "bwrap"
        program.write_text(
            f'#!/bin/sh\ncase "$*" in *mcpd-probe*) echo $$ > {self._waits}; read -r _ < {self._gate};; esac\n'
            f'exec {real} "$@"\n'
        )
        program.chmod(0o755)
        daemon.env["PATH"] = f"{here}:{daemon.env['PATH']}"

    def wait(self) -> int:
        """Its pid, once it waits at the gate."""
        return int(
            wait_for(lambda: self._waits.exists() and self._waits.read_text().strip(), "the sandbox is tried out")
        )

    def open(self) -> None:
        self._gate.write_text("go\n")


@pytest.fixture
def early() -> Iterator[Daemon]:
    """A daemon that was not started yet."""
    daemon = Daemon(python_server("quick", SERVERS / "quick.py"))
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_the_daemon_can_end_in_order_is_kept_until_it_can(early: Daemon, number: signal.Signals) -> None:
    sandbox = SlowSandbox(early)
    early.spawn()
    pidfd = os.pidfd_open(sandbox.wait())
    assert early.process is not None
    early.process.send_signal(number)
    sandbox.open()

    assert early.process.wait(DEADLINE) == 0, early.output()
    assert "daemon.stopped" in early.output()
    assert select.select([pidfd], [], [], 0.0)[0], "what tried out the sandbox is gone"
    os.close(pidfd)
    assert carriers(early.cookie) == []


def test_sandbox_that_was_tried_out_when_the_daemon_was_killed_is_ended_by_the_next(early: Daemon) -> None:
    sandbox = SlowSandbox(early)
    early.spawn()
    pidfd = os.pidfd_open(sandbox.wait())
    early.kill()
    assert not select.select([pidfd], [], [], 0.0)[0], "it waits for ever"

    early.env["PATH"] = early.env["PATH"].partition(":")[2]
    early.start()

    assert select.select([pidfd], [], [], 0.0)[0]
    os.close(pidfd)
    assert "strays.ended" in early.output()
