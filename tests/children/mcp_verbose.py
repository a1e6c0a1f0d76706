"""Answers a call with as many BYTES as it is told; the id comes LAST in its answer, or first."""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Verbose(Peer):
    def call(self, id, name, arguments):
        result = {"content": [{"type": "text", "text": "y" * arguments["bytes"]}]}
        if arguments.get("last"):
            answer = {"result": result, "jsonrpc": "2.0", "id": id}
        else:
            answer = {"jsonrpc": "2.0", "id": id, "result": result}
        data = memoryview(json.dumps(answer).encode() + b"\n")
        while data:
            data = data[os.write(1, data) :]


Verbose().run()
