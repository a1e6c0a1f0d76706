"""`run FILE[:OBJECT]`: one server without a daemon, on the transport of one's choice."""

import argparse
import logging
import sys

from mcpworker.launcher import guard, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]

_TRANSPORTS = ("stdio", "sse", "streamable-http")


def main(arguments: "list[str]", program: str = "python -m mcpworker run") -> int:
    """Run a server object; 0 at its end, 1 where it cannot be started, 2 for a wrong command line."""
    options = _parser(program).parse_args(arguments)
    over_http = options.transport in _TRANSPORTS[1:]
    if not over_http and (options.host is not None or options.port is not None):
        sys.stderr.write(f"{program}: --host and --port need --transport sse or streamable-http\n")
        return 2
    try:
        path, name = start.split(options.target)
        start.prepare(path, options.builtin)
        if not over_http:
            guard.protect_stdout()
        sys.argv = [path, *options.arguments]
        server = start.find_server(start.load(path, "server_module"), path, name)
    except start.Refused as refusal:
        sys.stderr.write(f"{program}: {refusal}\n")
        return 1
    try:
        server.run(**_given(options, over_http))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        logging.getLogger("FastMCP.cli").debug("the server ended by an exception", exc_info=True)
        sys.stderr.write(f"{program}: Failed to run server: {error}\n")
        return 1
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description="Run a server.", allow_abbrev=False)
    parser.add_argument("target", metavar="FILE[:OBJECT]", help="without OBJECT: mcp, server or app, in this order")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="for the file, after --")
    parser.add_argument("-t", "--transport", choices=_TRANSPORTS)
    parser.add_argument("--host")
    parser.add_argument("-p", "--port", type=int)
    parser.add_argument("-l", "--log-level", type=str.upper, choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    parser.add_argument("--builtin", action="store_true", help="let `import fastmcp` mean mcpworker in any case")
    return parser


def _given(options: argparse.Namespace, over_http: bool) -> "dict[str, Any]":
    """Only what was given: the rest is the server's own settings."""
    given: dict[str, Any] = {} if options.transport is None else {"transport": options.transport}
    if options.log_level is not None:
        logging.getLogger("FastMCP").setLevel(options.log_level)
    if over_http:
        values = {"host": options.host, "port": options.port, "log_level": options.log_level}
        given.update({key: value for key, value in values.items() if value is not None})
    return given
