"""Its tools give back what it was told of its client at `initialize`; it asks for roots as soon as it may."""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Tells(Peer):
    roots = None

    def initialize(self, id, params):
        self.told = params
        super().initialize(id, params)

    def take(self, message):
        if message.get("method") == "notifications/initialized":
            self.send({"jsonrpc": "2.0", "id": "roots", "method": "roots/list"})
        if "method" not in message:
            self.roots = message.get("result", message.get("error"))
        super().take(message)

    def call(self, id, name, arguments):
        if name == "echo":
            text = json.dumps({"capabilities": self.told["capabilities"], "roots": self.roots, "pid": os.getpid()})
            self.answer(id, {"content": [{"type": "text", "text": text}]})
            return
        super().call(id, name, arguments)


Tells().run()
