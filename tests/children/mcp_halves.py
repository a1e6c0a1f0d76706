"""Answers its first call with half a line, and nothing any more after that."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Halves(Peer):
    def call(self, id, name, arguments):
        os.write(1, b'{"jsonrpc":"2.0","id":%d,"result":{"content":' % id)
        while os.read(0, 65536):
            pass


Halves().run()
