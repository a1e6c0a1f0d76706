"""Serves an ASGI application on listening sockets: uvicorn, without its signals, its polling and its lifespan.

What ASGI has no word for is offered to the application in `scope["extensions"]["mcpd.abort"]`: a function that ends
the connection at once, also when the client does not read. On a unix socket `mcpd.uid` there is the user who connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Final, cast

import uvicorn

from mcpd.errors import ConfigError, Problem
from mcpd.frontdoor.asgi import App, Receive, Scope, Send
from mcpd.frontdoor.peers import Peers
from mcpd.frontdoor.protocol import Bounds, Connection, DirectApp, State

KEEP_ALIVE: Final = 75  # seconds a connection may wait for its next request
DATE_EVERY: Final = 1.0
HEADS_EVERY: Final = 30.0  # for how long a head is remembered at least
GRACE: Final = 5.0
CANCEL_GRACE: Final = 1.0


class Listener:
    """An application on sockets. `serve` runs until `stop` is called, then ends what is open, within `grace`."""

    def __init__(
        self,
        app: App,
        sockets: Collection[socket.socket],
        *,
        direct: DirectApp | None = None,
        tls: tuple[Path, Path] | None = None,
        peers: Peers | None = None,
        on_stop: Callable[[], None] = lambda: None,
        grace: float = GRACE,
        bounds: Bounds | None = None,
    ) -> None:
        """`direct`: what the application answers below ASGI. `tls`: certificate and key. `peers`: who may
        connect, for unix sockets. `on_stop` is called once no connection is accepted any more: it ends event streams,
        so that their responses finish.

        Raises ConfigError if certificate or key cannot be used.
        """
        self._sockets = list(sockets)
        self._tls = tls
        self._config = _config(app, tls, direct, peers, bounds or Bounds())
        self._seen = _versions(tls)
        self._server = _Server(self._config, on_stop, grace)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    @property
    def serving(self) -> bool:
        """Whether connections are accepted."""
        return self._server.started

    def refresh_tls(self) -> bool:
        """Take certificate and key from their files if these have changed; True if so. For new connections only.

        Raises ConfigError if they cannot be used (yet): the ones in use stay, and the files are looked at again when
        they change again. To be called now and then.
        """
        if self._tls is None or (seen := _versions(self._tls)) == self._seen:
            return False
        self._seen = seen
        try:
            # a context that has taken a certificate without its key would serve nobody: try with another one first
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._tls)
            assert self._config.ssl is not None
            self._config.ssl.load_cert_chain(*self._tls)
        except (OSError, ssl.SSLError) as problem:
            raise _unusable(self._tls, problem) from None
        return True

    async def serve(self) -> None:
        """Accept connections until `stop`. The sockets are closed at the end; if this is cancelled, connections are
        cut off at once."""
        try:
            await self._server.serve(self._sockets)
        finally:
            self._server.cut_off()
            for listening in self._sockets:
                listening.close()

    def stop(self) -> None:
        """Let `serve` end. Safe to call more than once, and before `serve`."""
        self._server.stopping.set()


class _Outermost:
    """The application as uvicorn sees it: being cancelled at the end of the daemon is no error to be logged."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # nothing follows: this is the task's first frame
            await self._app(scope, receive, send)


def _config(
    app: App,
    tls: tuple[Path, Path] | None,
    direct: DirectApp | None,
    allowed: Peers | None,
    limits: Bounds,
) -> uvicorn.Config:
    class Protocol(Connection):
        peers = allowed
        bounds = limits

    Protocol.direct = direct
    config = uvicorn.Config(
        _Outermost(app),
        loop="none",  # the daemon's loop is running already
        http=Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=1024,
        timeout_keep_alive=KEEP_ALIVE,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
    )
    try:
        config.load()
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    except (OSError, ssl.SSLError) as problem:
        assert tls is not None
        raise _unusable(tls, problem) from None
    return config


def _unusable(tls: tuple[Path, Path], problem: Exception) -> ConfigError:
    return ConfigError(
        Problem(
            tls[0],
            None,
            "frontdoor.tls_cert",
            f"certificate and key cannot be used: {problem}",
            "both must be PEM files that this user may read, and belong together",
        )
    )


def _versions(tls: tuple[Path, Path] | None) -> tuple[tuple[int, int, int] | None, ...]:
    """By what it is seen that files are others than before."""
    found: list[tuple[int, int, int] | None] = []
    for path in tls or ():
        try:
            about = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((about.st_ino, about.st_size, about.st_mtime_ns))
    return tuple(found)


class _Server(uvicorn.Server):
    """uvicorn's server, waiting on events where it would poll."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None], grace: float) -> None:
        super().__init__(config)
        self.server_state = self._state = State()
        self.stopping = asyncio.Event()
        self._on_stop = on_stop
        self._grace = grace

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the daemon's."""
        yield

    async def main_loop(self) -> None:
        loop = asyncio.get_running_loop()
        aged_at = loop.time()
        while not self.stopping.is_set():
            await self.on_tick(0)  # the date header
            self._state.refresh()
            if loop.time() - aged_at >= HEADS_EVERY:
                aged_at = loop.time()
                self._state.heads.age()
            for connection in list(self._state.connections):
                cast(Connection, connection).expire(loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_EVERY):
                    await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end what is idle, wait for what is not, then cut off what is left: never longer than
        `grace` and CANCEL_GRACE."""
        self._close_listening()
        for listening in sockets or ():
            listening.close()
        self._on_stop()
        state = self._state
        state.deserted.clear()
        for connection in list(state.connections):
            connection.shutdown()
        if state.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await state.deserted.wait()
        self.cut_off()
        await asyncio.sleep(0)  # they learn of it
        for task in list(state.tasks):
            task.cancel()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=CANCEL_GRACE)

    def cut_off(self) -> None:
        """Close whatever is still open, without waiting for anybody."""
        self._close_listening()
        for connection in list(self.server_state.connections):
            _abort(connection)

    def _close_listening(self) -> None:
        for server in getattr(self, "servers", []):  # there are none before `startup`
            server.close()


def _abort(connection: Any) -> None:
    connection.transport.abort()
