"""A fleet of real children for a test, and at its end the checks that nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from mcpd.clock import SystemClock
from mcpd.config.load import load
from mcpd.config.registry import Registry, SandboxSpec, ServerSpec
from mcpd.config.settings import DaemonSettings
from mcpd.control.view import Event, Outcome
from mcpd.fleet.demand import SLOTS
from mcpd.fleet.fleet import DaemonFacts, Fleet
from mcpd.fleet.instance import Instance
from mcpd.fleet.relay import Relay
from mcpd.lifecycle.states import State
from mcpd.process import tree
from mcpd.process.child import Child
from mcpd.store.store import Store
from mcpd.wire.address import View
from mcpd.wire.jsonrpc import Message
from support.processes import BARE, CHILDREN, DEADLINE, facts, open_descriptors
from support.waiting import until

QUICK: dict[str, Any] = {
    "restart_delay": 0.02,
    "restart_max_delay": 0.1,
    "stable_after": 60.0,
    "start_limit_burst": 100,
    "start_timeout": DEADLINE,
    "drain_timeout": 0.2,
    "stop_timeout": 0.2,
}


def spec(name: str, child: str = "mcp_peer.py", *args: str, **keys: Any) -> ServerSpec:
    """A server that is one of tests/children, with short delays."""
    command = (sys.executable, "-I", "-S", str(CHILDREN / child), *args)
    return ServerSpec.model_validate({"name": name, "command": command, **QUICK, **keys})


def shared(root: Path) -> Path:
    """A directory below `root` that every server of its registry may read, whoever it runs as."""
    path = root / "shared"
    path.mkdir(mode=0o755, exist_ok=True)
    return path


def _may_read(one: ServerSpec, path: Path) -> ServerSpec:
    if one.sandbox != SandboxSpec() or not path.is_dir():
        return one
    return one.model_copy(update={"sandbox": SandboxSpec(profile="filesystem", read=(str(path),))})


def registry(root: Path, *specs: ServerSpec, starts: int = 8) -> Registry:
    """Contained servers, `strict` as everybody's; where there is something `shared`, they may read it."""
    daemon = DaemonSettings(
        state_dir=root / "state",
        runtime_dir=root / "run",
        secrets_dir=root / "secrets",
        max_concurrent_starts=starts,
    )
    servers = {one.name: _may_read(one, root / "shared") for one in specs}
    return Registry(path=root / "mcpd.toml", daemon=daemon, servers=servers)


class Ship:
    """A running fleet with its relay, and what tests ask of both."""

    def __init__(self, wanted: Registry, store: Store | None = None, *, bare: bool = False) -> None:
        """`bare`: as on a machine without bubblewrap, and with the rules of the registry's profiles."""
        self.clock = SystemClock()
        self.relay = Relay("0", self.clock, wanted)
        self.shutdowns = 0
        self.fleet = Fleet(
            wanted,
            self.relay,
            store=store,
            clock=self.clock,
            sandbox=BARE if bare else facts(),
            daemon=DaemonFacts("0.1", self.clock.wall(), ("http://127.0.0.1:1",), None, self._shut_down),
        )

    def _shut_down(self) -> None:
        self.shutdowns += 1

    def instance(self, key: str) -> Instance:
        return self.fleet.instances.get(key) or self.slot(key)

    def slot(self, name: str) -> Instance:
        """The instance that has this place now; it may have followed others there."""
        return next(one for one in self.fleet.instances.values() if one.name == name and one.place.role in SLOTS)

    def state(self, key: str) -> State:
        return self.instance(key).state

    def pid(self, server: str) -> int:
        pid = self.fleet.server(server).status.pid
        assert pid is not None
        return pid

    def child(self, key: str) -> Child:
        incarnation = self.instance(key).incarnation
        assert incarnation is not None
        return incarnation.child

    async def until(self, key: str, *states: State, generation: int = 0, timeout: float = DEADLINE) -> Instance:
        """Wait until an instance is in one of these states, of that generation or a later one."""
        one = self.instance(key)
        async with asyncio.timeout(timeout):
            await one.until(lambda: one.state in states and one.machine.generation >= generation)
        return one

    async def ready(self, *keys: str, generation: int = 0) -> None:
        for key in keys or tuple(self.fleet.instances):
            await self.until(key, State.READY, generation=generation)

    async def call(self, server: str, tool: str, /, **arguments: Any) -> str:
        """The text that a tool gives."""
        raw = await self.fleet.call(server, tool, msgspec.json.encode(arguments), DEADLINE)
        text: str = msgspec.json.decode(raw)["content"][0]["text"]
        return text

    async def in_flight(self, server: str, count: int) -> None:
        """Return when the child has so many calls."""
        await until(lambda: self.relay.in_flight(server) >= count)

    def transitions(self, key: str) -> list[tuple[str, str]]:
        return [(one.old, one.new) for one in self.events() if one.instance == key and one.new]

    def reasons(self, key: str) -> list[str]:
        return [one.reason for one in self.events() if one.instance == key]

    def events(self) -> list[Event]:
        return [one for one in self.fleet.events(0).take() if isinstance(one, Event)]


