"""Run by path between mcpd and a server where bubblewrap cannot run: die with mcpd, say why exec failed.

Arguments: the status descriptor, mcpd's pid, the directory, the command. Standard library only, and little of it.
"""

import ctypes
import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    status, parent, directory, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above, so no signal will come
        sys.exit(1)
    os.set_inheritable(status, False)
    with open("/proc/self/environ", "rb") as file:  # as it was given: the interpreter may have added LC_CTYPE
        pairs = [pair.split(b"=", 1) for pair in file.read().split(b"\0") if b"=" in pair]
    try:
        os.chdir(directory)
        os.execvpe(command[0], command, dict(pairs))  # noqa: S606
    except OSError as error:
        os.write(status, json.dumps({"exec-error": f"{error.filename}: {error.strerror}"}).encode() + b"\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
