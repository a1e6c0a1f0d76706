"""`mcpd start`: its command line read without what the other commands need, and what it does.

Nothing that a daemon can do without is imported here before it runs: that is a fifth of the time that starting takes.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from mcpd.cli.logstream import LogStream
    from mcpd.config.registry import Registry
    from mcpd.control.seam import FleetView


@dataclass
class Options:
    """What can be said behind `mcpd start`."""

    config: Path | None = None
    detach: bool = False
    unsandboxed: bool = False
    log_file: Path | None = None
    quiet: bool = False


_SWITCHES = {
    "--detach": "detach",
    "-d": "detach",
    "--unsandboxed": "unsandboxed",
    "--quiet": "quiet",
    "-q": "quiet",
}
_PATHS = {"--config": "config", "--log-file": "log_file"}


def options_of(argv: Sequence[str], environ: Mapping[str, str]) -> Options | None:
    """The options of a plain command line; None for help, for a mistake, for whatever else `mcpd.cli.mcpd` knows."""
    options = Options(config=Path(environ["MCPD_CONFIG"]) if environ.get("MCPD_CONFIG") else None)
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word in _SWITCHES:
            setattr(options, _SWITCHES[word], True)
        elif name in _PATHS and (given := value if equals else next(words, "")):
            setattr(options, _PATHS[name], Path(given))
        else:
            return None
    return options


def main(options: Options) -> int:
    """Start as asked; errors become a message and an exit code."""
    from mcpd.cli.logstream import print_what_can_be

    print_what_can_be()
    gc.disable()  # what is imported stays: there is nothing to be found; the daemon enables it when it is up
    try:
        return start(options)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - sorted there; what is a bug is raised again
        from mcpd.cli.failures import answer

        return answer("mcpd", error)
    finally:
        gc.enable()


def start(options: Options) -> int:
    """Run the daemon here until it ends, or leave it running by itself. Raises McpdError, OSError."""
    from mcpd.config.load import find_registry, load

    # without what is wrong with single servers: those fail alone, when they are started
    registry = load(find_registry(options.config, os.environ), os.environ, tolerate_missing=True)
    if options.detach:
        from mcpd.cli.detach import detach

        detach(registry, unsandboxed=options.unsandboxed, log_file=options.log_file, quiet=options.quiet)
        return 0
    return _run(registry, options, _without_sandbox if options.unsandboxed else _as_it_is)


def _as_it_is(registry: Registry) -> Registry:
    return registry


def _without_sandbox(registry: Registry) -> Registry:
    from mcpd.config.registry import SandboxSpec

    bare = SandboxSpec(profile="unsandboxed")
    servers = {name: spec.model_copy(update={"sandbox": bare}) for name, spec in registry.servers.items()}
    return registry.model_copy(update={"servers": servers})


def _run(registry: Registry, options: Options, adapt: Callable[[Registry], Registry]) -> int:
    from mcpd import boot, logs
    from mcpd.cli.logstream import LogFile, LogStream

    stream = LogStream(sys.stderr)
    sink = cast(TextIO, LogFile(options.log_file) if options.log_file is not None else stream)
    logs.configure(registry.daemon.log_level, registry.daemon.log_format, sink)

    async def on_ready(fleet: FleetView) -> None:
        if not options.quiet:
            threading.Thread(target=_announce, args=(registry, stream), name="announcer", daemon=True).start()

    return boot.run(registry, on_ready, adapt)


def _announce(registry: Registry, stream: LogStream) -> None:
    from mcpd.cli.announce import announce_quietly
    from mcpd.control.client import ControlClient
    from mcpd.control.messages import SOCKET_NAME

    announce_quietly(ControlClient(registry.daemon.runtime_dir / SOCKET_NAME), stream)
