"""A server whose calls can be held, counted and told apart; written as users write theirs, and run by the launcher."""

import asyncio

from fastmcp import Context, FastMCP

mcp = FastMCP("workshop")
gates: dict[str, asyncio.Event] = {}
ends: dict[str, asyncio.Future[str]] = {}
PATIENCE = 20.0


@mcp.tool()
async def echo(text: str) -> str:
    """Give back what came."""
    return text


@mcp.tool()
async def steps(tag: str, count: int, ctx: Context) -> str:
    """Report progress `count` times; others get their turn between any two reports."""
    for number in range(1, count + 1):
        await ctx.report_progress(number, count, f"{tag}-{number}")
        await asyncio.sleep(0)
    return tag


@mcp.tool()
async def hold(key: str, ctx: Context) -> str:
    """Say so by progress, then wait until `release` or the client ends it."""
    gates[key] = asyncio.Event()
    ends[key] = asyncio.get_running_loop().create_future()
    try:
        await ctx.report_progress(1, 2, "held")
        await gates[key].wait()
    except asyncio.CancelledError:
        ends[key].set_result("cancelled")
        raise
    finally:
        del gates[key]
    ends[key].set_result("released")
    return key


@mcp.tool()
async def release(key: str) -> bool:
    """End a held call; false if there is none."""
    if key not in gates:
        return False
    gates[key].set()
    return True


@mcp.tool()
async def how_ended(key: str) -> str:
    """How a held call ended, when it has ended."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.shield(ends[key])


@mcp.tool()
async def grow(name: str) -> str:
    """Have one more tool."""

    @mcp.tool(name=name)
    async def grown() -> str:
        return name

    return name


@mcp.tool()
async def large(size: int) -> str:
    """A text of so many characters."""
    return "x" * size


if __name__ == "__main__":
    mcp.run()
