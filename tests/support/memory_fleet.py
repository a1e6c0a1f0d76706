"""A fleet without processes that keeps the promises of `FleetView`, and the control API over it on a real socket.

A server is a script of what its starts come to: "ok", "hang" (until shutdown), or the reason why not. Its tools are
echoes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvicorn

from mcpd.control.api import ControlApi
from mcpd.control.view import (
    DaemonStatus,
    Event,
    ExitRecord,
    Gap,
    IsolationStatus,
    Outcome,
    ReloadReport,
    ServerDetail,
    ServerStatus,
    SessionStatus,
    ToolStatus,
    Upgrade,
)
from mcpd.errors import CallTimeout, ClientFault, ConfigError, NotFound, Problem, ServerFault

RING = 500
FEED = 100


class MemoryServer:
    def __init__(self, name: str, starts: list[str] | None = None) -> None:
        self.name = name
        self.starts = deque(starts or [])
        self.state = "STOPPED"
        self.since = time.time()
        self.generation = 0
        self.last_error: str | None = None
        self.exits: list[ExitRecord] = []


class MemoryFeed:
    def __init__(self, first: list[Event | Gap]) -> None:
        self._queue: deque[Event | Gap] = deque(first)
        self._missed = 0
        self._wake = asyncio.Event()
        self.closed = False

    def push(self, event: Event) -> None:
        if len(self._queue) >= FEED:
            self._missed += 1
            return
        if self._missed:
            self._queue.append(Gap(missed=self._missed))
            self._missed = 0
        self._queue.append(event)
        self._wake.set()

    def take(self) -> list[Event | Gap]:
        taken = list(self._queue)
        self._queue.clear()
        return taken

    def __aiter__(self) -> MemoryFeed:
        return self

    async def __anext__(self) -> Event | Gap:
        while not self._queue:
            if self.closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()

    def close(self) -> None:
        self.closed = True
        self._wake.set()


class MemoryFleet:
    """Commands take one turn of the loop a state; `stopping` is set by `request_shutdown`."""

    def __init__(self, root: Path, *servers: MemoryServer) -> None:
        self.root = root
        self.all = {server.name: server for server in servers}
        self.ring: deque[Event] = deque(maxlen=RING)
        self.seq = 0
        self.feeds: list[MemoryFeed] = []
        self.stopping = asyncio.Event()
        self.registry_problems: list[Problem] = []
        self.report = ReloadReport(added=("new",), restarted=("time",), unchanged=("notes",))
        self.open_sessions: list[SessionStatus] = []
        self.started_at = time.time()
        (root / "logs").mkdir(exist_ok=True)

    def _get(self, name: str) -> MemoryServer:
        try:
            return self.all[name]
        except KeyError:
            raise NotFound(f"there is no server {name!r}") from None

    def move(self, name: str, state: str, reason: str = "") -> None:
        server = self._get(name)
        self.seq += 1
        event = Event(
            seq=self.seq,
            at=time.time(),
            server=name,
            instance=name,
            generation=server.generation,
            old=server.state,
            new=state,
            reason=reason,
        )
        server.state, server.since = state, event.at
        self.ring.append(event)
        self.feeds = [feed for feed in self.feeds if not feed.closed]
        for feed in self.feeds:
            feed.push(event)

    def flood(self, name: str, count: int) -> None:
        """More changes at once than any feed holds."""
        for _ in range(count):
            self.move(name, "STOPPED")

    def _status(self, server: MemoryServer) -> ServerStatus:
        runs = server.state == "READY"
        return ServerStatus(
            name=server.name,
            state=server.state,
            since=server.since,
            restarts=max(0, server.generation - 1),
            pid=os.getpid() if runs else None,
            rss=12 * 2**20 if runs else None,
            cpu=0.5 if runs else None,
            uptime=time.time() - server.since if runs else None,
            isolation="unsandboxed",
            tools=1,
            generation=server.generation,
            last_error=server.last_error,
            era="handshake" if runs else None,
            protocol="2025-11-25" if runs else None,
        )

    def servers(self) -> list[ServerStatus]:
        return [self._status(server) for server in self.all.values()]

    def server(self, name: str) -> ServerDetail:
        server = self._get(name)
        tail = server.exits[-1].stderr_tail if server.exits else ""
        return ServerDetail(
            status=self._status(server),
            exits=tuple(server.exits),
            argv=("/usr/bin/python3", f"{name}.py"),
            cwd="/srv",
            env=("API_KEY",),
            log=str(self.log_path(name)),
            stderr_tail=tail,
        )

    async def start(self, name: str) -> Outcome:
        server = self._get(name)
        if server.state == "READY":
            return Outcome(ok=True, state="READY")
        result = server.starts.popleft() if server.starts else "ok"
        server.generation += 1
        for state in ("STARTING", "INITIALIZING"):
            self.move(name, state)
            await asyncio.sleep(0)
        if result == "hang":
            await self.stopping.wait()
        if result in ("ok", "hang"):
            server.last_error = None
            self.move(name, "READY")
            return Outcome(ok=True, state="READY")
        server.last_error = result
        server.exits.append(
            ExitRecord(
                at=time.time(),
                reason="exit-code",
                status="exit status 3",
                instance=name,
                generation=server.generation,
                stderr_tail=f"Traceback of {name}\n{result}\n",
            )
        )
        self.move(name, "EXITED", "exit-code")
        self.move(name, "BACKOFF", result)
        return Outcome(ok=False, state="BACKOFF", reason=result)

    async def stop(self, name: str) -> Outcome:
        server = self._get(name)
        if server.state != "STOPPED":
            self.move(name, "STOPPING")
            await asyncio.sleep(0)
            self.move(name, "STOPPED")
        return Outcome(ok=True, state="STOPPED")

    async def restart(self, name: str) -> Outcome:
        await self.stop(name)
        return await self.start(name)

    async def roll(self, name: str) -> Outcome:
        self.move(name, "READY", "replaced by a newer one")
        return Outcome(ok=True, state="READY")

    async def reset_failed(self, name: str) -> Outcome:
        return await self.start(name)

    async def reload(self, dry_run: bool) -> ReloadReport:
        if self.registry_problems:
            raise ConfigError(*self.registry_problems)
        return msgspec.structs.replace(self.report, dry_run=dry_run)

    async def upgrade(self, name: str, version: str | None) -> Upgrade:
        self._get(name)
        return Upgrade(server=name, before="npm:x@1.0.0", after=f"npm:x@{version or '2.0.0'}")

    async def prune(self, name: str | None) -> list[str]:
        return ["npm:x@1.0.0"] if name is None else []

    def isolation(self) -> list[IsolationStatus]:
        return [IsolationStatus(server="time", instance="time", pid=1, profile="strict")]

    def events(self, after: int) -> MemoryFeed:
        known = list(self.ring)
        first: list[Event | Gap] = [*(known[after:] if after < 0 else [e for e in known if e.seq > after])]
        feed = MemoryFeed(first)
        self.feeds.append(feed)
        return feed

    def sessions(self) -> list[SessionStatus]:
        return list(self.open_sessions)

    async def tools(self, name: str | None) -> list[ToolStatus]:
        servers = list(self.all) if name is None else [self._get(name).name]
        schema = {
            "type": "object",
            "properties": {"text": {"type": "string"}, "times": {"type": "integer"}},
            "required": ["text"],
        }
        return [
            ToolStatus(
                server=server,
                name="echo",
                public_name=f"{server}__echo",
                description="Says it again.\nAnd again.",
                input_schema=msgspec.Raw(msgspec.json.encode(schema)),
            )
            for server in servers
        ]

    async def call(self, name: str, tool: str, arguments: bytes, timeout: float, caller: str = "operator") -> bytes:
        if self._get(name).state != "READY":
            raise ServerFault(f"{name} is not running: {self._get(name).state}")
        if tool == "sleep":
            raise CallTimeout(f"{name}: {tool} did not answer within {timeout:g} s")
        if tool == "fail":
            return b'{"content":[{"type":"text","text":"it went wrong"}],"isError":true}'
        if tool != "echo":
            raise ClientFault(f"{name} has no tool {tool!r}")
        text = msgspec.json.encode(arguments.decode())
        return b'{"content":[{"type":"text","text":' + text + b'}],"x-unknown":12345678901234567890,"half":"\\ud83d"}'

    def log_path(self, name: str) -> Path:
        return self.root / "logs" / f"{self._get(name).name}.log"

    def daemon(self) -> DaemonStatus:
        return DaemonStatus(
            version="0.1.0",
            pid=os.getpid(),
            started_at=self.started_at,
            uptime=time.time() - self.started_at,
            registry=str(self.root / "mcpd.toml"),
            state_dir=str(self.root),
            runtime_dir=str(self.root),
            urls=("http://127.0.0.1:6270",),
            token_file=str(self.root / "token"),
        )

    def request_shutdown(self) -> None:
        self.stopping.set()


class ServedFleet:
    """The fleet, the API over it, and a way to do something on their loop from the test's thread."""

    def __init__(self, root: Path, servers: tuple[MemoryServer, ...]) -> None:
        self.socket_path = root / "control.sock"
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.root = root
        self._servers = servers
        self.thread = threading.Thread(target=self._run, name="memory-fleet")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.fleet = MemoryFleet(self.root, *self._servers)
        self.api = ControlApi(self.fleet)
        config = uvicorn.Config(
            self.api, uds=str(self.socket_path), lifespan="off", log_config=None, timeout_graceful_shutdown=5
        )
        self.server = uvicorn.Server(config)
        with contextlib.ExitStack() as stack:
            stack.callback(self.ready.set)
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self.server._serve())
                while not self.server.started and not serving.done():
                    await asyncio.sleep(0.005)
                self.ready.set()
                await self.fleet.stopping.wait()
                self.api.close()
                self.server.should_exit = True

    def do(self, name: str, *arguments: object) -> None:
        """Run `fleet.name(*arguments)` on the loop and wait for it."""
        done = threading.Event()

        def act() -> None:
            getattr(self.fleet, name)(*arguments)
            done.set()

        self.loop.call_soon_threadsafe(act)
        assert done.wait(10)


@contextlib.contextmanager
def served_fleet(root: Path, *servers: MemoryServer) -> Iterator[ServedFleet]:
    served = ServedFleet(root, servers)
    served.thread.start()
    try:
        assert served.ready.wait(10)
        yield served
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed: it was shut down by the test
            served.loop.call_soon_threadsafe(served.fleet.request_shutdown)
        served.thread.join(15)
        assert not served.thread.is_alive()
