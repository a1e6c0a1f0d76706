"""Leaves a process behind that holds stdout, stderr and the FIFO that is its first argument, and ends with code 3.

The second argument says how the one left behind hides: "plain", "setsid" or "daemon" (double fork). It ignores SIGTERM.
"""

import os
import signal
import sys

fifo, how = sys.argv[1:3]
told, tell = os.pipe()
if os.fork() == 0:
    if how != "plain":
        os.setsid()
    if how == "daemon" and os.fork() != 0:
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.open(fifo, os.O_WRONLY)
    os.write(tell, b".")
    while True:
        signal.pause()
os.read(told, 1)
os.write(1, b"ready\n")
if len(sys.argv) > 3:
    sys.stdin.read()
os._exit(3)
