"""What this machine can do to contain a server, found out by doing it once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

from mcpd.sandbox import bubblewrap
from mcpd.sandbox.policy import DEFAULT_PATH, SandboxFacts

PROBE_TIMEOUT = 10.0
INSTALL = "install the package bubblewrap (apt, dnf and pacman call it so)"

_SELF_TEST = "import os; assert os.getpid() < 10 and os.readlink('/proc/self') == str(os.getpid())"


def probe(bwrap: str | None = None) -> SandboxFacts:
    """Run bubblewrap as servers will be run; blocks for some 50 ms, so it is called once, before anything starts."""
    found = bwrap or shutil.which("bwrap") or shutil.which("bwrap", path=DEFAULT_PATH)
    if found is None:
        return SandboxFacts(None, "", f"bubblewrap is not installed: {INSTALL}")
    version = _run((found, "--version"))
    if version.returncode != 0:
        return SandboxFacts(None, "", f"{found} --version failed: {_last_line(version)}")
    name = version.stdout.strip().removeprefix("bubblewrap ")
    python = (sys.executable, "-I", "-S", "-c", _SELF_TEST)
    tried = _run((*bubblewrap.pid_namespace(found, "/"), "--json-status-fd", "1", "--", *python))
    if tried.returncode != 0 or '"exit-code": 0' not in tried.stdout:
        return SandboxFacts(
            None, name, f"bubblewrap cannot make a pid namespace here: {_last_line(tried)}{_hint(tried)}"
        )
    return SandboxFacts(found, name, "")


def find_launcher() -> str | None:
    """The program that runs script files, to be run by its path; None where mcpworker is not installed."""
    found = importlib.util.find_spec("mcpworker")  # of a top-level package: nothing is imported
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = os.path.join(folder, "launcher", "__main__.py")
        if os.path.isfile(path):
            return path
    return None


def _run(argv: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT,
            check=False,
            env={"PATH": DEFAULT_PATH},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, -1, "", f"no end after {PROBE_TIMEOUT:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(argv, -1, "", f"{error.strerror}: {argv[0]}")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _hint(done: subprocess.CompletedProcess[str]) -> str:
    if "Permission denied" in done.stderr or "Operation not permitted" in done.stderr or "uid map" in done.stderr:
        return (
            " (user namespaces look forbidden: on Ubuntu 24.04 see sysctl kernel.apparmor_restrict_unprivileged_userns,"
            " in a container allow them in its security profile)"
        )
    return ""
