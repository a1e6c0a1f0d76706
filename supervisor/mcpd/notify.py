"""What the service manager is told of the daemon, by its own protocol (sd_notify(3)): datagrams on a unix socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

STATUS_EVERY: Final = 5.0
SEND_BUFFER: Final = 8 * 2**20
LONGEST_STATUS: Final = 512
_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """A manager to be told, or nobody: then every call does nothing.

    No call blocks or raises. A message that the manager's full queue does not take is kept and goes first the next
    time, so that READY is late rather than lost; of two of one kind the newer counts.
    """

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        """`address`: a path, or an abstract name behind an `@`. `watchdog`: seconds after which the manager gives up
        on a daemon that it does not hear of."""
        self.watchdog = watchdog
        self.problem = ""
        self._status = ""
        self._waiting: dict[str, str] = {}
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address and not address.startswith(("@", "/")):
            self.problem = f"NOTIFY_SOCKET={address} is of a kind that mcpd does not know"
        elif self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The manager that started this process. The variables are removed, so that no child takes them for its own."""
        address, usec, pid = (environ.pop(name, "") for name in _VARIABLES)
        meant = pid in ("", str(os.getpid()))  # sd_watchdog_enabled(3)
        watchdog = int(usec) / 1e6 if meant and usec.isdecimal() and int(usec) > 0 else None
        return cls(address, watchdog)

    @property
    def interval(self) -> float | None:
        """How often `alive` is to be called: at half of the watchdog's time, as sd_watchdog_enabled(3) recommends, and
        often enough for a status that is worth reading. None: nobody listens."""
        if self._socket is None:
            return None
        return min(STATUS_EVERY, self.watchdog / 2 if self.watchdog is not None else STATUS_EVERY)

    def ready(self, status: str = "") -> None:
        """It serves (the first time), or goes on with a registry that was read again."""
        self._tell(state="READY=1", status=status)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. The manager compares the time with that of its request."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(state=f"RELOADING=1\nMONOTONIC_USEC={now}", status="")

    def stopping(self, status: str = "") -> None:
        self._tell(state="STOPPING=1", status=status)

    def alive(self, status: str = "") -> None:
        """To be called by what has to be alive, the event loop, and by nothing else."""
        self._tell(state="WATCHDOG=1" if self.watchdog is not None else "", status=status)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, state: str, status: str) -> None:
        """`status` only if it is a new one."""
        if state:
            kind = state.partition("=")[0]
            self._waiting.pop(kind, None)
            self._waiting[kind] = state
        if status and status != self._status:
            self._status = status
            self._waiting["STATUS"] = f"STATUS={' '.join(status.split())[:LONGEST_STATUS]}"
        if self._socket is None:
            self._waiting.clear()
            return
        while self._waiting:  # one datagram each: RELOADING and READY in one would be neither
            kind, text = next(iter(self._waiting.items()))
            try:
                self._socket.sendto(text.encode(), self._address)
            except OSError as error:  # its queue is full, or it is being restarted: the next call tries again
                self.problem = f"the service manager cannot be told: {error.strerror}"
                return
            del self._waiting[kind]
            self.problem = ""
