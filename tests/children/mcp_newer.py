"""A server of the per-request era alone (2026-07-28): it refuses `initialize`, and requests that do not say who asks."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer

VERSION = "io.modelcontextprotocol/protocolVersion"


class Newer(Peer):
    def request(self, message):
        method, params = message["method"], message.get("params", {})
        if method == "initialize":
            self.refuse(message["id"], -32022, "no handshake here")
        elif VERSION not in params.get("_meta", {}):
            self.refuse(message["id"], -32602, "who asks?")
        elif method == "server/discover":
            about = {"io.modelcontextprotocol/serverInfo": {"name": "newer", "version": "3"}}
            found = {"supportedVersions": ["2026-07-28"], "capabilities": self.capabilities, "_meta": about}
            self.answer(message["id"], {"resultType": "complete", **found})
        elif method == "ping":
            self.refuse(message["id"], -32601, "no such method")
        elif method == "subscriptions/listen":
            pass
        else:
            super().request(message)


Newer().run()
