"""Run by path inside a sandbox whose only way out is a proxy's unix socket: relays a loopback port to that socket.

Arguments: the port, the socket, the file with the filter for the server, the server's command. The port listens before
the server is executed, so that the server can use it at once. The relay is a process of its own, and nobody's child
that the server would hear of; the server itself gets a filter by which it can open no unix socket.
"""

import ctypes
import os
import selectors
import socket
import sys

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_BACKLOG = 64
_MOST = 64
_CHUNK = 65536
_FULL = 262144


class _Filter(ctypes.Structure):
    """struct sock_fprog (seccomp(2))."""

    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def main() -> None:
    port, path, filter_file, command = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    between = os.fork()
    if between == 0:
        if os.fork() == 0:
            _let_go_of_pipes()
            try:
                Relay(listener, path).run()
            finally:
                os._exit(1)
        os._exit(0)
    os.waitpid(between, 0)
    listener.close()
    confine(filter_file)
    try:
        os.execvp(command[0], command)  # noqa: S606 - a list, no shell
    except OSError as error:
        sys.stderr.write(f"mcpd-exec: 1: exec: {command[0]}: {error.strerror}\n")
        sys.exit(127)


def _let_go_of_pipes() -> None:
    """The server's pipes are the server's: nobody else keeps them open."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def confine(filter_file: str) -> None:
    """Install the filter for this process and all that it becomes. Raises OSError."""
    with open(filter_file, "rb") as file:
        program = file.read()
    prog = _Filter(len(program) // 8, program)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prog), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


class _Side:
    """One end of a connection, and what is to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.other = self
        self.pending = bytearray()
        self.ended = False
        """Nothing more will be read from it."""
        self.told = False
        """It has been told that nothing more will be written."""


class Relay:
    """Copies between connections, as many at a time as `_MOST`, without threads: they count as processes."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self.listener = listener
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.open = 0

    def run(self) -> None:
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        while True:
            for key, events in self.selector.select():
                side = key.data
                if side is None:
                    self.accept()
                elif side.sock.fileno() >= 0:
                    self.serve(side, events)

    def accept(self) -> None:
        try:
            near = self.listener.accept()[0]
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        try:
            if self.open >= _MOST:
                raise OSError("too many connections")
            far.connect(self.path)
        except OSError:
            near.close()
            far.close()
            return
        self.open += 1
        sides = _Side(near), _Side(far)
        sides[0].other, sides[1].other = sides[1], sides[0]
        for side in sides:
            side.sock.setblocking(False)
            self.selector.register(side.sock, selectors.EVENT_READ, side)

    def serve(self, side: _Side, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not side.ended:
                chunk = side.sock.recv(_CHUNK)
                side.other.pending += chunk
                side.ended = not chunk
            for one in (side, side.other):
                self.write(one)
        except BlockingIOError:
            pass
        except OSError:
            self.close(side)
            return
        if side.ended and side.other.ended and not side.pending and not side.other.pending:
            self.close(side)
            return
        for one in (side, side.other):
            self.watch(one)

    def write(self, side: _Side) -> None:
        if side.pending:
            try:
                del side.pending[: side.sock.send(side.pending)]
            except BlockingIOError:
                return
        if not side.pending and side.other.ended and not side.told:
            side.told = True
            side.sock.shutdown(socket.SHUT_WR)

    def watch(self, side: _Side) -> None:
        """Read from it while the other end takes it, write to it while there is something."""
        wanted = selectors.EVENT_WRITE if side.pending else 0
        if not side.ended and len(side.other.pending) < _FULL:
            wanted |= selectors.EVENT_READ
        known = side.sock in self.selector.get_map()
        if wanted and known:
            self.selector.modify(side.sock, wanted, side)
        elif wanted:
            self.selector.register(side.sock, wanted, side)
        elif known:
            self.selector.unregister(side.sock)

    def close(self, side: _Side) -> None:
        self.open -= 1
        for one in (side, side.other):
            if one.sock in self.selector.get_map():
                self.selector.unregister(one.sock)
            one.sock.close()


if __name__ == "__main__":
    main()
