"""A compact view: three tools in place of all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpd.config.registry import ViewSpec
from mcpd.routing.info import Lists, ServerInfo
from mcpd.routing.sessions import Session
from mcpd.wire.address import View
from support.routing import Bench, entry, info, registry, spec

VIEW = View("view", "small")
TOOLS = {
    "read_file": ("Read the whole text of a file.", ["path"]),
    "writeFile": ("Write text into a file.", ["path", "content"]),
    "search": ("Find lines that hold a pattern in files.", ["pattern", "path"]),
    "now": ("The current time in a zone.", ["timezone"]),
}


@pytest.fixture
def bench() -> Bench:
    bench = Bench(spec("files"))
    made = registry(spec("files"), views={"small": ("files",)})
    views = {"small": ViewSpec(name="small", servers=("files",), compact=True)}
    bench.run(bench.router.configure(made.model_copy(update={"views": views})))
    tools = tuple(
        entry(name=name, description=about, inputSchema={"type": "object", "properties": {p: {} for p in parameters}})
        for name, (about, parameters) in TOOLS.items()
    )
    known: ServerInfo = info()
    bench.up("files", ServerInfo(known.protocol_version, known.result, known.capabilities, lists=Lists(tools=tools)))
    return bench


def call(bench: Bench, session: Session, id: Any, name: str, arguments: Any) -> Any:
    return bench.one(bench.ask(session, id, "tools/call", {"name": name, "arguments": arguments}))


def test_view_lists_three_tools_only(bench: Bench) -> None:
    session = bench.open(VIEW)
    listed = bench.one(bench.ask(session, 1, "tools/list"))["result"]["tools"]
    assert [tool["name"] for tool in listed] == ["search_tools", "describe_tool", "call_tool"]
    assert all(tool["inputSchema"]["type"] == "object" for tool in listed)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("read a file", "files__read_file"),
        ("write", "files__writeFile"),
        ("what time is it", "files__now"),
        ("timezone", "files__now"),
        ("pattern", "files__search"),
    ],
)
def test_search_ranks_by_name_description_and_parameters(bench: Bench, query: str, first: str) -> None:
    found = call(bench, bench.open(VIEW), 1, "search_tools", {"query": query})["result"]
    assert found["structuredContent"]["tools"][0]["name"] == first
    assert json.loads(found["content"][0]["text"]) == found["structuredContent"]


def test_search_is_bounded_and_says_when_nothing_fits(bench: Bench) -> None:
    session = bench.open(VIEW)
    for id, arguments, count in ((1, {"query": "", "limit": 2}, 2), (2, {"query": ""}, 4)):
        found = call(bench, session, id, "search_tools", arguments)["result"]
        assert len(found["structuredContent"]["tools"]) == count
    nothing = call(bench, session, 3, "search_tools", {"query": "zebra"})["result"]
    assert "No tool matches" in nothing["content"][0]["text"]
    for id, limit in ((4, 0), (5, 51), (6, "x")):
        refused = call(bench, session, id, "search_tools", {"query": "", "limit": limit})["result"]
        assert refused["isError"]
        assert "limit" in refused["content"][0]["text"]


def test_describe_shows_the_whole_entry(bench: Bench) -> None:
    session = bench.open(VIEW)
    described = call(bench, session, 1, "describe_tool", {"name": "files__search"})["result"]["structuredContent"]
    assert described["name"] == "files__search"
    assert set(described["inputSchema"]["properties"]) == {"pattern", "path"}
    assert call(bench, session, 2, "describe_tool", {"name": "nothing"})["result"]["isError"]


def test_call_reaches_the_tool_with_its_own_arguments_and_progress(bench: Bench) -> None:
    session = bench.open(VIEW)
    params = {
        "name": "call_tool",
        "arguments": {"name": "files__read_file", "arguments": {"path": "/x"}},
        "_meta": {"progressToken": "p"},
    }
    sink = bench.ask(session, 1, "tools/call", params)
    sent = bench.written["files"][0]
    assert sent["params"]["name"] == "read_file"
    assert sent["params"]["arguments"] == {"path": "/x"}
    assert sent["params"]["_meta"]["progressToken"] == sent["id"]
    bench.answer("files", {"content": []})
    assert bench.one(sink)["result"] == {"content": []}


def test_tools_cannot_be_called_past_the_three(bench: Bench) -> None:
    session = bench.open(VIEW)
    assert "search_tools" in call(bench, session, 1, "files__read_file", {})["error"]["message"]
    assert "files" not in bench.written


@pytest.mark.parametrize(
    ("tool", "arguments", "part"),
    [
        ("call_tool", {"name": "nobody__x"}, "Unknown tool: nobody__x"),
        ("call_tool", {"name": "search_tools", "arguments": {"query": "x"}}, "Unknown tool: search_tools"),
        ("call_tool", {}, "name is missing"),
        ("call_tool", {"name": "files__now", "arguments": "soon"}, "not JSON"),
        ("describe_tool", {"name": 5}, "name must be a string"),
        ("search_tools", {}, "query is missing"),
        ("search_tools", [], "object"),
    ],
)
def test_what_is_wrong_is_told_to_the_model(bench: Bench, tool: str, arguments: Any, part: str) -> None:
    """As a result: errors of the protocol are not shown to models, which could do better the next time."""
    refused = call(bench, bench.open(VIEW), 1, tool, arguments)["result"]
    assert refused["isError"]
    assert part in refused["content"][0]["text"]
    assert "files" not in bench.written


@pytest.mark.parametrize(("given", "sent"), [(None, {}), ('{"path": "/x"}', {"path": "/x"})])
def test_arguments_that_models_write_in_other_ways_are_understood(bench: Bench, given: Any, sent: Any) -> None:
    session = bench.open(VIEW)
    sink = bench.ask(
        session, 1, "tools/call", {"name": "call_tool", "arguments": {"name": "files__now", "arguments": given}}
    )
    assert bench.written["files"][0]["params"] == {"name": "now", "arguments": sent}
    bench.answer("files", {"content": []})
    assert bench.one(sink)["result"] == {"content": []}
