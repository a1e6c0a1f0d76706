"""A server of the SDK's own server class with one component of each kind: the independent peer of client and proxy.

Run as a script it serves `stdio`, or, with `sse PORT` or `streamable-http PORT`, HTTP on loopback.
"""

import os
import sys
import warnings
from typing import Annotated

import anyio
import mcp_types as types
from mcp import MCPDeprecationWarning
from mcp.server.mcpserver import Context, MCPServer
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field

server = MCPServer("Reference", instructions="Everything once.", version="7.8.9")


@server.tool()
def echo(text: str) -> str:
    """Give back what came."""
    return text


@server.tool()
def pid() -> int:
    """Say which process serves."""
    return os.getpid()


@server.tool()
def fail(reason: str) -> str:
    """Fail for a reason."""
    from mcp.server.mcpserver.exceptions import ToolError

    raise ToolError(reason)


@server.tool()
def die() -> str:
    """End the process without an answer."""
    os._exit(3)


@server.tool()
async def count(ctx: Context, to: int) -> int:
    """Report progress for each number."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"step {number}")
    return to


@server.tool()
async def say(ctx: Context, text: str) -> str:
    """Log a text at the levels debug and warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        await ctx.log("debug", f"quiet {text}", logger_name="ref")
        await ctx.log("warning", text, logger_name="ref")
    return "said"


@server.tool()
async def wait_for_cancel(ctx: Context, path: str) -> str:
    """Report progress, then wait for ever; write to `path` when cancelled."""
    await ctx.report_progress(1, None, "waiting")
    try:
        await anyio.sleep_forever()
    finally:
        with open(path, "w") as file:
            file.write("cancelled")
    return "never"


async def _ask(ctx: Context, request: types.InputRequest, result_type: type) -> types.InputRequiredResult | object:
    """Ask the client in the way of its era."""
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return await ctx.session.send_request(request, result_type)
    if ctx.input_responses is None:
        return types.InputRequiredResult(input_requests={"answer": request}, request_state="round one")
    assert ctx.request_state == "round one"
    return ctx.input_responses["answer"]


@server.tool()
async def ask_model(ctx: Context, prompt: str) -> str | types.InputRequiredResult:
    """Ask the client's model."""
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
    params = types.CreateMessageRequestParams(messages=[message], max_tokens=7, system_prompt="be brief")
    answer = await _ask(ctx, types.CreateMessageRequest(params=params), types.CreateMessageResult)
    if isinstance(answer, types.InputRequiredResult):
        return answer
    return f"model said: {answer.content.text}"


@server.tool()
async def ask_user(ctx: Context, question: str) -> str | types.InputRequiredResult:
    """Ask the client's user."""
    params = types.ElicitRequestFormParams(
        message=question, requested_schema={"type": "object", "properties": {"word": {"type": "string"}}}
    )
    answer = await _ask(ctx, types.ElicitRequest(params=params), types.ElicitResult)
    if isinstance(answer, types.InputRequiredResult):
        return answer
    return f"user {answer.action}: {answer.content}"


@server.tool()
async def ask_roots(ctx: Context) -> str | types.InputRequiredResult:
    """Ask for the client's roots."""
    answer = await _ask(ctx, types.ListRootsRequest(), types.ListRootsResult)
    if isinstance(answer, types.InputRequiredResult):
        return answer
    return ",".join(str(root.uri) for root in answer.roots)


@server.tool()
def route(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
    """Take an argument that per-request HTTP clients have to repeat in a header."""
    return f"routed to {region}"


@server.resource("data://config")
def config() -> str:
    """Give the configuration."""
    return '{"theme": "dark"}'


@server.resource("data://blob", mime_type="application/octet-stream")
def blob() -> bytes:
    """Give four bytes."""
    return b"\x00\xff\x10\x80"


@server.resource("users://{name}/profile")
def profile(name: str) -> str:
    """Give a user's profile."""
    return f"profile of {name}"


@server.prompt()
def greet(name: str) -> str:
    """Ask for a greeting."""
    return f"Please greet {name}"


@server.completion()
async def complete(ref: object, argument: types.CompletionArgument, context: object) -> types.Completion:
    """Complete an argument by three letters."""
    return types.Completion(values=[argument.value + "abc"])


def main() -> None:
    """Serve in the way that the arguments say."""
    if len(sys.argv) == 1:
        server.run()
    elif sys.argv[1] == "sse":
        server.run(transport="sse", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[2]))


if __name__ == "__main__":
    main()
