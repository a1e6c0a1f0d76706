"""What this machine can do to contain a server, found out by doing it once."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mcpd.config.profiles import effective
from mcpd.config.registry import SandboxSpec, ServerSpec
from mcpd.sandbox import bubblewrap, host, seccomp
from mcpd.sandbox.ground import Ground, Survey, for_user
from mcpd.sandbox.identity import FIRST
from mcpd.sandbox.policy import (
    COOKIE,
    DATA_FD,
    DEFAULT_PATH,
    Identity,
    LaunchPlan,
    Premises,
    SandboxFacts,
    become,
    plan,
)

PROBE_TIMEOUT = 10.0
INSTALL = "install the package bubblewrap (apt, dnf and pacman call it so)"
OLDEST_COUNTING = (5, 14)
"""Since then a user namespace has a count of its own of processes (linux commit 21d1c5e386bc)."""
_SMALL = 24
_LIMITED = f"ulimit -u {_SMALL} 2>/dev/null || ulimit -p {_SMALL} && "

_SELF_TEST = "import os; assert os.getpid() < 10 and os.readlink('/proc/self') == str(os.getpid())"
_WALL_TEST = """
import ctypes, errno, json, os, resource, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
libc = ctypes.CDLL(None, use_errno=True)
def refused(call, *args):
    return 0 if call(*args) != -1 else ctypes.get_errno()
try:
    socket.socket(16, 2)
    netlink = 0
except OSError as error:
    netlink = error.errno
try:
    open("/mcpd-probe", "w")
    root = 0
except OSError as error:
    root = error.errno
