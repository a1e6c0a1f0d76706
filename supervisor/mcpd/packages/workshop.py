"""The sandbox in which packages are installed, and one command run in it.

It has the network, and of the host's files it sees what the installer needs. It can write to the new installation,
which it sees where that will be, and to a home that is removed afterwards.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from mcpd.config import environment
from mcpd.config.profiles import effective
from mcpd.config.registry import LimitsSpec, SandboxSpec, ServerSpec
from mcpd.errors import SpawnError
from mcpd.packages.recipes import Step
from mcpd.packages.settings import Sources
from mcpd.process.exits import ExitStatus
from mcpd.process.launch import spawn
from mcpd.process.stderr import StderrLog
from mcpd.process.stop import StopLadder
from mcpd.sandbox import host, seccomp
from mcpd.sandbox.bubblewrap import HOME, Bind
from mcpd.sandbox.ground import Ground, Survey, for_user
from mcpd.sandbox.identity import Users
from mcpd.sandbox.limits import limits
from mcpd.sandbox.policy import DEFAULT_PATH, Identity, LaunchPlan, Premises, SandboxFacts, plan

LIMITS: Final = LimitsSpec(memory=2 * 2**30, pids=256, cpu=2.0, nofile=4096, fsize=2 * 2**30)
TMP_SIZE: Final = 256 * 2**20
LADDER: Final = StopLadder(stdin=0.0, term=0.5, kill=5.0)
LINES_KEPT: Final = 40
TMP: Final = f"{HOME}/tmp"  # noqa: S108 - on the disk: wheels do not fit into memory
_NAME: Final = "installer"

T = TypeVar("T")


class Bench(msgspec.Struct, frozen=True):
    """One installation while it is made: `made`, which is seen inside as `final`.

    `bare` is the home in which code of the package may run: in `home` there is what the installers left.
    """

    home: Path
    bare: Path
    made: Path
    final: Path

    @classmethod
    def under(cls, partial: Path, final: Path) -> Bench:
        bench = cls(partial / "home", partial / "bare", partial / "made", final)
        for directory in bench.directories:
            directory.mkdir()
            directory.chmod(0o755)  # bubblewrap enters the home before it becomes the user; those above are closed
        return bench

    @property
    def directories(self) -> tuple[Path, ...]:
        """What the installer may write to."""
        return self.home, self.home / "tmp", self.bare, self.bare / "tmp", self.made


class Finished(msgspec.Struct, frozen=True):
    """How a command ended, and the last lines that it wrote; `output` is its whole stdout."""

    status: ExitStatus
    lines: tuple[str, ...]
    output: str


class Workshop:
    """Plans and runs commands; one for a daemon."""

    def __init__(self, facts: SandboxFacts, environ: Mapping[str, str], *, run_as: str, salt: str, cookie: str) -> None:
        """`salt`: see `identity.Users`; `cookie`: by which processes are known again when the daemon was killed."""
        self._facts = facts
        self._environ = environ
        self._cookie = cookie
        self._users = Users(run_as, f"{salt}:packages") if os.geteuid() == 0 else None

    def check(self) -> None:
        """Raises SpawnError where nothing can be installed: without a sandbox mcpd does not."""
        why = self._facts.reason if self._facts.bwrap is None else self._facts.weakness
        if why:
            raise SpawnError("sandbox", f"packages are installed in a sandbox, which cannot be had: {why}")

    async def run(
        self, step: Step, bench: Bench, sources: Sources, log: StderrLog, heard: Callable[[str], None]
    ) -> Finished:
        """Run a command to its end. Cancelled, it ends all of it first. Raises SpawnError."""
        self.check()
        user = self._users.of(_NAME) if self._users is not None else None
        try:
            planned = self._plan(step, bench, sources, user)
        except OSError as error:
            raise SpawnError("sandbox", f"{error.filename or 'the installer'}: {error.strerror}") from error
        listener = _Listener(log, heard)
        child = spawn(planned, listener, log)
        child.close_stdin()
        try:
            status = await listener.ended
        finally:
            await to_its_end(child.stop(LADDER))
        errors = child.stderr_tail.decode("utf-8", "replace").splitlines()
        return Finished(status, (*listener.lines, *errors[-LINES_KEPT:]), listener.output)

    def _plan(self, step: Step, bench: Bench, sources: Sources, user: Identity | None) -> LaunchPlan:
        spec = ServerSpec(
            name=_NAME, command=step.argv, sandbox=SandboxSpec(profile="network", network="host", tmp_size=TMP_SIZE)
        )
        architecture = seccomp.ARCHITECTURES[self._facts.architecture]
        uid, gid = (user.uid, user.gid) if user is not None else (os.getuid(), os.getgid())
        if user is not None:
            for directory in bench.directories:
                os.chown(directory, uid, gid)
        files = host.system_files(uid, gid, own_network=False)
        variables = {"TMPDIR": TMP}
        paths: Sequence[str] = ()
        if not step.runs_package:
            files |= sources.files
            variables |= sources.variables
            paths = sources.paths
        ground = self._ground((*step.argv, *step.needs), paths)
        if user is not None:
            ground = Ground(tuple(for_user(ground.paths, uid, gid)), ground.links)
        premises = Premises(
            rules=effective(spec.sandbox, {}),
            ground=ground,
            host=host.look_around(),
            user=user,
            state=str(bench.bare if step.runs_package else bench.home),
            filter=seccomp.base_filter(architecture),
            resolver=host.resolver(),
            mounts=(Bind(str(bench.made), str(bench.final), writable=True),),
            limits=limits(LIMITS, controllers=frozenset(), counts_processes=self._facts.counts_processes),
            files=files,
        )
        return plan(spec, variables, self._facts, base=self._environ, cookie=self._cookie, premises=premises)

    def _ground(self, words: Sequence[str], paths: Sequence[str]) -> Ground:
        home = os.path.realpath(environment.home(self._environ))
        survey = Survey(
            self._environ.get("PATH", DEFAULT_PATH), "/", lambda real: real == home or home.startswith(f"{real}/")
        )
        for word in words:  # an interpreter may be an argument: uv venv --python PYTHON
            if word.startswith("/") and os.access(word, os.X_OK) and os.path.isfile(word):
                survey.program(word, ())
        found = survey.ground
        named = [path for path in paths if not found.covers(path)]
        for path in named:
            survey.tree(path)
        single = tuple(os.path.realpath(path) for path in named if os.path.isfile(path))
        found = survey.ground
        return Ground((*found.paths, *(one for one in single if not found.covers(one))), found.links)


async def to_its_end(work: Coroutine[object, object, T]) -> T:
    """Await `work`, which is bounded; cancelled, even several times, it ends first: nobody may meet it half done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at, so that it is not complained of
        raise cancelled
    return task.result()


class _Listener:
    """A `ChildEvents`: what the installer prints is logged, and its last line is passed on."""

    def __init__(self, log: StderrLog, heard: Callable[[str], None]) -> None:
        self.ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._output: deque[str] = deque(maxlen=1000)
        self._log = log
        self._heard = heard

    @property
    def output(self) -> str:
        return "\n".join(self._output)

    def frame(self, frame: bytes) -> None:
        self._log.write(frame + b"\n")
        text = frame.decode("utf-8", "replace")
        self.lines.append(text)
        self._output.append(text)
        if text.strip():
            self._heard(text.strip())

    def noise(self, kind: str, sample: bytes) -> None:
        self.frame(sample)

    def stdout_closed(self) -> None:
        """It may still work."""

    def stdin_broken(self) -> None:
        """It reads nothing anyway."""

    def exited(self, status: ExitStatus) -> None:
        if not self.ended.done():
            self.ended.set_result(status)
