"""Prints its secrets on stderr, in pieces, and on stdout where no message is; `tell` says what it was given."""

import json
import os
import sys
import time

from mcp_peer import Peer


class Indiscreet(Peer):
    def run(self):
        key = os.environ["KEY"]
        half = len(key) // 2
        sys.stderr.write(f"connecting with {key[:half]}")
        sys.stderr.flush()
        time.sleep(0.05)  # so that the other half comes in another piece
        sys.stderr.write(f"{key[half:]} now\n")
        sys.stderr.flush()
        print(f"debug: key={key}", flush=True)
        super().run()

    def call(self, id, name, arguments):
        found = {"key": os.environ["KEY"]}
        if path := os.environ.get("KEY_FILE"):
            with open(path) as file:
                found |= {"path": path, "content": file.read()}
        self.answer(id, {"content": [{"type": "text", "text": json.dumps(found)}]})


if __name__ == "__main__":
    Indiscreet().run()
