"""Writes a line of as many bytes as it is told before it answers."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Overlong(Peer):
    def call(self, id, name, arguments):
        if name == "echo":
            sys.stdout.buffer.write(b"x" * arguments["bytes"] + b"\n")
            sys.stdout.buffer.flush()
        super().call(id, name, arguments)


Overlong().run()