print(json.dumps({
    "pid": os.getpid() < 10 and os.readlink("/proc/self") == str(os.getpid()),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16) | int(status["CapAmb"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "uid": os.getuid(),
    "new_user_namespace": refused(libc.unshare, 0x10000000),
    "netlink": netlink,
    "root_written": root,
    "namespaces": {name: os.readlink("/proc/self/ns/" + name) for name in os.listdir("/proc/self/ns")},
    "processes": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    "environment": sorted(os.environ),
}))
"""


def probe(bwrap: str | None = None, cookie: str = "probe") -> SandboxFacts:
    """Run bubblewrap as servers will be run; blocks for some 60 ms, so it is called once, before anything starts.

    `cookie` marks what is run: a bubblewrap that is killed while it starts may leave its first process behind.
    """
    found = bwrap or shutil.which("bwrap") or shutil.which("bwrap", path=DEFAULT_PATH)
    if found is None:
        return SandboxFacts(None, "", f"bubblewrap is not installed: {INSTALL}")
    version = _run((found, "--version"), cookie)
    if version.returncode != 0:
        return SandboxFacts(None, "", f"{found} --version failed: {_last_line(version.stderr, version.returncode)}")
    name = version.stdout.strip().removeprefix("bubblewrap ")
    walled = _tried_walls(SandboxFacts(found, name, "", setpriv=shutil.which("setpriv", path=DEFAULT_PATH)), cookie)
    if not walled.weakness:
        return walled
    python = (sys.executable, "-I", "-S", "-c", _SELF_TEST)  # a part of the walls: is that part possible, at least?
    tried = _run((*bubblewrap.pid_namespace(found, "/", {}), "--json-status-fd", "1", "--", *python), cookie)
    if tried.returncode != 0 or '"exit-code": 0' not in tried.stdout:
        why = _last_line(tried.stderr, tried.returncode)
        return SandboxFacts(None, name, f"bubblewrap cannot make a pid namespace here: {why}{_hint(tried.stderr)}")
    return walled


def find_launcher() -> str | None:
    """The program that runs script files, to be run by its path; None where mcpworker is not installed."""
    found = importlib.util.find_spec("mcpworker")  # of a top-level package: nothing is imported
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = os.path.join(folder, "launcher", "__main__.py")
        if os.path.isfile(path):
            return path
    return None


def _tried_walls(facts: SandboxFacts, cookie: str) -> SandboxFacts:
    """`facts`, with whether a server can be contained here, and how well."""
    architecture = seccomp.ARCHITECTURES.get(platform.machine())
    if architecture is None:
        return replace(facts, weakness=f"mcpd has no table of system calls for {platform.machine()}")
    if os.geteuid() == 0 and facts.setpriv is None:
        return replace(facts, weakness="mcpd is root and setpriv, by which servers become others, is missing: "
                       "install util-linux")  # fmt: skip
    able = replace(facts, weakness="", architecture=architecture.name)
    attempts = [able] if os.geteuid() == 0 else [replace(able, forbids_user_namespaces=True), able]
    problem = ""
    for attempt in attempts:
        problem, counts = _problem_with(attempt, architecture, cookie)
        if not problem:
            return replace(attempt, counts_processes=counts)
    return replace(facts, weakness=problem)


def _problem_with(facts: SandboxFacts, architecture: seccomp.Architecture, cookie: str) -> tuple[str, bool]:
    """Why a server cannot be contained with these; empty: it was, and looked around itself. And whether a limit of
    processes can be set inside, and there is a count that is the server's own."""
    planned = _probe_plan(facts, architecture, cookie)
    counting = _kernel_counts()
    code, output, errors = _run_plan(planned, _LIMITED if counting else "")
    if code > 0 and counting:  # the limit cannot be set, or it counts others: without it, then
        counting = False
        code, output, errors = _run_plan(planned, "")
    if code != 0:
        return f"bubblewrap cannot contain a server here: {_last_line(errors, code)}{_hint(errors)}", False
    try:
        seen = json.loads(output)
    except ValueError:
        return f"the sandbox's own test said nothing that can be read: {output[:200]!r}", False
    return _hole(seen, planned), counting and seen.get("processes") == _SMALL


def _hole(seen: Mapping[str, object], planned: LaunchPlan) -> str:
    """What is wrong with a wall, by what was seen from inside it."""
    wanted = {
        "pid": True,
        "capabilities": 0,
        "no_new_privileges": "1",
        "seccomp": "2",
        "uid": planned.user.uid if planned.user is not None else os.getuid(),
    }
    for key, value in wanted.items():
        if seen.get(key) != value:
            return f"the sandbox does not hold: {key} is {seen.get(key)!r}, not {value!r}"
    for key in ("new_user_namespace", "netlink", "root_written"):
        if not seen.get(key):
            return f"the sandbox does not hold: {key} was possible"
    if set(_names(seen.get("environment"))) - {*planned.env, "PWD", "OLDPWD", "_", "SHLVL", "LC_CTYPE"}:
        return "the sandbox does not hold: variables of mcpd's own were seen inside"
    inside = seen.get("namespaces")
    for name in ("mnt", "pid", "net", "ipc", "uts"):
        if not isinstance(inside, dict) or inside.get(name) in (None, os.readlink(f"/proc/self/ns/{name}")):
            return f"the sandbox does not hold: the {name} namespace is the host's"
    return ""


def _names(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _kernel_counts() -> bool:
    release = platform.release().split(".")
    version = tuple(int("".join(filter(str.isdigit, part)) or 0) for part in release[:2])
    return os.geteuid() == 0 or version >= OLDEST_COUNTING


def _probe_plan(facts: SandboxFacts, architecture: seccomp.Architecture, cookie: str) -> LaunchPlan:
    spec = ServerSpec(
        name="probe",
        command=(sys.executable, "-I", "-S", "-c", _WALL_TEST),
        cwd=Path("/"),
        sandbox=SandboxSpec(profile="strict"),
    )
    user = Identity(FIRST, FIRST) if os.geteuid() == 0 else None
    survey = Survey(DEFAULT_PATH, "/", lambda _: False)
    survey.program(spec.command[0], spec.command[1:])
    ground = survey.ground
    if user is not None:
        ground = Ground(tuple(for_user(ground.paths, user.uid, user.gid)), ground.links)
    uid, gid = (user.uid, user.gid) if user is not None else (os.getuid(), os.getgid())
    premises = Premises(
        rules=effective(spec.sandbox, {}),
        ground=ground,
        host=host.look_around(),
        user=user,
        filter=seccomp.base_filter(architecture),
        files=host.system_files(uid, gid, own_network=True),
    )
    return plan(spec, {}, facts, base={"PATH": DEFAULT_PATH}, cookie=cookie, premises=premises)


def _run_plan(planned: LaunchPlan, prefix: str) -> tuple[int, str, str]:
    """Run a contained command to its end: exit code, stdout, stderr. `prefix`: what the shell inside does before."""
    inner = ["/bin/sh", "-c", f'{prefix}exec "$@"', "mcpd-probe"]
    if planned.user is not None and planned.setpriv is not None:
        inner = [*become(planned.setpriv, planned.user), *inner]
    argv = [*planned.wrapper, "--", *inner, *planned.argv]
    with contextlib.ExitStack() as stack:
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        for fd in (out_r, err_r):
            stack.callback(os.close, fd)
        with contextlib.ExitStack() as ends:
            for fd in (out_w, err_w):
                ends.callback(os.close, fd)
            actions: list[tuple[object, ...]] = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, _high(out_w, ends), 1),
                (os.POSIX_SPAWN_DUP2, _high(err_w, ends), 2),
            ]
            for at, content in enumerate(planned.data):
                actions.append((os.POSIX_SPAWN_DUP2, _high(_memory_file(content, ends), ends), DATA_FD + at))
            try:
                pid = os.posix_spawn(argv[0], argv, dict(planned.env), file_actions=actions, setsigmask=())
            except OSError as error:
                return -1, "", f"{argv[0]}: {error.strerror}"
        return _collect(pid, out_r, err_r)


