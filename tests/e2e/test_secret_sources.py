"""Secrets of real servers: where they come from, where they turn up, and where they do not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from e2e.raw import INITIALIZE, call, http, request
from support.daemon import CHILDREN, Daemon, python_server, wait_for

FIRST, SECOND = "s3cret-of-the-first-day", "s3cret-of-the-second-day"
FROM_COMMAND = "s3cret-that-was-asked-for"
STRICT = '[defaults.sandbox]\nprofile = "strict"'
UNSANDBOXED = '[defaults.sandbox]\nprofile = "unsandboxed"'
ONE_FILE = '{ KEY = "not-a-secret", KEY_FILE = { secret_file = "github" } }'


def put(daemon: Daemon, name: str, value: str) -> None:
    folder = daemon.home / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name
    path.touch(0o600)
    path.write_text(value + "\n")


def started(env: str, **options: str) -> Daemon:
    server = python_server("one", CHILDREN / "mcp_indiscreet.py", env=env)
    other = python_server("two", CHILDREN / "mcp_peer.py")
    daemon = Daemon(server + other, **options)
    put(daemon, "github", FIRST)
    try:
        daemon.start()
    except BaseException:
        daemon.close()
        raise
    return daemon


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = started('{ KEY = { secret = "github" } }')
    yield daemon
    daemon.close()


def given(daemon: Daemon) -> Any:
    raw = daemon.control.call("one", "tell", b"{}", 10)
    return json.loads(msgspec.json.decode(raw)["content"][0]["text"])


# -- Where they turn up ----------------------------------------------------------------------------------------------


class Looked:
    """All that a daemon wrote and told, to look through for what must not be there."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.seen: dict[str, bytes] = {}

    def ask(self) -> None:
        """Every view that an operator has, and a client's of what it may not know."""
        words: list[tuple[str, ...]] = [("list",), ("events", "-n", "1000"), ("tools",), ("sessions",), ("audit",)]
        words += [("doctor",), ("pins", "list"), ("token", "list"), ("reload", "--dry-run"), ("reload",)]
        words += [(word, name) for word in ("status", "pins", "logs") for name in ("one", "refuses")]
        plain: list[tuple[str, ...]] = [("events", "-n", "1000"), ("reload",), ("status", "one"), ("logs", "one")]
        for arguments in (*plain, *((*one, "--json") for one in words)):
            done = self.daemon.ctl(*arguments, check=False)
            self.keep(" ".join(arguments), done.stdout + done.stderr)
        checked = self.daemon.run("mcpd", "check", check=False)
        self.keep("check", checked.stdout + checked.stderr)
        with http(self.daemon, "/metrics") as client:
            self.keep("metrics", client.send("GET").text)
        for view in ("/mcp", "/servers/one/mcp", "/servers/refuses/mcp"):
            with http(self.daemon, view) as client:
                self.keep(f"{view} initialize", client.post(request(0, "initialize", **INITIALIZE)).text)
        for view in ("/mcp", "/servers/one/mcp"):
            with http(self.daemon, view, session=True) as client:
                for method in ("tools/list", "resources/list", "no/such"):
                    self.keep(f"{view} {method}", client.post(request(1, method)).text)

    def crash(self) -> None:
        generation = self.daemon.server("one")["generation"] + 1
        with http(self.daemon, "/servers/one/mcp", session=True) as client:
            answer = client.post(call(7, "crash")).text
            assert '"error"' in answer
            self.keep("answer to a call that crashed", answer)
        self.daemon.wait_until("one", lambda one: (one["generation"], one["state"]) == (generation, "READY"), "back")

    def call_while_stopped(self) -> None:
        self.daemon.ctl("stop", "one")
        with http(self.daemon, "/servers/one/mcp", session=True) as client:
            self.keep("answer of a stopped server", client.post(call(8, "crash")).text)
        self.daemon.ctl("start", "one")

    def look_at_processes(self) -> None:
        tree = self.daemon.tree()
        tree.close()
        for pid in {self.daemon.pid, *tree.pids}:
            with contextlib.suppress(OSError):
                self.keep(f"cmdline of {pid}", Path(f"/proc/{pid}/cmdline").read_bytes())

    def look_at_files(self) -> None:
        """Also those of the state database as they lie on the disk; not the secrets' own."""
        for path in self.daemon.home.rglob("*"):
            if path.is_file() and "secrets" not in {one.name for one in path.parents}:
                self.keep(str(path), path.read_bytes())

    def keep(self, what: str, text: str | bytes) -> None:
        self.seen[what] = self.seen.get(what, b"") + (text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("defaults", [STRICT, UNSANDBOXED], ids=["strict", "unsandboxed"])
def test_values_are_nowhere_but_where_they_belong(defaults: str) -> None:
    keys = 'KEY = { secret = "github" }, KEY_FILE = { secret_file = "asked" }'
    servers = python_server("one", CHILDREN / "mcp_indiscreet.py", env=f"{{ {keys} }}", restart_delay='"10ms"')
    servers += python_server(
        "refuses", CHILDREN / "mcp_indiscreet.py", env=f'{{ {keys}, REFUSE = "1" }}', restart='"no"'
    )
    settings = 'secret_command = ["sh", "{script}"]\nlog_level = "debug"\naudit = "full"'
    daemon = Daemon(servers, defaults=defaults)
    script = daemon.home / "secrets" / "command"  # it has the value, so it lies where no leak is looked for
    daemon.settings = settings.replace("{script}", str(script))
    daemon.write(servers)
    put(daemon, "github", FIRST)
    script.write_text(f"echo {FROM_COMMAND}\n")
    try:
        daemon.start(ready=("one",))
        assert given(daemon)["key"] == FIRST
        assert given(daemon)["content"] == f"{FROM_COMMAND}\n"
        daemon.wait_until("refuses", lambda one: one["state"] == "FAILED", "it is given up")
        found = Looked(daemon)
        daemon.ctl("call", "one", "say")
        found.look_at_processes()
        found.crash()
        found.call_while_stopped()
        daemon.ctl("restart", "one")
        put(daemon, "github", SECOND)
        script.write_text(f"echo {FROM_COMMAND}-anew\n")
        for arguments in (("reload", "--dry-run"), ("reload", "--dry-run", "--json"), ("reload",)):
            done = daemon.ctl(*arguments, check=False)
            found.keep(" ".join(arguments), done.stdout + done.stderr)
        wait_for(lambda: given(daemon)["key"] == SECOND, "the new value is used")
        found.crash()
        found.ask()
        found.look_at_processes()
        found.look_at_files()
        daemon.stop()
        found.look_at_files()
        for what, text in found.seen.items():
            for value in (FIRST, SECOND, FROM_COMMAND):
                for part in (value, value[len(value) // 2 :]):  # it was printed in halves
                    assert part.encode() not in text, what
        logs = b"".join(text for what, text in found.seen.items() if what.endswith("one.log"))
        assert b"connecting with [secret] now" in logs
        assert b"[stdout-noise] debug: key=[secret]" in logs
        assert b"fatal: {'key': '[secret]'" in logs
        assert b"connecting with [secret] now" in found.seen["status one --json"], "in the tail of how it ended"
        assert b"cannot log in: " in found.seen["status refuses --json"]
        assert b"one because of its secrets asked, github" in found.seen["reload --dry-run"]
        names = {Path(what).name for what in found.seen}
        assert {"mcpd.db", "out.log", "one.log", "audit.jsonl"} <= names, "there was something to look through"
    finally:
        daemon.close()


# -- Where they come from --------------------------------------------------------------------------------------------


def test_a_command_that_fails_is_tried_again(daemon: Daemon) -> None:
    unlocked = daemon.home / "unlocked"
    script = f"test -e {unlocked} && echo s3cret-of-$0 || {{ echo locked >&2; exit 1; }}"
    daemon.close()
    again = Daemon(
        python_server(
            "one", CHILDREN / "mcp_indiscreet.py", env='{ KEY = { secret = "gitlab" } }', restart_delay='"10ms"'
        ),
        daemon=f"secret_command = {json.dumps(['sh', '-c', script])}",
    )
    unlocked.parent.mkdir()
    try:
        again.start(ready=())
        found = again.wait_until("one", lambda one: one["restarts"] > 0, "it is tried again")
        assert "secret_command did not give the secret 'gitlab': exit code 1: locked" in found["last_error"]
        unlocked.touch()
        again.ctl("restart", "one")
        assert given(again)["key"] == "s3cret-of-gitlab"
    finally:
        again.close()
        unlocked.unlink(missing_ok=True)
        unlocked.parent.rmdir()


def test_a_slow_command_holds_nobody_up_and_is_ended_with_the_daemon() -> None:
    slow = python_server("one", CHILDREN / "mcp_indiscreet.py", env='{ KEY = { secret = "slow" } }')
    daemon = Daemon(
        slow + python_server("two", CHILDREN / "mcp_peer.py"),
        daemon='secret_command = ["sh", "-c", "exec sleep 60"]',
    )
    try:
        daemon.start(ready=("two",))
        assert daemon.server("one")["state"] == "STARTING"
        tree = daemon.tree()
        assert daemon.stop() == 0
        tree.wait_gone(5)
        tree.close()
    finally:
        daemon.close()


def test_a_reload_starts_a_server_whose_secret_was_missing() -> None:
    daemon = Daemon(python_server("one", CHILDREN / "mcp_indiscreet.py", env='{ KEY = { secret = "github" } }'))
    try:
        daemon.start(ready=())
        found = daemon.wait_until("one", lambda one: one["state"] == "FAILED", "it cannot start")
        assert "the secrets directory" in found["last_error"]
        put(daemon, "github", FIRST)
        assert daemon.ctl_json("reload")["rotated"] == {"one": ["github"]}
        wait_for(lambda: daemon.states()["one"] == "READY", "it is started")
        assert given(daemon)["key"] == FIRST
    finally:
        daemon.close()


# -- Rotation --------------------------------------------------------------------------------------------------------


def test_a_reload_restarts_only_whom_a_new_value_concerns(daemon: Daemon) -> None:
    assert daemon.ctl_json("reload")["restarted"] == []
    pids = {name: daemon.server(name)["pid"] for name in ("one", "two")}
    put(daemon, "github", SECOND)
    assert daemon.ctl_json("reload", "--dry-run")["rotated"] == {"one": ["github"]}
    assert daemon.ctl_json("reload")["restarted"] == ["one"]
    wait_for(lambda: given(daemon)["key"] == SECOND, "the new value is used")
    assert daemon.server("one")["pid"] != pids["one"]
    assert daemon.server("two")["pid"] == pids["two"]
    assert daemon.ctl_json("reload")["restarted"] == []
    assert "the secret 'github' changed" in daemon.ctl("events", "-n", "100").stdout


def test_a_secret_that_is_gone_leaves_the_server_as_it_is(daemon: Daemon) -> None:
    (daemon.home / "secrets" / "github").unlink()
    done = daemon.ctl("reload", check=False)
    assert done.returncode == 1
    assert "goes on with what it was started with" in done.stderr
    assert given(daemon)["key"] == FIRST


@pytest.mark.parametrize("keys", [{"instances": "2"}, {"sharing": '"session"'}, {"activation": '"lazy"'}], ids=str)
def test_every_instance_of_a_server_gets_the_new_value(keys: dict[str, str]) -> None:
    daemon = Daemon(python_server("one", CHILDREN / "mcp_indiscreet.py", env='{ KEY = { secret = "github" } }', **keys))
    put(daemon, "github", FIRST)
    try:
        daemon.start(ready=())
        with http(daemon, "/servers/one/mcp", session=True) as client:

            def told() -> str:
                answer = client.post(call(1, "tell")).json()
                return str(answer["result"]["content"][0]["text"] if "result" in answer else "")

            wait_for(lambda: FIRST in told(), "it has the first value")
            put(daemon, "github", SECOND)
            assert daemon.ctl_json("reload")["rotated"] == {"one": ["github"]}
            wait_for(lambda: SECOND in told(), "it has the second value")
            for _ in range(4):
                wait_for(lambda: SECOND in told() or "", "no instance has the first any more")
            wait_for(lambda: daemon.ctl_json("reload")["rotated"] == {}, "all have the second")
    finally:
        daemon.close()


# -- Files -----------------------------------------------------------------------------------------------------------


def test_a_secret_file_of_a_contained_server_is_in_memory_and_its_own() -> None:
    daemon = started(ONE_FILE, defaults=STRICT)
    try:
        assert given(daemon) == {"key": "not-a-secret", "path": "/run/secrets/github", "content": f"{FIRST}\n"}
        assert not Path("/run/secrets/github").exists()
        assert not (daemon.home / "run" / "secret-files").exists()
        inside = Path(f"/proc/{daemon.server('one')['pid']}/root/run/secrets/github")
        assert inside.stat().st_dev not in {Path(place).stat().st_dev for place in ("/", daemon.home, "/run")}
    finally:
        daemon.close()


def test_a_secret_file_of_an_unsandboxed_server_is_in_memory_and_its_own_too() -> None:
    daemon = started(ONE_FILE, defaults=UNSANDBOXED)
    try:
        found = given(daemon)
        path = Path(found["path"])
        assert found["content"] == f"{FIRST}\n"
        assert path == daemon.home / "run" / "secret-files" / "one" / "github"
        assert list(path.parent.iterdir()) == [], "outside there is nothing"
        assert path.parent.stat().st_mode & 0o777 == 0o700
        daemon.ctl("stop", "one")
        assert not path.parent.exists()
        daemon.ctl("start", "one")
        assert given(daemon) == found
        daemon.kill()
        assert path.parent.exists()
        daemon.start()
        daemon.stop()
        assert not path.parent.exists()
    finally:
        daemon.close()
