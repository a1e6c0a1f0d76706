"""Command lines for bubblewrap (bwrap(1)); `--json-status-fd` and the command itself are added at the start."""

from __future__ import annotations


def pid_namespace(bwrap: str, cwd: str) -> tuple[str, ...]:
    """A process table of its own over the host's files: no protection, but killing its first process kills all.

    `--die-with-parent` has the kernel end everything when the daemon is gone, be it by SIGKILL.
    """
    return (
        bwrap,
        "--dev-bind",
        "/",
        "/",
        "--unshare-pid",
        "--proc",
        "/proc",
        "--die-with-parent",
        "--chdir",
        cwd,
    )
