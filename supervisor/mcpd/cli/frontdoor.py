"""How clients reach the daemon that an operator means: the command to start, the URL, the token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mcpd.cli import clients
from mcpd.cli.failures import Failed
from mcpd.cli.options import Operator, mcp_sockets
from mcpd.control.client import NoDaemon
from mcpd.control.view import DaemonStatus

if TYPE_CHECKING:
    from mcpd.config.registry import Registry

SOCKET_NAME: Final = "mcp.sock"
TOKEN_FILE: Final = "token"  # noqa: S105 - the name of the file


def token_file(operator: Operator) -> Path:
    """The file with the token, of the running daemon or, if none runs, of the registry. Raises Failed."""
    daemon = _daemon(operator)
    if daemon is not None:
        if daemon.token_file is None:
            raise Failed(f"this daemon asks for no token (frontdoor.auth = {daemon.auth!r})")
        return Path(daemon.token_file)
    registry = _registry(operator)
    file = registry.daemon.state_dir / TOKEN_FILE
    if registry.frontdoor.auth != "token":
        raise Failed(f"{registry.path}: asks for no token (frontdoor.auth = {registry.frontdoor.auth!r})")
    if not file.exists():
        raise Failed(f"{file}: there is no token yet", "it is made when the daemon is first started: `mcpd start`")
    return file


def entry_for(
    operator: Operator, target: clients.Target, server: str | None, view: str | None, http: bool
) -> dict[str, Any]:
    """The client's entry for all servers, one, or a view; the daemon need not run. Raises Failed."""
    daemon = _daemon(operator)
    _check_names(operator, daemon, server, view)
    if http:
        url = f"{_url(operator, daemon)}{_path(server, view)}/mcp"
        asks = daemon.auth if daemon is not None else _registry(operator).frontdoor.auth
        return clients.http_entry(target, url, token_file(operator).read_text().strip() if asks == "token" else None)
    which = [server] if server is not None else ["--view", view] if view is not None else []
    return clients.stdio_entry(target, [*clients.program(), "connect", *which, *_where(operator, daemon)])


def _where(operator: Operator, daemon: DaemonStatus | None) -> list[str]:
    """Options for `mcpctl connect`, if it would not find the daemon in the bare environment of a desktop."""
    if operator.config is not None:
        return ["--config", os.path.abspath(operator.config)]
    found = [str(Path(daemon.runtime_dir) / SOCKET_NAME)] if daemon is not None else mcp_sockets(None, os.environ)[:1]
    bare = {"HOME": str(Path.home())}
    return [] if found[0] in mcp_sockets(None, bare) else ["--socket", found[0]]


def _path(server: str | None, view: str | None) -> str:
    return f"/servers/{server}" if server is not None else f"/views/{view}" if view is not None else ""


def _url(operator: Operator, daemon: DaemonStatus | None) -> str:
    if daemon is not None:
        if not daemon.urls:
            raise Failed("the daemon has no front door", "see `mcpctl list`")
        return daemon.urls[0]
    frontdoor = _registry(operator).frontdoor
    if frontdoor.port == 0:
        raise Failed("the front door's port is chosen when the daemon starts", "start it first: `mcpd start`")
    host = f"[{frontdoor.host}]" if ":" in frontdoor.host else frontdoor.host
    return f"{'https' if frontdoor.tls_cert else 'http'}://{host}:{frontdoor.port}"


def _check_names(operator: Operator, daemon: DaemonStatus | None, server: str | None, view: str | None) -> None:
    if server is None and view is None:
        return
    if server is not None and daemon is not None:
        names = [status.name for status in operator.client.servers()]
    else:
        registry = _registry(operator)
        names = list(registry.servers if server is not None else registry.views)
    if (server or view) not in names:
        kind = "server" if server is not None else "view"
        raise Failed(f"there is no {kind} {server or view!r}", f"there are {', '.join(names) or 'none'}")


def _daemon(operator: Operator) -> DaemonStatus | None:
    try:
        return operator.client.daemon()
    except NoDaemon:
        return None


def _registry(operator: Operator) -> Registry:
    from mcpd.config.load import find_registry, load

    return load(find_registry(operator.config, os.environ), os.environ, tolerate_missing=True)
