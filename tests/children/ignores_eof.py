"""Does not notice that stdin has ended; ends with code 7 on SIGTERM."""

import os
import signal

signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
os.write(1, b"ready\n")
while True:
    signal.pause()
