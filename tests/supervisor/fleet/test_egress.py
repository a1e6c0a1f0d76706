"""The proxy on real sockets: what it lets through, what it refuses, and that every refusal is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mcpd.clock import SystemClock
from mcpd.config.profiles import Rules, effective
from mcpd.config.registry import SandboxSpec
from mcpd.errors import SpawnError
from mcpd.fleet import egress
from mcpd.fleet.egress import Egress, Refusal, is_public, parse

DEADLINE = 5.0


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
     "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a9fe:a9fe::1",
     "::127.0.0.1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1"],
)  # fmt: skip
def test_addresses_that_are_nobody_elses_business(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("head", "host", "port", "opening"),
    [
        (b"CONNECT Api.Example.ORG.:443 HTTP/1.1\r\nHost: other\r\n\r\n", "api.example.org", 443, None),
        (b"CONNECT [2606:4700:0::1111]:443 HTTP/1.1\r\n\r\n", "2606:4700::1111", 443, None),
        (
            b"GET http://example.org/a?b=c HTTP/1.1\r\nHost: evil\r\nProxy-Connection: x\r\nConnection: y\r\n"
            b"A: b\r\n\r\n",
            "example.org",
            80,
            b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nA: b\r\nConnection: close\r\n\r\n",
        ),
        (
            b"POST http://u:p@example.org:8080 HTTP/1.0\r\nContent-Length: 2\r\n\r\n",
            "example.org",
            8080,
            b"POST / HTTP/1.1\r\nHost: example.org:8080\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
        ),
    ],
)
def test_requests_are_read(head: bytes, host: str, port: int, opening: bytes | None) -> None:
    request = parse(head)

    assert (request.host, request.port, request.opening) == (host, port, opening)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "405"),
        (b"GET https://example.org/ HTTP/1.1\r\n\r\n", "405"),
        (b"CONNECT example.org HTTP/1.1\r\n\r\n", "400"),
        (b"CONNECT example.org:0 HTTP/1.1\r\n\r\n", "400"),
        (b"CONNECT example.org:99999 HTTP/1.1\r\n\r\n", "400"),
        (b"CONNECT example.org:\xd9\xa1 HTTP/1.1\r\n\r\n", "400"),
        (b"CONNECT [x]:443 HTTP/1.1\r\n\r\n", "400"),
        (b"CONNECT :443 HTTP/1.1\r\n\r\n", "400"),
        (b"GET http://[::1 HTTP/1.1\r\n\r\n", "400"),
        (b"GET http://example.org/ HTTP/2.0\r\n\r\n", "505"),
        (b"\r\n\r\n", "400"),
    ],
)
def test_requests_that_go_nowhere(head: bytes, status: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse(head)
    assert caught.value.status.startswith(status)


@dataclass
class Lab:
    """A proxy for one server, with a resolver of its own, and what it told."""

    directory: Path
    group: asyncio.TaskGroup
    rules: Rules
    answers: list[list[str]] = field(default_factory=lambda: [["127.0.0.1"]])
    asked: list[tuple[str, int]] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = self.group.create_task(work, name=name)
        self.tasks.append(task)
        return task

    async def resolve(self, name: str, port: int) -> list[str]:
        """Answers in turn; the last one for good."""
        self.asked.append((name, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def egress(self) -> Egress:
        return Egress(
            self.directory / "e", SystemClock(), self.start, lambda *said: self.told.append(said), self.resolve
        )

    async def ask(self, path: str, request: bytes) -> bytes:
        """All that comes back for a request."""
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(request)
                writer.write_eof()
                return await reader.read()
            finally:
                writer.close()


def rules(*allow: str, private: bool = False) -> Rules:
    return effective(SandboxSpec(profile="network", allow=allow, allow_private=private), {})


@contextlib.asynccontextmanager
async def lab(directory: Path, allowed: Rules) -> AsyncIterator[tuple[Lab, str]]:
    directory.mkdir(exist_ok=True)
    async with asyncio.TaskGroup() as group:
        it = Lab(directory, group, allowed)
        proxies = it.egress()
        yield it, proxies.socket_for("web", allowed, None)
        proxies.forget("web")
        for task in it.tasks:
            task.cancel()
    assert list((directory / "e").iterdir()) == []


@contextlib.asynccontextmanager
async def origin(host: str = "127.0.0.1") -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that keeps what it is sent and answers once."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


@pytest.mark.anyio
async def test_what_is_allowed_is_connected_and_passed_through_both_ways(tmp_path: Path) -> None:
    async with origin() as (port, heard), lab(tmp_path, rules(f"good.test:{port}", private=True)) as (it, path):
        tunnel = await it.ask(path, b"CONNECT GOOD.test.:%d HTTP/1.1\r\n\r\nGET /t HTTP/1.1\r\n\r\n" % port)
        plain = await it.ask(path, b"GET http://good.test:%d/p HTTP/1.1\r\n\r\n" % port)

    assert tunnel.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
    assert plain.endswith(b"hi")
    assert heard[0] == b"GET /t HTTP/1.1\r\n\r\n"
    assert heard[1].startswith(b"GET /p HTTP/1.1\r\n")
    assert it.told == []


@pytest.mark.anyio
async def test_what_is_not_allowed_is_refused_before_any_lookup_and_told_once(tmp_path: Path) -> None:
    async with lab(tmp_path, rules("good.test:443")) as (it, path):
        for target in (b"evil.test:443", b"good.test:80", b"xgood.test:443", b"evil.test:443"):
            answer = await it.ask(path, b"CONNECT %b HTTP/1.1\r\n\r\n" % target)
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert target in answer

    assert it.asked == []
    assert [text.split(" was ")[0] for _, text in it.told] == [
        "network: evil.test:443",
        "network: good.test:80",
        "network: xgood.test:443",
    ]
    assert {server for server, _ in it.told} == {"web"}


@pytest.mark.anyio
async def test_names_below_a_star_are_allowed_and_the_name_itself_is_not(tmp_path: Path) -> None:
    async with lab(tmp_path, rules("*.good.test:443")) as (it, path):
        it.answers = [["10.0.0.1"]]
        for target, reason in ((b"a.good.test", b"private"), (b"good.test", b"not in allow"), (b"bad.test", b"not in")):
            assert reason in await it.ask(path, b"CONNECT %b:443 HTTP/1.1\r\n\r\n" % target)


@pytest.mark.anyio
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "64:ff9b::7f00:1", "2002:7f00:1::", "169.254.1.1"])
async def test_allowed_name_that_stands_for_a_private_address_is_refused(tmp_path: Path, address: str) -> None:
    async with lab(tmp_path, rules("good.test:443")) as (it, path):
        it.answers = [[address]]
        answer = await it.ask(path, b"CONNECT good.test:443 HTTP/1.1\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert it.told == [("web", f"network: good.test:443 was refused: it stands for {address}, which is private")]


@pytest.mark.anyio
async def test_literal_private_address_is_refused_also_where_it_is_in_allow(tmp_path: Path) -> None:
    async with origin() as (port, heard), lab(tmp_path, rules(f"127.0.0.1:{port}")) as (it, path):
        answer = await it.ask(path, b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % port)

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert heard == []


@pytest.mark.anyio
async def test_resolver_that_changes_its_answer_gains_nothing(tmp_path: Path) -> None:
    async with origin("127.0.0.2") as (port, heard):
        async with lab(tmp_path / "one", rules(f"good.test:{port}", private=True)) as (it, path):
            it.answers = [["127.0.0.2"], ["127.0.0.3"]]
            answer = await it.ask(path, b"GET http://good.test:%d/ HTTP/1.1\r\n\r\n" % port)
            assert answer.endswith(b"hi")
            assert it.asked == [("good.test", port)]
        async with lab(tmp_path / "two", rules(f"good.test:{port}")) as (it, path):
            it.answers = [["127.0.0.2"], ["8.8.8.8"]]
            answer = await it.ask(path, b"GET http://good.test:%d/ HTTP/1.1\r\n\r\n" % port)
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert it.asked == [("good.test", port)]
    assert len(heard) == 1


@pytest.mark.anyio
async def test_of_several_addresses_only_public_ones_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "is_public", lambda address: address == "127.0.0.2")
    async with origin("127.0.0.1") as (port, private), lab(tmp_path, rules(f"good.test:{port}")) as (it, path):
        it.answers = [["127.0.0.1", "127.0.0.2"]]
        answer = await it.ask(path, b"CONNECT good.test:%d HTTP/1.1\r\n\r\n" % port)

    assert answer.startswith(b"HTTP/1.1 502 ")  # nobody listens at the other
    assert private == []


@pytest.mark.anyio
async def test_rules_of_the_next_start_hold_from_then_on(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        it = Lab(tmp_path, group, rules("a.test:1"))
        proxies = it.egress()
        path = proxies.socket_for("web", it.rules, None)
        assert proxies.socket_for("web", rules("b.test:1"), None) == path
        assert b"a.test:1 was refused: it is not in allow" in await it.ask(path, b"CONNECT a.test:1 HTTP/1.1\r\n\r\n")
        proxies.forget("web")


@pytest.mark.anyio
async def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "HEAD_TIMEOUT", 0.2)
    monkeypatch.setattr(egress, "MOST_TOLD", 2)
    monkeypatch.setattr(egress, "MOST_CONNECTIONS", 1)
    async with lab(tmp_path, rules("a.test:1")) as (it, path):
        assert await it.ask(path, b"CONNECT a.te") == b""  # the rest never came
        assert (await it.ask(path, b"GET http://a.test/" + b"x" * egress.LONGEST_HEAD)).startswith(b"HTTP/1.1 431 ")
        for number in range(5):
            await it.ask(path, b"CONNECT b.test:%d HTTP/1.1\r\n\r\n" % (number + 1))
        assert len(it.told) == 2
        reader, writer = await asyncio.open_unix_connection(path)
        assert (await it.ask(path, b"CONNECT a.test:1 HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        assert await reader.read() == b""  # it said nothing, and was hung up on
        writer.close()


@pytest.mark.anyio
async def test_server_that_cannot_be_reached_is_told_so(tmp_path: Path) -> None:
    async with origin() as (port, _):
        pass
    async with lab(tmp_path, rules(f"a.test:{port}", private=True)) as (it, path):
        answer = await it.ask(path, b"CONNECT a.test:%d HTTP/1.1\r\n\r\n" % port)

    assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.anyio
async def test_socket_that_cannot_be_made_keeps_the_server_from_starting(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    async with asyncio.TaskGroup() as group:
        it = Lab(deep, group, rules("a.test:1"))
        with pytest.raises(SpawnError, match="too long a path"):
            it.egress().socket_for("web", it.rules, None)
