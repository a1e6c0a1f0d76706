"""What of the host's files a command needs to run: found by looking, so that ordinary servers need no configuration.

The program, what its `#!` line names, a virtual environment and the interpreter behind it, a script's directory, a
node package and the node_modules that it finds its own in. Nothing is executed, and nothing is read but the first
lines of programs, `pyvenv.cfg` and `*.pth`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives")
"""There in every sandbox."""
STORES: Final = ("/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew")
"""Where every program is spread over many directories: granted as a whole."""
DEEPEST: Final = 6
MOST_LINKS: Final = 40
MOST_ENTRIES: Final = 512

_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*t?")
_NODE: Final = frozenset({"node", "nodejs", "bun", "deno"})
_NODE_SUFFIXES: Final = ("", ".js", ".mjs", ".cjs", "/index.js")
_NODE_OPTIONS_WITH_VALUE: Final = frozenset({"-r", "--require", "--import", "--loader", "--experimental-loader", "-C"})
_PYTHON_OPTIONS_WITH_VALUE: Final = frozenset({"-W", "-X", "--check-hash-based-pycs"})


class Ground(msgspec.Struct, frozen=True):
    """Real paths to be seen inside, where they are outside; and the links (path, target) that lead to them."""

    paths: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    def covers(self, path: str) -> bool:
        real = os.path.realpath(path)
        return any(_within(real, one) for one in (*SYSTEM, *self.paths))


class Survey:
    """Collects what commands need; `ground` tells it. Missing things are left out: starting the command names them."""

    def __init__(self, search_path: str, cwd: str, is_private: Callable[[str], bool]) -> None:
        """`is_private`: whether a directory holds, besides what is needed, what a server must not see."""
        self._search_path = search_path
        self._cwd = cwd
        self._is_private = is_private
        self._paths: dict[str, None] = {}
        self._links: dict[str, str] = {}

    @property
    def ground(self) -> Ground:
        paths = [one for one in self._paths if not _in_system(one)]
        tops = [one for one in paths if not any(one != other and _within(one, other) for other in paths)]
        links = {
            path: target
            for path, target in self._links.items()
            if not _in_system(path) and not any(_within(path, one) for one in tops)
        }
        return Ground(tuple(tops), tuple(links.items()))

    def program(self, name: str, arguments: Sequence[str], depth: int = 0, *, wrapped: bool = False) -> None:
        """What running `name` with these arguments needs. `wrapped`: it is itself the argument of another program, so
        that its own say less."""
        found = self._find(name)
        if found is None or depth > DEEPEST:
            return
        real = self._way(found)
        if any(self._store(one) for one in (found, real)):
            return
        base = os.path.basename(real)
        if _PYTHON.fullmatch(base) or _PYTHON.fullmatch(os.path.basename(found)):
            self._python(found, real)
            self._python_arguments(arguments)
        elif base in _NODE:
            self._program_itself(real)
            self._node_arguments(arguments)
        elif base == "env":
            words = _without_assignments(arguments)
            self.program(words[0], words[1:], depth + 1) if words else None
        elif line := _shebang(real):
            self._node_script(real) if _is_node(line) else self.script(found)
            self._interpreter(line, found, arguments, depth)
        else:
            self._program_itself(real)
            if not wrapped:
                self._script_arguments(arguments, depth)

    def script(self, path: str) -> None:
        """A script and the directory that it finds its modules in."""
        absolute = os.path.join(self._cwd, path)
        real = self._way(absolute)
        for directory in dict.fromkeys((os.path.dirname(real), os.path.dirname(os.path.normpath(absolute)))):
            if not self.tree(directory):
                self._paths.update(dict.fromkeys(glob.glob(f"{glob.escape(directory)}/*.py")[:MOST_ENTRIES]))
        self._paths[real] = None

    def tree(self, directory: str) -> bool:
        """A directory with all that is below it; False, and nothing, where that would be too much."""
        real = self._way(directory)
        if not os.path.isdir(real) or _is_broad(real) or self._is_private(real):
            return False
        self._paths[real] = None
        return True

    # -- Python ------------------------------------------------------------------------------------------------------

    def _python(self, found: str, real: str) -> None:
        environment = os.path.dirname(os.path.dirname(found))
        settings = _pyvenv(environment) or _pyvenv(os.path.dirname(found))
        if settings is not None:
            root = environment if _pyvenv(environment) else os.path.dirname(found)
            self.tree(root)
            self._path_files(root)
            home = next((value for key, value in settings if key == "home"), None)
            if home:
                self._way(home)
        self._prefix(real, "python*")
        self._path_files(os.path.dirname(os.path.dirname(real)))

    def _path_files(self, prefix: str) -> None:
        """Directories outside that an environment adds to its module path (site, "*.pth"): editable installs."""
        for file in _path_files(prefix):
            with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    entry = os.path.join(os.path.dirname(file), line.strip())
                    if line.strip() and not line.startswith(("import ", "import\t", "#")) and os.path.isdir(entry):
                        self.tree(entry)

    def _python_arguments(self, arguments: Sequence[str]) -> None:
        words = iter(arguments)
        for word in words:
            if word in _PYTHON_OPTIONS_WITH_VALUE:
                next(words, None)
            elif word == "-m":
                self.tree(self._cwd)  # where the module may be (python(1), -m)
                return
            elif word in ("-c", "-"):
                return
            elif not word.startswith("-"):
                if os.path.exists(os.path.join(self._cwd, word)):
                    self.script(word)
                return

    # -- Node --------------------------------------------------------------------------------------------------------

    def _node_arguments(self, arguments: Sequence[str]) -> None:
        words = iter(arguments)
        for word in words:
            if word in _NODE_OPTIONS_WITH_VALUE:
                next(words, None)
            elif not word.startswith("-"):
                for suffix in _NODE_SUFFIXES:
                    if os.path.isfile(path := os.path.join(self._cwd, word + suffix)):
                        self._node_script(self._way(path))
                        break
                return

    def _node_script(self, real: str) -> None:
        """Its package, and every node_modules in which node looks for what it requires (nodejs.org, modules)."""
        parts = real.split("/")
        if "node_modules" in parts:
            self.tree("/".join(parts[: parts.index("node_modules") + 1]))
            return
        directories = list(_ancestors(real))
        package = next((one for one in directories if os.path.isfile(f"{one}/package.json")), None)
        if package is None or not self.tree(package):
            self.script(real)
        for directory in directories:
            if os.path.isdir(f"{directory}/node_modules"):
                self.tree(f"{directory}/node_modules")

    # -- Others ------------------------------------------------------------------------------------------------------

    def _interpreter(self, line: Sequence[str], script: str, arguments: Sequence[str], depth: int) -> None:
        words: Sequence[str] = line
        if os.path.basename(words[0]) == "env":
            words = _without_assignments(words[1:])
        if os.path.basename(script) in ("npx", "npm"):
            self.tree(f"{self._cwd}/node_modules")
            self._paths.update(dict.fromkeys(glob.glob(f"{glob.escape(self._cwd)}/package.json")))
        if words:
            self.program(words[0], [*words[1:], script, *arguments], depth + 1)

    def _script_arguments(self, arguments: Sequence[str], depth: int) -> None:
        """The first file among the arguments of an interpreter that is not known here (sh, ruby, java -jar, …); and,
        as that or right behind it, the program that a wrapper runs (timeout 60 PROGRAM, sh wrapper.sh PROGRAM)."""
        for at, word in enumerate(arguments):
            path = os.path.join(self._cwd, word)
            if word.startswith("-") or not os.path.isfile(path):
                continue
            if os.path.realpath(path) not in self._paths and os.access(path, os.X_OK):
                self.program(path, arguments[at + 1 :], depth + 1, wrapped=True)
                return
            if not _in_system(os.path.realpath(path)):
                self.script(word)
                behind = arguments[at + 1 : at + 2]
                if behind and os.path.isfile(path := os.path.join(self._cwd, behind[0])) and os.access(path, os.X_OK):
                    self.program(path, arguments[at + 2 :], depth + 1, wrapped=True)
                return

    def _program_itself(self, real: str) -> None:
        """An executable, with the libraries that were installed together with it."""
        self._prefix(real, "*.so*")

    def _prefix(self, real: str, libraries: str) -> None:
        directory = os.path.dirname(real)
        if _in_system(directory):
            return
        if os.path.basename(directory) == "bin":
            if self.tree(os.path.dirname(directory)):
                return
            for found in glob.glob(f"{glob.escape(os.path.dirname(directory))}/lib/{libraries}")[:MOST_ENTRIES]:
                self._paths[os.path.realpath(found)] = None
        elif self.tree(directory):
            return
        self._paths[real] = None

    def _store(self, path: str) -> bool:
        store = next((one for one in STORES if _within(path, one)), None)
        if store is not None:
            self._paths[store] = None
        return store is not None

    def _find(self, name: str) -> str | None:
        if "/" in name:
            path = os.path.join(self._cwd, name)
            return os.path.normpath(path) if os.path.exists(path) else None
        for folder in self._search_path.split(":"):
            path = os.path.join(self._cwd, folder, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return os.path.normpath(path)
        return None

    def _way(self, path: str) -> str:
        """Where `path` leads; every link on the way is remembered (path_resolution(7))."""
        done, todo = "", [part for part in os.path.join(self._cwd, path).split("/") if part and part != "."]
        links = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                done = os.path.dirname(done) if done != "/" else ""
                done = "" if done == "/" else done
                continue
            here = f"{done}/{part}"
            try:
                target = os.readlink(here)
            except OSError:
                done = here
                continue
            links += 1
            if links > MOST_LINKS:
                return os.path.realpath(path)
            self._links[here] = target
            if target.startswith("/"):
                done = ""
            todo = [piece for piece in target.split("/") if piece and piece != "."] + todo
        return done or "/"


def for_user(paths: Sequence[str], uid: int, gid: int) -> Iterator[str]:
    """`paths`, with the entries of a directory in its place where this user may not read the directory itself.

    For directories such as a home (0700) in which what is needed lies: bound one by one they can be reached.
    """
    for path in paths:
        found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode) or may(found, uid, gid, 0o5):
            yield path
            continue
        for name in sorted(os.listdir(path))[:MOST_ENTRIES]:
            if not name.startswith("."):
                yield f"{path}/{name}"


def may(found: os.stat_result, uid: int, gid: int, bits: int) -> bool:
    """Whether the mode lets this user do it: 4 read, 2 write, 1 execute or search (path_resolution(7))."""
    mode = found.st_mode
    if found.st_uid == uid:
        return mode >> 6 & bits == bits
    return (mode >> 3 if found.st_gid == gid else mode) & bits == bits


def closed_ancestors(paths: Sequence[str], uid: int, gid: int) -> tuple[str, ...]:
    """The uppermost directories above `paths` that this user may not enter."""
    found: dict[str, None] = {}
    for path in paths:
        for directory in reversed(list(_ancestors(path))):
            with contextlib.suppress(OSError):
                if not may(os.stat(directory), uid, gid, 0o1):
                    found[directory] = None
                    break
    return tuple(one for one in found if not any(one != other and _within(one, other) for other in found))


def _ancestors(path: str) -> Iterator[str]:
    """The directories above `path`, the nearest first; the root is not among them."""
    path = os.path.dirname(path)
    while path.strip("/"):
        yield path
        path = os.path.dirname(path)


def _is_broad(real: str) -> bool:
    """What stands in the root holds other things, too (/opt, /home, /tmp); so do places for everybody's programs."""
    shared = os.path.basename(real) in (".local", ".config", ".cache") or real.endswith("/.local/bin")
    return real.count("/") < 2 or shared


