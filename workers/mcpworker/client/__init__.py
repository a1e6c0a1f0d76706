"""The client side of a FastMCP application: `Client`, its transports, and the shapes of its handlers.

Nothing of the server lives here. The API is that of `fastmcp.client` 2.2 (list-shaped results, transports inferred
from what is passed), standing on the sessions of the official SDK, so that a client speaks both eras.
"""

from mcpworker.client import elicitation, logging, roots, sampling, transports
from mcpworker.client.client import Client
from mcpworker.client.transports import (
    ClientTransport,
    FastMCPStdioTransport,
    FastMCPTransport,
    NodeStdioTransport,
    NpxStdioTransport,
    PythonStdioTransport,
    SSETransport,
    StdioTransport,
    StreamableHttpTransport,
    UvxStdioTransport,
    WSTransport,
    infer_transport,
)

__all__ = [
    "Client",
    "ClientTransport",
    "FastMCPStdioTransport",
    "FastMCPTransport",
    "NodeStdioTransport",
    "NpxStdioTransport",
    "PythonStdioTransport",
    "SSETransport",
    "StdioTransport",
    "StreamableHttpTransport",
    "UvxStdioTransport",
    "WSTransport",
    "elicitation",
    "infer_transport",
    "logging",
    "roots",
    "sampling",
    "transports",
]
