"""What a protected standard output lets through."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpworker.launcher.guard import GuardedStdout


@pytest.fixture
def wire(tmp_path: Path) -> Path:
    path = tmp_path / "wire"
    path.touch()
    return path


@pytest.fixture
def guarded(wire: Path) -> Iterator[GuardedStdout]:
    stdout = GuardedStdout(os.open(wire, os.O_WRONLY))
    yield stdout
    stdout.buffer.close()


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc": "2.0", "id": 1, "result": {}}\n',
        '{"jsonrpc":"2.0","method":"notifications/x"}\n',
    ],
)
def test_messages_pass(guarded: GuardedStdout, wire: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    for character in line:
        guarded.write(character)
    guarded.flush()

    assert wire.read_text() == line
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "line",
    ["hello\n", "\n", '{"a": 1}\n', '{"jsonrpc" broken}\n', '["jsonrpc"]\n', '  {"jsonrpc": "2.0"}\n', "{\n"],
)
def test_everything_else_goes_to_standard_error(
    guarded: GuardedStdout, wire: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded.write(line) == len(line)

    assert wire.read_text() == ""
    assert capsys.readouterr().err == line


def test_half_a_line_waits_for_its_rest_or_a_flush(guarded: GuardedStdout, capsys: pytest.CaptureFixture[str]) -> None:
    guarded.write("Enter: ")
    assert capsys.readouterr().err == ""
    guarded.flush()
    assert capsys.readouterr().err == "Enter: "

    guarded.write("a\nb")
    assert capsys.readouterr().err == "a\n"


def test_half_a_message_is_not_cut_by_a_flush(guarded: GuardedStdout, wire: Path) -> None:
    guarded.write('{"jsonrpc": ')
    guarded.flush()
    guarded.write('"2.0"}\n')

    assert wire.read_text() == '{"jsonrpc": "2.0"}\n'


def test_buffer_is_the_wire(guarded: GuardedStdout, wire: Path) -> None:
    guarded.buffer.write(b"bytes\n")
    guarded.buffer.flush()

    assert wire.read_bytes() == b"bytes\n"


def test_it_looks_like_standard_output(guarded: GuardedStdout) -> None:
    guarded.reconfigure(encoding="utf-8")
    guarded.writelines(["x\n"])
    print("printed", file=guarded)
    guarded.close()

    assert isinstance(guarded, io.TextIOBase)
    assert (guarded.fileno(), guarded.isatty(), guarded.writable(), guarded.readable()) == (1, False, True, False)
    assert (guarded.encoding, guarded.errors) == ("utf-8", "strict")
    assert not guarded.buffer.closed
