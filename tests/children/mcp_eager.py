"""Before it answers the handshake it writes a banner, asks for roots, pings, asks for sampling, logs, says a list changed.
It answers only when it has all three answers, and has a tool whose name is what it heard.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Eager(Peer):
    def initialize(self, id, params):
        sys.stdout.buffer.write(b"Welcome to the eager server!\n")
        self.waiting = (id, params)
        self.heard = {}
        for name, method in (("a", "roots/list"), ("b", "ping"), ("c", "sampling/createMessage")):
            self.send({"jsonrpc": "2.0", "id": name, "method": method})
        self.send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "early"}})
        self.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})

    def take(self, message):
        if "method" in message:
            super().take(message)
            return
        self.heard[message["id"]] = message.get("result", message.get("error", {}).get("code"))
        if len(self.heard) == 3:
            self.tools = [{"name": str(self.heard), "inputSchema": {"type": "object"}}]
            super().initialize(*self.waiting)


Eager().run()
