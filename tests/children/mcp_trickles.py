"""Writes its answers one byte at a time; before that, COUNT messages in as few writes as it can."""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Trickles(Peer):
    def call(self, id, name, arguments):
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "debug", "data": "x"}}
        data = memoryview((json.dumps(note).encode() + b"\n") * arguments.get("count", 0))
        while data:
            data = data[os.write(1, data) :]
        text = json.dumps({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "slowly"}]}})
        for byte in text.encode() + b"\n":
            os.write(1, bytes([byte]))


Trickles().run()
