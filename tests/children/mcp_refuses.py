"""Answers the handshake with an error."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Refuses(Peer):
    def initialize(self, id, params):
        self.refuse(id, -32600, "not today")


Refuses().run()
