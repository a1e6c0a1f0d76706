"""Prints its secrets on stderr, in pieces, and on stdout where no message is. Tools: `tell` says what it was given,
`crash` prints them once more and ends, `say` puts them into a log message. With REFUSE they are in its refusal."""

import json
import os
import sys
import time

from mcp_peer import Peer


class Indiscreet(Peer):
    def __init__(self):
        super().__init__()
        self.tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("tell", "crash", "say")]
        self.given = {"key": os.environ["KEY"]}
        if path := os.environ.get("KEY_FILE"):
            with open(path) as file:
                self.given |= {"path": path, "content": file.read()}

    def run(self):
        self.babble()
        print(f"debug: key={self.given['key']}", flush=True)
        print(f"debug: file={self.given.get('content')}", flush=True)
        super().run()

    def babble(self):
        for name in ("key", "content"):
            value = self.given.get(name, "").strip()
            half = len(value) // 2
            sys.stderr.write(f"connecting with {value[:half]}")
            sys.stderr.flush()
            time.sleep(0.05)  # so that the other half comes in another piece
            sys.stderr.write(f"{value[half:]} now\n")
            sys.stderr.flush()

    def initialize(self, id, params):
        if os.environ.get("REFUSE"):
            self.refuse(id, -32603, f"cannot log in: {json.dumps(self.given)}")
        else:
            super().initialize(id, params)

    def call(self, id, name, arguments):
        if name == "crash":
            self.babble()
            sys.stderr.write(f"fatal: {self.given}\n")
            sys.stderr.flush()
            os._exit(3)
        if name == "say":
            data = json.dumps(self.given)
            self.send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": data}})
        text = json.dumps(self.given) if name == "tell" else "done"
        self.answer(id, {"content": [{"type": "text", "text": text}]})


if __name__ == "__main__":
    Indiscreet().run()
