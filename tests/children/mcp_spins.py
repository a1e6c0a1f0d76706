"""When it is called it spins for ever, in as many processes as it is told (COUNT) and may have."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Spins(Peer):
    def call(self, id, name, arguments):
        for _ in range(arguments["count"] - 1):
            try:
                if os.fork() == 0:
                    break
            except OSError:
                break
        while True:
            pass


Spins().run()
