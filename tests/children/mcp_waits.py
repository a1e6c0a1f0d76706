"""Reads a byte of the FIFO given as argument before it answers the handshake."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Waits(Peer):
    def initialize(self, id, params):
        with open(sys.argv[1], "rb", buffering=0) as fifo:
            fifo.read(1)
        super().initialize(id, params)


Waits().run()
