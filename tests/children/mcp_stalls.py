"""Does not read its stdin any more once it is called."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Stalls(Peer):
    def call(self, id, name, arguments):
        while True:
            signal.pause()


Stalls().run()