def _collect(pid: int, out: int, err: int) -> tuple[int, str, str]:
    texts = {out: b"", err: b""}
    waiting = {out, err}
    deadline = time.monotonic() + PROBE_TIMEOUT
    while waiting:
        ready = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            os.kill(pid, signal.SIGKILL)
            break
        for fd in ready:
            chunk = os.read(fd, 65536)
            texts[fd] += chunk
            if not chunk:
                waiting.discard(fd)
    _, status = os.waitpid(pid, 0)
    late = f"\nno end after {PROBE_TIMEOUT:g} s" if waiting else ""
    code = -1 if waiting else os.waitstatus_to_exitcode(status)
    return code, texts[out].decode("utf-8", "replace"), texts[err].decode("utf-8", "replace") + late


def _high(fd: int, stack: contextlib.ExitStack) -> int:
    """A copy of `fd` under a number that is none of those it is to become."""
    copy: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)
    stack.callback(os.close, copy)
    return copy


def _memory_file(content: bytes, stack: contextlib.ExitStack) -> int:
    fd = os.memfd_create("mcpd-probe", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _run(argv: tuple[str, ...], cookie: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT,
            check=False,
            env={"PATH": DEFAULT_PATH, COOKIE: cookie},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, -1, "", f"no end after {PROBE_TIMEOUT:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(argv, -1, "", f"{error.strerror}: {argv[0]}")


def _last_line(errors: str, code: int) -> str:
    lines = errors.strip().splitlines()
    return lines[-1] if lines else f"exit code {code}"


def _hint(errors: str) -> str:
    if "Permission denied" in errors or "Operation not permitted" in errors or "uid map" in errors:
        return (
            " (user namespaces look forbidden: on Ubuntu 24.04 see sysctl kernel.apparmor_restrict_unprivileged_userns,"
            " in a container allow them in its security profile)"
        )
    if "Unknown option" in errors:
        return f" (this bubblewrap is too old, 0.8 is needed: {INSTALL})"
    return ""
