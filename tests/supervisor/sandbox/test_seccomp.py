"""The filter: its table against libseccomp's, and its program, run by hand for every system call there is."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import struct

import pytest

from mcpd.sandbox.seccomp import ARCHITECTURES, Architecture, base_filter, denied, no_unix_filter
from mcpd.sandbox.syscalls import LAST_KNOWN, NUMBERS

KILL, ALLOW = 0x80000000, 0x7FFF0000
BOTH = pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)


def run(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What a classic BPF program returns for a call (the machine of seccomp(2))."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*arguments, *(0,) * (6 - len(arguments))))
    code = list(struct.iter_unpack("<HBBI", program))
    loaded, at = 0, 0
    while True:
        what, yes, no, operand = code[at]
        at += 1
        match what:
            case 0x20:
                loaded = struct.unpack_from("<I", data, operand)[0]
            case 0x15:
                at += yes if loaded == operand else no
            case 0x25:
                at += yes if loaded > operand else no
            case 0x35:
                at += yes if loaded >= operand else no
            case 0x45:
                at += yes if loaded & operand else no
            case 0x54:
                loaded &= operand
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(f"unknown instruction {what:#x}")


def refused(number: int) -> int:
    return 0x00050000 | number


@BOTH
def test_numbers_are_those_of_libseccomp(arch: Architecture) -> None:
    library = ctypes.CDLL("libseccomp.so.2")  # the package libseccomp2; systemd, which the tests need, brings it
    resolve = library.seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    for name, numbers in NUMBERS.items():
        known = resolve(arch.audit, name.encode())
        ours = numbers[arch.column]
        if known == -1:
            assert ours is not None, name
            assert ours > 440, f"{name}: an old call that libseccomp does not know"
        else:
            assert ours == (known if known >= 0 else None), name


@BOTH
@pytest.mark.parametrize("variant", ["default", "chromium"])
def test_every_call_is_decided_as_the_lists_say(arch: Architecture, variant: str) -> None:
    program = base_filter(arch, variant)  # type: ignore[arg-type]
    names = {numbers[arch.column]: name for name, numbers in NUMBERS.items()}
    absent = {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_secret", "_sysctl"}
    for number in range(600):
        name = names.get(number)
        found = run(program, arch.audit, number, 1)  # 1: AF_UNIX, SOCK_STREAM's place, nothing harmful
        if number > LAST_KNOWN or name in absent:
            assert found == refused(errno.ENOSYS), (number, name)
        elif name in denied(variant):  # type: ignore[arg-type]
            assert found == refused(errno.EPERM), (number, name)
        elif name != "personality":
            assert found == ALLOW, (number, name)
    assert len(program) // 8 < 4096


@BOTH
def test_foreign_architectures_kill(arch: Architecture) -> None:
    for program in (base_filter(arch), no_unix_filter(arch)):
        for other in (0x40000003, 0x40000028, *(one.audit for one in ARCHITECTURES.values() if one != arch)):
            assert run(program, other, 0) == KILL
        assert run(program, arch.audit, 0x40000000 + 39) == KILL


@BOTH
def test_arguments_decide_where_a_call_has_good_and_bad_uses(arch: Architecture) -> None:
    program = base_filter(arch)

    def ask(name: str, *arguments: int) -> int:
        number = NUMBERS[name][arch.column]
        assert number is not None
        return run(program, arch.audit, number, *arguments)

    assert {ask("socket", family) for family in (1, 2, 10)} == {ALLOW}
    assert {ask("socket", family) for family in (0, 16, 17, 38, 40)} == {refused(errno.EAFNOSUPPORT)}
    assert ask("socket", 16 | 1 << 32) == refused(errno.EAFNOSUPPORT)
    assert ask("socketpair", 1) == ALLOW
    assert ask("socketpair", 30) == refused(errno.EAFNOSUPPORT)
    assert ask("clone", 0x003D0F00) == ALLOW  # what libc asks for, for a thread
    assert ask("clone", 17) == ALLOW
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask("clone", bit | 17) == refused(errno.EPERM)
        assert run(base_filter(arch, "chromium"), arch.audit, NUMBERS["clone"][arch.column] or 0, bit) == ALLOW
    assert {ask("ioctl", 0, request) for request in (0x5401, 0x5413, 0x541B)} == {ALLOW}
    assert {ask("ioctl", 0, request) for request in (0x5412, 0x541C, 0x5412 | 1 << 32)} == {refused(errno.EPERM)}
    assert {ask("personality", value) for value in (0, 0xFFFFFFFF)} == {ALLOW}
    assert ask("personality", 0x0040000) == refused(errno.EPERM)


@BOTH
def test_second_filter_takes_unix_sockets_away_but_for_pairs_of_streams(arch: Architecture) -> None:
    program = no_unix_filter(arch)

    def ask(name: str, *arguments: int) -> int:
        return run(program, arch.audit, NUMBERS[name][arch.column] or 0, *arguments)

    assert {ask("socket", family) for family in (2, 10)} == {ALLOW}
    assert ask("socket", 1) == refused(errno.EAFNOSUPPORT)
    assert {ask("socketpair", 1, kind) for kind in (1, 1 | 0o4000 | 0o2000000)} == {ALLOW}
    assert {ask("socketpair", 1, kind) for kind in (2, 5, 2 | 0o4000)} == {refused(errno.EAFNOSUPPORT)}
    assert ask("clone", 17) == ALLOW
