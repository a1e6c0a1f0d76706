"""Servers from packages of the real registries: installed, contained, called, upgraded, looked at through a daemon."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from mcpd.control.view import Event
from mcpd.sandbox.probe import probe
from support.daemon import Daemon, wait_for

MEMORY = "npm:@modelcontextprotocol/server-memory"
SERVERS = f"""
[servers.memory]
package = "{MEMORY}@2026.8.31"      # a comment that stays
env = {{ MEMORY_FILE_PATH = "/home/mcp/memory.jsonl" }}
[servers.time]
package = "pypi:mcp-server-time==2026.10.19"
args = ["--local-timezone", "UTC"]
[servers.gone]
package = "{MEMORY}@99.99.99"
"""
INSTALLING = 90.0
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")  # where registries are behind a proxy

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    daemon = Daemon(SERVERS)
    daemon.env |= {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
    try:
        daemon.start(ready=())
        wait_for(lambda: daemon.states()["time"] == "READY", lambda: f"time runs\n{daemon.output()}", INSTALLING)
        wait_for(lambda: daemon.states()["memory"] == "READY", lambda: f"memory runs\n{daemon.output()}", INSTALLING)
        yield daemon
    finally:
        daemon.close()


def call(daemon: Daemon, server: str, tool: str, **arguments: object) -> str:
    return daemon.ctl("call", server, tool, json.dumps(arguments)).stdout


def test_packages_are_installed_contained_and_called(daemon: Daemon) -> None:
    now = json.loads(call(daemon, "time", "get_current_time", timezone="Asia/Tokyo"))
    ada = {"name": "Ada", "entityType": "person", "observations": ["programmed"]}
    call(daemon, "memory", "create_entities", entities=[ada])

    assert now["datetime"].endswith("+09:00")
    assert "programmed" in call(daemon, "memory", "search_nodes", query="Ada")
    assert {daemon.server(name)["isolation"] for name in ("time", "memory")} == {"strict"}


def test_progress_is_shown(daemon: Daemon) -> None:
    with daemon.control.events() as events:
        told = [event.reason for event in events if isinstance(event, Event) and event.server == "memory"]

    assert f"installing {MEMORY}@2026.8.31 with npm" in told
    assert any(text.startswith(f"installed {MEMORY}@2026.8.31 in ") for text in told)
    log = daemon.ctl("logs", "memory").stdout
    assert f"[mcpd] installed {MEMORY}@2026.8.31" in log


def test_version_that_is_not_there_costs_its_server_only(daemon: Daemon) -> None:
    wait_for(lambda: daemon.states()["gone"] == "FAILED", lambda: f"gone failed: {daemon.states()}", INSTALLING)

    error = daemon.server("gone")["last_error"]
    assert "No matching version found" in error
    assert f"`npm view {MEMORY.removeprefix('npm:')} versions` tells" in error


def test_doctor_reads_what_servers_really_have(daemon: Daemon) -> None:
    found = daemon.ctl("doctor", "--json")
    seen = json.loads(found.stdout)

    machine = {check["name"]: check["level"] for check in seen["machine"]}
    assert machine["registry"] == machine["bubblewrap"] == machine["seccomp"] == machine["npm"] == "ok"
    servers = {check["name"]: check["level"] for check in seen["servers"]}
    assert servers == {"memory": "ok", "time": "ok", "gone": "warn"}
    for process in seen["processes"]:
        assert process["uid"] != 0
        assert process["capabilities"] == 0
        assert process["no_new_privileges"]
        assert process["seccomp"] == "filter"
        assert {"mnt", "pid", "net", "ipc", "uts"} <= set(process["own_namespaces"])
        assert process["missing"] == []
        assert "/" not in process["writable"]
    assert probe().version in daemon.ctl("doctor").stdout


def test_upgrade_moves_the_line_and_the_server_and_goes_back(daemon: Daemon) -> None:
    def runs(version: str) -> bool:
        return daemon.states()["memory"] == "READY" and daemon.control.server("memory").argv == (f"{MEMORY}@{version}",)

    there = daemon.ctl("upgrade", "memory", "2026.7.4", timeout=INSTALLING)
    wait_for(lambda: runs("2026.7.4"), "the other version runs")
    assert f'package = "{MEMORY}@2026.7.4"      # a comment that stays\n' in daemon.registry.read_text()
    assert "goes back to" in there.stderr
    assert "Ada" not in call(daemon, "memory", "read_graph")  # a new process, with a home of its own

    refused = daemon.ctl("upgrade", "memory", "88.8.8", check=False, timeout=INSTALLING)
    assert refused.returncode == 1
    assert "No matching version found" in refused.stderr
    assert runs("2026.7.4")

    back = daemon.ctl("upgrade", "memory", "2026.8.31", "--prune", timeout=INSTALLING)
    assert f"removed {MEMORY}@2026.7.4" in back.stdout
    wait_for(lambda: runs("2026.8.31"), "the first version runs")
    same = daemon.ctl("upgrade", "memory", "2026.8.31")
    assert "is what it has already" in same.stdout


def test_package_that_was_changed_is_not_run_until_it_is_installed_anew(daemon: Daemon) -> None:
    module = "node_modules/@modelcontextprotocol/server-memory/dist/index.js"
    file = daemon.home / "state" / "packages" / "npm" / MEMORY.removeprefix("npm:") / "2026.8.31" / module
    before, times = file.read_text(), file.stat()
    file.chmod(0o644)
    file.write_text(before[:-1] + " ")  # of the same size
    file.chmod(0o555)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    refused = daemon.ctl("restart", "memory", check=False)
    told = daemon.ctl("doctor", check=False)

    assert refused.returncode == 1
    assert f"{MEMORY}@2026.8.31 is not what was installed: its files were changed" in refused.stdout + refused.stderr
    assert daemon.states()["memory"] == "FAILED"
    assert "`mcpctl upgrade memory 2026.8.31` installs it anew" in daemon.server("memory")["last_error"]
    assert told.returncode == 1
    assert f"fail  package          {MEMORY}@2026.8.31 is not what was installed" in told.stdout

    renewed = daemon.ctl("upgrade", "memory", "2026.8.31", timeout=INSTALLING)
    daemon.ctl("restart", "memory")

    assert "`mcpctl restart memory` runs it" in renewed.stdout
    assert daemon.states()["memory"] == "READY"
    assert file.read_text() == before
    packages = [one for one in json.loads(daemon.ctl("doctor", "--json").stdout)["machine"] if one["name"] == "package"]
    assert {one["level"] for one in packages} == {"ok"}
    assert any("files as installed" in one["text"] for one in packages)


def test_killed_daemon_leaves_nothing_half(daemon: Daemon) -> None:
    """It is the module's daemon that is killed, so this comes last."""
    shelf = daemon.home / "state" / "packages" / "pypi" / "mcp-server-git"
    daemon.write(f'{SERVERS}\n[servers.git]\npackage = "pypi:mcp-server-git==2026.10.19"\n')
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: list(shelf.glob("*.partial")), "it is being installed")
    tree = daemon.tree()
    daemon.kill()
    tree.wait_gone()
    assert not (shelf / "2026.10.19.json").exists()

    daemon.start(ready=())
    wait_for(lambda: (shelf / "2026.10.19.json").exists(), lambda: f"it is installed\n{daemon.output()}", INSTALLING)
    wait_for(lambda: not list(shelf.glob("*.partial")), "nothing half is left")
    assert (shelf / "2026.10.19" / "venv" / "bin" / "mcp-server-git").exists()
