"""mcpd as an OAuth 2.1 resource server: keys by https, scopes, and what clients are told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import secrets
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from e2e.raw import INITIALIZE, request
from support.certificates import write_certificate
from support.daemon import CHILDREN, Daemon, python_server, wait_for
from support.issuer import AUDIENCE, ISSUER, Issuer

SERVERS = python_server("one", CHILDREN / "mcp_peer.py") + python_server("two", CHILDREN / "mcp_peer.py")
ME = Issuer()
METADATA = "/.well-known/oauth-authorization-server"


class AuthorizationServer:
    """Serves a key set by https, and counts how often it was asked; lets everybody in who asks as OAuth wants it."""

    def __init__(self, directory: Path) -> None:
        self.cert, key = write_certificate(directory)
        self.asked = 0
        self.consented: list[str] = []
        self._codes: dict[str, tuple[str, str, str]] = {}  # code -> challenge (RFC 7636), scope, resource (RFC 8707)
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                owner.asked += path == "/jwks.json"
                found = {"/jwks.json": ME.jwks("ec", "rsa"), METADATA: json.dumps(owner.metadata()).encode()}.get(path)
                self._answer(404 if found is None else 200, found or b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/register":
                    self._answer(201, json.dumps({**json.loads(body), "client_id": "desktop"}).encode())
                else:
                    self._answer(200, json.dumps(owner.token(dict(parse_qsl(body.decode())))).encode())

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.base = f"https://localhost:{self.server.server_address[1]}"
        self.url = f"{self.base}/jwks.json"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def metadata(self) -> dict[str, Any]:
        """RFC 8414."""
        return {
            "issuer": self.base,
            "authorization_endpoint": f"{self.base}/authorize",
            "token_endpoint": f"{self.base}/token",
            "registration_endpoint": f"{self.base}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
        }

    def consent(self, url: str) -> tuple[str, str]:
        """What a person does in a browser: the code and the state with which it comes back to the client."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert url.startswith(f"{self.base}/authorize?")
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self._codes[code] = (asked["code_challenge"], asked["scope"], asked["resource"])
        self.consented.append(asked["scope"])
        return code, asked["state"]

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        challenge, scope, resource = self._codes.pop(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == challenge
        assert form["resource"] == resource
        signed = ME.token(iss=self.base, scope=scope)
        return {"access_token": signed, "token_type": "Bearer", "expires_in": 3600, "scope": scope}

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def keys() -> Iterator[AuthorizationServer]:
    with tempfile.TemporaryDirectory(prefix="mcpd-t-") as place:
        served = AuthorizationServer(Path(place))
        try:
            yield served
        finally:
            served.close()


@pytest.fixture(scope="module")
def daemon(keys: AuthorizationServer) -> Iterator[Daemon]:
    frontdoor = f"""auth = "jwt"
[frontdoor.jwt]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks = "{keys.url}"
scopes = {{ all = "*", one = ["one"] }}
"""
    daemon = Daemon(SERVERS, frontdoor=frontdoor)
    daemon.env["SSL_CERT_FILE"] = str(keys.cert)
    try:
        daemon.start()
        wait_for(lambda: post(daemon, "/mcp", ME.token(scope="all")).status_code == 200, "the keys are there")
        yield daemon
    finally:
        daemon.close()


def post(daemon: Daemon, path: str, token: str | None) -> httpx2.Response:
    headers = {"accept": "application/json, text/event-stream"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    with httpx2.Client(trust_env=False) as client:
        return client.post(daemon.url + path, json=request(0, "initialize", **INITIALIZE), headers=headers)


def get(daemon: Daemon, path: str) -> httpx2.Response:
    with httpx2.Client(trust_env=False) as client:
        return client.get(daemon.url + path)


def test_scopes_open_servers(daemon: Daemon) -> None:
    assert post(daemon, "/servers/one/mcp", ME.token("rsa", scope="one")).status_code == 200
    assert post(daemon, "/servers/two/mcp", ME.token("rsa", scope="one")).status_code == 404
    assert post(daemon, "/servers/two/mcp", ME.token(scope="one all")).status_code == 200


def test_without_a_token_the_client_is_shown_the_way(daemon: Daemon) -> None:
    refused = post(daemon, "/servers/one/mcp", None)
    assert refused.status_code == 401
    challenge = refused.headers["www-authenticate"]
    where = f"{daemon.url}/.well-known/oauth-protected-resource/servers/one/mcp"
    assert challenge == f'Bearer realm="mcpd", scope="all one", resource_metadata="{where}"'

    metadata = get(daemon, "/.well-known/oauth-protected-resource/servers/one/mcp")
    assert metadata.json() == {
        "resource": f"{daemon.url}/servers/one/mcp",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "resource_name": "mcpd",
        "scopes_supported": ["all", "one"],
    }
    assert get(daemon, "/.well-known/oauth-protected-resource").json()["resource"] == daemon.url


def test_what_is_hidden_is_not_told_by_metadata(daemon: Daemon) -> None:
    known = get(daemon, "/.well-known/oauth-protected-resource/servers/one/mcp")
    unknown = get(daemon, "/.well-known/oauth-protected-resource/servers/six/mcp")
    assert known.text.replace("/one/", "/six/") == unknown.text


def test_a_bad_token_is_told_why(daemon: Daemon) -> None:
    refused = post(daemon, "/mcp", ME.token(aud="https://other.example"))
    assert refused.status_code == 401
    assert (
        'error="invalid_token", error_description="the token is for somebody else"'
        in refused.headers["www-authenticate"]
    )


def test_a_token_without_scopes_is_told_which_it_needs(daemon: Daemon) -> None:
    refused = post(daemon, "/mcp", ME.token(scope="other"))
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert 'scope="all one"' in refused.headers["www-authenticate"]


def test_made_up_keys_do_not_make_it_ask_again_and_again(daemon: Daemon, keys: AuthorizationServer) -> None:
    before = keys.asked
    for _ in range(5):
        assert post(daemon, "/mcp", Issuer().token("ed")).status_code in (401, 429)
    assert keys.asked <= before + 1


def streamed(daemon: Daemon, method: str, path: str, headers: dict[str, str], body: Any = None) -> list[str]:
    """The lines of an event stream, once it has ended."""
    with (
        httpx2.Client(base_url=daemon.url, trust_env=False, timeout=30) as http,
        http.stream(method, path, headers=headers, json=body) as stream,
    ):
        assert stream.status_code == 200
        return list(stream.iter_lines())


def test_streams_end_with_the_token_that_opened_them_and_the_session_goes_on(daemon: Daemon) -> None:
    both = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    later = {**both, "authorization": f"Bearer {ME.token(scope='all')}"}
    expiring = ME.token(scope="all", exp=int(time.time()) - 25)  # clocks may differ by 30 s
    soon = {**both, "authorization": f"Bearer {expiring}"}
    meta = {"protocolVersion": "2026-07-28", "clientCapabilities": {}, "clientInfo": INITIALIZE["clientInfo"]}
    body = request(1, "subscriptions/listen", notifications={"toolsListChanged": True})
    body["params"]["_meta"] = {f"io.modelcontextprotocol/{key}": value for key, value in meta.items()}
    newer = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
    with httpx2.Client(base_url=daemon.url, trust_env=False, timeout=30) as http, ThreadPoolExecutor(4) as pool:
        opened = http.post("/mcp", json=request(0, "initialize", **INITIALIZE), headers=later)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        kept = pool.submit(streamed, daemon, "GET", "/mcp", {**later, **session})
        ended = [
            pool.submit(streamed, daemon, "GET", "/mcp", {**soon, **session}),
            pool.submit(streamed, daemon, "GET", "/sse", soon),
            pool.submit(streamed, daemon, "POST", "/mcp", {**soon, **newer}, body),
        ]
        assert all(one.result(30) for one in ended)
        assert not kept.done()
        assert http.post("/mcp", json=request(2, "ping"), headers={**soon, **session}).status_code == 401
        assert http.post("/mcp", json=request(2, "ping"), headers={**later, **session}).json()["result"] == {}
        assert http.delete("/mcp", headers={**later, **session}).status_code == 204
        kept.result(30)


def test_there_are_no_tokens_of_our_own(daemon: Daemon) -> None:
    assert not (daemon.home / "state" / "token").exists()
    refused = daemon.ctl("token", "create", "x", check=False)
    assert (refused.returncode, "knows no tokens" in refused.stderr) == (1, True)
    assert json.loads(daemon.ctl("list", "--json").stdout)


def test_keys_that_come_late_are_withdrawn_or_spoilt() -> None:
    """From a file, which is looked at more often than a URL."""
    new = Issuer()
    frontdoor = f"""auth = "jwt"
[frontdoor.jwt]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks = "jwks.json"
"""
    daemon = Daemon(SERVERS, frontdoor=frontdoor)
    file = daemon.home / "jwks.json"

    def publish(content: bytes) -> None:
        aside = file.with_suffix(".new")
        aside.write_bytes(content)
        aside.replace(file)

    try:
        daemon.start()
        without = post(daemon, "/mcp", ME.token())
        assert (without.status_code, without.headers["retry-after"]) == (503, "5")
        assert "the keys of the issuer are not there" in without.json()["error"]["message"]
        assert "www-authenticate" not in without.headers

        publish(ME.jwks("ec"))
        wait_for(lambda: post(daemon, "/mcp", ME.token()).status_code == 200, "the keys are there")
        public = ME.keys["ec"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        head, claims, _ = ME.token().split(".")
        claims_of_mine = jwt.decode(ME.token(), options={"verify_signature": False})
        with_the_public_key = hmac_signed(claims_of_mine, public)
        for forged in (f"{head}.{claims}.", unsigned(claims_of_mine), with_the_public_key, new.token()):
            refused = post(daemon, "/mcp", forged)
            assert refused.status_code == 401
            assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        now = int(time.time())
        for claim in ({"nbf": now + 20}, {"exp": now - 20}):
            assert post(daemon, "/mcp", ME.token(**claim)).status_code == 200, "clocks may differ"
        for claim in ({"nbf": now + 90}, {"exp": now - 90}, {"iss": "https://other.example"}, {"aud": "other"}):
            assert post(daemon, "/mcp", ME.token(**claim)).status_code == 401

        publish(b"no keys at all")
        wait_for(lambda: "jwt.keys-unusable" in daemon.output(), "it is told")
        assert post(daemon, "/mcp", ME.token()).status_code == 200, "those that were known stay"

        publish(new.jwks("ec"))
        wait_for(lambda: post(daemon, "/mcp", new.token()).status_code == 200, "the new one is known")
        assert post(daemon, "/mcp", ME.token()).status_code in (401, 429), "and the old one is not"
    finally:
        daemon.close()


class Remembered(TokenStorage):
    """What a client keeps of who it is."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@pytest.mark.anyio
async def test_official_client_finds_its_way_from_the_refusal_to_a_call(keys: AuthorizationServer) -> None:
    """It is given nothing but the URL of a server; what it needs to know it is told by mcpd and the issuer."""
    frontdoor = f"""auth = "jwt"
[frontdoor.jwt]
issuer = "{keys.base}"
audience = "{AUDIENCE}"
jwks = "{keys.url}"
scopes = {{ one = ["one"] }}
"""
    daemon = Daemon(SERVERS, frontdoor=frontdoor)
    daemon.env["SSL_CERT_FILE"] = str(keys.cert)
    came_back: list[tuple[str, str]] = []

    async def browse(url: str) -> None:
        came_back.append(keys.consent(url))

    async def come_back() -> AuthorizationCodeResult:
        code, state = came_back.pop()
        return AuthorizationCodeResult(code=code, state=state)

    try:
        await anyio.to_thread.run_sync(daemon.start)
        url = f"{daemon.url}/servers/one/mcp"
        mine = ME.token(iss=keys.base, scope="one")
        await anyio.to_thread.run_sync(
            lambda: wait_for(lambda: post(daemon, "/servers/one/mcp", mine).status_code == 200, "the keys are there")
        )
        about = OAuthClientMetadata(
            redirect_uris=[AnyUrl("http://127.0.0.1:9/back")], token_endpoint_auth_method="none"
        )
        remembered = Remembered()
        oauth = OAuthClientProvider(url, about, remembered, browse, come_back)
        trusting = ssl.create_default_context(cafile=str(keys.cert))
        async with (
            httpx2.AsyncClient(auth=oauth, verify=trusting, trust_env=False, timeout=30) as http_client,
            Client(streamable_http_client(url, http_client=http_client)) as client,
        ):
            result = await client.call_tool("echo", {"text": "hello"})
            assert "hello" in str(result.content)
        assert keys.consented[-1] == "one"
        assert remembered.tokens is not None
        assert daemon.ctl_json_lines("audit")[-1]["principal"] == "jwt:ada"
    finally:
        daemon.close()


def unsigned(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, key="", algorithm="none", headers={"kid": "ec"})


def hmac_signed(claims: dict[str, Any], key: bytes) -> str:
    """By hand: the library knows better."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT", "kid": "ec"}, claims)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(key, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + signature).decode()
