"""Who gets in at the two unix sockets: real processes of other users and groups, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import DEADLINE, SERVERS, Daemon, running, wait_for

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can make processes of other users")
CLIENTS, OPERATORS, SOMEBODY = 61801, 61802, 61803
TIME = f'[servers.time]\nscript = "{SERVERS / "time.py"}"\n'
VISITOR = Path(__file__).parents[1] / "support" / "visitor.py"


def visit(which: str, path: Path, *groups: int, gid: int = SOMEBODY, uid: int = SOMEBODY) -> Any:
    argv = [sys.executable, VISITOR, str(uid), str(gid), ",".join(map(str, groups)), which, path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, cwd="/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    made = Daemon(TIME, daemon=f'client_group = "{CLIENTS}"\noperator_group = "{OPERATORS}"')
    made.home.chmod(0o711)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def mcp(daemon: Daemon) -> Path:
    return daemon.home / "run" / "mcp.sock"


@pytest.fixture
def control(daemon: Daemon) -> Path:
    return daemon.home / "run" / "control.sock"


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    about = path.stat()
    return about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)


def test_each_socket_is_its_group_s_and_nothing_else_is(daemon: Daemon, mcp: Path, control: Path) -> None:
    assert owner_and_mode(mcp) == (0, CLIENTS, 0o660)
    assert owner_and_mode(control) == (0, OPERATORS, 0o660)
    assert owner_and_mode(mcp.parent) == (0, 0, 0o711)
    assert stat.S_IMODE((mcp.parent / "mcpd.lock").stat().st_mode) == 0o600
    assert stat.S_IMODE((daemon.home / "state").stat().st_mode) == 0o700


def test_clients_use_servers_and_do_not_operate(mcp: Path, control: Path) -> None:
    tools = visit("mcp", mcp, CLIENTS)

    assert "time__now" in tools
    assert visit("mcp", mcp, gid=CLIENTS) == tools
    assert "Permission denied" in visit("control", control, CLIENTS)


def test_operators_operate(mcp: Path, control: Path) -> None:
    assert visit("control", control, OPERATORS) == ["time"]
    assert visit("control", control, gid=OPERATORS) == ["time"]
    assert "daemon.client_group" in visit("mcp", mcp, OPERATORS)


def test_the_audit_log_says_who_it_was(daemon: Daemon, mcp: Path, control: Path) -> None:
    assert "time" in visit("call", control, OPERATORS)
    assert "time" in daemon.control.call("time", "now", b"{}", DEADLINE).decode()
    log = daemon.home / "state" / "audit.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") == 2, "both are written")
    principals = [json.loads(line)["principal"] for line in log.read_text().splitlines()]
    assert principals == [f"operator:{SOMEBODY}", "operator:0"]


def test_others_do_neither(mcp: Path, control: Path) -> None:
    assert "Permission denied" in visit("mcp", mcp, SOMEBODY + 1)
    assert "daemon.operator_group" in visit("control", control)


def test_the_mode_is_not_the_only_lock(mcp: Path, control: Path) -> None:
    """Somebody opens the files to all: the kernel is asked who comes."""
    try:
        for path in (mcp, control):
            path.chmod(0o666)
        refused = visit("mcp", mcp, *range(SOMEBODY + 1, SOMEBODY + 100))
        assert refused.startswith("forbidden: this socket is not for user 61803")
        assert visit("control", control) == (
            f"403: this socket is not for user {SOMEBODY}: it is the daemon's user's and root's, and group"
            f" {OPERATORS}'s (join the group, and log in anew)"
        )
        assert visit("control", control, *range(1000, 1200), OPERATORS) == ["time"]
    finally:
        for path in (mcp, control):
            path.chmod(0o660)


def test_without_groups_only_the_daemon_s_user_and_root_get_in() -> None:
    with running(TIME) as daemon:
        daemon.home.chmod(0o711)
        run = daemon.home / "run"
        assert owner_and_mode(run) == (0, 0, 0o700)
        assert owner_and_mode(run / "mcp.sock") == (0, 0, 0o600)
        run.chmod(0o711)
        for name in ("mcp.sock", "control.sock"):
            (run / name).chmod(0o666)
        assert "daemon.client_group" in visit("mcp", run / "mcp.sock", CLIENTS)
        assert "daemon.operator_group" in visit("control", run / "control.sock", OPERATORS)


def test_a_group_that_cannot_get_to_its_socket_is_told(daemon: Daemon) -> None:
    assert "socket.of-no-use" not in daemon.output()
    with running("", daemon=f'client_group = "{CLIENTS}"') as closed:
        assert "a directory above it is closed to others" in closed.output()
        assert "socket.of-no-use" in closed.output()
