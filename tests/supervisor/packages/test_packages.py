"""Packages of the real registries, installed by the real installers in the real sandbox."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.server
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from mcpd.config.registry import Package, ServerSpec
from mcpd.errors import SpawnError
from mcpd.packages.packages import Packages
from mcpd.packages.shelf import Place, fingerprint, remove_tree
from mcpd.process import tree
from mcpd.process.stderr import StderrLog
from mcpd.sandbox.policy import SandboxFacts
from support.processes import facts
from support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

NPM = Package.parse("npm:which@5.0.0")  # small, with one dependency and one program
PYPI = Package.parse("pypi:tabulate==0.9.0")  # small, with none and one
NOWHERE = "http://127.0.0.1:9/"
COOKIE = f"packages-{os.getpid()}"


class Bench:
    """Packages below a directory of their own, and what they told."""

    def __init__(self, root: Path, **environ: str) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        inherited = {key: value for key, value in os.environ.items() if key != "PIP_FIND_LINKS"}
        self.root = root
        self.environ = {**inherited, "PATH": path, **environ}
        self.packages = self.made(facts())
        self.log = StderrLog(root / "log")
        self.told: list[str] = []

    def made(self, known: SandboxFacts) -> Packages:
        return Packages(
            self.root / "packages", known, self.environ, run_as="dynamic", salt=str(self.root), cookie=COOKIE
        )

    async def install(self, package: Package, scripts: bool = False) -> None:
        await self.packages.install(package, scripts, self.log, self.told.append)

    async def refused(self, package: Package) -> SpawnError:
        with pytest.raises(SpawnError) as refused:
            await self.install(package)
        assert self.left(package) == []
        return refused.value

    def left(self, package: Package) -> list[str]:
        """What stands on the package's shelf, locks aside."""
        shelf = Place(self.packages.root, package).shelf
        return sorted(one.name for one in shelf.iterdir() if not one.name.endswith(".lock")) if shelf.exists() else []

    def run(self, package: Package, *args: str) -> str:
        """What the package's program prints."""
        spec = ServerSpec(name="s", package=str(package))
        command = self.packages.started_by(spec).command
        return subprocess.run([*command, *args], capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    os.umask(0o077)  # as the daemon has it
    yield lambda **environ: Bench(tmp_path, **environ)
    os.umask(0o022)
    assert tree.carriers(COOKIE) == []
    remove_tree(tmp_path / "packages")


@pytest.mark.parametrize(("package", "word"), [(NPM, "sh"), (PYPI, "--help")], ids=["npm", "pypi"])
async def test_package_is_installed_once_and_runs(bench: Callable[..., Bench], package: Package, word: str) -> None:
    one = bench()
    await one.install(package)

    place = Place(one.packages.root, package)
    record = place.record()
    assert record is not None
    assert record.package == str(package)
    assert (record.sha256, record.files, record.size) == fingerprint(place.directory)
    assert one.left(package) == sorted([package.version, f"{package.version}.json"])
    assert one.told[0].startswith(f"installing {package} with ")
    assert one.told[-1].startswith(f"installed {package} in ")
    assert "sh" in one.run(package, word)
    for folder, _, files in os.walk(place.directory):
        for name in files:
            status = os.lstat(os.path.join(folder, name))
            assert status.st_uid == os.geteuid()
            assert stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o222
    one.told.clear()
    await one.install(package)
    assert one.told == []


async def test_two_at_once_make_one_installation(bench: Callable[..., Bench]) -> None:
    one = bench()
    other = bench()

    await asyncio.gather(one.install(NPM), one.install(NPM), other.install(NPM))

    done = [text for text in (*one.told, *other.told) if text.startswith("installed")]
    assert len(done) == 1
    assert f"waiting for the installation of {NPM} that goes on" in one.told


@pytest.mark.parametrize("package", ["npm:which@99.99.99", "pypi:tabulate==99.99"])
async def test_version_that_is_not_there_is_told(bench: Callable[..., Bench], package: str) -> None:
    error = await bench().refused(Package.parse(package))

    assert error.result == "exec"
    assert "is there such a package, and such a version?" in str(error)


@pytest.mark.parametrize(
    ("package", "environ"),
    [(NPM, {"npm_config_registry": NOWHERE}), (PYPI, {"UV_DEFAULT_INDEX": NOWHERE, "PIP_INDEX_URL": NOWHERE})],
    ids=["npm", "pypi"],
)
async def test_without_a_registry_another_try_may_help(
    bench: Callable[..., Bench], package: Package, environ: dict[str, str]
) -> None:
    error = await bench(**environ).refused(package)

    assert error.result == "resources"
    assert "127.0.0.1:9" in str(error)
    assert "is the network up" in str(error)


@pytest.mark.parametrize("package", [NPM, PYPI], ids=["npm", "pypi"])
async def test_interrupted_installation_leaves_nothing(bench: Callable[..., Bench], package: Package) -> None:
    one = bench()
    work = asyncio.ensure_future(one.install(package))
    await until(lambda: tree.carriers(COOKIE), 30)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    assert tree.carriers(COOKIE) == []
    assert one.left(package) == []


async def test_newest_version_is_asked_for(bench: Callable[..., Bench]) -> None:
    one = bench()

    assert [int(part) for part in (await one.packages.newest(PYPI, one.log)).split(".")] >= [0, 9, 0]
    assert int((await one.packages.newest(NPM, one.log)).partition(".")[0]) >= 5
    assert [name for name in os.listdir(one.packages.root) if name.endswith(".partial")] == []


POST_INSTALL = """
const fs = require("fs"), found = {};
const tried = (name, work) => { try { work(); found[name] = true } catch { found[name] = false } };
tried("configuration", () => fs.readFileSync(process.env.HOME + "/.npmrc"));
tried("outside", () => fs.writeFileSync("/usr/mcpd-was-here", ""));
found.registry = (process.env.npm_config_registry || "").includes("127.0.0.1");
fs.writeFileSync("ran.json", JSON.stringify(found));
"""


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry of npm with one package, which has a lifecycle script (npm, "scripts")."""
    manifest = {"name": "hook", "version": "1.0.0", "bin": "post.js", "scripts": {"postinstall": "node post.js"}}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in (("package.json", json.dumps(manifest)), ("post.js", POST_INSTALL)):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    tarball = packed.getvalue()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            dist = {"tarball": f"{url}/hook.tgz", "integrity": integrity}
            version = {**manifest, "hasInstallScript": True, "dist": dist}
            body = json.dumps({"name": "hook", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})
            content = tarball if self.path.endswith(".tgz") else body.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, name="registry").start()
        yield url
        server.shutdown()


async def test_scripts_run_only_where_the_entry_says_so(
    bench: Callable[..., Bench], registry: str, tmp_path: Path
) -> None:
    (tmp_path / ".npmrc").write_text(f"registry={registry}\n")  # where operators keep keys to registries, too
    one, hook = bench(HOME=str(tmp_path)), Package.parse("npm:hook@1.0.0")
    await one.install(hook)
    await one.install(hook, scripts=True)

    plain, scripted = Place(one.packages.root, hook), Place(one.packages.root, hook, scripts=True)
    ran = "node_modules/hook/ran.json"
    assert not (plain.directory / ran).exists()
    found = json.loads((scripted.directory / ran).read_text())
    assert found == {"configuration": False, "outside": False, "registry": False}
    assert one.left(hook) == ["1.0.0", "1.0.0.json", "1.0.0~scripts", "1.0.0~scripts.json"]


async def test_what_nobody_uses_is_pruned(bench: Callable[..., Bench]) -> None:
    one, older = bench(), Package.parse("npm:which@4.0.0")
    for package in (NPM, older, PYPI):
        await one.install(package)

    assert await one.packages.prune([NPM], only=NPM) == [str(older)]
    assert one.left(NPM) == ["5.0.0", "5.0.0.json"]
    assert await one.packages.prune([NPM]) == [str(PYPI)]
    assert await one.packages.prune([NPM]) == []


async def test_without_a_sandbox_nothing_is_installed(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.packages = one.made(SandboxFacts(None, "", "bubblewrap is not installed"))

    error = await one.refused(NPM)
    assert error.result == "sandbox"
    assert "bubblewrap is not installed" in str(error)


async def test_missing_installer_is_told(bench: Callable[..., Bench]) -> None:
    error = await bench(PATH="/nowhere").refused(NPM)
    assert error.result == "exec"
    assert "npm is not on mcpd's PATH; install Node.js" in str(error)


async def test_what_is_not_installed_is_not_started(bench: Callable[..., Bench]) -> None:
    one = bench()
    with pytest.raises(SpawnError, match=r"which@5\.0\.0 is not installed"):
        one.packages.started_by(ServerSpec(name="s", package=str(NPM)))
    plain = ServerSpec(name="s", command=("cat",))
    assert one.packages.started_by(plain) is plain
    assert await one.packages.ensure(plain, one.log, one.told.append) is None


@pytest.mark.long
async def test_pip_installs_where_uv_is_not(bench: Callable[..., Bench]) -> None:
    one = bench(PATH="/usr/bin:/bin")
    await one.install(PYPI)

    assert "with pip" in one.told[0]
    assert "sh" in one.run(PYPI, "--help")
