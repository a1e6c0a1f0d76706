"""The packages of a daemon: installs what is not there yet, one of a kind at a time, and says how each is started."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec
import structlog

from mcpd.config.programs import search_path
from mcpd.config.registry import Package, ServerSpec
from mcpd.errors import SpawnError
from mcpd.packages import programs, recipes, settings, shelf
from mcpd.packages.complaints import explain, last_words
from mcpd.packages.recipes import Tools
from mcpd.packages.shelf import Place, Record
from mcpd.packages.workshop import Bench, Finished, Workshop, to_its_end
from mcpd.process.stderr import StderrLog
from mcpd.sandbox.bubblewrap import HOME
from mcpd.sandbox.policy import DEFAULT_PATH, SandboxFacts

TIMEOUT: Final = 600.0
"""For one installation."""
LOCK_PATIENCE: Final = 2 * TIMEOUT
LOCK_LOOK: Final = 0.2
AT_ONCE: Final = 2
PROGRESS: Final = 10.0
"""So often it is told that it goes on."""

Tell = Callable[[str], None]
P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger("mcpd.packages")


class Packages:
    """One for a daemon; everything is called on its loop, in the main thread."""

    def __init__(
        self, root: Path, facts: SandboxFacts, environ: Mapping[str, str], *, run_as: str, salt: str, cookie: str
    ) -> None:
        """`root`: where packages are kept; `environ`: the daemon's; the others as `Workshop` has them."""
        self.root = root
        self._environ = environ
        self._workshop = Workshop(facts, environ, run_as=run_as, salt=salt, cookie=cookie)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._doing: dict[Path, asyncio.Lock] = {}

    # -- Installing --------------------------------------------------------------------------------------------------

    async def ensure(self, spec: ServerSpec, log: StderrLog, tell: Tell) -> Record | None:
        """Have the server's package installed; None: it has none. `tell` is given the progress, for people.

        Raises SpawnError: `resources` where another try may go well, else `exec` or `sandbox`. Cancelled, nothing of
        the installation is left.
        """
        if spec.package is None:
            return None
        place = Place(self.root, spec.package, spec.install_scripts)
        if (found := place.record()) is None:
            return await self.install(spec.package, spec.install_scripts, log, tell)
        if problem := await self._complaint(place, found):
            remedy = f"`mcpctl upgrade {spec.name} {spec.package.version}` installs it anew"
            raise SpawnError(
                "exec", f"servers.{spec.name}.package: {spec.package} is not what was installed: {problem}; {remedy}"
            )
        return found

    async def install(self, package: Package, scripts: bool, log: StderrLog, tell: Tell) -> Record:
        """The same for a package as such, which is installed anew where it is not what it was."""
        place = Place(self.root, package, scripts)
        if (found := place.record()) is not None and not await self._complaint(place, found):
            return found
        try:
            async with self._locked(place, tell):
                if (found := place.record()) is not None:
                    if not (problem := await self._complaint(place, found)):
                        return found
                    self._told(log, tell, f"{package} is installed anew: {problem}")
                    await _in_thread(place.remove)
                async with self._turns, asyncio.timeout(TIMEOUT):
                    return await self._install(place, log, tell)
        except TimeoutError:
            text = f"{package} could not be installed within {TIMEOUT:g} s; is the network slow? it is tried again"
            raise SpawnError("resources", text) from None
        except OSError as error:
            where = error.filename or place.shelf
            raise SpawnError("resources", f"{package} could not be installed: {where}: {error.strerror}") from error

    async def _complaint(self, place: Place, record: Record) -> str:
        """What is wrong with an installation; its stamp is taken anew where only that is another."""
        try:
            return await _in_thread(_looked_over, place, record)
        except OSError as error:
            return f"{error.filename or place.directory}: {error.strerror}"

    async def newest(self, package: Package, log: StderrLog) -> str:
        """The newest version that there is. Raises SpawnError."""
        tools, sources = self._tools(package)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".ask.", suffix=shelf.PARTIAL, dir=self.root))
        try:
            bench = Bench.under(partial, self.root / ".asked")
            finished: Finished | None = None
            async with asyncio.timeout(TIMEOUT):
                for step in recipes.newest(package, tools, HOME):
                    finished = await self._workshop.run(step, bench, sources, log, _ignore)
                    if finished.status.result != "success":
                        raise explain(package, finished.lines, str(finished.status))
            version = recipes.parse_newest(tools.tool, finished.output) if finished is not None else None
            if version is None:
                lines = finished.lines if finished is not None else ()
                raise SpawnError("exec", f"{package}: {tools.tool} named no version: {last_words(lines)}; name one")
            return version
        except TimeoutError:
            raise SpawnError("resources", f"{package}: no version was named within {TIMEOUT:g} s") from None
        finally:
            await _in_thread(shelf.remove_tree, partial)

    async def _install(self, place: Place, log: StderrLog, tell: Tell) -> Record:
        package = place.package
        tools, sources = self._tools(package)
        began = time.monotonic()
        self._told(log, tell, f"installing {package} with {tools.tool}")
        try:
            partial = await _in_thread(place.begin)
            bench = Bench.under(partial, place.directory)
            for step in recipes.install(package, tools, str(place.directory), HOME, scripts=place.scripts):
                async with _progress(f"installing {package}", began, tell) as heard:
                    finished = await self._workshop.run(step, bench, sources, log, heard)
                if finished.status.result != "success":
                    raise _failure(package, finished)
            record = await _in_thread(_finish, place, bench, tools)
        finally:
            await _in_thread(place.clear)
        took = time.monotonic() - began
        self._told(
            log,
            tell,
            f"installed {package} in {took:.1f} s: {record.files} files, {record.size / 2**20:.1f} MiB, "
            f"sha256 {record.sha256[:16]}…",
        )
        return record

    def _told(self, log: StderrLog, tell: Tell, text: str) -> None:
        log.note(text)
        tell(text)

    def _tools(self, package: Package) -> tuple[Tools, settings.Sources]:
        """Raises SpawnError if there is nothing to install with."""
        self._workshop.check()
        path = self._environ.get("PATH", DEFAULT_PATH)
        sources = settings.look_up(self._environ)
        if package.registry == "npm":
            npm = shutil.which("npm", path=path)
            if npm is None or shutil.which("node", path=path) is None:
                missing = "npm" if npm is None else "node"
                text = f"{package} cannot be installed: {missing} is not on mcpd's PATH; install Node.js with npm"
                raise SpawnError("exec", text)
            return Tools("npm", npm, ""), sources
        uv = shutil.which("uv", path=path)
        if uv is not None and not sources.pip_has_index:
            return Tools("uv", uv, sys.executable), sources
        return Tools("pip", sys.executable, sys.executable), sources

    @asynccontextmanager
    async def _locked(self, place: Place, tell: Tell) -> AsyncIterator[None]:
        """Nobody else makes, or removes, this installation: no other task, and no other daemon (flock(2))."""
        lock = self._doing.setdefault(place.directory, asyncio.Lock())
        if lock.locked():
            tell(f"waiting for the installation of {place.package} that goes on")
        async with lock:
            place.shelf.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(place.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                end = time.monotonic() + LOCK_PATIENCE
                while not _taken(descriptor):
                    if time.monotonic() > end:
                        text = f"{place.package}: another mcpd has been installing it for {LOCK_PATIENCE:g} s"
                        raise SpawnError("resources", text)
                    await asyncio.sleep(LOCK_LOOK)
                yield
            finally:
                os.close(descriptor)

    # -- Using -------------------------------------------------------------------------------------------------------

    def started_by(self, spec: ServerSpec) -> ServerSpec:
        """`spec` with the command by which its package is started, where it has one.

        Raises SpawnError: it is not installed, has no such program, or nothing that runs it.
        """
        if spec.package is None:
            return spec
        place = Place(self.root, spec.package, spec.install_scripts)
        record = place.record()
        if record is None:
            raise SpawnError("exec", f"servers.{spec.name}.package: {spec.package} is not installed")
        program = programs.choose(spec.package, record.programs, spec.bin, spec.name)
        file = str(place.directory / program.path)
        command: tuple[str, ...] = (file,)
        if program.runner == "python":
            command = (str(place.directory / shelf.VENV / "bin" / "python"), file)
        elif program.runner == "node":
            path = search_path(spec, self._environ.get("PATH", DEFAULT_PATH))
            node = shutil.which("node", path=path)
            if node is None:
                text = f"servers.{spec.name}.package: node is not on PATH ({path}); install Node.js"
                raise SpawnError("exec", text)
            command = (os.path.abspath(node), file)
        return spec.model_copy(update={"command": command, "package": None})

    # -- Keeping -----------------------------------------------------------------------------------------------------

    async def prune(self, used: Collection[Package], only: Package | None = None) -> list[str]:
        """Remove what is installed and not used; with `only` just other versions of that package. Returns what went."""
        names = {str(package) for package in used}
        gone = []
        for place, record in list(shelf.records(self.root)):
            same = only is None or place.shelf == Place(self.root, only).shelf
            if same and record.package not in names:
                async with self._locked(place, _ignore):
                    await _in_thread(place.remove)
                gone.append(record.package)
        return gone


def _looked_over(place: Place, record: Record) -> str:
    if problem := shelf.complaint(place, record):
        return problem
    if (now := shelf.stamp(place.directory)) != record.stamp:
        with contextlib.suppress(OSError):  # then it is read in full the next time, too
            place.write(msgspec.structs.replace(record, stamp=now))
    return ""


def _finish(place: Place, bench: Bench, tools: Tools) -> Record:
    """Look at what was made, and put it in its place."""
    shelf.seal(bench.made, place.directory, tools.python or os.devnull)
    version, found = programs.find(place.package, bench.made)
    if version and version != place.package.version and place.package.registry == "npm":
        raise SpawnError("exec", f"{place.package}: version {version} was installed; write that one")
    sha256, files, size = shelf.fingerprint(bench.made)
    record = Record(
        package=str(place.package),
        scripts=place.scripts,
        sha256=sha256,
        files=files,
        size=size,
        programs=found,
        installer=tools.tool,
        installed_at=time.time(),
        stamp=shelf.stamp(bench.made),
    )
    place.finish(bench.made, record)
    return record


def _failure(package: Package, finished: Finished) -> SpawnError:
    if finished.status.failure in ("sandbox", "exec"):
        return SpawnError(finished.status.failure, f"{package}: its installer could not be run: {finished.status}")
    return explain(package, finished.lines, str(finished.status))


@asynccontextmanager
async def _progress(what: str, began: float, tell: Tell) -> AsyncIterator[Tell]:
    """Takes lines of output; now and then the last is passed on."""
    last = ""

    def heard(line: str) -> None:
        nonlocal last
        last = line

    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def told() -> None:
        nonlocal timer
        tell(f"{what}: {time.monotonic() - began:.0f} s{f', {last[:100]}' if last else ''}")
        timer = loop.call_later(PROGRESS, told)

    timer = loop.call_later(PROGRESS, told)
    try:
        yield heard
    finally:
        timer.cancel()


async def _in_thread(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Work on files, in a thread, to its end."""
    return await to_its_end(asyncio.to_thread(work, *args, **named))


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ignore(_: str) -> None:
    """Nobody wants to know."""
