"""Contained servers as a whole: what they see, how they end, what bounds them, their way out."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpd.clock import SystemClock
from mcpd.config.registry import LimitsSpec, ProfileSpec, Script, ServerSpec
from mcpd.errors import SpawnError
from mcpd.fleet.egress import Egress
from mcpd.process import tree
from mcpd.process.stop import Rung, StopLadder
from mcpd.sandbox.cgroup import CgroupHome, _mount_point
from mcpd.sandbox.identity import Users
from mcpd.sandbox.limits import Limits
from mcpd.sandbox.policy import SandboxFacts
from mcpd.sandbox.readback import read_back
from support.boxes import Box, spec
from support.processes import CHILDREN, COOKIE, facts
from support.waiting import until

pytestmark = pytest.mark.anyio
IS_ROOT = os.geteuid() == 0
Boxes = Callable[..., Box]
ATTACKER = (sys.executable, "-I", "-S", str(CHILDREN / "attacker.py"), os.readlink("/proc/self/ns/mnt"))


@asynccontextmanager
async def boxes(root: Path) -> AsyncIterator[Boxes]:
    """Makes boxes; at the end nothing of them is left."""
    made: list[Box] = []

    def make(server: ServerSpec, **keys: Any) -> Box:
        made.append(Box(root, server, **keys))
        return made[-1]

    try:
        yield make
    finally:
        for box in made:
            outcome = await asyncio.wait_for(box.child.stop(StopLadder(0.5, 0.5, 5)), 10)
            assert outcome.rung is not Rung.ABANDONED
            box.log.close()
    assert tree.carriers(COOKIE) == []


def shell(text: str, **keys: Any) -> ServerSpec:
    return spec("/bin/sh", "-c", text, **keys)


async def test_granted_paths_can_be_read_and_written_and_nothing_beside_them(tmp_path: Path) -> None:
    for name in ("read", "write", "beside"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "file").write_text(f"{name}\n")
    text = (
        f"cd {tmp_path}; ls; cat read/file write/file; echo new > write/made; "
        "(echo x > read/made) 2>/dev/null || echo refused; echo x 2>/dev/null > made || true"
    )
    granted = {"profile": "filesystem", "read": (tmp_path / "read",), "write": (tmp_path / "write",)}
    async with boxes(tmp_path) as make:
        lines = await make(shell(text, **granted)).lines()

    assert lines == ["read", "write", "read", "write", "refused"]
    assert (tmp_path / "write" / "made").read_text() == "new\n"
    assert not (tmp_path / "read" / "made").exists()
    assert not (tmp_path / "made").exists()  # the directory on the way may be its own, in a /tmp of its own


async def test_home_is_private_and_gone_or_kept(tmp_path: Path) -> None:
    text = "pwd; cat ~/note 2>/dev/null || echo none; echo kept > ~/note"
    async with boxes(tmp_path) as make:
        for home, second in (("tmpfs", "none"), ("state", "kept")):
            server = shell(f"[ $PWD != / ] || cd; {text}", profile="strict", home=home, name=home)
            assert await make(server).lines() == ["/home/mcp", "none"]
            elsewhere = server.model_copy(update={"cwd": tmp_path})  # not granted: its home is where it is started
            assert await make(elsewhere).lines() == ["/home/mcp", second]
    kept = tmp_path / "state" / "servers" / "state"
    assert (kept / "note").read_text() == "kept\n"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert not IS_ROOT or kept.stat().st_uid >= 61184


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers have uids of their own")
async def test_what_a_removed_server_kept_is_closed_to_a_later_one_with_its_uid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.parent.chmod(0o755)
    tmp_path.chmod(0o755)
    note = tmp_path / "state" / "servers" / "gone" / "note"
    async with boxes(tmp_path) as make:
        first = make(shell("cd; echo secret > note; id -u", home="state", name="gone"))
        uid = (await first.lines())[0]
        assert note.stat().st_uid == int(uid)
        monkeypatch.setattr(Users, "_unused", lambda self, server: int(uid))  # as if all others were used up
        look = f"id -u; cat {note} ~/note ~/../*/note 2>/dev/null; ls -a ~ | wc -l"
        for name, keys in (("contained", {"home": "state"}), ("open", {"profile": "unsandboxed"})):
            later = make(shell(look, name=name, **keys))
            assert (await later.lines())[0] == uid
            assert b"secret" not in b"".join(later.heard.frames)
    assert note.read_text() == "secret\n"


@pytest.mark.skipif(not IS_ROOT, reason="only root can make a program that runs as root")
async def test_program_that_runs_as_its_owner_runs_as_the_server(tmp_path: Path) -> None:
    """Of root's own making, granted, and where the file system allows it: also for one that is not contained."""
    tools = Path(tempfile.mkdtemp(prefix="mcpd-t-"))  # those of pytest are closed to others
    tools.chmod(0o755)
    program = tools / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    kinds: dict[str, dict[str, Any]] = {
        "contained": {"profile": "filesystem", "read": (program.parent,)},
        "open": {"profile": "unsandboxed"},
    }
    async with boxes(tmp_path) as make:
        for name, keys in kinds.items():
            box = make(shell(f"id -u; {program} -u; {program} -ru", name=name, **keys))
            assert set(await box.lines()) == {str(box.plan.user.uid if box.plan.user else 0)}
    shutil.rmtree(tools)


