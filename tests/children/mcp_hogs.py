"""When it is called it takes as much memory as it is told (MIB), little by little, and keeps it."""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Hogs(Peer):
    def call(self, id, name, arguments):
        self.kept = []
        for _ in range(arguments["mib"]):
            self.kept.append(b"x" * (1 << 20))
            time.sleep(0.005)
        super().call(id, name, arguments)


Hogs().run()
