"""A server that starts in no time and shows the bytes that it got and gives the bytes that it is told to.

Tools: `mirror` gives back the line that it came in, `say` answers with the RESULT or the ERROR (hexadecimal), `hold` is
never answered, `pid` and `variable NAME` tell of the process, `breed` starts two others that would live for ever, one
of them in a session of its own, `grumble TEXT` writes to stderr, `shout COUNT SIZE` reports progress in COUNT messages
of SIZE bytes.
"""

import json
import os
import subprocess
import sys

NAMES = ("mirror", "say", "hold", "pid", "variable", "breed", "grumble", "shout")
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]
FOR_EVER = [sys.executable, "-I", "-S", "-c", "import signal\nwhile True: signal.pause()"]


def reply(identifier, member, raw):
    sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":%s,"%s":%s}\n' % (json.dumps(identifier).encode(), member, raw))
    sys.stdout.buffer.flush()


def text(content):
    return json.dumps({"content": [{"type": "text", "text": content}]}).encode()


def call(identifier, params, line):
    name, arguments = params["name"], params.get("arguments", {})
    if name == "mirror":
        reply(identifier, b"result", text(line.hex()))
    elif name == "say":
        member = "result" if "result" in arguments else "error"
        reply(identifier, member.encode(), bytes.fromhex(arguments[member]))
    elif name == "pid":
        reply(identifier, b"result", text(str(os.getpid())))
    elif name == "variable":
        reply(identifier, b"result", text(os.environ.get(arguments["name"], "")))
    elif name == "breed":
        for runaway in (False, True):
            subprocess.Popen(
                FOR_EVER,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=runaway,
            )
        reply(identifier, b"result", text("started"))
    elif name == "shout":
        told = {"progressToken": params["_meta"]["progressToken"], "progress": 1, "message": "x" * arguments["size"]}
        frame = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": told}).encode()
        for _ in range(arguments["count"]):
            sys.stdout.buffer.write(frame + b"\n")
        reply(identifier, b"result", text("shouted"))
    elif name == "grumble":
        print(arguments["text"], file=sys.stderr, flush=True)
        reply(identifier, b"result", text("grumbled"))
    elif name != "hold":
        reply(identifier, b"error", b'{"code":-32602,"message":"no such tool"}')


for line in sys.stdin.buffer:
    line = line.removesuffix(b"\n")
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        continue
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        offered = {"tools": {}, "prompts": {}, "resources": {}}
        info = {"name": "quick", "version": "1"}
        result = {"protocolVersion": params["protocolVersion"], "capabilities": offered, "serverInfo": info}
        reply(message["id"], b"result", json.dumps(result).encode())
    elif method == "tools/list":
        reply(message["id"], b"result", json.dumps({"tools": TOOLS}).encode())
    elif method == "tools/call":
        call(message["id"], params, line)
    elif method in ("prompts/list", "resources/list", "resources/templates/list"):
        kind = method.removesuffix("/list").replace("resources/templates", "resourceTemplates")
        reply(message["id"], b"result", json.dumps({kind: []}).encode())
    else:
        reply(message["id"], b"result", text(line.hex()))
