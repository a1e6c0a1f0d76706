"""Finds a server in a file and runs it."""

import os
import sys

from mcpworker.launcher import alias, guard, script

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

__all__ = ["Refused", "find_server", "load", "main", "prepare"]

_USAGE = """usage: {program} [--builtin] FILE[:OBJECT] [ARGUMENT...]

Runs FILE as a program, or the server OBJECT in it, on standard input and output.

  --builtin   let `import fastmcp` mean mcpworker even where a fastmcp package is installed
"""
_USUAL_NAMES = ("mcp", "server", "app")


class Refused(Exception):
    """The server cannot be started; the text says why."""


def main(arguments: "list[str]", program: str = "mcpworker") -> int:
    """Run a script; its exit code."""
    builtin = False
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "--builtin":
            builtin = True
        elif option == "--":
            break
        else:
            stream = sys.stdout if option in ("-h", "--help") else sys.stderr
            stream.write(_USAGE.format(program=program))
            return 0 if stream is sys.stdout else 2
    if not arguments:
        sys.stderr.write(_USAGE.format(program=program))
        return 2
    try:
        path, name = split(arguments[0])
        prepare(path, builtin)
    except Refused as refusal:
        sys.stderr.write(f"{program}: {refusal}\n")
        return 1
    guard.protect_stdout()
    sys.argv = [path, *arguments[1:]]
    if name is None:
        _run_program(path)
        return 0
    try:
        server = find_server(load(path, "server_module"), path, name)
    except Refused as refusal:
        sys.stderr.write(f"{program}: {refusal}\n")
        return 1
    server.run()
    return 0


def split(target: str) -> "tuple[str, str | None]":
    """FILE and OBJECT of FILE:OBJECT.

    Raises:
        Refused: there is no such file.
    """
    path, colon, name = target, "", ""
    if not os.path.exists(target):
        path, colon, name = target.partition(":")
    if not os.path.exists(path):
        raise Refused(f"File not found: {path}")
    if not os.path.isfile(path):
        raise Refused(f"Not a file: {path}")
    return os.path.abspath(path), name if colon else None


def prepare(path: str, builtin: bool) -> None:
    """Everything that a script finds in place when its first line runs; may replace this process by uv's.

    Raises:
        Refused: the script needs what is not there.
    """
    try:
        requirements = script.read_requirements(path)
        command = script.in_uv(requirements, path, _launcher_arguments()) if requirements else None
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error
    if command is not None:
        sys.stdout.flush()
        os.execv(command[0], command)  # noqa: S606 - a list, no shell
    alias.install(builtin)
    if sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(path))  # nothing stands there for a program's own directory
    else:
        sys.path[0] = os.path.dirname(path)


def _launcher_arguments() -> "list[str]":
    """How this process was told to come here: by path, since uv's interpreter has no mcpworker installed."""
    return [os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")]


def load(path: str, name: str) -> "ModuleType":
    """The file as a module of this name, run to its end."""
    from types import ModuleType

    module = ModuleType(name)
    module.__file__ = path
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules[name] = module
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, module.__dict__)  # noqa: S102 - running the script is what this is for
    return module


def _run_program(path: str) -> None:
    """Run a script as a program; where it only defines a server and does not run it, run that."""
    module = load(path, "__main__")
    transports = sys.modules.get("mcpworker.transports")
    if "mcpworker.server" in sys.modules and not (transports and transports.was_used):
        fastmcp = sys.modules["mcpworker.server"].FastMCP
        for name in _USUAL_NAMES:
            if isinstance(server := getattr(module, name, None), fastmcp):
                server.run()
                return


def find_server(module: "ModuleType", path: str, name: "str | None") -> "Any":
    """The server of this name in a file, or the one under a usual name.

    Raises:
        Refused: there is none.
    """
    if name is None:
        for usual in _USUAL_NAMES:
            if hasattr(module, usual):
                return getattr(module, usual)
        raise Refused(
            f"No server object found in {path}. Please either:\n"
            "1. Use a standard variable name (mcp, server, or app)\n"
            "2. Specify the object name with file:object syntax"
        )
    module_name, colon, attribute = name.partition(":")
    if colon:
        import importlib

        try:
            module, name = importlib.import_module(module_name), attribute
        except ImportError as error:
            raise Refused(f"Could not import module {module_name!r}: {error}") from error
    server = getattr(module, name, None)
    if server is None:
        raise Refused(f"Server object {name!r} not found in {path}")
    if not hasattr(server, "run") and callable(server):
        server = server()
    if not hasattr(server, "run"):
        raise Refused(f"{name!r} in {path} is no server: it has no run()")
    return server
