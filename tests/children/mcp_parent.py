"""Does not end with its stdin but on SIGTERM; it has a child in its group that ignores both."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Parent(Peer):
    def run(self):
        told, tell = os.pipe()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(tell, b".")
            while True:
                signal.pause()
        os.read(told, 1)
        super().run()
        signal.pause()


Parent().run()
