"""Prints what it was given: arguments, environment, descriptors, directory, session, in one line of JSON."""

import json
import os
import sys

with open("/proc/self/environ", "rb") as file:
    pairs = (pair.split(b"=", 1) for pair in file.read().split(b"\0") if pair)
    environ = {name.decode(): value.decode() for name, value in pairs}
fds = sorted(int(name) for name in os.listdir("/proc/self/fd"))
about = {
    "argv": sys.argv[1:],
    "env": environ,
    "fds": [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")],
    "cwd": os.getcwd(),
    "pid": os.getpid(),
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "blocking": [os.get_blocking(fd) for fd in range(3)],
}
print(json.dumps(about), flush=True)
sys.stdin.read()
