"""Lists of 1,200 tools, 30 resources and 30 prompts, in pages; the handshake era, standard library only."""

import json
import sys

COUNTS = {"tools": 1200, "resources": 30, "prompts": 30}
PAGE = {"tools": 100, "resources": 7, "prompts": 7}


def entry(kind, number):
    if kind == "tools":
        return {"name": f"book-{number}", "inputSchema": {"type": "object"}}
    if kind == "prompts":
        return {"name": f"advice-{number}"}
    return {"uri": f"shelf://{number}", "name": f"shelf {number}"}


def listed(kind, params):
    start = int(params.get("cursor", "p0")[1:])
    end = min(start + PAGE[kind], COUNTS[kind])
    result = {kind: [entry(kind, number) for number in range(start, end)]}
    if end < COUNTS[kind]:
        result["nextCursor"] = f"p{end}"
    return result


def answer(method, params):
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {kind: {} for kind in COUNTS},
            "serverInfo": {"name": "library", "version": "1"},
        }
    kind, _, verb = method.partition("/")
    if verb == "list" and kind in COUNTS:
        return listed(kind, params)
    if method == "resources/templates/list":
        return {"resourceTemplates": []}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": params["name"]}]}
    return {}


for line in sys.stdin.buffer:
    message = json.loads(line)
    if "id" in message and "method" in message:
        result = answer(message["method"], message.get("params", {}))
        sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode() + b"\n")
        sys.stdout.buffer.flush()
