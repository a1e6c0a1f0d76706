"""The tools of the server under test, under the names that the conformance suite calls."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types
from everything_asking import (
    Answers,
    Context,
    Questions,
    Unanswered,
    ask,
    ask_all,
    declared,
    demand,
    elicitation,
    is_per_request,
    page,
    roots,
    sampling,
)
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="  # one red pixel
)
WAV = base64.b64encode(
    b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\x02\0\0\0\0\0"  # one sample
).decode()
STEP = 0.05  # seconds between two notices of a call
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


@dataclass
class World:
    """What the tools change and the lists show. One a process, whoever calls."""

    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    level: str = "debug"
    tool_changes: int = 0
    prompt_changes: int = 0
    cancelled: int = 0
    followed: set[str] = field(default_factory=set)


Handler = Callable[[World, Context, types.CallToolRequestParams], Awaitable[types.CallToolResult]]
TOOLS: dict[str, tuple[types.Tool, Handler]] = {}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def tool(name: str, description: str, schema: dict[str, Any] | None = None) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        TOOLS[name] = (types.Tool(name=name, description=description, input_schema=schema or NOTHING), handler)
        return handler

    return add


def strings(*names: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": list(names)}


def said(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


def picture() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, mime_type: str, text: str) -> types.EmbeddedResource:
    contents = types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return types.EmbeddedResource(type="resource", resource=contents)


async def call(world: World, ctx: Context, params: types.CallToolRequestParams) -> Any:
    """Run a tool: its result, or the questions that the client must answer first."""
    try:
        _, handler = TOOLS[params.name]
    except KeyError:
        raise MCPError(types.INVALID_PARAMS, f"no such tool: {params.name}") from None
    try:
        return await handler(world, ctx, params)
    except Unanswered as unanswered:
        return unanswered.result


# Contents


@tool("test_simple_text", "Answers with one text")
async def simple_text(_w: World, _c: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    return said("This is a simple text response for testing.")


@tool("test_image_content", "Answers with an image")
async def image_content(_w: World, _c: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    return types.CallToolResult(content=[picture()])


@tool("test_audio_content", "Answers with audio")
async def audio_content(_w: World, _c: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    return types.CallToolResult(content=[types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")])


@tool("test_embedded_resource", "Answers with an embedded resource")
async def embedded_resource(_w: World, _c: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    resource = embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    return types.CallToolResult(content=[resource])


@tool("test_multiple_content_types", "Answers with text, image and resource")
async def multiple_contents(_w: World, _c: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    text = types.TextContent(type="text", text="Multiple content types test:")
    resource = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return types.CallToolResult(content=[text, picture(), resource])


@tool("test_error_handling", "Always fails")
async def error_handling(_w: World, _c: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    failed = said("This tool intentionally returns an error for testing")
    return failed.model_copy(update={"is_error": True})


# Notices


async def log(world: World, ctx: Context, level: Any, text: str) -> None:
    """Log to the client; on the per-request wire the SDK keeps silent unless the request set a level."""
    if is_per_request(ctx) or LEVELS.index(level) >= LEVELS.index(world.level):
        await ctx.session.send_log_message(level, text, "everything", related_request_id=ctx.request_id)


@tool("test_tool_with_logging", "Logs three times while it runs")
async def with_logging(world: World, ctx: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    await log(world, ctx, "info", "Tool execution started")
    await anyio.sleep(STEP)
    await log(world, ctx, "info", "Tool processing data")
    await anyio.sleep(STEP)
    await log(world, ctx, "info", "Tool execution completed")
    return said("Tool with logging executed successfully")


@tool("test_logging_tool", "Logs once")
async def logging_tool(world: World, ctx: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    await log(world, ctx, "error", "only for those who asked for it")
    return said("logged")


@tool("test_tool_with_progress", "Reports progress three times")
async def with_progress(_w: World, ctx: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    for progress in (0, 50, 100):
        await ctx.session.report_progress(progress, 100, f"Completed step {progress} of 100")
        await anyio.sleep(STEP)
    return said("Tool with progress executed successfully")


@tool("test_reconnection", "Closes its response stream before it answers, where the transport has one")
async def reconnection(_w: World, ctx: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await anyio.sleep(2 * STEP)
    return said("Reconnection test completed")


# Beyond what the suite asks for


@tool("test_wait", "Says that it has begun, and waits until it is cancelled")
async def wait(world: World, ctx: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    await ctx.session.report_progress(0, 1, "begun")
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        world.cancelled += 1
        raise
    return said("never")


@tool("test_cancelled", "Says how many calls of the tool that waits were cancelled")
async def cancelled(world: World, _c: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    return said(str(world.cancelled))


# Changes


@tool("test_trigger_tool_change", "Adds a tool, or changes the one that it has added")
async def tool_change(world: World, ctx: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    world.tool_changes += 1
    await world.bus.publish(ToolsListChanged())
    if not is_per_request(ctx):
        await ctx.session.send_tool_list_changed()
    return said("the list of tools has changed")


@tool("test_trigger_prompt_change", "Adds a prompt, or changes the one that it has added")
async def prompt_change(world: World, ctx: Context, _p: types.CallToolRequestParams) -> types.CallToolResult:
    world.prompt_changes += 1
    await world.bus.publish(PromptsListChanged())
    if not is_per_request(ctx):
        await ctx.session.send_prompt_list_changed()
    return said("the list of prompts has changed")


@tool("test_trigger_resource_update", "Tells those who follow a resource that it has changed", strings("uri"))
async def resource_update(world: World, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    uri = (params.arguments or {})["uri"]
    await world.bus.publish(ResourceUpdated(uri=uri))
    if not is_per_request(ctx) and uri in world.followed:
        await ctx.session.send_resource_updated(uri)
    return said(f"{uri} has changed")


# Schemas

KEYWORDS: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
MIRRORED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "priority": {"type": "integer", "x-mcp-header": "Priority"},
        "query": {"type": "string"},
    },
    "required": ["region"],
}


@tool("json_schema_2020_12_tool", "Tool with JSON Schema 2020-12 features", KEYWORDS)
@tool("test_custom_headers", "Arguments that a client repeats in headers", MIRRORED)
async def echo(_w: World, _c: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    return said(json.dumps(params.arguments or {}, sort_keys=True))


# Questions to the client

NAME = {"name": {"type": "string"}}
DEFAULTS: dict[str, Any] = {
    "name": {"type": "string", "description": "User name", "default": "John Doe"},
    "age": {"type": "integer", "description": "User age", "default": 30},
    "score": {"type": "number", "description": "User score", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "description": "Verification status", "default": True},
}
TITLED = [{"const": f"value{n}", "title": f"{nth} Option"} for n, nth in enumerate(("First", "Second", "Third"), 1)]
OPTIONS = ["option1", "option2", "option3"]
ENUMS: dict[str, Any] = {
    "untitledSingle": {"type": "string", "enum": OPTIONS},
    "titledSingle": {"type": "string", "oneOf": TITLED},
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
}


def told(answers: Answers) -> types.CallToolResult:
    return said(json.dumps(answers, sort_keys=True))


def asking(name: str, description: str, *rounds: Questions, sealed: bool = False) -> None:
    """A tool that asks these rounds of questions and answers with what it was told."""

    async def handler(_w: World, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return told(await ask(ctx, params, *rounds, sealed=sealed))

    tool(name, description)(handler)


asking("test_elicitation_sep1034_defaults", "Asks with defaults", {"answer": elicitation("Your data", DEFAULTS)})
asking("test_elicitation_sep1330_enums", "Asks with enums of all kinds", {"answer": elicitation("Choose", ENUMS)})
asking("test_elicitation_url", "Sends the user to a page", {"answer": page("https://example.org/sign-in")})
asking("test_streaming_elicitation", "Asks the user", {"user_name": elicitation("Name?", NAME, ["name"])})
asking(
    "test_input_required_result_elicitation",
    "Asks the user's name",
    {"user_name": elicitation("What is your name?", NAME, ["name"])},
)
asking(
    "test_input_required_result_sampling",
    "Asks the model",
    {"capital_question": sampling("What is the capital of France?")},
)
asking("test_input_required_result_list_roots", "Asks for the roots", {"client_roots": roots()})
CONFIRM: Questions = {"confirm": elicitation("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])}
asking("test_input_required_result_request_state", "Asks, with a state", CONFIRM, sealed=True)
asking("test_input_required_result_tampered_state", "Asks, with a state that is checked", CONFIRM, sealed=True)
asking(
    "test_input_required_result_multiple_inputs",
    "Asks user, model and roots at once",
    {
        "user_name": elicitation("What is your name?", NAME, ["name"]),
        "greeting": sampling("Generate a greeting", 50),
        "client_roots": roots(),
    },
    sealed=True,
)
asking(
    "test_input_required_result_multi_round",
    "Asks twice, one after the other",
    {"step1": elicitation("Step 1: What is your name?", NAME, ["name"])},
    {"step2": elicitation("Step 2: What is your favorite color?", {"color": {"type": "string"}}, ["color"])},
    sealed=True,
)


@tool("test_sampling", "Asks the client's model", strings("prompt"))
async def ask_model(_w: World, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    return told(await ask(ctx, params, {"answer": sampling((params.arguments or {})["prompt"])}))


@tool("test_elicitation", "Asks the user", strings("message"))
async def ask_user(_w: World, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    fields = {"username": {"type": "string"}, "email": {"type": "string"}}
    question = elicitation((params.arguments or {})["message"], fields, ["username", "email"])
    return told(await ask(ctx, params, {"answer": question}))


@tool("test_missing_capability", "Needs the client's model")
async def missing_capability(_w: World, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    demand(ctx, "sampling")
    return told(await ask(ctx, params, {"answer": sampling("Anything")}))


@tool("test_input_required_result_capabilities", "Asks only what the client has said that it can answer")
async def capabilities(_w: World, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    all_questions: Questions = {
        "elicitation": elicitation("What is your name?", NAME),
        "sampling": sampling("Greet", 50),
    }
    questions = {name: question for name, question in all_questions.items() if name in declared(ctx)}
    if is_per_request(ctx):
        return told(await ask(ctx, params, questions))
    outcomes = await ask_all(ctx, questions)
    return told({key: answer for key, answer in outcomes.items() if not isinstance(answer, MCPError)})


@tool("test_dynamic_tool", "Is there only after the list of tools has changed")
async def dynamic_tool(world: World, _c: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    if not world.tool_changes:
        raise MCPError(types.INVALID_PARAMS, f"no such tool: {params.name}")
    return said("here")


def listed(world: World) -> list[types.Tool]:
    dynamic, _ = TOOLS["test_dynamic_tool"]
    found = [entry for entry, _ in TOOLS.values() if entry is not dynamic]
    if world.tool_changes:
        found.append(dynamic.model_copy(update={"description": f"Was changed {world.tool_changes} times"}))
    return found
