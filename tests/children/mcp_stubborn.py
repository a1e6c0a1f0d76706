"""Neither the end of stdin nor SIGTERM ends it."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer

signal.signal(signal.SIGTERM, signal.SIG_IGN)
Peer().run()
while True:
    signal.pause()
