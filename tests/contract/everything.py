"""The server under test of the official conformance suite (npm `@modelcontextprotocol/conformance`).

    everything.py                    stdio, of both eras: the first request decides
    everything.py --handshake-only   stdio, as a server that knows nothing of the per-request era
    everything.py --http             Streamable HTTP on a free port of 127.0.0.1; prints its URL first

It offers the tools, resources and prompts that the suite's scenarios name, and is the measure of the gateway: what it
passes directly over HTTP, it must pass through mcpd.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import warnings
from typing import Any

import anyio
import everything_tools as tools
import mcp_types as types
import uvicorn
from everything_asking import Context, Unanswered, ask, elicitation, is_per_request
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

PROMPTS = [
    types.Prompt(name="test_simple_prompt", description="A prompt without arguments"),
    types.Prompt(
        name="test_prompt_with_arguments",
        description="A prompt with two arguments",
        arguments=[
            types.PromptArgument(name="arg1", description="First test argument", required=True),
            types.PromptArgument(name="arg2", description="Second test argument", required=True),
        ],
    ),
    types.Prompt(
        name="test_prompt_with_embedded_resource",
        description="A prompt that embeds a resource",
        arguments=[types.PromptArgument(name="resourceUri", description="What to embed", required=True)],
    ),
    types.Prompt(name="test_prompt_with_image", description="A prompt with an image"),
    types.Prompt(name="test_input_required_result_prompt", description="A prompt that asks the user first"),
]
COMPLETIONS = ("paris", "park", "party", "test", "testing")
RESOURCES = [
    types.Resource(uri="test://static-text", name="static-text", description="A text", mime_type="text/plain"),
    types.Resource(uri="test://static-binary", name="static-binary", description="A picture", mime_type="image/png"),
    types.Resource(uri="test://watched-resource", name="watched", description="To be followed", mime_type="text/plain"),
]
TEMPLATE = types.ResourceTemplate(
    uri_template="test://template/{id}/data", name="template", description="By id", mime_type="application/json"
)
FROM_TEMPLATE = re.compile(r"test://template/([^/]+)/data")


def build() -> Server[Any]:
    """The server, in a world of its own."""
    world = tools.World()

    async def list_tools(_c: Context, _p: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools.listed(world))

    async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> Any:
        return await tools.call(world, ctx, params)

    async def list_prompts(_c: Context, _p: Any) -> types.ListPromptsResult:
        changed = f"Was changed {world.prompt_changes} times"
        extra = [types.Prompt(name="test_dynamic_prompt", description=changed)] if world.prompt_changes else []
        return types.ListPromptsResult(prompts=[*PROMPTS, *extra])

    async def follow(_c: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        world.followed.add(str(params.uri))
        return types.EmptyResult()

    async def unfollow(_c: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        world.followed.discard(str(params.uri))
        return types.EmptyResult()

    async def set_level(_c: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        world.level = params.level
        return types.EmptyResult()

    return Server(
        "everything",
        version="1.0",
        instructions="The server under test of the conformance suite.",
        cache_hints={"resources/read": CacheHint(ttl_ms=1000, scope="private")},
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=follow,
        on_unsubscribe_resource=unfollow,
        on_set_logging_level=set_level,
        on_subscriptions_listen=ListenHandler(world.bus),
    )


async def get_prompt(ctx: Context, params: types.GetPromptRequestParams) -> Any:
    arguments = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            contents: list[Any] = [_text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            first, second = arguments.get("arg1"), arguments.get("arg2")
            contents = [_text(f"Prompt with arguments: arg1='{first}', arg2='{second}'")]
        case "test_prompt_with_embedded_resource":
            uri = arguments.get("resourceUri", "test://example-resource")
            resource = tools.embedded(uri, "text/plain", "Embedded resource content for testing.")
            contents = [resource, _text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            contents = [tools.picture(), _text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            question = elicitation("What context should the prompt use?", {"context": {"type": "string"}}, ["context"])
            try:
                answers = await ask(ctx, params, {"user_context": question})
            except Unanswered as unanswered:
                return unanswered.result
            contents = [_text(json.dumps(answers))]
        case _:
            raise MCPError(types.INVALID_PARAMS, f"no such prompt: {params.name}")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=one) for one in contents])


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


async def complete(_c: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    values = [value for value in COMPLETIONS if value.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


async def list_resources(_c: Context, _p: Any) -> types.ListResourcesResult:
    return types.ListResourcesResult(resources=RESOURCES)


async def list_templates(_c: Context, _p: Any) -> types.ListResourceTemplatesResult:
    return types.ListResourceTemplatesResult(resource_templates=[TEMPLATE])


async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)
    if uri == "test://static-binary":
        blob = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=tools.PNG)
        return types.ReadResourceResult(contents=[blob])
    if by_id := FROM_TEMPLATE.fullmatch(uri):
        body = {"id": by_id[1], "templateTest": True, "data": f"Data for ID: {by_id[1]}"}
        text = types.TextResourceContents(uri=uri, mime_type="application/json", text=json.dumps(body))
    elif uri in {"test://static-text", "test://watched-resource"}:
        said = "This is the content of the static text resource."
        text = types.TextResourceContents(uri=uri, mime_type="text/plain", text=said)
    else:
        code = types.INVALID_PARAMS if is_per_request(ctx) else -32002  # the revisions differ
        raise MCPError(code, "Resource not found", {"uri": uri})
    return types.ReadResourceResult(contents=[text])


async def over_stdio(handshake_only: bool) -> None:
    server = build()
    options = server.create_initialization_options(NotificationOptions(True, True, True))
    async with stdio_server() as (incoming, outgoing):
        if not handshake_only:
            await server.run(incoming, outgoing, options)
            return
        async with server.lifespan(server) as state:
            await serve_loop(server, incoming, outgoing, lifespan_state=state, init_options=options)


async def over_http() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(build().streamable_http_app(), log_level="warning")
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--handshake-only", action="store_true", help="stdio, without the per-request era")
    where.add_argument("--http", action="store_true", help="Streamable HTTP on a free port")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # what is deprecated has to be tested, too
    if chosen.http:
        anyio.run(over_http)
    else:
        anyio.run(over_stdio, chosen.handshake_only)


if __name__ == "__main__":
    main()
