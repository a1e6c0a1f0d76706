"""The system-call filter of a contained server, as a program for seccomp(2).

A deny-list in form, an allow-list in effect: calls that are newer than the table do not exist inside. What is denied
answers EPERM, as it does for any ordinary user; what libraries try first and can do without answers ENOSYS, so that
they fall back. Calls by another architecture's numbers (i386, x32) end the process: their numbers mean other calls.
"""

from __future__ import annotations

import errno
import functools
import struct
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from mcpd.sandbox.syscalls import LAST_KNOWN, NUMBERS

Variant = Literal["default", "chromium"]

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _EQUAL, _GREATER, _GREATER_OR_EQUAL, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data; both architectures are little-endian

_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE_MASK, _SOCK_STREAM = 0xF, 1
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_PERSONALITIES: Final = (0x0, 0xFFFFFFFF)  # PER_LINUX, and the question which one it is
_X32_BIT: Final = 0x40000000

_ABSENT: Final = frozenset(
    {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_secret", "_sysctl"}
)
_BY_ARGUMENT: Final = frozenset({"clone", "socket", "socketpair", "ioctl", "personality"})
_NEEDED_BY_CHROMIUM: Final = frozenset({"chroot", "unshare"})


class Architecture(msgspec.Struct, frozen=True):
    """One that the tables cover; `column` is its place in them."""

    name: str
    audit: int
    column: int


ARCHITECTURES: Final = {
    "x86_64": Architecture("x86_64", 0xC000003E, 0),
    "aarch64": Architecture("aarch64", 0xC00000B7, 1),
}


def denied(variant: Variant = "default") -> frozenset[str]:
    """The calls that answer EPERM whatever their arguments are."""
    plain = frozenset(NUMBERS) - _ABSENT - _BY_ARGUMENT
    return plain - _NEEDED_BY_CHROMIUM if variant == "chromium" else plain


@functools.cache
def base_filter(arch: Architecture, variant: Variant = "default") -> bytes:
    """The filter for everything inside. `chromium`: new namespaces stay possible, for a browser's own sandbox."""
    rules = [
        *_answers(arch, _ABSENT, errno.ENOSYS),
        *_answers(arch, denied(variant), errno.EPERM),
        *_one_of(arch, "socket", (_AF_UNIX, _AF_INET, _AF_INET6), errno.EAFNOSUPPORT),
        *_one_of(arch, "socketpair", (_AF_UNIX,), errno.EAFNOSUPPORT),
        *_none_of(arch, "ioctl", 1, (_TIOCSTI, _TIOCLINUX)),
        *_one_of(arch, "personality", _PERSONALITIES, errno.EPERM),
    ]
    if variant != "chromium":
        rules += _no_bits(arch, "clone", _NEW_NAMESPACES)
    return _pack((*_preamble(arch), *rules, _return(_ALLOW)))


@functools.cache
def no_unix_filter(arch: Architecture) -> bytes:
    """On top of it for a server that has a proxy beside it: no unix sockets but connected pairs of streams.

    A datagram pair could be connected to something else later (unix(7)); a stream pair cannot.
    """
    family = _one_of(arch, "socket", (_AF_INET, _AF_INET6), errno.EAFNOSUPPORT)
    number = NUMBERS["socketpair"][arch.column]
    assert number is not None
    pairs = (
        (_EQUAL, 0, 5, number),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        (_EQUAL, 1, 0, _SOCK_STREAM),
        _return(_ERRNO | errno.EAFNOSUPPORT),
        (_LOAD, 0, 0, _NUMBER_AT),
    )
    return _pack((*_preamble(arch), *family, *pairs, _return(_ALLOW)))


Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, operand."""


def _pack(program: Iterable[Instruction]) -> bytes:
    return b"".join(struct.pack("<HBBI", *one) for one in program)


def _return(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)


def _preamble(arch: Architecture) -> tuple[Instruction, ...]:
    """Foreign numbers kill, numbers that are too new do not exist; leaves the number loaded."""
    return (
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, arch.audit),
        _return(_KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_GREATER_OR_EQUAL, 0, 1, _X32_BIT),  # on x86-64 x32; on aarch64 no call has such a number
        _return(_KILL_PROCESS),
        (_GREATER, 0, 1, LAST_KNOWN),
        _return(_ERRNO | errno.ENOSYS),
    )


def _answers(arch: Architecture, names: Iterable[str], answer: int) -> list[Instruction]:
    rules: list[Instruction] = []
    for number in sorted(found for name in names if (found := NUMBERS[name][arch.column]) is not None):
        rules += [(_EQUAL, 0, 1, number), _return(_ERRNO | answer)]
    return rules


def _one_of(arch: Architecture, name: str, values: tuple[int, ...], answer: int) -> list[Instruction]:
    """The first argument, an int (the kernel too looks at its lower half only), has to be one of `values`."""
    tests: list[Instruction] = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return _with_argument(arch, name, 0, [*tests, _return(_ERRNO | answer)])


def _none_of(arch: Architecture, name: str, argument: int, values: tuple[int, ...]) -> list[Instruction]:
    tests: list[Instruction] = [(_EQUAL, len(values) - 1 - at, 0, value) for at, value in enumerate(values[:-1])]
    last: Instruction = (_EQUAL, 0, 1, values[-1])
    return _with_argument(arch, name, argument, [*tests, last, _return(_ERRNO | errno.EPERM)])


def _no_bits(arch: Architecture, name: str, bits: int) -> list[Instruction]:
    return _with_argument(arch, name, 0, [(_ANY_BIT, 0, 1, bits), _return(_ERRNO | errno.EPERM)])


def _with_argument(arch: Architecture, name: str, argument: int, tests: list[Instruction]) -> list[Instruction]:
    """`tests` on one argument of one call; afterwards the number is loaded again."""
    number = NUMBERS[name][arch.column]
    assert number is not None, f"{name} exists on both architectures"
    return [
        (_EQUAL, 0, len(tests) + 2, number),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        *tests,
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
