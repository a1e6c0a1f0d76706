"""Reads, and never answers the handshake."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Silent(Peer):
    def initialize(self, id, params):
        pass


Silent().run()
