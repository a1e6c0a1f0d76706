"""During a call it asks its client twice under one id, and tells what it heard."""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class AsksTwice(Peer):
    heard = None

    def call(self, id, name, arguments):
        self.heard, self.waiting = [], id
        params = {"messages": [], "maxTokens": 1}
        ask = {"jsonrpc": "2.0", "id": "mine", "method": "sampling/createMessage", "params": params}
        os.write(1, 2 * (json.dumps(ask).encode() + b"\n"))

    def take(self, message):
        if "method" in message:
            super().take(message)
            return
        self.heard.append(message.get("result", message.get("error")))
        if len(self.heard) == 2:
            self.answer(self.waiting, {"content": [{"type": "text", "text": json.dumps(self.heard)}]})


AsksTwice().run()
