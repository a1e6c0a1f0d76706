"""mcpd: a supervisor daemon for MCP servers."""

__version__ = "0.1.0"
