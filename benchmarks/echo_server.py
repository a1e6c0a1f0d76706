"""A server as people write them, with the least in it: what its start costs is the framework's."""

from fastmcp import FastMCP

server = FastMCP("echo")


@server.tool()
def echo(text: str) -> str:
    """Give it back."""
    return text


if __name__ == "__main__":
    server.run()
