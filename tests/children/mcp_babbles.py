"""Calling `babble` makes it write COUNT lines that are nearly messages, or nothing like them, made from SEED."""

import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer

METHODS = ("notifications/progress", "notifications/message", "notifications/cancelled", "roots/list", "ping", "\u202e")


def value(chance, depth=0):
    kinds = [None, True, 1e308, -(2**70), "\ud83d", "progressToken", "x" * 300, chance.random()]
    if depth < 3 and chance.random() < 0.5:
        inner = [value(chance, depth + 1) for _ in range(chance.randrange(4))]
        return inner if chance.random() < 0.5 else {f"k{n}": one for n, one in enumerate(inner)}
    return chance.choice(kinds)


def line(chance):
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(200)).replace(b"\n", b"")
    if chance.random() < 0.05:
        return b"[" * 1000
    message = {"jsonrpc": "2.0", "id": chance.choice([10**9, "x", None, value(chance)])}
    message["method"] = chance.choice(METHODS)
    message["params"] = value(chance)
    message["result"] = message["error"] = value(chance)
    kept = {key: one for key, one in message.items() if chance.random() < 0.6}
    data = bytearray(json.dumps(kept).encode())
    for _ in range(chance.choice((0, 0, 1, 5))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data).replace(b"\n", b"")


class Babbles(Peer):
    def call(self, id, name, arguments):
        if name == "babble":
            chance = random.Random(arguments["seed"])
            for _ in range(arguments["count"]):
                sys.stdout.buffer.write(line(chance) + b"\n")
        super().call(id, name, arguments)


if __name__ == "__main__":
    Babbles().run()
