"""Tells its tools once; later it has forgotten them."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Forgets(Peer):
    told = False

    def request(self, message):
        if message["method"] == "tools/list" and self.told:
            self.refuse(message["id"], -32603, "what tools?")
            return
        self.told = self.told or message["method"] == "tools/list"
        super().request(message)


Forgets().run()
