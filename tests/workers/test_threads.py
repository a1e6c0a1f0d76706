"""Functions that block, in threads."""

import contextvars
import subprocess
import sys
import threading
from typing import Any

import anyio
import pytest

from mcpworker import threads
from mcpworker.errors import Overloaded
from mcpworker.threads import run_in_thread

pytestmark = pytest.mark.anyio

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def test_result_and_exception_come_back() -> None:
    assert await run_in_thread(lambda: 5) == 5

    def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        await run_in_thread(fail)


async def test_stop_iteration_does_not_hang_the_caller() -> None:
    with anyio.fail_after(5), pytest.raises(RuntimeError, match="function raised StopIteration"):
        await run_in_thread(lambda: next(iter(())))


async def test_context_variables_go_along() -> None:
    VARIABLE.set("here")

    assert await run_in_thread(VARIABLE.get) == "here"


async def test_calls_run_side_by_side() -> None:
    barrier = threading.Barrier(5)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(run_in_thread, lambda: barrier.wait(10))
    assert not barrier.broken


async def test_caller_that_is_cancelled_stops_waiting() -> None:
    began, release = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        release.wait(30)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(run_in_thread, block)
            await run_in_thread(lambda: began.wait(10))
            group.cancel_scope.cancel()
    assert not release.is_set()
    release.set()


async def test_threads_and_waiting_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 2)
    monkeypatch.setattr(threads, "MAX_WAITING", 3)
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    release = threading.Event()
    running: list[str] = []
    errors: list[Exception] = []

    def block() -> None:
        running.append(threading.current_thread().name)
        release.wait(30)

    async def call() -> None:
        try:
            await run_in_thread(block)
        except Overloaded as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(call)
        with anyio.fail_after(10):
            while len(running) < 2:
                await anyio.lowlevel.checkpoint()
        for _ in range(4):
            group.start_soon(call)
        with anyio.fail_after(10):
            while not errors:
                await anyio.lowlevel.checkpoint()
        assert len(running) == 2
        release.set()

    assert len(running) == 5
    assert [str(error) for error in errors] == ["3 calls wait for a free thread already; try again later"]


async def test_call_cancelled_before_its_turn_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 1)
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    began, release = threading.Event(), threading.Event()
    ran: list[Any] = []

    def block() -> None:
        began.set()
        release.wait(30)

    async with anyio.create_task_group() as outer:
        outer.start_soon(run_in_thread, block)
        with anyio.fail_after(10):
            while not began.is_set():
                await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as inner:
            inner.start_soon(run_in_thread, lambda: ran.append(1))
            await anyio.lowlevel.checkpoint()
            inner.cancel_scope.cancel()
        release.set()
    assert await run_in_thread(lambda: "the next one runs") == "the next one runs"
    assert ran == []


def test_a_blocked_thread_does_not_keep_the_process() -> None:
    source = """
import asyncio, threading
from mcpworker.threads import run_in_thread

async def main():
    began = threading.Event()
    task = asyncio.ensure_future(run_in_thread(lambda: (began.set(), threading.Event().wait())))
    await run_in_thread(began.wait)
    task.cancel()

asyncio.run(main())
print("over")
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "over\n"
