"""A server with one of everything, for tests that reach it over real transports.

features.py [TRANSPORT [PORT]]
"""

import sys
import threading
from contextlib import asynccontextmanager
from typing import Literal

import anyio
from pydantic import BaseModel

from mcpworker import Audio, Context, FastMCP, File, Image
from mcpworker.errors import ToolError

log: list[str] = []


@asynccontextmanager
async def lifespan(server):
    log.append("open")
    yield {"state": "ready"}
    log.append("close")
    print("lifespan closed", file=sys.stderr, flush=True)


mcp = FastMCP("Features", instructions="Everything once.", lifespan=lifespan, version="1.2.3", title="All features")


class Point(BaseModel):
    """A place."""

    x: int
    y: int = 0


class Answer(BaseModel):
    name: str
    sure: bool = True


@mcp.tool(tags={"echo"}, annotations={"readOnlyHint": True}, title="Echo")
async def echo(text: str) -> str:
    """Give back what came."""
    return text


@mcp.tool()
def shift(point: Point, by: int = 1) -> Point:
    """Move a point."""
    return Point(x=point.x + by, y=point.y + by)


@mcp.tool()
def media():
    return ["first", Image(data=b"png"), {"second": 2}, Audio(data=b"wav"), File(data=b"hello", name="a.txt")]


@mcp.tool()
def noisy() -> str:
    print("a stray print")
    return "quiet"


@mcp.tool()
def crash() -> str:
    raise RuntimeError("secret reason")


@mcp.tool()
def refuse() -> str:
    raise ToolError("not today")


@mcp.tool()
def thread_name() -> str:
    return threading.current_thread().name


@mcp.tool()
async def lifespan_state(ctx: Context) -> str:
    return ctx.request_context.lifespan_context["state"]


@mcp.tool()
async def progress(ctx: Context) -> str:
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3, f"step {step}")
    return "done"


@mcp.tool()
async def talk(ctx: Context) -> str:
    await ctx.debug("d")
    await ctx.info("i")
    await ctx.warning("w")
    await ctx.error("e", logger_name="here")
    return "said"


@mcp.tool()
async def sample(ctx: Context, question: str) -> str:
    answer = await ctx.sample(question, system_prompt="be brief", max_tokens=7)
    return f"model says {answer.text}"


@mcp.tool()
async def ask(ctx: Context) -> str:
    log.append("asked")
    first = await ctx.elicit("Who?", Answer)
    if first.action != "accept":
        return first.action
    second = await ctx.elicit(f"Really {first.data.name}?", Answer)
    return f"{first.data.name} {second.action} {log.count('asked')}"


@mcp.tool()
async def ask_both(ctx: Context) -> str:
    found = {}

    async def one(key: str) -> None:
        found[key] = (await ctx.elicit(key, Answer)).data.name

    async with anyio.create_task_group() as group:
        group.start_soon(one, "left")
        group.start_soon(one, "right")
    return f"{found['left']} {found['right']}"


@mcp.tool()
async def roots(ctx: Context) -> str:
    return " ".join(str(root.uri) for root in await ctx.list_roots())


@mcp.tool()
async def read_own(ctx: Context) -> str:
    [item] = await ctx.read_resource("data://config")
    return item.content


@mcp.tool()
def grow(name: str) -> str:
    mcp.add_tool(lambda: name, name=name)
    return "grown"


@mcp.tool()
def shrink(name: str) -> str:
    mcp.remove_tool(name)
    return "shrunk"


@mcp.tool()
async def touch(ctx: Context, uri: str) -> str:
    await ctx.notify_resource_updated(uri)
    return "touched"


@mcp.resource("data://config")
def config() -> dict:
    """The configuration."""
    return {"theme": "dark"}


@mcp.resource("data://bytes", mime_type="application/octet-stream")
def raw() -> bytes:
    return b"\x00\xff"


@mcp.resource("users://{user_id}/profile")
def profile(user_id: int, ctx: Context) -> dict:
    """A user's profile."""
    return {"id": user_id, "server": ctx.fastmcp.name}


@mcp.resource("tree://{path*}")
def tree(path: str) -> str:
    return path


@mcp.resource("broken://x")
def broken() -> str:
    raise RuntimeError("no disk")


@mcp.resource("asks://who")
async def who(ctx: Context) -> str:
    return (await ctx.elicit("Who?", Answer)).data.name


@mcp.prompt()
def analyze(points: list[float], style: Literal["short", "long"] = "short") -> str:
    """Analyze points."""
    return f"{style}: {sum(points)}"


@mcp.prompt()
async def interview(ctx: Context) -> str:
    return f"Interview {(await ctx.elicit('Who?', Answer)).data.name}"


if __name__ == "__main__":
    transport, port = [*sys.argv[1:], None, None][:2]
    mcp.run(transport, **({"host": "127.0.0.1", "port": int(port), "log_level": "warning"} if port else {}))
