"""Does not end with its stdin; SIGTERM ends it."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class IgnoresEof(Peer):
    def run(self):
        super().run()
        while True:
            signal.pause()


IgnoresEof().run()
