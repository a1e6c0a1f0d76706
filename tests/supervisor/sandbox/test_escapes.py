"""The table of escapes: an attacker as a server under `strict`, each row with what the kernel answers.

As an ordinary user, and where the tests are root also as root, whose servers get a uid of their own. The same attacks
without a sandbox show that they are attacks.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from support.assault import CONTROL, HOST_NAMESPACE, SECRET, WITHOUT_ARGUMENT
from support.boxes import as_ordinary_user

ROOT = Path(__file__).parents[3]
READ_ONLY = {"EROFS"}
NOT_THERE = {"ENOENT"}
NO_FAMILY = {"EAFNOSUPPORT"}
WALLS: dict[str, set[str]] = {
    "read a key": NOT_THERE,
    "read another server's state": NOT_THERE,
    "read /etc/shadow": NOT_THERE,
    "write into the host's directory": NOT_THERE,
    "write /usr": READ_ONLY,
    "write /etc": READ_ONLY,
    "write the root": READ_ONLY,
    "write /run": READ_ONLY,
    "write /dev": READ_ONLY,
    "tcp to the host's loopback": {"ECONNREFUSED"},
    "udp to the host's loopback": {"ECONNREFUSED"},
    "tcp to the network": {"ENETUNREACH"},
    "unix socket": NOT_THERE,
    "abstract unix socket": {"ECONNREFUSED"},
    "vsock": NO_FAMILY,
    "netlink": NO_FAMILY,
    "packet": NO_FAMILY,
    "raw": {"EPERM"},
    "alg": NO_FAMILY,
    "signal a process": {"ESRCH"},
    "pidfd of a process": {"ESRCH"},
    "ptrace a process": {"EPERM"},
    "read a process's memory": {"EPERM"},
    "read a process's environment": NOT_THERE,
    "core_pattern": {"EACCES", "EROFS"},
    "sysrq-trigger": {"ENOENT", "EACCES", "EROFS"},
    "kmsg": NOT_THERE,
    "raw disk": NOT_THERE,
    "memory device": NOT_THERE,
    "cgroup": NOT_THERE,
    **{row: {"EPERM"} for row in set(WITHOUT_ARGUMENT) - {"x32", "i386", "listen"}},
    "setns": {"EPERM", "EACCES"},
    "clone3": {"ENOSYS"},
    "io-uring": {"ENOSYS"},
    "statmount": {"ENOSYS"},
}
MODES = ["ordinary", "root"] if os.geteuid() == 0 else ["ordinary"]


@functools.cache
def assault(user: str, how: str = "contained") -> dict[str, Any]:
    """What became of each attack."""
    with tempfile.TemporaryDirectory(prefix="mcpd-assault-") as directory:
        Path(directory).chmod(0o777)
        before = as_ordinary_user() if user == "ordinary" else []
        done = subprocess.run(
            [*before, sys.executable, str(ROOT / "tests" / "support" / "assault.py"), directory, how],
            env={
                "PATH": os.environ["PATH"],
                "HOME": directory,
                "PYTHONPATH": str(ROOT / "tests"),
                HOST_NAMESPACE: os.readlink("/proc/self/ns/mnt"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=MODES)
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    return assault(request.param)


@pytest.mark.parametrize("row", CONTROL)
def test_attack_works_where_there_is_no_sandbox(row: str) -> None:
    assert "errno" not in assault("ordinary", "bare")[row]


@pytest.mark.parametrize("row", sorted(WALLS))
def test_attack_is_blocked(seen: dict[str, Any], row: str) -> None:
    assert seen[row].get("errno") in WALLS[row], seen[row]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these numbers exist on x86-64 only")
@pytest.mark.parametrize("row", ["x32", "i386"])
def test_foreign_system_calls_kill(seen: dict[str, Any], row: str) -> None:
    assert seen[row]["got"] == 31  # SIGSYS


def test_nothing_was_planted(seen: dict[str, Any]) -> None:
    """Where everybody may write there is a private place, or none."""
    assert seen["planted"] == ["daemon.sock"]
    assert seen["planted elsewhere"] == []
    assert "errno" not in seen["write /tmp"]
    assert "errno" not in seen["write /dev/shm"]
    assert seen["write /var/tmp"]["errno"] == "ENOENT"


def test_program_that_lies_in_memory_has_no_more_rights(seen: dict[str, Any]) -> None:
    """It cannot be kept from being executed; it is where everything else is."""
    found = seen["program in memory"]["got"]

    assert set(found.pop("Uid").split()) == {str(seen["user"])}
    assert found == {"CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}


def test_it_is_nobody_and_can_become_nobody(seen: dict[str, Any]) -> None:
    view = seen["view"]["got"]

    assert view["uid"] == [seen["user"]] * 3
    assert seen["user"] != 0
    assert view["groups"] == []
    assert {int(word, 16) for word in view["capabilities"].values()} == {0}
    assert (view["no_new_privileges"], view["seccomp"]) == ("1", "2")
    assert view["nosuid"]


def test_it_sees_only_itself(seen: dict[str, Any]) -> None:
    view = seen["view"]["got"]

    assert view["pids"] == [1, 2]
    assert view["descriptors"] == [0, 1, 2]
    assert view["network"] == ["lo"]
    assert view["host"] == "mcp"
    assert {"disk", "mem", "kmsg", "sda", "vda", "kvm"} & set(view["devices"]) == set()
    assert SECRET not in view["environment"]
    host = seen["host namespaces"]
    own = {"mnt", "pid", "net", "ipc", "uts", "cgroup", *(["user"] if seen["user"] == os.getuid() else [])}
    assert {name for name, link in view["namespaces"].items() if link != host[name]} >= own


def test_process_1_gives_nothing_of_the_daemon_away(seen: dict[str, Any]) -> None:
    answer = seen["environment of process 1"]

    assert answer.get("errno") == "EACCES" or "not for servers" not in answer["got"]


def test_forks_and_files_are_bounded(seen: dict[str, Any]) -> None:
    count, problem = seen["forks"]["got"]
    assert problem == "EAGAIN"
    assert count <= 46
    for row in ("fill /tmp", "fill /dev/shm", "fill its home"):
        assert seen[row]["got"] == [32, "ENOSPC"]


def test_it_can_listen_on_a_loopback_of_its_own(seen: dict[str, Any]) -> None:
    assert "errno" not in seen["listen"]


def test_attacker_refuses_root_and_the_hosts_namespace() -> None:
    own = os.readlink("/proc/self/ns/mnt")
    attacker = [sys.executable, "-I", "-S", str(ROOT / "tests" / "children" / "attacker.py"), own]
    done = subprocess.run(attacker, input="", capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 1
    assert "not " in done.stderr
