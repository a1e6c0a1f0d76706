"""Run by path between mcpd and a server where bubblewrap cannot run: die with mcpd, say why exec failed.

Arguments: the status descriptor, mcpd's pid, the user to become (UID:GID or -), limits (RESOURCE=VALUE,… or -), the
directory, the command. Standard library only, and little of it.
"""

import ctypes
import json
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    status, parent, user, limits = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    directory, command = sys.argv[5], sys.argv[6:]
    with open("/proc/self/environ", "rb") as file:  # as it was given: the interpreter may have added LC_CTYPE
        pairs = [pair.split(b"=", 1) for pair in file.read().split(b"\0") if b"=" in pair]
    set_limits(limits)
    become(user)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above, so no signal will come
        sys.exit(1)
    os.set_inheritable(status, False)
    try:
        os.chdir(directory)
        os.execvpe(command[0], command, dict(pairs))  # noqa: S606
    except OSError as error:
        os.write(status, json.dumps({"exec-error": f"{error.filename}: {error.strerror}"}).encode() + b"\n")
        sys.exit(127)


def set_limits(text: str) -> None:
    for limit in text.split(",") if text != "-" else ():
        what, value = map(int, limit.split("="))
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def become(user: str) -> None:
    """Done before the death signal is asked for: a change of user takes that back (prctl(2))."""
    if user == "-":
        return
    uid, gid = map(int, user.split(":"))
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


if __name__ == "__main__":
    main()
