"""The launcher, run by its path as the daemon runs it."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.raw_stdio import raw_server
from support.worker_clients import LAUNCHER

GREETER = """
from fastmcp import FastMCP

mcp = FastMCP("Greeter")
other = FastMCP("Other")

@mcp.tool()
def greet(name: str) -> str:
    return f"Hello, {name}!"

@other.tool()
def greet_other() -> str:
    return "other"
"""
MAIN_BLOCK = """
if __name__ == "__main__":
    mcp.run()
"""


def write(directory: Path, source: str, name: str = "server.py") -> Path:
    script = directory / name
    script.write_text(textwrap.dedent(source))
    return script


def launched(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(LAUNCHER), *map(str, arguments)]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, **options
    )


def text_of(answer: dict) -> str:  # type: ignore[type-arg]
    text: str = answer["result"]["content"][0]["text"]
    return text


def test_script_runs_as_a_program_with_its_arguments_and_directory(tmp_path: Path) -> None:
    write(tmp_path, "VALUE = 'from beside the script'\n", "neighbour.py")
    script = write(
        tmp_path,
        """
        import sys
        import neighbour
        print(__name__, sys.argv, neighbour.VALUE, sys.path[0], __file__)
        """,
    )

    done = launched(script, "one", "--two")

    expected = f"__main__ ['{script}', 'one', '--two'] from beside the script {tmp_path} {script}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", expected)


def test_relative_path_is_relative_to_where_it_was_started(tmp_path: Path) -> None:
    write(tmp_path, GREETER + MAIN_BLOCK)

    assert launched("server.py", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("ending", ["", MAIN_BLOCK], ids=["no main block", "main block"])
def test_fastmcp_script_serves_unchanged(tmp_path: Path, ending: str) -> None:
    script = write(tmp_path, GREETER + ending)
    with raw_server(LAUNCHER, str(script)) as server:
        info = server.initialize()["result"]["serverInfo"]
        answer = server.call("greet", {"name": "Ada"})
        code, output, errors = server.finish()

    assert info["name"] == "Greeter"
    assert text_of(answer) == "Hello, Ada!"
    assert (code, output) == (0, b""), errors


def test_named_object_is_served_and_the_main_block_is_not_run(tmp_path: Path) -> None:
    script = write(tmp_path, GREETER + "\nif __name__ == '__main__':\n    raise SystemExit(9)\n")
    with raw_server(LAUNCHER, f"{script}:other") as server:
        server.initialize()
        assert text_of(server.call("greet_other")) == "other"
        assert server.finish()[0] == 0


def test_function_that_makes_a_server_will_do(tmp_path: Path) -> None:
    script = write(tmp_path, GREETER + "\ndef make():\n    return other\n")
    with raw_server(LAUNCHER, f"{script}:make") as server:
        server.initialize()
        assert text_of(server.call("greet_other")) == "other"


def test_prints_from_first_to_last_line_never_reach_the_protocol(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
        import os, subprocess, sys
        print("first", flush=True)
        sys.__stdout__.write("second\\n")
        os.write(1, b"third\\n")
        subprocess.run(["echo", "fourth"], check=True)
        subprocess.run(["echo", "fifth"], check=True, stdout=sys.stdout)
        """
        + GREETER.replace("\n", "\n        ")
        + """
        mcp.run()
        print("last")
        os.write(1, b"very last\\n")
        """,
    )
    with raw_server(LAUNCHER, str(script)) as server:
        server.initialize()
        assert text_of(server.call("greet", {"name": "Ada"})) == "Hello, Ada!"
        code, output, errors = server.finish()

    assert (code, output) == (0, b"")
    for word in ("first", "second", "third", "fourth", "fifth", "last", "very last"):
        assert f"{word}\n" in errors


def test_bytes_written_while_it_serves_do_not_reach_the_protocol_either(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
        import sys
        from fastmcp import FastMCP
        mcp = FastMCP("Bytes")

        @mcp.tool()
        def fn() -> str:
            sys.stdout.buffer.write(b"stray bytes\\n")
            sys.stdout.buffer.flush()
            return "x"
        """,
    )
    with raw_server(LAUNCHER, str(script)) as server:
        server.initialize()
        assert text_of(server.call("fn")) == "x"
        code, output, errors = server.finish()

    assert (code, output) == (0, b"")
    assert "stray bytes\n" in errors


def test_sdk_server_is_served_too(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
        from mcp.server.mcpserver import MCPServer
        print("stray")
        mcp = MCPServer("SDK")

        @mcp.tool()
        def greet() -> str:
            print("stray again")
            return "hi"

        mcp.run()
        """,
    )
    with raw_server(LAUNCHER, str(script)) as server:
        assert server.initialize()["result"]["serverInfo"]["name"] == "SDK"
        assert text_of(server.call("greet")) == "hi"
        code, output, errors = server.finish()

    assert (code, output) == (0, b"")
    assert "stray again" in errors