def _in_system(path: str) -> bool:
    return any(_within(path, one) for one in SYSTEM)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _path_files(prefix: str) -> list[str]:
    """{prefix}/lib/python*/site-packages/*.pth (glob would match a pattern with each of some hundred names)."""
    found: list[str] = []
    for version in _names(f"{prefix}/lib"):
        if version.startswith("python"):
            folder = f"{prefix}/lib/{version}/site-packages"
            found += [f"{folder}/{name}" for name in _names(folder) if name.endswith(".pth") and name[0] != "."]
    return found[:MOST_ENTRIES]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _pyvenv(directory: str) -> list[tuple[str, str]] | None:
    try:
        with open(f"{directory}/pyvenv.cfg", encoding="utf-8", errors="replace") as file:
            pairs = [line.partition("=") for line in file]
    except OSError:
        return None
    return [(key.strip().lower(), value.strip()) for key, _, value in pairs]


def _shebang(path: str) -> list[str]:
    """The words of the first line of a script, `#!` taken off; none for anything else (execve(2))."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return []
    return [os.fsdecode(word) for word in line[2:].split()] if line.startswith(b"#!") else []


def _without_assignments(words: Sequence[str]) -> Sequence[str]:
    """What env(1) runs with these arguments."""
    at = next((at for at, word in enumerate(words) if not word.startswith("-") and "=" not in word), len(words))
    return words[at:]


def _is_node(line: Sequence[str]) -> bool:
    return any(os.path.basename(word) in _NODE for word in line)
