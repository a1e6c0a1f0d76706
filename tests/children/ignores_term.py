"""Neither the end of stdin nor SIGTERM ends it."""

import os
import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"ready\n")
while True:
    signal.pause()