async def test_environment_is_the_one_inside(tmp_path: Path) -> None:
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SECRET": "x", "DISPLAY": ":0", "LC_ALL": "C"}
    server = shell("exec env", profile="strict", env_pass=("DISPLAY",), env={"A": "sandbox", "B": "sandbox"})
    async with boxes(tmp_path) as make:
        lines = await make(server, base=base, env={"B": "server"}).lines()

    found = dict(line.split("=", 1) for line in lines)
    assert found.pop("MCPD_COOKIE").startswith(COOKIE)
    assert (found["HOME"], found["USER"], found["TMPDIR"]) == ("/home/mcp", "mcp", "/tmp")
    assert (found["A"], found["B"], found["DISPLAY"], found["LC_ALL"]) == ("sandbox", "server", ":0", "C")
    assert "SECRET" not in found


async def test_script_finds_its_neighbours_in_a_closed_directory_and_writes_nothing_there(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    (folder / "helper.py").write_text("WORD = 'helped'\n")
    (folder / "main.py").write_text("import helper, os; print(helper.WORD, os.listdir(os.path.dirname(__file__)))\n")
    plain = ServerSpec(name="script", command=(sys.executable, str(folder / "main.py")), cwd=tmp_path)
    async with boxes(tmp_path) as make:
        (line,) = await make(plain).lines()
        launched = ServerSpec(name="launched", script=Script(file=folder / "main.py"), cwd=tmp_path)
        box = make(launched)
        await box.heard.until_exit(20)

    assert line.startswith("helped")
    assert "helped" in box.child.stderr_tail.decode()
    assert sorted(path.name for path in folder.iterdir()) == ["helper.py", "main.py"]


async def test_own_profile_adds_to_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    mine = ProfileSpec(name="mine", extends="filesystem", read=(tmp_path / "data",), tmp_size=2**20)
    text = f"ls -d {tmp_path}/data; df -k /tmp | tail -n 1 | tr -s ' ' | cut -d' ' -f2"
    async with boxes(tmp_path) as make:
        box = make(shell(text, profile="mine"), profiles={"mine": mine})
        assert await box.lines() == [f"{tmp_path}/data", "1024"]
    assert box.plan.isolation == "mine"


async def test_isolation_read_back_has_no_holes_and_that_of_an_unsandboxed_one_has(tmp_path: Path) -> None:
    echo = (sys.executable, "-I", "-S", str(CHILDREN / "echo.py"))
    async with boxes(tmp_path) as make:
        strict, open_one = make(spec(*echo, profile="strict")), make(spec(*echo, profile="unsandboxed", name="open"))
        found = []
        for box in (strict, open_one):
            box.child.offer(b"x")
            await box.heard.until_frames(1)
            assert box.child.server_pid is not None
            found.append(read_back(box.child.server_pid))
    first, second = found
    assert first is not None
    assert second is not None
    assert first.holes == ()
    assert first.limits["nofile"] == LimitsSpec().nofile
    assert first.limits["processes"] is not None
    assert set(first.writable) == {"/tmp", "/dev/shm", "/home/mcp"}
    assert "has no system-call filter" in second.holes
    assert "shares the net namespace" in second.holes
    assert 0 not in second.uids or not IS_ROOT
    assert read_back(strict.child.pid) is None


@pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else")
async def test_unsandboxed_server_of_root_is_not_root(tmp_path: Path) -> None:
    async with boxes(tmp_path) as make:
        for name in ("one", "two"):
            server = spec(*ATTACKER, profile="unsandboxed", name=name)
            box = make(server)
            view = (await box.ask("view", None))["got"]
            assert view["uid"] == [box.plan.user.uid] * 3 if box.plan.user else None
            assert {int(word, 16) for word in view["capabilities"].values()} == {0}
            assert (await box.ask("append", "/proc/sys/kernel/core_pattern"))["errno"] == "EACCES"
            assert (await box.ask("read", "/etc/shadow"))["errno"] == "EACCES"
        bare = SandboxFacts(None, "", "the test wants it so")
        found = make(shell("id -u; grep -h CapEff /proc/self/status", profile="unsandboxed", name="bare"), found=bare)
        assert await found.lines() == [str(found.plan.user.uid if found.plan.user else 0), "CapEff:\t0000000000000000"]


async def test_limits_are_those_of_the_entry(tmp_path: Path) -> None:
    limits = {"nofile": 40, "fsize": 2**20, "pids": 20}
    async with boxes(tmp_path) as make:
        box = make(spec(*ATTACKER, profile="strict", limits=limits))
        assert (await box.ask("fill", ["/tmp/x", 1, 4]))["got"][0] == 1
        count, problem = (await box.ask("forks", 60))["got"]
        assert (problem, count <= 26) == ("EAGAIN", True)
        assert (await box.ask("files", 60))["errno"] == "EMFILE"
        kept = dict(box.plan.limits.rlimits)
    assert kept[resource.RLIMIT_CORE] == 0
    assert box.plan.limits.in_force["nofile"] == "40 by rlimit"


@pytest.mark.parametrize("attack", ["hog", "memfd"])
async def test_memory_over_the_limit_is_an_oom_kill_with_the_figure(tmp_path: Path, attack: str) -> None:
    limits = {"memory": 96 * 2**20}
    async with boxes(tmp_path) as make:
        box = make(spec(*ATTACKER, profile="strict", limits=limits))
        box.child.offer(json.dumps([attack, 400]).encode())
        status = await box.heard.until_exit(30)

    assert status.result == "oom-kill"
    assert "limit 96 MiB" in str(status)


async def test_server_within_its_memory_is_left_alone(tmp_path: Path) -> None:
    async with boxes(tmp_path) as make:
        box = make(spec(*ATTACKER, profile="strict", limits={"memory": 96 * 2**20}))
        assert (await box.ask("hog", 40))["got"] == 5


async def test_too_many_threads_where_only_the_watchdog_counts_is_a_lack_of_resources(tmp_path: Path) -> None:
    watched = SandboxFacts(**{**_values(facts()), "counts_processes": False})
    async with boxes(tmp_path) as make:
        box = make(spec(*ATTACKER, profile="strict", limits={"pids": 10}), found=watched)
        box.child.offer(b'["hold", 15]')
        status = await box.heard.until_exit(10)

    assert status.result == "resources"
    assert "limit 10" in str(status)


TIGHT = {"nofile": 40, "fsize": 2**20, "pids": 20, "memory": 96 * 2**20}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("nofile", "nofile: limit 40 open files"),
        ("fsize", "fsize: limit 1MiB a file"),
        ("forks", "pids: limit 20 processes and threads"),
        ("threads", "pids: limit 20 processes and threads"),
        ("memory", "memory: limit 1120MiB of private memory a process"),
    ],
)
async def test_server_that_ends_because_it_was_refused_more_lacks_resources_and_the_figure_is_told(
    tmp_path: Path, what: str, told: str
) -> None:
    async with boxes(tmp_path) as make:
        box = make(spec(sys.executable, "-I", "-S", str(CHILDREN / "oversteps.py"), what, limits=TIGHT))
        status = await box.heard.until_exit(20)

    assert (status.result, status.code) == ("resources", 1)
    assert str(status) == f"ended at a limit: {told}, by its last words on stderr"


