"""Answers each call also under ids that nobody asked, twice under its own, and the next ones before they are asked."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Lies(Peer):
    def call(self, id, name, arguments):
        self.lie(id + 1000)
        self.lie(str(id))
        super().call(id, name, arguments)
        self.lie(id)
        for ahead in range(1, 6):
            self.lie(id + ahead)

    def lie(self, id):
        self.answer(id, {"content": [{"type": "text", "text": "a lie"}]})


Lies().run()
