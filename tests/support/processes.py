"""Real children for tests: started, listened to, and at the end three checks that nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mcpd.config.registry import SandboxSpec, ServerSpec
from mcpd.process import tree
from mcpd.process.child import Child
from mcpd.process.exits import ExitStatus
from mcpd.process.launch import spawn
from mcpd.process.stderr import StderrLog
from mcpd.process.stop import StopLadder
from mcpd.sandbox.policy import LaunchPlan, SandboxFacts, plan
from mcpd.sandbox.probe import probe

CHILDREN = Path(__file__).parent.parent / "children"
DEADLINE = 5.0
FAST = StopLadder(0.5, 0.5, 5.0)
COOKIE = f"test-{os.getpid()}"


def facts() -> SandboxFacts:
    """What this machine can do, asked once."""
    global _facts
    if _facts is None:
        _facts = probe()
    return _facts


_facts: SandboxFacts | None = None
BARE = SandboxFacts(None, "", "the test wants it so")


@dataclass
class Recorder:
    """A `ChildEvents` that keeps what it was told."""

    frames: list[bytes] = field(default_factory=list)
    noises: list[tuple[str, bytes]] = field(default_factory=list)
    stdout_is_closed: bool = False
    stdin_is_broken: bool = False
    status: ExitStatus | None = None
    exits: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def frame(self, frame: bytes) -> None:
        assert self.status is None, "a frame after the end"
        self.frames.append(frame)
        self.news.set()

    def noise(self, kind: str, sample: bytes) -> None:
        self.noises.append((kind, sample))
        self.news.set()

    def stdout_closed(self) -> None:
        self.stdout_is_closed = True
        self.news.set()

    def stdin_broken(self) -> None:
        self.stdin_is_broken = True
        self.news.set()

    def exited(self, status: ExitStatus) -> None:
        self.exits += 1
        self.status = status
        self.news.set()

    async def until(self, fact: Callable[[], object], timeout: float = DEADLINE) -> None:
        """Return when `fact()` is true; it is looked at whenever there is news."""
        async with asyncio.timeout(timeout):
            while not fact():
                self.news.clear()
                await self.news.wait()

    async def until_frames(self, count: int, timeout: float = DEADLINE) -> list[bytes]:
        await self.until(lambda: len(self.frames) >= count, timeout)
        return self.frames

    async def until_exit(self, timeout: float = DEADLINE) -> ExitStatus:
        await self.until(lambda: self.status is not None, timeout)
        assert self.status is not None
        return self.status


def launch_plan(
    *command: str, env: Mapping[str, str] | None = None, contained: bool = True, cwd: str = "/", cookie: str = COOKIE
) -> LaunchPlan:
    """The plan for a command, with a pid namespace or without."""
    spec = ServerSpec(name="test", command=command, cwd=Path(cwd), sandbox=SandboxSpec(profile="unsandboxed"))
    base = {"PATH": os.environ["PATH"]}
    return plan(spec, env or {}, facts() if contained else BARE, base=base, cookie=cookie)


def script(name: str, *args: str) -> tuple[str, ...]:
    """The command that runs one of tests/children."""
    return (sys.executable, "-I", "-S", str(CHILDREN / name), *args)


@dataclass
class Household:
    """Starts children; see `household`."""

    directory: Path
    contained: bool
    started: list[Child] = field(default_factory=list)
    logs: list[StderrLog] = field(default_factory=list)

    def spawn(self, name: str, *args: str, log: StderrLog | None = None, **limits: int) -> tuple[Child, Recorder]:
        """Start one of tests/children."""
        return self.spawn_plan(launch_plan(*script(name, *args), contained=self.contained), log, **limits)

    def spawn_plan(self, planned: LaunchPlan, log: StderrLog | None = None, **limits: int) -> tuple[Child, Recorder]:
        recorder = Recorder()
        if log is None:
            log = StderrLog(self.directory / f"{len(self.started)}.log")
            self.logs.append(log)
        child = spawn(planned, recorder, log, **limits)
        self.started.append(child)
        return child, recorder


@contextlib.asynccontextmanager
async def household(directory: Path, *, contained: bool = True) -> AsyncIterator[Household]:
    """Children for one test. At the end all are stopped and three things hold: no zombie or other child is left, the
    descriptors are back to what they were, and a neighbour, started before, still answers."""
    descriptors = open_descriptors()
    own_children = set(tree.children(os.getpid()))
    home = Household(directory, contained)
    neighbour, heard = home.spawn("echo.py")
    neighbour.offer(b"before")
    await heard.until_frames(1)
    try:
        yield home
        assert neighbour.offer(b"after")
        await heard.until_frames(2)
        assert heard.frames == [b"before", b"after"]
    finally:
        for child in home.started:
            await asyncio.wait_for(child.stop(FAST), 2 * DEADLINE)
        for log in home.logs:
            log.close()
    assert set(tree.children(os.getpid())) == own_children
    assert tree.carriers(COOKIE) == []
    assert open_descriptors() == descriptors


def open_descriptors() -> dict[str, str]:
    """This process's descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}").split(":")[0]
    return found


class Lifeline:
    """A FIFO that a process holds open for as long as it lives: the kernel says when it, and all like it, are gone."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lifeline"
        os.mkfifo(self.path)
        self.path.chmod(0o666)  # servers of root are somebody else
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    async def cut(self, timeout: float = DEADLINE) -> None:
        """Return when nobody holds it any more; to be called when somebody has opened it."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._fd, lambda: ended.set() if os.read(self._fd, 1) == b"" else None)
        try:
            await asyncio.wait_for(ended.wait(), timeout)
        finally:
            loop.remove_reader(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def let_others_in(place: Path) -> None:
    """Open a directory below /tmp, and those above it, to every user."""
    for directory in (place, *place.parents):
        if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(0o777)
