"""Leaves a process behind that holds its pipes and ignores SIGTERM, and ends with code 3; HOW: plain, setsid, daemon."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Breeds(Peer):
    def call(self, id, name, arguments):
        how = arguments.get("how", "plain")
        told, tell = os.pipe()
        if os.fork() == 0:
            if how != "plain":
                os.setsid()
            if how == "daemon" and os.fork() != 0:
                os._exit(0)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            os.write(tell, b".")
            while True:
                signal.pause()
        os.read(told, 1)
        os._exit(3)


Breeds().run()
