"""Its tool `ask` asks the client for input, with the TEXT of the call, and answers with that and what it heard.

It asks for sampling, or with METHOD for something else, and goes on reading meanwhile: any number of calls may wait.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mcp_peer import Peer


class Asks(Peer):
    def __init__(self):
        super().__init__()
        self.tools = [*self.tools, {"name": "ask", "inputSchema": {"type": "object"}}]
        self.waiting = {}

    def call(self, id, name, arguments):
        if name != "ask":
            super().call(id, name, arguments)
            return
        number = f"question-{id}"
        self.waiting[number] = id, arguments["text"]
        params = {
            "messages": [{"role": "user", "content": {"type": "text", "text": arguments["text"]}}],
            "maxTokens": 1,
        }
        if arguments.get("method") == "elicitation/create":
            params = {"message": arguments["text"], "requestedSchema": {"type": "object", "properties": {}}}
        method = arguments.get("method", "sampling/createMessage")
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    def take(self, message):
        if "method" in message:
            super().take(message)
            return
        id, text = self.waiting.pop(message["id"])
        heard = message.get("result", message.get("error"))
        self.answer(id, {"content": [{"type": "text", "text": json.dumps({"text": text, "heard": heard})}]})


Asks().run()
