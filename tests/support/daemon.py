"""A real daemon for end-to-end tests: its own directories, a free port, ended for certain."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil

from mcpd.control.client import ControlClient, NoDaemon

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CHILDREN = ROOT / "tests" / "children"
SERVERS = ROOT / "workers" / "mcpworker" / "servers"
PEERS = ROOT / ".venv" / "peers"
DEADLINE = 30.0
COOKIE = "MCPD_TEST_COOKIE"  # a variable by which what a daemon started is known, however far it has run away
PATIENCE = 0.02  # seconds between two looks at a fact that nobody announces


def wait_for(fact: Callable[[], Any], what: str | Callable[[], str], deadline: float = DEADLINE) -> Any:
    """Look until `fact` is true, and return what it gave; fail at the deadline, saying `what` was waited for."""
    end = time.monotonic() + deadline
    while True:
        found = fact()
        if found:
            return found
        assert time.monotonic() < end, f"not within {deadline:g} s: {what if isinstance(what, str) else what()}"
        _pause()


def _pause() -> None:
    signal.sigtimedwait([], PATIENCE)


class Tree:
    """The processes below a daemon at one moment, held by descriptors of the kernel, so that no number is mistaken."""

    def __init__(self, root: int, cookie: str) -> None:
        self._cookie = cookie
        self._held: dict[int, int] = {}
        for process in psutil.Process(root).children(recursive=True):
            with contextlib.suppress(ProcessLookupError):
                self._held[process.pid] = os.pidfd_open(process.pid)

    @property
    def pids(self) -> set[int]:
        return set(self._held)

    def wait_gone(self, deadline: float = DEADLINE) -> None:
        """Return when the kernel says that all have ended, and nothing else carries the cookie."""
        end = time.monotonic() + deadline
        for pid, descriptor in self._held.items():
            ended, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            assert ended, f"process {pid} still runs"
        assert carriers(self._cookie) == []

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)


def carriers(cookie: str) -> list[int]:
    """The processes that have a cookie in their environment; zombies have none."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{COOKIE}={cookie}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
    return found


class Daemon:
    """`mcpd start` on a registry of its own. `home` holds everything that it writes.

    Servers are started with `cookie` in their environment, and under `strict` as everybody's are, unless a test says
    otherwise.
    """

    def __init__(
        self,
        servers: str,
        *,
        frontdoor: str = "",
        daemon: str = "",
        views: str = "",
        defaults: str = "",
    ) -> None:
        self.cookie = uuid.uuid4().hex
        self.defaults = defaults
        self.home = Path(tempfile.mkdtemp(prefix="mcpd-t-"))
        self.registry = self.home / "mcpd.toml"
        self.frontdoor = frontdoor
        self.settings = daemon
        self.views = views
        self.write(servers)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.home / "out.log"
        self.env = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "MCPD_CONFIG": str(self.registry),
            "LANG": "C.UTF-8",
            **{key: value for key, value in os.environ.items() if key.startswith(("COVERAGE", "PYTHONPATH"))},
        }

    def write(self, servers: str) -> None:
        """Write the registry anew; the daemon is not told."""
        port = getattr(self, "port", 0)
        self.registry.write_text(
            f'[daemon]\nstate_dir = "state"\nruntime_dir = "run"\nsecrets_dir = "secrets"\n{self.settings}\n'
            f"[frontdoor]\nport = {port}\n{self.frontdoor}\n{self.views}\n"
            f'[defaults]\nenv = {{ {COOKIE} = "{self.cookie}" }}\n{self.defaults}\n{servers}\n'
        )

    def start(self, *, ready: tuple[str, ...] | None = None) -> None:
        """Start it, and wait until it listens and the servers `ready` (all, if None) are READY."""
        self.spawn()
        self.wait_ready(ready)

    def spawn(self) -> None:
        """Start its process, and wait for nothing."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "mcpd", "start", "--config", self.registry],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.home,
                start_new_session=True,
            )

    def wait_ready(self, ready: tuple[str, ...] | None = None) -> None:
        """Wait until it listens and the servers `ready` (all, if None) are READY."""
        wait_for(self._listens, lambda: f"the daemon listens\n{self.output()}")
        self.url = self.control.daemon().urls[0]
        self.port = int(self.url.rpartition(":")[2])
        wait_for(lambda: self._are_ready(ready), lambda: f"servers are READY: {self.states()}\n{self.output()}")

    def _listens(self) -> bool:
        assert self.process is None or self.process.poll() is None, self.output()
        try:
            return bool(self.control.daemon().urls)
        except NoDaemon:
            return False

    def _are_ready(self, names: tuple[str, ...] | None) -> bool:
        states = self.states()
        return all(states.get(name) == "READY" for name in (states if names is None else names))

    @property
    def control(self) -> ControlClient:
        """What `mcpctl` uses, without the half second that it takes to start."""
        return ControlClient(self.home / "run" / "control.sock")

    def tree(self) -> Tree:
        """Everything that runs below it now."""
        return Tree(self.pid, self.cookie)

    def output(self) -> str:
        """What the daemon printed."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def token(self) -> str:
        return (self.home / "state" / "token").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def connect_argv(self, *args: str) -> list[str]:
        """The command by which a desktop client would reach this daemon."""
        return [str(BIN / "mcpctl"), "connect", *args]

    def ctl(self, *args: str, check: bool = True, timeout: float = DEADLINE) -> subprocess.CompletedProcess[str]:
        """Run `mcpctl`."""
        return self.run("mcpctl", *args, check=check, timeout=timeout)

    def run(
        self, program: str, *args: str, check: bool = True, timeout: float = DEADLINE
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the two programs to its end, on this daemon's registry."""
        done = subprocess.run(
            [BIN / program, *args],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{program} {args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def ctl_json(self, *args: str) -> Any:
        return json.loads(self.ctl(*args, "--json").stdout)

    def ctl_json_lines(self, *args: str) -> list[Any]:
        return [json.loads(line) for line in self.ctl(*args, "--json").stdout.splitlines()]

    def states(self) -> dict[str, str]:
        """The state of each server."""
        return {server.name: server.state for server in self.control.servers()}

    def server(self, name: str) -> dict[str, Any]:
        """One line of `mcpctl list`, as its JSON."""
        found: dict[str, Any] = next(msgspec.to_builtins(one) for one in self.control.servers() if one.name == name)
        return found

    def wait_until(self, name: str, fact: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait for something about a server to be true."""
        return wait_for(lambda: (found := self.server(name)) and fact(found) and found, f"{name}: {what}")  # type: ignore[no-any-return]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait, and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE)

    def close(self) -> None:
        """End it, whatever state it is in, and remove its directories."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(DEADLINE)
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def running(servers: str, *, ready: tuple[str, ...] | None = None, **options: str) -> Iterator[Daemon]:
    """A daemon with these `[servers.*]` tables, for the length of a block."""
    daemon = Daemon(servers, **options)
    try:
        daemon.start(ready=ready)
        yield daemon
    finally:
        daemon.close()


def python_server(name: str, file: Path, *args: str, **keys: str) -> str:
    """A registry table that runs a Python file."""
    argv = json.dumps([sys.executable, str(file), *args])
    rest = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f"[servers.{name}]\ncommand = {argv}\n{rest}\n"


def script_server(name: str, file: Path, *args: str, **keys: str) -> str:
    """A registry table that runs a server script through the launcher."""
    rest = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f"[servers.{name}]\nscript = {json.dumps(str(file))}\nargs = {json.dumps(list(args))}\n{rest}\n"
