"""Asks a command of the operator's for something: run without a shell, and bounded in time and in what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mcpd.process.launch import IGNORED_BY_PYTHON, open_pidfd, seal
from mcpd.process.pipes import read_some, waiting
from mcpd.process.tree import reap_pidfd

COMPLAINT: Final = 8 * 1024
READ: Final = 64 * 1024
KILL_WAIT: Final = 100
"""Milliseconds; SIGKILL takes far less."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`code`: as of `subprocess`, negative after a signal; None: it said more than `most` and was ended. What it said
    may be a secret, so `repr` does not show it."""

    code: int | None
    output: bytes = field(repr=False)
    complaint: bytes = field(repr=False)
    """The end of its stderr."""


async def ask(argv: Sequence[str], env: Mapping[str, str], *, patience: float, most: int) -> Answer:
    """Run a command to its end; its stdin is empty, and `env` is its whole environment.

    What it started and left running is nobody's here. Raises OSError if it cannot be run, TimeoutError after
    `patience`; then, and if the caller is cancelled, its whole session is killed.
    """
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as ours:
        output, complaint = (_Listener(loop, ours) for _ in range(2))
        with output.writing() as out, complaint.writing() as err:
            command = _Command(loop, argv, env, out, err)
        ours.callback(command.close)
        full = output.listen(most, keep_end=False)
        complaint.listen(COMPLAINT, keep_end=True)
        async with asyncio.timeout(patience):
            await asyncio.wait({command.ended, full}, return_when=asyncio.FIRST_COMPLETED)
        said, complained = output.finish(), complaint.finish()
        return Answer(None if full.done() else command.collect(), said, complained)


class _Command:
    """A process that leads a session of its own."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, argv: Sequence[str], env: Mapping[str, str], out: int, err: int
    ) -> None:
        """`out`, `err`: what its stdout and stderr become. Raises OSError."""
        self._loop = loop
        self.ended: asyncio.Future[None] = loop.create_future()
        seal()
        self._pid = os.posix_spawnp(
            argv[0],
            list(argv),
            dict(env),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, err, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=IGNORED_BY_PYTHON,
        )
        self._pidfd = open_pidfd(self._pid)
        self._collected = False
        loop.add_reader(self._pidfd, self._note_end)

    def collect(self) -> int:
        """How it ended, as `subprocess` has it; it must have."""
        status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        self._collected = True
        if status is None:
            raise RuntimeError("it has not ended")
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    def close(self) -> None:
        """Nothing of it is left."""
        self._loop.remove_reader(self._pidfd)
        if not self._collected:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(KILL_WAIT)
            reap_pidfd(self._pidfd)  # one that cannot be ended yet is collected later, with what we have adopted
        os.close(self._pidfd)

    def _note_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if not self.ended.done():
            self.ended.set_result(None)


class _Listener:
    """A pipe, and what was written into it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: contextlib.ExitStack) -> None:
        self._loop = loop
        self._fd, self._write_end = os.pipe()
        os.set_blocking(self._fd, False)
        owner.callback(os.close, self._fd)
        owner.callback(loop.remove_reader, self._fd)
        owner.callback(self._close_write_end)
        self._said = b""
        self._most = 0
        self._keep_end = False
        self._full: asyncio.Future[None] = loop.create_future()

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        """The end to be handed to a process; closed here afterwards."""
        try:
            yield self._write_end
        finally:
            self._close_write_end()

    def _close_write_end(self) -> None:
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def listen(self, most: int, *, keep_end: bool) -> asyncio.Future[None]:
        """Begin; done once there is more than `most`, unless only the end of it is kept."""
        self._most, self._keep_end = most, keep_end
        self._loop.add_reader(self._fd, self._take)
        return self._full

    def finish(self) -> bytes:
        """All that was written, as far as it is kept; what will be written later is not waited for."""
        left = waiting(self._fd)
        while left > 0 and not self._full.done() and (taken := self._take()):
            left -= taken
        return self._said

    def _take(self) -> int:
        """Take some of what is there; how much that was."""
        chunk = read_some(self._fd, READ)
        if chunk is None:
            return 0
        if not chunk:
            self._loop.remove_reader(self._fd)
            return 0
        self._said += chunk
        if self._keep_end:
            self._said = self._said[-self._most :]
        elif len(self._said) > self._most:
            self._loop.remove_reader(self._fd)
            if not self._full.done():
                self._full.set_result(None)
        return len(chunk)
