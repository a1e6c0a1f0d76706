"""Messages over standard input and output, a line each, without a thread between the pipe and the loop.

While it serves, descriptor 0 is the null device and descriptor 1 is standard error, so that what functions and their
children read or print never touches the protocol.
"""

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from mcpworker.logs import get_logger
from mcpworker.results import clean
from mcpworker.threads import run_in_thread

__all__ = ["open_stdio"]

logger = get_logger("stdio")

_CHUNK = 256 * 1024
_MAX_LINE = 64 * 1024 * 1024
_HIGH_WATER = 256 * 1024
_FLUSH_SECONDS = 2.0


@asynccontextmanager
async def open_stdio() -> "AsyncIterator[tuple[LineReader, LineWriter]]":
    """The two directions of this process's client; SIGTERM and SIGINT end the input."""
    with _claimed(0, sys.stdin, os.O_RDONLY) as source, _claimed(1, sys.stdout, os.O_WRONLY) as sink:
        reader, writer = LineReader(source), LineWriter(sink)
        with _signals_end(reader), _non_blocking(sink):
            try:
                yield reader, writer
            finally:
                reader.stop()
                await writer.flush()
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.flush()  # what was printed meanwhile must not follow on the wire


@contextmanager
def _claimed(fd: int, stream: Any, mode: int) -> Iterator[int]:
    """A private descriptor of a standard stream, whose own number is diverted meanwhile."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        # Somebody may have moved it away before, the launcher for one: the stream itself says where the wire is.
        fd = stream.buffer.fileno()
    private = _duplicate(fd)
    diversion = _open_diversion(mode)
    os.dup2(diversion, fd)
    os.close(diversion)
    try:
        yield private
    finally:
        os.dup2(private, fd)
        os.close(private)


def _duplicate(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _open_diversion(mode: int) -> int:
    if mode == os.O_WRONLY:
        with contextlib.suppress(OSError):
            return os.dup(2)
    return os.open(os.devnull, mode)


@contextmanager
def _non_blocking(fd: int) -> Iterator[None]:
    """No wait inside write(2) on a pipe or socket; files and terminals may share their mode with others."""
    kind = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        yield
        return
    before = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        yield
    finally:
        os.set_blocking(fd, before)


@contextmanager
def _signals_end(reader: "LineReader") -> Iterator[None]:
    """The first SIGTERM or SIGINT is the end of the input; a second one does what it always does."""
    loop = asyncio.get_running_loop()
    caught: list[signal.Signals] = []

    def release() -> None:
        while caught:
            loop.remove_signal_handler(caught.pop())

    def end() -> None:
        release()
        reader.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, end)
            caught.append(number)
    try:
        yield
    finally:
        release()


class LineReader:
    """Messages from a descriptor. It reads ahead by one chunk only, so a client that floods it has to wait."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False
        self._ended = False
        self._wake = asyncio.Event()
        self._watching = False
        self._threaded = False

    async def receive(self) -> SessionMessage | Exception:
        """The next message, or the reason why a line was none.

        Raises:
            anyio.EndOfStream: the input has ended.
        """
        while True:
            line = self._next_line()
            if line is None:
                if self._ended:
                    raise anyio.EndOfStream
                await self._more()
            elif line and not line.isspace():
                return _message(line)

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            if len(self._buffer) > _MAX_LINE:
                logger.error("a line of more than %d bytes is dropped", _MAX_LINE)
                self._buffer.clear()
                self._skipping = True
            self._scanned = len(self._buffer)
            if self._ended and self._buffer:
                self._buffer.append(10)  # the last line may lack its end
                return self._next_line()
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        if self._skipping:
            self._skipping = False
            return b""
        return line

    async def _more(self) -> None:
        self._wake.clear()
        if not self._watching and not self._threaded:
            try:
                self._loop.add_reader(self._fd, self._read)
                self._watching = True
            except (OSError, NotImplementedError):
                self._threaded = True  # a regular file or the null device: always ready, never watchable
        if self._threaded:
            self._feed(await run_in_thread(lambda: os.read(self._fd, _CHUNK)))
            return
        await self._wake.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._feed(data)
        if len(self._buffer) >= _CHUNK:
            self._unwatch()

    def _feed(self, data: bytes) -> None:
        if data:
            self._buffer += data
        else:
            self.stop()
        self._wake.set()

    def _unwatch(self) -> None:
        if self._watching:
            self._loop.remove_reader(self._fd)
            self._watching = False

    def stop(self) -> None:
        """Read no more: what came counts as all."""
        self._ended = True
        self._unwatch()
        self._wake.set()

    async def aclose(self) -> None:
        self.stop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        try:
            # JavaScript escapes halves of a cut emoji (lone surrogates), which pydantic's parser refuses.
            plain = clean(json.loads(line))
            return SessionMessage(jsonrpc_message_adapter.validate_python(plain, by_name=False))
        except (ValueError, RecursionError):
            return error


class LineWriter:
    """Messages to a descriptor, each whole: a sender that is cancelled leaves no half of a line behind."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()
        self._drained = asyncio.Event()
        self._drained.set()
        self._broken = False
        self._closed = False

    async def send(self, item: SessionMessage, /) -> None:
        """Write a message; waits while the client is slow to read.

        Raises:
            anyio.ClosedResourceError: after `aclose`.
            anyio.BrokenResourceError: the client is gone.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if self._broken:
            raise anyio.BrokenResourceError
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        if self._pending:
            self._pending += line
        else:
            written = self._write(line)
            if written < len(line) and not self._broken:
                self._pending += memoryview(line)[written:]
                self._drained.clear()
                self._loop.add_writer(self._fd, self._flush)
        if len(self._pending) > _HIGH_WATER:
            await self._drained.wait()

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            logger.info("the client does not read any more: %s", error)
            self._broken = True
            return 0

    def _flush(self) -> None:
        del self._pending[: self._write(self._pending)]
        if self._broken:
            self._pending.clear()
        if not self._pending:
            self._loop.remove_writer(self._fd)
            self._drained.set()

    async def flush(self) -> None:
        """Write what is left, for as long as a client that reads would take."""
        with anyio.move_on_after(_FLUSH_SECONDS, shield=True):
            await self._drained.wait()
        if self._pending:
            logger.warning("%d bytes were not read by the client", len(self._pending))
            self._loop.remove_writer(self._fd)

    async def aclose(self) -> None:
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