async def test_server_killed_for_a_file_that_is_too_large_is_told_the_figure(tmp_path: Path) -> None:
    async with boxes(tmp_path) as make:
        box = make(shell("exec head -c 3000000 /dev/zero > /tmp/large", limits=TIGHT))
        status = await box.heard.until_exit(20)

    assert (status.result, status.signal) == ("resources", signal.SIGXFSZ)
    assert str(status) == "ended at a limit: fsize: limit 1MiB a file"


async def test_other_ends_are_not_laid_to_limits(tmp_path: Path) -> None:
    async with boxes(tmp_path) as make:
        box = make(spec(sys.executable, "-I", "-S", str(CHILDREN / "oversteps.py"), "nothing", limits=TIGHT))
        status = await box.heard.until_exit(20)

    assert (status.result, str(status)) == ("exit-code", "exit code 3")


def _values(found: SandboxFacts) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


async def test_what_cannot_be_given_is_refused(tmp_path: Path) -> None:
    broken = SandboxFacts("/usr/bin/bwrap", "0.8.0", "", weakness="no filter for this machine")
    undelegated = SandboxFacts(**{**_values(facts()), "cgroups_reason": "set Delegate="})
    cases = {
        "no filter for this machine": (shell("true", profile="strict"), broken),
        "bubblewrap is not installed": (shell("true"), SandboxFacts(None, "", "bubblewrap is not installed")),
        "no control group .*: set Delegate=": (shell("true", limits={"enforce": "cgroup"}), undelegated),
        "egress proxy": (shell("true", profile="network", allow=("a.test:1",)), None),
        "cannot be granted": (shell("true", profile="filesystem", read=(Path("/proc"),)), None),
        "No such file": (shell("true", profile="filesystem", read=(tmp_path / "nothing",)), None),
    }
    for message, (server, found) in cases.items():
        with pytest.raises(SpawnError, match=message) as caught:
            Box(tmp_path, server, found=found)
        assert caught.value.result == "sandbox"


