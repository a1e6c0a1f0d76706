"""Closes its stdin when it is initialised, and lives on."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Deaf(Peer):
    def take(self, message):
        super().take(message)
        if message.get("method") == "tools/list":
            os.close(0)
            while True:
                signal.pause()


Deaf().run()
