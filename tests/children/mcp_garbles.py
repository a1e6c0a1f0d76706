"""Begins with a BOM, ends its lines with CRLF, and before each answer writes what is no message."""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Garbles(Peer):
    def run(self):
        sys.stdout.buffer.write(b"\xef\xbb\xbf")
        super().run()

    def call(self, id, name, arguments):
        for line in (
            b"\xff\xfe not utf-8",
            b"nul \0",
            b"[]",
            b"42",
            b'{"a":1}',
            b'{"jsonrpc":"2.0"',
            b'"text"',
            b"null",
        ):
            sys.stdout.buffer.write(line + b"\n")
        forged = {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "batch"}]}}
        sys.stdout.buffer.write(json.dumps([forged]).encode() + b"\r\n\r\n")
        super().call(id, name, arguments)

    def send(self, message):
        sys.stdout.buffer.write(json.dumps(message).encode() + b"\r\n")
        sys.stdout.buffer.flush()


Garbles().run()
