"""Look whether what a server runs is there: its program, script, interpreter and directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mcpd.config.registry import ServerSpec

Objection = tuple[str, str]


def search_path(spec: ServerSpec, daemon_path: str) -> str:
    """The PATH in which the server's program is looked up: its own, else the daemon's."""
    own = spec.env.get("PATH", daemon_path)
    return own if isinstance(own, str) else daemon_path


def resolve(program: str, path: str) -> str | None:
    """`program` as an absolute path; None where it is not on `path` or, being a path itself, is not to be executed."""
    found = shutil.which(program, path=path)
    return os.path.abspath(found) if found else None


def why_not_executable(program: str, key: str, spec: ServerSpec) -> Objection:
    """Message and remedy for a program that `resolve` does not find."""
    if " " in program and not Path(program).exists():
        words = ", ".join(f'"{word}"' for word in program.split())
        return f"there is no program {program!r}", f"write {key} = [{words}]: one element for each argument"
    if "/" not in program:
        whose = "its env.PATH" if "PATH" in spec.env else "mcpd's PATH"
        remedy = f"install it, write an absolute path, or set servers.{spec.name}.env.PATH"
        return f"{program!r} is not on {whose}", remedy
    target = Path(program)
    absent = _unreachable(target)
    if absent is not None:
        return absent
    if target.is_dir():
        return f"{program!r} is a directory", "name a program in it"
    return f"{program!r} is not executable", f"run `chmod +x {program}`, or correct {key}"


def script_objection(file: Path) -> Objection | None:
    """Message and remedy where `file` cannot be run by a Python interpreter."""
    absent = _unreachable(file)
    if absent is not None:
        return absent
    if file.is_dir():
        return f"the script {str(file)!r} is a directory", "name a Python file"
    if not os.access(file, os.R_OK, effective_ids=True):
        return f"the script {str(file)!r} cannot be read", "let mcpd's user read it"
    return None


def directory_objection(directory: Path) -> Objection | None:
    """Message and remedy where `directory` cannot be a working directory."""
    absent = _unreachable(directory)
    if absent is not None:
        return absent
    if not directory.is_dir():
        return f"{str(directory)!r} is not a directory", "name a directory"
    if not os.access(directory, os.X_OK, effective_ids=True):
        return f"the directory {str(directory)!r} cannot be entered", "let mcpd's user enter it"
    return None


def _unreachable(path: Path) -> Objection | None:
    try:
        path.stat()
    except FileNotFoundError:
        return f"{str(path)!r} does not exist", "make or install it, or correct the path"
    except OSError as error:
        return f"{str(path)!r} cannot be reached: {error.strerror}", "let mcpd's user reach it, or correct the path"
    return None
