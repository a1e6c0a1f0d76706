"""A small, well behaved MCP server of the handshake era, standard library only; others here are it with one bad habit.

Tools: `echo` gives its arguments back, `pid` the number of the process, `exit` ends it with the given CODE, `hold` answers
when there is a byte to read in the FIFO PATH, `grow` adds a TOOL and says so, `noise` writes COUNT lines that are no
messages, `say` sends a log message.
"""

import json
import os
import sys


class Peer:
    def __init__(self):
        self.tools = [
            {"name": name, "inputSchema": {"type": "object"}}
            for name in ("echo", "pid", "exit", "hold", "grow", "noise", "say")
        ]
        self.capabilities = {"tools": {"listChanged": True}, "logging": {}}

    def run(self):
        for line in sys.stdin.buffer:
            self.take(json.loads(line))

    def take(self, message):
        if "method" in message and "id" in message:
            self.request(message)

    def request(self, message):
        method, params = message["method"], message.get("params", {})
        if method == "initialize":
            self.initialize(message["id"], params)
        elif method == "ping":
            self.answer(message["id"], {})
        elif method == "tools/list":
            self.answer(message["id"], self.page(params))
        elif method == "tools/call":
            self.call(message["id"], params["name"], params.get("arguments", {}))
        elif method == "logging/setLevel":
            self.answer(message["id"], {})
        else:
            self.refuse(message["id"], -32601, "no such method")

    def initialize(self, id, params):
        self.answer(
            id,
            {
                "protocolVersion": params["protocolVersion"],
                "capabilities": self.capabilities,
                "serverInfo": {"name": "peer", "version": "1.2.3"},
            },
        )

    def page(self, params):
        return {"tools": self.tools}

    def call(self, id, name, arguments):
        if name == "exit":
            os._exit(arguments["code"])
        if name == "hold":
            with open(arguments["path"], "rb", buffering=0) as fifo:
                fifo.read(1)
        if name == "grow":
            self.tools = [*self.tools, {"name": arguments["tool"], "inputSchema": {"type": "object"}}]
            self.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        if name == "noise":
            for number in range(arguments["count"]):
                sys.stdout.buffer.write(b"noise %d\n" % number)
        if name == "say":
            self.send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hi"}})
        text = str(os.getpid()) if name == "pid" else json.dumps(arguments)
        self.answer(id, {"content": [{"type": "text", "text": text}]})

    def answer(self, id, result):
        self.send({"jsonrpc": "2.0", "id": id, "result": result})

    def refuse(self, id, code, message):
        self.send({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})

    def send(self, message):
        sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    Peer().run()
