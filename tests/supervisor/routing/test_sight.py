"""What clients with limited grants see, and reach: the same whatever way they try."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from mcpd.errors import NotFound
from mcpd.routing.sessions import Session
from mcpd.routing.sight import sight_of
from mcpd.wire import methods
from mcpd.wire.address import View
from mcpd.wire.principal import EVERYTHING, Grants
from support.routing import Bench, info, registry, spec

ALL = View("all")
VIEWS = {"both": ("one", "two"), "three": ("three",)}


def grants(servers: str = "", views: str = "", tools: str = "") -> Grants:
    pairs = [tuple(each.split("/")) for each in tools.split()]
    return Grants(
        frozenset(servers.split()) if servers else None,
        frozenset(views.split()) if views else None,
        frozenset((server, tool) for server, tool in pairs) if tools else None,
    )


@pytest.fixture
def bench() -> Bench:
    bench = Bench(spec("one"), spec("two"), spec("three"), views=VIEWS)
    for name in ("one", "two", "three"):
        bench.up(name, info("read", "write", prompts=("ask",), resources=(f"file:///{name}",), instructions=name))
    return bench


def opened(bench: Bench, view: View, allowed: Grants, name: str = "s") -> Session:
    session = bench.router.open_session(name, view, "ada", "stdio", f"{name}.push", bench.now, allowed)
    answer = asked(bench, session, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    assert "result" in answer, answer
    return session


def asked(bench: Bench, session: Session, method: str, params: Any = None) -> Any:
    bench.handles += 1
    return bench.one(bench.ask(session, f"{method}{bench.handles}", method, params or {}))


def listed(bench: Bench, session: Session, kind: str = "tools") -> list[str]:
    found = asked(bench, session, f"{kind}/list")["result"][kind]
    return [one.get("uri") or one["name"] for one in found]


def reached(bench: Bench, session: Session, method: str, params: Any) -> bool:
    """Whether a request gets to any child."""
    before = sum(map(len, bench.written.values()))
    bench.handles += 1
    sink = bench.ask(session, f"r{bench.handles}", method, params)
    wrote = sum(map(len, bench.written.values())) > before
    assert wrote != bool(bench.got.get(sink))
    return wrote


def test_a_server_that_is_not_granted_is_in_no_list_and_takes_no_call(bench: Bench) -> None:
    session = opened(bench, ALL, grants(servers="one three"))

    assert listed(bench, session) == ["one__read", "one__write", "three__read", "three__write"]
    assert listed(bench, session, "prompts") == ["one__ask", "three__ask"]
    assert listed(bench, session, "resources") == ["file:///one", "file:///three"]
    assert reached(bench, session, "tools/call", {"name": "one__read"})
    assert not reached(bench, session, "tools/call", {"name": "two__read"})
    assert not reached(bench, session, "prompts/get", {"name": "two__ask"})
    assert not reached(bench, session, "resources/read", {"uri": "file:///two"})
    assert not reached(bench, session, "resources/read", {"uri": "mcpd+two:file:///two"})
    assert not reached(bench, session, "resources/subscribe", {"uri": "file:///two"})
    ref = {"type": "ref/prompt", "name": "two__ask"}
    assert not reached(bench, session, "completion/complete", {"ref": ref, "argument": {"name": "a", "value": ""}})


def test_refusals_do_not_tell_hidden_from_unknown(bench: Bench) -> None:
    session = opened(bench, ALL, grants(servers="one"))

    hidden = asked(bench, session, "tools/call", {"name": "two__read"})["error"]
    unknown = asked(bench, session, "tools/call", {"name": "six__read"})["error"]
    assert hidden["code"] == unknown["code"]
    assert hidden["message"].replace("two", "six") == unknown["message"]


@pytest.mark.parametrize(
    ("allowed", "open"),
    [
        (grants(servers="one"), {"all", "server:one", "view:both"}),
        (grants(servers="three"), {"all", "server:three", "view:three"}),
        (grants(views="both"), {"all", "server:one", "server:two", "view:both"}),
        (grants(tools="two/read"), {"all", "server:two", "view:both"}),
        (grants(servers="three", views="both"), {"all", "server:one", "server:two", "server:three", "view:both"}),
        (grants(servers="gone", views="gone"), {"all"}),
        (EVERYTHING, {"all", "server:one", "server:two", "server:three", "view:both", "view:three"}),
    ],
)
def test_a_view_that_shows_nothing_granted_is_not_there(bench: Bench, allowed: Grants, open: set[str]) -> None:
    views = [ALL, *(View("server", name) for name in ("one", "two", "three")), View("view", "both")]
    found = set()
    for view in (*views, View("view", "three")):
        with suppress(NotFound):
            bench.router.open_session(str(view), view, "ada", "stdio", None, bench.now, allowed)
            found.add(str(view))
    assert found == open


def test_a_hidden_view_is_refused_like_an_unknown_one(bench: Bench) -> None:
    with pytest.raises(NotFound, match="there is no server 'two'"):
        bench.router.open_session("x", View("server", "two"), "ada", "stdio", None, bench.now, grants(servers="one"))
    with pytest.raises(NotFound, match="there is no server 'six'"):
        bench.router.open_session("x", View("server", "six"), "ada", "stdio", None, bench.now)


def test_of_a_server_of_which_tools_are_granted_no_other_tool_is_seen(bench: Bench) -> None:
    session = opened(bench, ALL, grants(servers="one two", tools="one/read"))

    assert listed(bench, session) == ["one__read", "two__read", "two__write"]
    assert listed(bench, session, "prompts") == ["one__ask", "two__ask"]
    assert not reached(bench, session, "tools/call", {"name": "one__write"})
    assert not reached(bench, session, "tools/call", {"name": "one__not-listed"})
    assert reached(bench, session, "tools/call", {"name": "one__read"})


def test_on_its_own_endpoint_such_a_server_shows_no_more(bench: Bench) -> None:
    session = opened(bench, View("server", "one"), grants(servers="one", tools="one/read"))

    assert listed(bench, session) == ["read"]
    assert not reached(bench, session, "tools/call", {"name": "write"})
    assert not reached(bench, session, "tools/call", {"name": "not-listed"})
    assert reached(bench, session, "tools/call", {"name": "read"})
    assert reached(bench, session, "resources/read", {"uri": "file:///one"})
    assert reached(bench, session, "anything/else", {})


def test_of_a_server_of_which_only_tools_are_granted_nothing_else_is_reached(bench: Bench) -> None:
    session = opened(bench, View("server", "one"), grants(tools="one/read"))

    assert listed(bench, session) == ["read"]
    for method, params in (
        ("resources/read", {"uri": "file:///one"}),
        ("resources/list", {}),
        ("resources/subscribe", {"uri": "file:///one"}),
        ("resources/unsubscribe", {"uri": "file:///one"}),
        ("prompts/get", {"name": "ask"}),
        ("prompts/list", {}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "ask"}}),
        ("anything/else", {}),
        ("tools/call", {"name": "write"}),
    ):
        assert not reached(bench, session, method, params), method
    bench.tell(session, {"method": "notifications/anything"})
    assert [frame["method"] for frame in bench.written.get("one", [])] == []
    assert reached(bench, session, "tools/call", {"name": "read"})


def test_in_a_merged_view_neither(bench: Bench) -> None:
    session = opened(bench, ALL, grants(servers="two", tools="one/read"))

    assert listed(bench, session) == ["one__read", "two__read", "two__write"]
    assert listed(bench, session, "prompts") == ["two__ask"]
    assert listed(bench, session, "resources") == ["file:///two"]
    assert not reached(bench, session, "prompts/get", {"name": "one__ask"})
    for uri in ("file:///one", "mcpd+one:file:///one"):  # who owns a URI that nobody lists: the only one that it can be
        reached(bench, session, "resources/read", {"uri": uri})
    assert "one" not in bench.written


def test_only_what_can_be_used_is_claimed_at_initialize(bench: Bench) -> None:
    session = bench.router.open_session(
        "s", View("server", "one"), "ada", "stdio", None, bench.now, grants(tools="one/read")
    )
    answer = asked(bench, session, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})["result"]
    assert set(answer["capabilities"]) == {"tools", "logging"}

    merged = bench.router.open_session("m", ALL, "ada", "stdio", None, bench.now, grants(servers="two"))
    answer = asked(bench, merged, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})["result"]
    assert answer["instructions"] == "## two\n\ntwo"


def test_a_reload_changes_what_sessions_see(bench: Bench) -> None:
    merged = opened(bench, ALL, grants(views="both"), "merged")
    single = opened(bench, View("server", "one"), grants(views="both"), "single")
    assert listed(bench, merged)[0] == "one__read"

    made = registry(spec("one"), spec("two"), spec("three"), views={"both": ("two", "three")})
    bench.run(bench.router.configure(made))

    assert {name.partition("__")[0] for name in listed(bench, merged)} == {"two", "three"}
    answer = asked(bench, single, "tools/call", {"name": "read"})
    assert answer["error"]["code"] == methods.SERVER_UNAVAILABLE


def test_a_compact_view_finds_and_calls_only_what_is_granted(bench: Bench) -> None:
    session = opened(bench, ALL, grants(tools="one/read three/write"))
    session.compact = True

    found = asked(bench, session, "tools/call", {"name": "search_tools", "arguments": {"query": ""}})["result"]
    assert [tool["name"] for tool in found["structuredContent"]["tools"]] == ["one__read", "three__write"]
    call = {"name": "call_tool", "arguments": {"name": "one__write", "arguments": {}}}
    assert not reached(bench, session, "tools/call", call)
    describe = {"name": "describe_tool", "arguments": {"name": "two__read"}}
    assert asked(bench, session, "tools/call", describe)["result"]["isError"]


def test_changes_of_hidden_servers_are_not_told(bench: Bench) -> None:
    opened(bench, ALL, grants(servers="one"))
    bench.run(bench.router.presence.absent("two", "stopped", bench.now))
    assert "s.push" not in bench.got
    bench.run(bench.router.presence.absent("one", "stopped", bench.now))
    assert {message["method"] for message in bench.got["s.push"]} == {
        f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")
    }


def test_clients_with_the_same_grants_share_a_catalogue(bench: Bench) -> None:
    first = opened(bench, ALL, grants(servers="one"), "first")
    second = opened(bench, ALL, grants(servers="one"), "second")
    other = opened(bench, ALL, grants(servers="one", tools="one/read"), "other")
    catalogue = bench.router.state.catalogue
    assert catalogue(first) is catalogue(second)
    assert catalogue(first) is not catalogue(other)


def test_nothing_named_is_no_limit() -> None:
    assert sight_of(Grants(), ("one",), {}) is None
    assert sight_of(Grants(servers=frozenset()), ("one",), {}) is not None