async def test_grants_that_became_links_or_belong_to_the_daemon_are_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    for path in (tmp_path / "link", tmp_path, tmp_path / "state"):
        with pytest.raises(SpawnError, match=r"link|is in it|it is in"):
            Box(tmp_path, shell("true", profile="filesystem", read=(path,)))


@pytest.mark.skipif(not IS_ROOT, reason="only root's servers are others")
async def test_grant_that_the_servers_user_may_not_use_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    with pytest.raises(SpawnError, match=r"closed to uid .* chown or chmod"):
        Box(tmp_path, shell("true", profile="filesystem", write=(tmp_path / "mine",)))


PROXIED = """
import json, os, socket, subprocess, sys, urllib.error, urllib.request
def get(url):
    try:
        return urllib.request.urlopen(url, timeout=10).read().decode()
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(error)
def tried(act):
    try:
        return act()
    except OSError as error:
        return error.errno
port = int(sys.argv[1])
print(json.dumps({
    "good": get(f"http://good.test:{port}/x"),
    "bad host": get(f"http://bad.test:{port}/x"),
    "bad port": get("http://good.test:1/x"),
    "direct": tried(lambda: socket.create_connection(("127.0.0.1", port), 5)),
    "name": tried(lambda: socket.getaddrinfo("good.test", 80)),
    "unix": tried(lambda: socket.socket(socket.AF_UNIX)),
    "datagram pair": tried(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)),
    "pair": bool(socket.socketpair()),
    "child": subprocess.run(["true"]).returncode,
    "nobody else's": tried(lambda: os.waitpid(-1, 0)),
    "fds": len(os.listdir("/proc/self/fd")),
}))
"""


async def test_network_by_allow_list_goes_through_the_proxy_and_nowhere_else(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    origin = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = origin.sockets[0].getsockname()[1]
    (tmp_path / "run").mkdir()
    async with origin, asyncio.TaskGroup() as group:
        proxies = Egress(
            tmp_path / "run" / "e",
            SystemClock(),
            lambda work, name: group.create_task(work, name=name),
            lambda *said: told.append(said),
            resolve,
        )
        command = (sys.executable, "-I", "-c", PROXIED, str(port))
        server = spec(*command, profile="network", allow=(f"good.test:{port}",), allow_private=True)
        async with boxes(tmp_path) as make:
            (line,) = await make(server, egress=proxies.socket_for).lines()
        proxies.forget("box")

    found = json.loads(line)
    assert found["good"] == "hello"
    assert (found["bad host"], found["bad port"]) == (403, 403)
    assert found["direct"] == 111  # ECONNREFUSED: its own loopback
    assert found["name"] < 0  # EAI_…: nobody to ask
    assert (found["unix"], found["datagram pair"], found["pair"]) == (97, 97, True)
    assert (found["child"], found["nobody else's"]) == (0, 10)  # ECHILD: the relay is not its child
    assert [text.split(" was")[0] for _, text in told] == [f"network: bad.test:{port}", "network: good.test:1"]


async def test_network_host_is_the_hosts(tmp_path: Path) -> None:
    server = shell("readlink /proc/self/ns/net; ls /etc/resolv.conf", profile="network", network="host")
    async with boxes(tmp_path) as make:
        lines = await make(server).lines()
    assert lines[0] == os.readlink("/proc/self/ns/net")


@pytest.mark.skipif(_mount_point(Path("/proc/self")) is None, reason="no control groups of version 2")
@pytest.mark.skipif(not IS_ROOT, reason="nothing was delegated to the tests")
async def test_control_group_holds_a_tree_and_kills_all_of_it(tmp_path: Path) -> None:
    mount = _mount_point(Path("/proc/self"))
    home = Path(f"{mount}/mcpd-test-{os.getpid()}")
    home.mkdir()
    try:
        group = CgroupHome(home, frozenset()).create("one", Limits())
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "read go; setsid sleep 60 & sleep 60", stdin=-1)
        assert process.stdin is not None
        group.add(process.pid)
        process.stdin.write(b"\n")
        await until(lambda: group.processes() == 3)
        assert group.kill()
        await asyncio.wait_for(process.wait(), 10)
        await until(group.remove)
    finally:
        home.rmdir()
