"""Ends a moment after it was initialised."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Fleeting(Peer):
    def take(self, message):
        super().take(message)
        if message.get("method") == "tools/list":
            os._exit(1)


Fleeting().run()
