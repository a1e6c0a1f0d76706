"""Before it answers a call it writes as many bytes as it is told (BYTES) on stderr, no line break among them."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Grumbles(Peer):
    def call(self, id, name, arguments):
        left = arguments.get("bytes", 0)
        while left > 0:
            left -= os.write(2, b"x" * min(left, 65536))
        super().call(id, name, arguments)


Grumbles().run()
