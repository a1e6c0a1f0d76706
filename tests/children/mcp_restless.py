"""Says that its tools changed whenever it is asked for them."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Restless(Peer):
    def page(self, params):
        self.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        return super().page(params)


Restless().run()
