"""Whose daemon a tool speaks with: anybody may bind a name in /tmp and wait for whoever comes.

Standard library only, and little of it: `mcpctl connect` starts with this.
"""

from __future__ import annotations

import os
import stat

MOST_LINKS = 40  # as the kernel's own limit (path_resolution(7))


def is_trusted(path: str, uid: int) -> bool:
    """Whether a daemon of that user may be believed to be the one that is meant by the socket `path`.

    One's own is, and root's. Another user's is where root alone can have made the way to its directory, and gave that
    user the directory, as a service manager does with /run/mcpd. The same holds for root: what a user put anywhere
    else, or a link that leads there, proves nothing.
    """
    return uid in (os.getuid(), 0) or was_given(os.path.join(os.getcwd(), os.path.dirname(path)), uid)


def was_given(directory: str, uid: int) -> bool:
    """Whether a directory is that user's, and each one on the way to it, links included, root's and only root's to
    change."""
    at, rest, links = "/", directory.split("/"), 0
    try:
        while rest:
            name = rest.pop(0)
            if name in ("", "."):
                continue
            above = os.lstat(at)
            if above.st_uid != 0 or above.st_mode & 0o022:
                return False
            found = os.path.dirname(at) if name == ".." else os.path.join(at, name)
            if stat.S_ISLNK(os.lstat(found).st_mode):
                links += 1
                if links > MOST_LINKS:
                    return False
                target = os.readlink(found)
                rest = target.split("/") + rest
                at = "/" if target.startswith("/") else at
            else:
                at = found
        own = os.lstat(at)
    except OSError:
        return False
    return stat.S_ISDIR(own.st_mode) and own.st_uid == uid and not own.st_mode & 0o022


def is_reachable(directory: str) -> bool:
    """Whether users who are neither its owner nor of its group can get into a directory, as far as modes tell."""
    real = os.path.realpath(directory)
    while True:
        if not os.stat(real).st_mode & 0o001:
            return False
        if real == "/":
            return True
        real = os.path.dirname(real)
