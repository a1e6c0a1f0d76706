"""How a client that may not enter is told how it may: WWW-Authenticate, and metadata of the protected resource.

2025-11-25 authorization; RFC 6750, section 3; RFC 9728. Without an authorization server (`auth = "token"`) there is
only the challenge.
"""

from __future__ import annotations

from typing import Final

from mcpd.config.settings import FrontdoorSettings
from mcpd.frontdoor.asgi import Header, Headers, Refusal, refusal
from mcpd.frontdoor.auth import Denied

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
LONGEST_PATH: Final = 256
RETRY_AFTER: Final[Header] = (b"retry-after", b"5")


class Challenges:
    """Makes the answers."""

    def __init__(self, settings: FrontdoorSettings) -> None:
        self._jwt = settings.jwt if settings.auth == "jwt" else None
        self._scheme = "https" if settings.tls_cert is not None else "http"

    def refusal(self, headers: Headers, path: str | bytes, denied: Denied | None, *, proxied: bool) -> Refusal:
        """For somebody without credentials (None), or with some that are worth nothing."""
        status = 401 if denied is None else denied.status
        if status == 503:
            return refusal(503, str(denied), headers=(RETRY_AFTER,))
        parts = ['Bearer realm="mcpd"']
        if denied is not None:
            parts += [f'error="{denied.error}"', f'error_description="{_quotable(str(denied))}"']
        if self._jwt is not None:
            if status == 401 and self._jwt.scopes:  # what to ask for, before anything was asked
                parts.append(f'scope="{_quotable(" ".join(self._jwt.scopes))}"')
            elif denied is not None and denied.scope:
                parts.append(f'scope="{_quotable(denied.scope)}"')
            at = path.decode("latin-1") if isinstance(path, bytes) else path
            parts.append(f'resource_metadata="{_quotable(self._base(headers, proxied) + WELL_KNOWN + at)}"')
        if denied is not None and self._jwt is not None:
            message = str(denied)
        elif self._jwt is not None:
            message = "a bearer token of the authorization server is needed; see resource_metadata in WWW-Authenticate"
        else:
            message = "a bearer token is needed in the Authorization header; `mcpctl token` prints it"
        return refusal(status, message, headers=((b"www-authenticate", ", ".join(parts).encode("latin-1", "replace")),))

    def metadata(self, headers: Headers, path: str, *, proxied: bool) -> dict[str, object] | None:
        """The metadata of the endpoint at `path`; None if no authorization server makes tokens for it."""
        if self._jwt is None or len(path) > LONGEST_PATH:
            return None
        found: dict[str, object] = {
            "resource": self._base(headers, proxied) + path,
            "authorization_servers": [self._jwt.issuer],
            "bearer_methods_supported": ["header"],
            "resource_name": "mcpd",
        }
        if self._jwt.scopes:
            found["scopes_supported"] = list(self._jwt.scopes)
        return found

    def _base(self, headers: Headers, proxied: bool) -> str:
        """The URL of this server as the client knows it."""
        assert self._jwt is not None
        if self._jwt.resource:
            return self._jwt.resource.rstrip("/")
        scheme = self._scheme
        if proxied and headers.get(b"x-forwarded-proto", b"").strip().lower() == b"https":
            scheme = "https"
        return f"{scheme}://{headers.get(b'host', b'').decode('latin-1')}"


def _quotable(text: str) -> str:
    """Text as it may stand in a quoted string (RFC 9110, section 5.6.4), without what would have to be escaped."""
    return "".join(char for char in text if " " <= char <= "~" and char not in '"\\')
