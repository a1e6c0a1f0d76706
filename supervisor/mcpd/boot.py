"""The first steps of the daemon's process: the lock, then what takes long, side by side.

To try out the sandbox is to wait for the kernel, to import the daemon is work for one core: so one goes on in a thread
while the other is done. Hence this module imports little, and the daemon only when it is needed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mcpd.config.registry import Registry
from mcpd.process import descriptors, tree
from mcpd.runtime import HANDLED, RuntimeDir, make_private
from mcpd.sandbox.probe import probe

YOUNG = 5000  # objects more than before, after which rings among them are looked for

if TYPE_CHECKING:
    from mcpd.control.seam import FleetView


def run(
    registry: Registry,
    on_ready: Callable[[FleetView], Awaitable[None]] | None = None,
    adapt: Callable[[Registry], Registry] = lambda registry: registry,
) -> int:
    """Run the daemon until SIGTERM, SIGINT or a request over the control socket; returns the exit code.

    `on_ready` is awaited beside everything else once the sockets are open and the servers are being started. `adapt` is
    applied to `registry`, and to each that a reload brings.
    Raises ConfigError if a directory, a socket or the token cannot be used, AlreadyRunning if another daemon has the
    runtime directory.
    """
    os.umask(0o077)
    settings = registry.daemon
    make_private(settings.state_dir, "daemon.state_dir")
    make_private(settings.logs_dir, "daemon.logs_dir")
    shared = settings.client_group is not None or settings.operator_group is not None
    with (
        _signals_kept(),
        _nothing_collected(),
        RuntimeDir(settings.runtime_dir, passable=shared),
        ThreadPoolExecutor(1, "probe") as pool,
    ):
        tree.become_subreaper()
        descriptors.raise_limit()
        probed = pool.submit(probe, cookie=tree.cookie_for(settings.runtime_dir))
        gc.disable()
        import uvloop

        from mcpd.daemon import Daemon

        # What was imported stays: a collection that looks through it all stops the loop for a tenth of a second. And
        # some hundred calls in flight are no reason to look for rings.
        gc.freeze()
        gc.set_threshold(YOUNG)
        gc.enable()
        facts = probed.result()
        pool.shutdown()  # the thread has nothing more to do
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Daemon(adapt(registry), facts, on_ready, adapt).run())


@contextmanager
def _signals_kept() -> Iterator[None]:
    """A signal that would end the process now, with a sandbox half made, waits until the daemon handles it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """What is imported stays, so there is nothing to be found. The daemon has garbage collected from when it is up."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
