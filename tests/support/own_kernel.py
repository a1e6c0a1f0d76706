"""A Linux of the test's own, as an ordinary process (User-Mode Linux): for what this machine does not delegate.

It has the host's files, read-only, and everything else for itself: control groups of version 2 with all controllers,
mounts, processes. Debian's package is `user-mode-linux`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from support.boxes import ORDINARY_UID

DEADLINE = 600.0
MEMORY = "1G"
_BEGIN = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
mount -t cgroup2 groups /sys/fs/cgroup
echo "+memory +pids +cpu" > /sys/fs/cgroup/cgroup.subtree_control
export HOME=/tmp PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={path}
"""
_OPEN = """mkdir -p /tmp/above{at}; mount --bind {inner} /tmp/above{at}; mount -t tmpfs -o mode=755 above {outer}
mkdir -p {inner}; mount --bind /tmp/above{at} {inner}
"""
_GROUP = """mkdir /sys/fs/cgroup/{name} /tmp/{name}; chown -R {user} /sys/fs/cgroup/{name} /tmp/{name}
{python} -c 'import os; os.setxattr("/sys/fs/cgroup/{name}", "trusted.delegate", b"1")'
sh -c 'echo $$ > /sys/fs/cgroup/{name}/cgroup.procs; exec "$@"' sh {command} /tmp/{name} {user} | sed "s/^/{name} /"
"""
_END = "echo o > /proc/sysrq-trigger; sleep 60\n"


def run_delegated(root: Path, program: Path) -> dict[str, str]:
    """Run a Python program as root and as an ordinary user, each in a control group that was delegated to it.

    It is given a directory to write to, and the user to become. Returns the last line that each printed, by "root" and
    "ordinary".
    """
    kernel = shutil.which("linux.uml")
    assert kernel is not None, "linux.uml is not installed: install the package user-mode-linux (scripts/setup verify)"
    script = root / "init"
    script.write_text("".join(_script(program)))
    script.chmod(0o755)
    options = [f"mem={MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", f"init={script}"]
    done = subprocess.run(
        [kernel, *options, "con=null", "con0=fd:0,fd:1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=DEADLINE,
        check=False,
        env={"HOME": str(root), "TMPDIR": str(root), "PATH": os.environ["PATH"]},
    )
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    found = {name: text for name, _, text in lines if name in ("root", "ordinary")}
    assert found.keys() == {"root", "ordinary"}, done.stdout[-4000:]
    return found


def _script(program: Path) -> list[str]:
    python = shlex.quote(sys.executable)
    command = f"{python} {shlex.quote(str(program))}"
    found = [_BEGIN.format(path=program.parents[1])]
    found += [_OPEN.format(at=at, **one) for at, one in enumerate(_closed(os.path.realpath(sys.base_prefix)))]
    for name, user in (("root", 0), ("ordinary", ORDINARY_UID)):
        found.append(_GROUP.format(name=name, user=user, python=python, command=command))
    return [*found, _END]


def _closed(prefix: str) -> list[dict[str, str]]:
    """Where the interpreter lies in a directory that others cannot enter, an empty one with only it takes its place."""
    for above in reversed(Path(prefix).parents):
        if not above.stat().st_mode & 0o001:
            return [{"outer": str(above), "inner": prefix}]
    return []
