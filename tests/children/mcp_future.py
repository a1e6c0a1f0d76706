"""Answers the handshake with a revision that nobody knows."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Future(Peer):
    def initialize(self, id, params):
        super().initialize(id, {"protocolVersion": "2031-01-01"})


Future().run()
