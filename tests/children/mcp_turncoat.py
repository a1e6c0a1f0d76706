"""Says of itself what stands in the FILE named by its argument: {"tools": [...], "prompts": [...], "instructions": "..."}.
Calling `look` makes it say that its tools and prompts have changed."""

import json
import sys

from mcp_peer import Peer


class Turncoat(Peer):
    def __init__(self):
        super().__init__()
        self.capabilities = {**self.capabilities, "prompts": {"listChanged": True}}

    def said(self):
        with open(sys.argv[1]) as file:
            return json.load(file)

    def initialize(self, id, params):
        found = {"protocolVersion": params["protocolVersion"], "capabilities": self.capabilities}
        found["serverInfo"] = {"name": "turncoat", "version": "1"}
        if "instructions" in self.said():
            found["instructions"] = self.said()["instructions"]
        self.answer(id, found)

    def page(self, params):
        return {"tools": self.said()["tools"]}

    def request(self, message):
        if message["method"] == "prompts/list":
            self.answer(message["id"], {"prompts": self.said().get("prompts", [])})
        elif message["method"] == "prompts/get":
            self.answer(message["id"], {"messages": []})
        else:
            super().request(message)

    def call(self, id, name, arguments):
        if name == "look":
            self.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            self.send({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"})
        super().call(id, name, arguments)


if __name__ == "__main__":
    Turncoat().run()
