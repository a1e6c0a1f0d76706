"""Names in a view of several servers: `server__tool`, and back."""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 64
_EXPRESSION = re.compile(r"\{([+#./;?&]?)([^{}]*)\}")


def public_name(server: str, own: str, separator: str) -> str:
    """The name under which a view of several servers shows a tool or prompt; a fixed short form past 64 characters."""
    name = f"{server}{separator}{own}"
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9]}_{digest}"


def split_name(public: str, servers: tuple[str, ...], separator: str) -> tuple[str, str] | None:
    """(server, own name) of a public name, by its prefix alone; the longest server name that fits wins."""
    fitting = [server for server in servers if public.startswith(server + separator)]
    if not fitting:
        return None
    server = max(fitting, key=len)
    return server, public[len(server) + len(separator) :]


def wrap_uri(server: str, uri: str) -> str:
    """How a URI is shown that another server lists, too."""
    return f"mcpd+{server}:{uri}"


def unwrap_uri(uri: str, servers: tuple[str, ...]) -> tuple[str, str] | None:
    """(server, own URI) of a wrapped URI."""
    scheme, colon, rest = uri.partition(":")
    server = scheme.removeprefix("mcpd+")
    return (server, rest) if colon and server != scheme and server in servers else None


def template_pattern(template: str) -> re.Pattern[str]:
    """What URIs of a template (RFC 6570) look like: enough to tell whose a URI is, not to read values from it."""
    parts: list[str] = []
    at = 0
    for expression in _EXPRESSION.finditer(template):
        parts.append(re.escape(template[at : expression.start()]))
        operator, names = expression.groups()
        if operator in ("+", "#") or names.endswith("*"):
            parts.append(".+")
        else:
            parts.append(".*" if operator else "[^/?#]+")
        at = expression.end()
    parts.append(re.escape(template[at:]))
    return re.compile("".join(parts), re.DOTALL)