def test_server_written_by_hand_may_print_its_messages(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
        import json, sys
        print("ready")
        for line in sys.stdin:
            request = json.loads(line)
            print("got", request["id"])
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {}}))
            sys.stdout.flush()
        """,
    )
    with raw_server(LAUNCHER, str(script)) as server:
        server.send({"jsonrpc": "2.0", "id": 7, "method": "ping"})
        assert server.answer(7)["result"] == {}
        code, output, errors = server.finish()

    assert (code, output) == (0, b"")
    assert errors == "ready\ngot 7\n"


def test_exit_code_and_traceback_are_the_scripts(tmp_path: Path) -> None:
    assert launched(write(tmp_path, "raise SystemExit(7)")).returncode == 7

    done = launched(write(tmp_path, "def f():\n    raise ValueError('boom')\nf()\n"))

    assert done.returncode == 1
    assert "line 2, in f\n    raise ValueError('boom')" in done.stderr
    assert "ValueError: boom" in done.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("missing.py", "mcpworker: File not found: missing.py\n"),
        (".", "mcpworker: Not a file: .\n"),
        ("server.py:absent", "mcpworker: Server object 'absent' not found in {path}\n"),
        ("server.py:GREETING", "mcpworker: 'GREETING' in {path} is no server: it has no run()\n"),
        ("server.py:absent_module:mcp", "mcpworker: Could not import module 'absent_module': No module named"),
    ],
)
def test_what_cannot_be_started_is_said(tmp_path: Path, target: str, said: str) -> None:
    script = write(tmp_path, "GREETING = 'hello'\n")

    done = launched(target, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith(said.format(path=script))


def test_wrong_command_line_is_answered_with_the_usage() -> None:
    for arguments in ([], ["--nonsense", "x.py"]):
        done = launched(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: mcpworker [--builtin] FILE[:OBJECT]")
    assert launched("--help").returncode == 0


def test_launcher_imports_nothing_but_the_standard_library(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        """
        import sys
        outside = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - {"__main__"}
        print(sorted(outside), sorted(name for name in sys.modules if name.startswith("mcpworker")))
        """,
    )

    done = subprocess.run(
        [sys.executable, "-S", str(LAUNCHER), str(script)], capture_output=True, text=True, timeout=30, check=True
    )

    modules = ["", ".launcher", ".launcher.alias", ".launcher.guard", ".launcher.script", ".launcher.start"]
    assert done.stderr == f"['mcpworker'] {[f'mcpworker{name}' for name in modules]}\n"


def test_interpreter_without_the_sdk_runs_what_needs_none_and_names_what_lacks(tmp_path: Path) -> None:
    # -S: no site-packages, which is what another interpreter looks like.
    plain = write(tmp_path, "print('works')\n", "plain.py")
    done = subprocess.run(
        [sys.executable, "-S", str(LAUNCHER), str(plain)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == "works\n"

    wanting = write(tmp_path, GREETER)
    done = subprocess.run(
        [sys.executable, "-S", str(LAUNCHER), str(wanting)], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 1
    expected = f"mcpworker cannot stand in for it: {sys.executable} lacks mcp>=2.3,<3 and pydantic-settings>=2.7"
    assert expected in done.stderr


# PEP 723 ----------------------------------------------------------------------------------------------------------

NEEDY = """
# /// script
# requires-python = ">=3.11"
# dependencies = ["needed-thing>=1", "other"]
# ///
"""


def test_script_that_needs_packages_is_refused_clearly_where_uv_is_missing(tmp_path: Path) -> None:
    script = write(tmp_path, NEEDY)

    done = launched(script, env={**os.environ, "PATH": str(tmp_path)})

    assert done.returncode == 1
    assert done.stderr == (
        f"mcpworker: {script} says in its script block (PEP 723) that it needs needed-thing>=1, other; running it "
        "takes uv, which is not on PATH: install uv, or take the block out and name an interpreter that has what it "
        "needs\n"
    )


def test_block_without_needs_is_run_as_it_is(tmp_path: Path) -> None:
    script = write(tmp_path, "# /// script\n# dependencies = []\n# ///\nprint('ran')\n")

    assert launched(script, env={**os.environ, "PATH": str(tmp_path)}).stderr == "ran\n"


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("# dependencies = [", "the script block is no TOML"),
        ("# dependencies = 'x'", "dependencies of the script block must be a list of strings"),
        ("# requires-python = 3", "requires-python of the script block must be a string"),
        ("#\n# ///\n\n# /// script\n#", "more than one script block"),
    ],
)
def test_malformed_block_is_refused(tmp_path: Path, block: str, said: str) -> None:
    script = write(tmp_path, f"# /// script\n{block}\n# ///\n")

    done = launched(script)

    assert done.returncode == 1
    assert f"mcpworker: {script}: {said}" in done.stderr


def test_uv_is_asked_for_the_scripts_needs_and_runs_the_launcher_again(tmp_path: Path) -> None:
    """Where no uv is installed, a program of that name shows what it would be asked."""
    script = write(tmp_path, NEEDY + "import sys\nprint('ran', sys.argv[1:])\n")
    uv = write(
        tmp_path,
        """\
        #!/bin/sh
        echo "asked: $*" >&2
        while [ "$1" != python ]; do shift; done
        shift
        exec "$REAL_PYTHON" "$@"
        """,
        "uv",
    )
    uv.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])

    done = launched(script, "argument", env={**os.environ, "PATH": path, "REAL_PYTHON": sys.executable})

    assert done.stderr.splitlines() == [
        f"asked: run --quiet --no-project --python >=3.11 --with needed-thing>=1 --with other -- python {LAUNCHER} "
        f"{script} argument",
        "ran ['argument']",
    ]


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_real_uv_runs_a_script_without_dependencies_from_elsewhere(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    script = write(
        tmp_path,
        f"# /// script\n# requires-python = '=={version}.*'\n# ///\nimport sys\nprint('ran', sys.version_info[:2])\n",
    )

    done = launched(script)

    assert done.stderr.splitlines()[-1] == f"ran {sys.version_info[:2]}"
