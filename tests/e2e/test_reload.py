"""A registry that changes under a running daemon: in full or not at all, and never more than what changed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.daemon import BIN, CHILDREN, Daemon, python_server, running, wait_for

PEER = CHILDREN / "mcp_peer.py"
TWENTY = tuple(f"s{number}" for number in range(20))
FAST = {"drain_timeout": '"300ms"', "stop_timeout": '"1s"'}
BAD_CONFIG = 78


def peers(*names: str, **changed: str) -> str:
    return "\n".join(python_server(name, PEER, **FAST) + changed.get(name, "") for name in names)


def pids(daemon: Daemon) -> dict[str, int | None]:
    return {server.name: server.pid for server in daemon.control.servers()}


def hang_up(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)


def logged(daemon: Daemon, event: str) -> int:
    return daemon.output().count(f'"event": "{event}"')


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(peers("a", "b")) as daemon:
        yield daemon


def test_one_changed_entry_of_twenty_leaves_nineteen_processes_alone() -> None:
    with running(peers(*TWENTY)) as daemon:
        before = pids(daemon)
        daemon.write(peers(*reversed(TWENTY), s7='env = { MCPD_TEST_COOKIE = "changed" }\n'))

        report = daemon.control.reload()

        daemon.wait_until("s7", lambda one: one["pid"] not in (None, before["s7"]), "it is another process")
        daemon.wait_ready()
        assert report.restarted == ("s7",)
        assert set(report.unchanged) == set(TWENTY) - {"s7"}
        assert {**pids(daemon), "s7": None} == {**before, "s7": None}


BROKEN = {
    "half-written": ("[servers.a]\ncommand = [", ":2: not valid TOML"),
    "no-utf-8": ("[servers.a]\n# \udcff\n", ":2: is not UTF-8"),
    "duplicate": (
        '[servers.a]\ncommand = ["cat"]\n[servers.a]\ncommand = ["cat"]\n',
        ":3: the table [servers.a] stands",
    ),
    "unknown-key": ('[servers.a]\ncomand = ["cat"]\n', ":2: servers.a.comand: unknown key"),
    "gone": (None, "cannot be read: No such file"),
    "directory": (Path, "cannot be read: Is a directory"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_registry_that_cannot_be_used_changes_nothing(daemon: Daemon, case: str) -> None:
    """Fault 30, by SIGHUP and by command."""
    text, told = BROKEN[case]
    before, url = pids(daemon), daemon.url
    daemon.registry.unlink()
    if text is Path:
        daemon.registry.mkdir()
    elif isinstance(text, str):
        daemon.registry.write_bytes(text.encode(errors="surrogateescape"))

    hang_up(daemon)
    wait_for(lambda: logged(daemon, "reload.refused") == 1, daemon.output)
    done = daemon.run("mcpctl", "--socket", str(daemon.home / "run" / "control.sock"), "reload", check=False)

    assert done.returncode == BAD_CONFIG
    assert f"{daemon.registry}{'' if told.startswith(':') else ': '}{told}" in done.stderr
    refusal = json.loads(next(line for line in daemon.output().splitlines() if "reload.refused" in line))
    assert any(told in problem for problem in refusal["problems"])
    assert pids(daemon) == before
    assert daemon.control.daemon().urls == (url,)


def test_name_that_stands_in_two_files_changes_nothing(daemon: Daemon) -> None:
    before = pids(daemon)
    folder = daemon.home / "servers.d"
    folder.mkdir()
    (folder / "x.toml").write_text(peers("c", "a"))

    done = daemon.ctl("reload", check=False)

    assert done.returncode == BAD_CONFIG
    assert "servers.d/x.toml:" in done.stderr
    assert "'a' is already defined at" in done.stderr
    assert pids(daemon) == before
    (folder / "x.toml").write_text(peers("c"))
    assert daemon.control.reload().added == ("c",)


LOST = '[servers.lost]\ncommand = ["/no/such/program"]\n'


def test_what_was_missing_at_the_start_does_not_keep_others_from_being_changed() -> None:
    daemon = Daemon(peers("a") + LOST)
    try:
        daemon.start(ready=("a",))
        assert daemon.states()["lost"] == "FAILED"

        daemon.write("# lines move\n" + peers("b") + LOST + peers("a"))
        report = daemon.control.reload()
        assert (report.added, report.unchanged) == (("b",), ("lost", "a"))
        assert any("/no/such/program" in text for text in report.warnings)

        daemon.write(peers("a", "b") + LOST.replace("such", "other"))
        refused = daemon.ctl("reload", check=False)
        assert (refused.returncode, "/no/other/program" in refused.stderr) == (BAD_CONFIG, True)
        assert daemon.states()["b"] == "READY"

        daemon.write(peers("a", "b", "lost"))  # it is mended: from now on it may not be missing again
        daemon.control.reload()
        daemon.wait_until("lost", lambda one: one["state"] == "READY", "it is READY")
        daemon.write(peers("a", "b") + LOST)
        assert daemon.ctl("reload", check=False).returncode == BAD_CONFIG
    finally:
        daemon.close()


def test_unsandboxed_holds_through_reloads() -> None:
    daemon = Daemon(peers("a"))
    try:
        done = daemon.run("mcpd", "start", "--detach", "--unsandboxed")
        assert done.returncode == 0
        pid = daemon.control.daemon().pid
        daemon.write(peers("a", "b"))

        report = daemon.control.reload()

        assert (report.added, report.unchanged) == (("b",), ("a",))
        daemon.wait_until("b", lambda one: one["state"] == "READY", "it is READY")
        assert {one.isolation for one in daemon.control.servers()} <= {"unsandboxed", "not contained"}
    finally:
        daemon.run("mcpd", "stop", check=False)
        daemon.close()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_changes_of_files_are_noticed_where_that_is_asked_for() -> None:
    with running(peers("a"), daemon="watch = true") as daemon:
        before = pids(daemon)["a"]
        daemon.write(peers("a", "b"))
        wait_for(lambda: daemon.states().get("b") == "READY", daemon.output)

        daemon.registry.write_text("[servers")
        wait_for(lambda: logged(daemon, "reload.refused") == 1, daemon.output)
        assert set(daemon.states()) == {"a", "b"}

        folder = daemon.home / "servers.d"
        folder.mkdir()
        aside = folder / ".c.toml"
        aside.write_text(peers("c"))
        os.replace(aside, folder / "c.toml")
        daemon.write(peers("a"))
        wait_for(lambda: set(daemon.states()) == {"a", "c"}, daemon.output)
        assert pids(daemon)["a"] == before


def test_files_are_not_watched_unless_that_is_asked_for(daemon: Daemon) -> None:
    daemon.write(peers("a", "b", "c"))
    assert daemon.ctl("call", "a", "pid").returncode == 0
    assert set(daemon.states()) == {"a", "b"}
    opened = {os.readlink(one) for one in Path(f"/proc/{daemon.pid}/fd").iterdir() if one.is_symlink()}
    assert "anon_inode:inotify" not in opened


def test_editing_commands_change_file_and_daemon(daemon: Daemon) -> None:
    daemon.registry.write_text(daemon.registry.read_text() + "# the end\n")
    before = pids(daemon)

    added = daemon.ctl("add", "c", "--command", f"{BIN / 'python'} {PEER}", "--set", 'stop_timeout="1s"')
    assert "added: c" in added.stdout
    assert daemon.ctl("call", "c", "pid").stdout.strip().isdigit()
    assert "DISABLED" in daemon.ctl("disable", "b").stdout + daemon.states()["b"]
    assert daemon.ctl("remove", "c").returncode == 0
    assert set(daemon.states()) == {"a", "b"}
    assert daemon.ctl("enable", "b").returncode == 0
    daemon.wait_until("b", lambda one: one["state"] == "READY", "it is READY")

    assert daemon.registry.read_text().rstrip().endswith("# the end")
    assert pids(daemon)["a"] == before["a"]


def test_entry_that_does_not_start_is_added_and_told(daemon: Daemon) -> None:
    done = daemon.ctl("add", "bad", "--", "/bin/sh", "-c", "echo no luck >&2; exit 3", check=False)

    assert done.returncode == 1
    assert "servers.bad: " in done.stderr
    assert "bad" in daemon.states()


def test_import_starts_servers_and_undo_takes_them_out(daemon: Daemon) -> None:
    text = daemon.registry.read_text()
    client = daemon.home / "client.json"
    entry = {"command": str(BIN / "python"), "args": [str(PEER)], "env": {"PEER_TOKEN": "s3cret"}}
    client.write_text(json.dumps({"mcpServers": {"Some Peer": entry, "remote": {"url": "https://mcp.example"}}}))

    done = daemon.ctl("import", str(client))

    assert "added: some-peer" in done.stdout
    assert "not converted: remote" in done.stderr
    found = daemon.wait_until("some-peer", lambda one: one["state"] == "READY", "it is READY")
    environ = Path(f"/proc/{found['pid']}/environ").read_bytes()
    assert b"PEER_TOKEN=s3cret\0" in environ + b"\0"
    undone = daemon.ctl("import", "--undo")
    assert "removed: some-peer" in undone.stdout
    assert set(daemon.states()) == {"a", "b"}
    assert daemon.registry.read_text() == text
