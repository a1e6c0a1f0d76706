"""What becomes of entries of clients' files, of every form that those clients know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcpd.cli.failures import Failed
from mcpd.cli.import_entries import Wishes, convert, entries_of, looks_secret, other_projects

HOME = Path("/home/ann")


def one(entry: Any, title: str = "x", **wishes: Any) -> dict[str, Any]:
    """The table that an entry becomes."""
    (found,), rejected = convert({title: entry}, Wishes(home=HOME, **wishes))
    assert rejected == []
    return dict(found.table)


def reason(entry: Any, title: str = "x", **wishes: Any) -> str:
    found, (rejected,) = convert({title: entry}, Wishes(home=HOME, **wishes))
    assert found == []
    return rejected.reason


@pytest.mark.parametrize(
    "document",
    [
        {"mcpServers": {"a": 1}},
        {"servers": {"a": 1}, "inputs": []},
        {"mcp": {"servers": {"a": 1}}, "editor.tabSize": 2},
    ],
    ids=["claude-and-cursor", "vscode", "vscode-settings"],
)
def test_servers_are_found_in_the_files_of_all_clients(document: Any) -> None:
    assert entries_of(document) == {"a": 1}


def test_servers_of_a_project() -> None:
    document = {"projects": {"/p": {"mcpServers": {"a": 1}}, "/q": {"mcpServers": {}}, "/r": 1}}

    assert entries_of(document, "/p") == {"a": 1}
    assert other_projects(document) == ["/p"]
    with pytest.raises(Failed, match="no project '/z'"):
        entries_of(document, "/z")


@pytest.mark.parametrize("document", [[], {}, {"mcpServers": []}, 1, None])
def test_other_files_are_refused(document: Any) -> None:
    with pytest.raises(Failed, match="neither `mcpServers` nor `servers`"):
        entries_of(document)


def test_entry_becomes_a_table() -> None:
    entry = {"type": "stdio", "command": "node", "args": ["x.js", 8080], "env": {"A": "b", "PORT": 80}, "cwd": "/srv"}

    assert one(entry) == {"command": ["node", "x.js", "8080"], "cwd": "/srv", "env": {"A": "b", "PORT": "80"}}


@pytest.mark.parametrize(
    ("more", "key", "value"),
    [
        ({"disabled": True}, "enabled", False),
        ({"enabled": False}, "enabled", False),
        ({"command": "npx"}, "start_timeout", "3m"),
        ({"command": "/usr/local/bin/uvx"}, "start_timeout", "3m"),
        ({"command": "npx -y pkg", "args": ["z"]}, "command", ["npx", "-y", "pkg", "z"]),
        ({"command": "/with space/bin"}, "command", ["/with space/bin"]),
    ],
)
def test_special_cases(more: dict[str, Any], key: str, value: object) -> None:
    assert one({"command": "cat", **more})[key] == value


@pytest.mark.parametrize(
    ("command", "table"),
    [
        ("npx -y @x/y@1.2.3 /p", {"package": "npm:@x/y@1.2.3", "args": ["/p"]}),
        ("npx y", {"package": "npm:y@9.9.9"}),
        ("uvx --from x==1.0 other -v", {"package": "pypi:x==1.0", "bin": "other", "args": ["-v"]}),
        ("uvx x", {"package": "pypi:x==9.9.9"}),
        ("npx --offline y", {"command": ["npx", "--offline", "y"], "start_timeout": "3m"}),
    ],
)
def test_what_would_be_downloaded_becomes_a_package(command: str, table: dict[str, Any]) -> None:
    program, *args = command.split()
    assert one({"command": program, "args": args}, newest=lambda wanted: "9.9.9") == table


def test_package_that_cannot_be_pinned_stays_a_command_with_a_note() -> None:
    (found,), _ = convert({"x": {"command": "npx", "args": ["-y", "y"]}}, Wishes())

    assert found.table["command"] == ["npx", "-y", "y"]
    assert found.notes[0] == (
        "it is downloaded by npx and not pinned: "
        'write package = "npm:y@VERSION" instead; `npm view y version` tells the newest VERSION'
    )


def test_pin_that_was_looked_up_is_told() -> None:
    (found,), _ = convert({"x": {"command": "npx y"}}, Wishes(newest=lambda wanted: "2.0.0"))
    assert found.notes == ("pinned to 2.0.0, the newest; `mcpctl upgrade` moves it",)


def test_profile_is_that_which_was_asked_for() -> None:
    assert one({"command": "cat"}, profile="strict")["sandbox"] == {"profile": "strict"}
    assert "sandbox" not in one({"command": "cat"})


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"url": "https://x/sse"}, "reached by a URL"),
        ({"type": "http", "url": "https://x"}, "reached by a URL"),
        ({"type": "sse", "command": "x"}, "its type is 'sse'"),
        ({"httpUrl": "https://x"}, "reached by a URL"),
        ({"command": ""}, "no command"),
        ({}, "no command"),
        ({"command": ["cat"]}, "its command holds what is no text"),
        ({"command": "cat", "args": "x"}, "its args is no array"),
        ({"command": "cat", "args": [None]}, "its args holds what is no text"),
        ({"command": "cat", "env": []}, "its env is no object"),
        ({"command": "cat", "env": {"A": True}}, "its env holds what is no text"),
        ("cat", "it is no object"),
        ({"command": "/usr/bin/mcpctl", "args": ["connect"]}, "it is mcpd itself"),
        ({"command": "cat", "args": ["${workspaceFolder}"]}, "depends on what is open"),
        ({"command": "cat", "env": {"A": "${input:token}"}}, "only the client knows it"),
        ({"command": "${TOOL}"}, "needs the variable TOOL"),
    ],
)
def test_what_cannot_be_converted_has_a_reason(entry: Any, why: str) -> None:
    assert why in reason(entry)


def test_variables_are_put_in() -> None:
    entry = {
        "command": "${userHome}/bin/x",
        "args": ["${env:A}", "${B}", "${C:-fallback}", "$A", "${A:-no}"],
        "env": {"D": "${A}-${B}"},
    }

    table = one(entry, environ={"A": "1", "B": "2"})

    assert table == {"command": ["/home/ann/bin/x", "1", "2", "fallback", "$A", "1"], "env": {"D": "1-2"}}


def test_names_are_made_valid_and_kept_apart() -> None:
    titles = ["My Server!", "my_server", "my-server", "-Ünïcode-", "x" * 40, "x" * 41, "***", "taken"]

    found, rejected = convert({title: {"command": "cat"} for title in titles}, Wishes(taken={"taken"}))

    assert [one.name for one in found] == [
        "my-server", "my-server-2", "my-server-3", "n-code", "x" * 32, "x" * 30 + "-2",
    ]  # fmt: skip
    assert [(one.title, one.reason) for one in rejected] == [
        ("***", "its name has no letter or digit"),
        ("taken", "the registry has a server 'taken' already"),
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GITHUB_PERSONAL_ACCESS_TOKEN", "x"),
        ("OPENAI_API_KEY", "x"),
        ("apiKey", "x"),
        ("KEY", "x"),
        ("PGPASSWORD", "x"),
        ("DB_PASS", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("API_KEY_2", "x"),
        ("WHATEVER", "ghp_" + "a" * 36),
        ("WHATEVER", "sk-ant-" + "a" * 36),
        ("WHATEVER", "github_pat_" + "a" * 36),
        ("DATABASE_URL", "postgres://me:pw@db/x"),
    ],
)
def test_secrets_are_known_by_name_or_form(variable: str, value: str) -> None:
    assert looks_secret(variable, value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DEBUG", "1"), ("MAX_TOKENS", "100000x"), ("KEYBOARD", "us"), ("AUTHOR", "ann"), ("TOKEN_FILE", "/etc/token"),
        ("API_KEY", ""), ("USE_TOKEN", "true"), ("SSH_KEY", "~/.ssh/id"), ("DATABASE_URL", "postgres://db/x"),
        ("SKIN", "sk-1"),
    ],
)  # fmt: skip
def test_other_values_stay(variable: str, value: str) -> None:
    assert not looks_secret(variable, value)


def test_secrets_are_named_in_the_table_and_handed_over_apart() -> None:
    entry = {"command": "cat", "env": {"A_TOKEN": "s3cret", "B": "b"}}

    (found,), _ = convert({"x": entry}, Wishes())

    assert found.table["env"] == {"A_TOKEN": {"secret": "x.A_TOKEN"}, "B": "b"}
    assert found.secrets == {"x.A_TOKEN": "s3cret"}
    (found,), _ = convert({"x": entry}, Wishes(inline=True))
    assert (found.table["env"], found.secrets) == ({"A_TOKEN": "s3cret", "B": "b"}, {})
    assert found.notes == ("stands in the registry as it is: A_TOKEN",)


def test_what_is_left_out_is_noted() -> None:
    entry = {"command": "cat", "args": ["--key", "sk-" + "a" * 30], "alwaysAllow": [], "timeout": 3, "envFile": ".env"}

    (found,), _ = convert({"x": entry}, Wishes())

    assert found.notes == (
        "envFile is not read: put what the server needs of it into env",
        "left out: alwaysAllow, timeout",
        "argument 2 looks like a secret, and everybody on this machine can see arguments",
    )
