"""Ends on SIGTERM, but has a child in its group that ignores it and holds the FIFO that is the argument."""

import os
import signal
import sys

told, tell = os.pipe()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.open(sys.argv[1], os.O_WRONLY)
    os.write(tell, b".")
    while True:
        signal.pause()
os.read(told, 1)
os.write(1, b"ready\n")
signal.pause()
