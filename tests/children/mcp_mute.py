"""Closes its stdout when it is initialised, and lives on."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Mute(Peer):
    def take(self, message):
        super().take(message)
        if message.get("method") == "tools/list":
            os.close(1)
            while True:
                signal.pause()


Mute().run()