class Push:
    """A client's sink that counts what it gets."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self._news = asyncio.Event()

    def deliver(self, frame: bytes, final: bool) -> None:
        self.frames.append(frame)
        self._news.set()

    def end(self) -> None:
        self._news.set()

    async def until(self, fact: Callable[[], bool]) -> None:
        """Wait until `fact()` is true; it is looked at whenever something came."""
        async with asyncio.timeout(DEADLINE):
            while not fact():
                self._news.clear()
                await self._news.wait()


class Client:
    """A client's session at a server, past its handshake."""

    def __init__(self, ship: Ship, server: str, *, push: Push | None = None, **capabilities: Any) -> None:
        self._ship = ship
        self._push = push or Push()
        self._numbers = itertools.count(1)
        self.session = ship.relay.open_session(View("server", server), "someone", "stdio", self._push)
        self._capabilities = capabilities

    async def initialize(self) -> Client:
        params = {"protocolVersion": "2025-11-25", "capabilities": self._capabilities, "clientInfo": {"name": "test"}}
        await self.ask("initialize", params)
        return self

    async def ask(self, method: str, params: Any) -> Any:
        """The answer to a request, result or error."""
        number, raw = next(self._numbers), Raw(msgspec.json.encode(params))
        self._ship.relay.submit(self.session, Message(id=Raw(b"%d" % number), method=method, params=raw), self._push)
        return await self._heard(lambda one: one.get("id") == number and "method" not in one)

    async def call(self, tool: str, **arguments: Any) -> str:
        """The text that a tool gives; fails if it gives an error."""
        answer = await self.ask("tools/call", {"name": tool, "arguments": arguments})
        assert "result" in answer, answer
        text: str = answer["result"]["content"][0]["text"]
        return text

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The message of the error that a call gives."""
        answer = await self.ask("tools/call", {"name": tool, "arguments": arguments})
        assert "error" in answer, answer
        text: str = answer["error"]["message"]
        return text

    async def asked(self, method: str) -> Any:
        """The first message of this method that the server sent."""
        return await self._heard(lambda one: one.get("method") == method)

    async def _heard(self, fits: Callable[[Any], bool]) -> Any:
        def found() -> list[Any]:
            return [one for one in map(msgspec.json.decode, self._push.frames) if fits(one)]

        await self._push.until(lambda: bool(found()))
        return found()[0]

    def answer(self, id: int, result: Any) -> None:
        """Answer what the server asked."""
        message = Message(id=Raw(b"%d" % id), result=Raw(msgspec.json.encode(result)))
        self._ship.relay.submit(self.session, message, self._push)

    def close(self) -> None:
        self._ship.relay.close_session(self.session)


async def within(work: Any) -> Any:
    """The result of `work`, which must come within the deadline."""
    async with asyncio.timeout(DEADLINE):
        return await work


async def command(work: Any) -> Outcome:
    found: Outcome = await within(work)
    return found


@contextlib.asynccontextmanager
async def sailing(wanted: Registry, store: Store | None = None, *, bare: bool = False) -> AsyncIterator[Ship]:
    """Run a fleet for one test. At the end it is stopped, and no process, zombie or descriptor of it is left."""
    facts()
    descriptors = open_descriptors()
    own_children = set(tree.children(os.getpid()))
    ship = Ship(wanted, store, bare=bare)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ship.fleet.run())
        expiring = group.create_task(ship.relay.run())
        await asyncio.sleep(0)  # the fleet has begun
        try:
            yield ship
        finally:
            async with asyncio.timeout(3 * DEADLINE):
                await ship.fleet.stop_all()
                await running
            expiring.cancel()
    assert set(tree.children(os.getpid())) == own_children
    assert tree.carriers(tree.cookie_for(wanted.daemon.runtime_dir)) == []
    assert open_descriptors() == descriptors


def load_registry(root: Path, text: str) -> Registry:
    """Write a registry file below `root` and read it; `PEER` in it is the command of the well behaved child."""
    write_registry(root, text)
    return load(root / "mcpd.toml", {"PATH": os.environ["PATH"]})


def write_registry(root: Path, text: str) -> None:
    argv = ", ".join(f'"{word}"' for word in (sys.executable, "-I", "-S", str(CHILDREN / "mcp_peer.py")))
    head = f'[daemon]\nstate_dir = "{root}/state"\nruntime_dir = "{root}/run"\nsecrets_dir = "{root}/secrets"\n'
    defaults = "[defaults]\n" + "".join(f"{key} = {value}\n" for key, value in QUICK.items())
    if (path := root / "shared").is_dir():
        defaults += f'[defaults.sandbox]\nprofile = "filesystem"\nread = ["{path}"]\n'
    (root / "mcpd.toml.new").write_text(head + defaults + text.replace("PEER", f"[{argv}]"))
    (root / "mcpd.toml.new").rename(root / "mcpd.toml")  # as editors do: whoever reads it meanwhile has all of one


class Gate:
    """A FIFO at which children wait; each `open_` lets one of them go, now or when it comes."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        path.chmod(0o644)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open_(self) -> None:
        os.write(self._fd, b"x")

    def close(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def gate(directory: Path, name: str = "gate") -> Iterator[Gate]:
    """Made before the registry of the same directory, whose servers may read it then."""
    one = Gate(shared(directory) / name)
    try:
        yield one
    finally:
        one.close()
