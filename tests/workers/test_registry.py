"""What happens when a name is taken."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from mcpworker import FastMCP
from mcpworker.registry import Registry
from support.in_memory import logged

KINDS = ("tools", "resources", "templates", "prompts")


@pytest.fixture
def warnings() -> Iterator[list[logging.LogRecord]]:
    with logged("server") as records:
        yield records


def add(server: FastMCP[Any], kind: str, value: str) -> None:
    if kind == "tools":
        server.add_tool(lambda: value, name="x", description=value)
    elif kind == "prompts":
        server.add_prompt(lambda: value, name="x", description=value)
    elif kind == "resources":
        server.add_resource_fn(lambda: value, "data://x", name="x", description=value)
    else:
        server.add_resource_fn(lambda y: value, "data://{y}", name="x", description=value)


def kept(server: FastMCP[Any], kind: str) -> str:
    [item] = getattr(server, f"_{kind}")
    description: str = item.description
    return description


def server_that(behaviour: str, kind: str) -> FastMCP[Any]:
    setting = "resources" if kind == "templates" else kind
    server = FastMCP("x", **{f"on_duplicate_{setting}": behaviour})
    add(server, kind, "first")
    return server


@pytest.mark.parametrize("kind", KINDS)
def test_warn_says_so_and_replaces(kind: str, warnings: list[logging.LogRecord]) -> None:
    server = server_that("warn", kind)
    add(server, kind, "second")

    assert kept(server, kind) == "second"
    names = {"tools": "Tool", "resources": "Resource", "templates": "Template", "prompts": "Prompt"}
    key = {"resources": "data://x", "templates": "data://{y}"}.get(kind, "x")
    assert [record.getMessage() for record in warnings] == [f"{names[kind]} already exists: {key}"]


@pytest.mark.parametrize("kind", KINDS)
def test_replace_says_nothing(kind: str, warnings: list[logging.LogRecord]) -> None:
    server = server_that("replace", kind)
    add(server, kind, "second")

    assert kept(server, kind) == "second"
    assert warnings == []


@pytest.mark.parametrize("kind", KINDS)
def test_error_keeps_the_first(kind: str) -> None:
    server = server_that("error", kind)

    with pytest.raises(ValueError, match="already exists: "):
        add(server, kind, "second")
    assert kept(server, kind) == "first"


@pytest.mark.parametrize("kind", KINDS)
def test_ignore_keeps_the_first_without_a_word(kind: str, warnings: list[logging.LogRecord]) -> None:
    server = server_that("ignore", kind)
    add(server, kind, "second")

    assert kept(server, kind) == "first"
    assert warnings == []


def test_registry_keeps_the_order() -> None:
    registry: Registry[int] = Registry("Number", "error")
    assert not registry
    for number in (3, 1, 2):
        registry.add(str(number), number)

    assert (list(registry), registry.items(), bool(registry)) == ([3, 1, 2], {"3": 3, "1": 1, "2": 2}, True)
    assert registry.remove("3") == 3
    assert "3" not in registry
