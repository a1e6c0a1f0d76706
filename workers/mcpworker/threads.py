"""Runs functions that block, off the event loop.

Daemon threads of our own: the interpreter joins the threads of anyio and of `concurrent.futures` at its end, and
one tool that blocks for a minute would keep a server alive for that minute after its client has left.
"""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mcpworker.errors import Overloaded

__all__ = ["run_in_thread"]

MAX_THREADS = 40
MAX_WAITING = 1000

T = TypeVar("T")


class _Job:
    """One function to run, and the future that waits for it."""

    __slots__ = ("call", "context", "future", "loop")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def run(self) -> None:
        if self.future.cancelled():
            return
        result: Any = None
        error: BaseException | None = None
        try:
            result = self.context.run(self.call)
        except StopIteration as stop:
            # A future cannot carry StopIteration; asyncio would never resume the waiter.
            error = RuntimeError(f"function raised StopIteration: {stop}")
        except BaseException as raised:  # noqa: BLE001 - handed over to the waiter, whatever it is
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class _Pool:
    """At most MAX_THREADS daemon threads, started as they are needed."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def submit(self, job: _Job) -> None:
        if self._jobs.qsize() >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} calls wait for a free thread already; try again later")
        with self._lock:
            start = self._idle <= self._jobs.qsize() and self._threads < MAX_THREADS
            if start:
                self._threads += 1
        self._jobs.put(job)
        if start:
            threading.Thread(target=self._work, name=f"mcpworker-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            job.run()
            del job  # an idle thread keeps nothing alive


_pool = _Pool()


async def run_in_thread(call: Callable[[], T]) -> T:
    """The result of `call`, run in a thread with the caller's context variables.

    A cancelled caller stops waiting at once; a call that has begun runs on by itself and its result is dropped.

    Raises:
        Overloaded: too many calls wait for a thread.
    """
    job = _Job(call)
    _pool.submit(job)
    result: T = await job.future
    return result
