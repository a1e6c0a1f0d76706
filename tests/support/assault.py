"""Run as a program: starts the attacker as a server under `strict`, has it do every attack, prints what became of each.

`python assault.py DIRECTORY contained|bare`: with `bare` the attacker is run without a sandbox, to show that the
attacks work where nothing is in their way; only as an ordinary user in a mount namespace of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

HOST_NAMESPACE = "MCPD_TEST_HOST_NAMESPACE"
SECRET = "MCPD_TEST_DAEMON_SECRET"
ATTACKER = Path(__file__).parent.parent / "children" / "attacker.py"
WITHOUT_ARGUMENT = (
    *("traceme", "unshare", "unshare-mount", "clone", "clone3", "setns", "mount", "remount", "umount", "fsopen"),
    *("open-tree", "move-mount", "chroot", "pivot-root", "mknod", "handle", "keyctl", "add-key", "io-uring"),
    *("userfaultfd", "personality", "bpf", "perf", "kexec", "module", "swapon", "hostname", "reboot", "quota"),
    *("kernel-log", "statmount", "tiocsti", "tioclinux", "x32", "i386", "listen"),
)
OPEN_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
CONTROL = (
    *("read a key", "read another server's state", "write into the host's directory", "tcp to the host's loopback"),
    *("udp to the host's loopback", "unix socket", "abstract unix socket", "netlink", "signal a process"),
    *("pidfd of a process", "read a process's environment", "keyctl", "personality", "unshare"),
)
"""Attacks that work for any ordinary user where there is no sandbox, and do no harm; `unshare` changes the attacker."""


class Targets:
    """What the attacker is after: files and sockets that are open to everybody, and a process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in (".ssh", "state"):
            (directory / name).mkdir(parents=True, exist_ok=True)
            (directory / name).chmod(0o755)
        self.key = directory / ".ssh" / "id_rsa"
        self.state = directory / "state" / "other"
        for path in (self.key, self.state):
            path.write_text("secret")
            path.chmod(0o644)
        (directory / "open").mkdir(exist_ok=True)
        (directory / "open").chmod(0o777)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        threading.Thread(target=self._echo, daemon=True).start()
        self.path = str(directory / "open" / "daemon.sock")
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.path)
        os.chmod(self.path, 0o777)
        self.unix.listen(8)
        self.name = f"mcpd-test-{os.getpid()}"
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind("\0" + self.name)
        self.abstract.listen(8)
        self.victim = subprocess.Popen(["/bin/sleep", "120"])

    def _echo(self) -> None:
        while True:
            _, peer = self.udp.recvfrom(16)
            self.udp.sendto(b"y", peer)

    def questions(self) -> list[tuple[str, str, Any]]:
        """Row, attack, argument."""
        pid = self.victim.pid
        return [
            ("read a key", "read", str(self.key)),
            ("read another server's state", "read", str(self.state)),
            ("read /etc/shadow", "read", "/etc/shadow"),
            ("write into the host's directory", "create", str(self.directory / "open" / "planted")),
            *((f"write {place}", "touch", f"{place}/{self.name}") for place in OPEN_PLACES),
            ("write /usr", "create", "/usr/bin/planted"),
            ("write /etc", "create", "/etc/planted"),
            ("write the root", "create", "/planted"),
            ("write /run", "create", "/run/planted"),
            ("write /dev", "create", "/dev/planted"),
            ("tcp to the host's loopback", "tcp", ["127.0.0.1", self.tcp.getsockname()[1]]),
            ("udp to the host's loopback", "udp", ["127.0.0.1", self.udp.getsockname()[1]]),
            ("tcp to the network", "tcp", ["192.0.2.1", 80]),
            ("unix socket", "unix", self.path),
            ("abstract unix socket", "abstract", self.name),
            ("vsock", "family", [40, socket.SOCK_STREAM]),
            ("netlink", "family", [16, socket.SOCK_RAW]),
            ("packet", "family", [17, socket.SOCK_RAW]),
            ("raw", "family", [socket.AF_INET, socket.SOCK_RAW, 1]),
            ("alg", "family", [38, socket.SOCK_SEQPACKET]),
            ("signal a process", "kill", pid),
            ("pidfd of a process", "pidfd", pid),
            ("ptrace a process", "ptrace", pid),
            ("read a process's memory", "peek", pid),
            ("read a process's environment", "read", f"/proc/{pid}/environ"),
            ("core_pattern", "append", "/proc/sys/kernel/core_pattern"),
            ("sysrq-trigger", "append", "/proc/sysrq-trigger"),
            ("kmsg", "append", "/dev/kmsg"),
            ("raw disk", "append", "/dev/vda"),
            ("memory device", "append", "/dev/mem"),
            ("cgroup", "create", "/sys/fs/cgroup/planted"),
            ("forks", "forks", 100),
            ("fill /tmp", "fill", ["/tmp/filler", 8, 100]),
            ("fill /dev/shm", "fill", ["/dev/shm/filler", 8, 100]),
            ("fill its home", "fill", [f"{os.path.expanduser('~')}/filler", 8, 100]),
            ("view", "view", None),
            ("program in memory", "memory-program", None),
            ("environment of process 1", "environ-1", None),
            *((name, name, None) for name in WITHOUT_ARGUMENT),
        ]  # fmt: skip

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()


async def contained(directory: Path, targets: Targets) -> dict[str, Any]:
    from support.boxes import Box, spec

    limits = {"pids": 40, "fsize": 64 * 2**20}
    command = (sys.executable, "-I", "-S", str(ATTACKER), os.environ[HOST_NAMESPACE])
    found: dict[str, Any] = {}
    box = Box(directory, spec(*command, profile="strict", limits=limits, tmp_size=32 * 2**20))
    try:
        for row, attack, argument in targets.questions():
            argument = ["/home/mcp/filler", 8, 100] if row == "fill its home" else argument
            found[row] = await box.ask(attack, argument)
    finally:
        from mcpd.process.stop import StopLadder

        await box.child.stop(StopLadder(1, 1, 5))
    found["planted"] = sorted(path.name for path in (directory / "targets" / "open").iterdir())
    found["planted elsewhere"] = [place for place in OPEN_PLACES if Path(place, targets.name).exists()]
    found["isolation"] = box.plan.isolation
    found["user"] = box.plan.user.uid if box.plan.user is not None else os.getuid()
    found["host namespaces"] = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    return found


def bare(targets: Targets) -> dict[str, Any]:
    assert os.getuid() != 0
    command = [sys.executable, "-I", "-S", str(ATTACKER), os.environ[HOST_NAMESPACE]]
    known = {row: (row, attack, argument) for row, attack, argument in targets.questions()}
    asked = [known[row] for row in CONTROL]
    text = "".join(json.dumps([attack, argument]) + "\n" for _, attack, argument in asked)
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {row: answer for (row, _, _), answer in zip(asked, answers, strict=True)}


def main() -> None:
    directory = Path(sys.argv[1])
    os.environ[SECRET] = "not for servers"
    targets = Targets(directory / "targets")
    try:
        found = bare(targets) if sys.argv[2] == "bare" else asyncio.run(contained(directory, targets))
    finally:
        targets.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
