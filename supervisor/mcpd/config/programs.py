"""Look whether what a server runs is there: its program, script, interpreter and directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mcpd.config.registry import SecretRef, ServerSpec

Objection = tuple[str, str]


def search_path(spec: ServerSpec, daemon_path: str) -> str:
    """The PATH in which the server's program is looked up: its own, else the daemon's."""
    own = spec.env.get("PATH", daemon_path)
    return daemon_path if isinstance(own, SecretRef) else own


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
    if not target.exists():
        return f"{program!r} does not exist", "install it, or correct the path"
    if target.is_dir():
        return f"{program!r} is a directory", "name a program in it"
    return f"{program!r} is not executable", f"run `chmod +x {program}`, or correct {key}"


def script_objection(file: Path) -> Objection | None:
    """Message and remedy where `file` cannot be run by a Python interpreter."""
    if not file.exists():
        return f"the script {str(file)!r} does not exist", "correct the path; it is relative to the registry file"
    if file.is_dir():
        return f"the script {str(file)!r} is a directory", "name a Python file"
    if not os.access(file, os.R_OK):
        return f"the script {str(file)!r} cannot be read", "let mcpd's user read it"
    return None


def directory_objection(directory: Path) -> Objection | None:
    """Message and remedy where `directory` cannot be a working directory."""
    if not directory.exists():
        return f"the directory {str(directory)!r} does not exist", "make it, or correct the path"
    if not directory.is_dir():
        return f"{str(directory)!r} is not a directory", "name a directory"
    if not os.access(directory, os.X_OK):
        return f"the directory {str(directory)!r} cannot be entered", "let mcpd's user enter it"
    return None
