"""Closes stdin and stdout when it is initialised, and lives on, whatever it is told."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Lame(Peer):
    def take(self, message):
        super().take(message)
        if message.get("method") == "tools/list":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.close(0)
            os.close(1)
            while True:
                signal.pause()


Lame().run()
