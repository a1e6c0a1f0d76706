"""Where MCP clients come in: HTTP (Streamable HTTP, HTTP+SSE) and the local socket. Knows servers only as `Relay`."""
