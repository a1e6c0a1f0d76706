"""Tries to get out of a sandbox: does each attack that it is told on stdin, and tells how that went.

Every attack either only looks, or touches what the test made for it; nothing is done with what was opened. It refuses
to run as root, and in the mount namespace of the host (its link is the first argument).
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import signal
import socket
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
NUMBERS = {  # name: (x86-64, aarch64)
    "setns": (308, 268), "unshare": (272, 97), "mount": (165, 40), "umount2": (166, 39), "fsopen": (430, 430),
    "chroot": (161, 51), "pivot_root": (155, 41), "keyctl": (250, 219), "add_key": (248, 217),
    "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "personality": (135, 92), "bpf": (321, 280),
    "perf_event_open": (298, 241), "ptrace": (101, 117), "process_vm_readv": (310, 270), "pidfd_open": (434, 434),
    "open_by_handle_at": (304, 265), "clone3": (435, 435), "clone": (56, 220), "kexec_load": (246, 104),
    "init_module": (175, 105), "open_tree": (428, 428), "move_mount": (429, 429), "swapon": (167, 224),
    "sethostname": (170, 161), "reboot": (169, 142), "quotactl": (179, 60), "syslog": (103, 116), "statmount": (457, 457),
}  # fmt: skip
NEWUSER, NEWNS = 0x10000000, 0x00020000


def call(name, *arguments):
    """A system call; raises OSError."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    found = libc.syscall(ctypes.c_long(NUMBERS[name][0 if X86 else 1]), *words)
    if found == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        sock.connect(address)
        sock.send(b"x")
        if kind == socket.SOCK_DGRAM:
            sock.recv(1)  # an answer, or the news that nobody is there


def create(path):
    with open(path, "x") as file:
        file.write("was here")


def opened(path, flags):
    os.close(os.open(path, flags))


def in_child(act):
    """What became of a child that does it: the signal, or 0."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        try:
            act()
        finally:
            os._exit(0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status := os.waitpid(pid, 0)[1]) else 0


def foreign_numbers():
    """getpid by the i386 entry: mov eax, 20; int 0x80; ret."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    ctypes.CFUNCTYPE(ctypes.c_int)(address)()


def namespace_child():
    """clone(2) with a new user namespace; were it made, its process ends at once."""
    pid = call("clone", NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def newest_clone():
    arguments = struct.pack("<8Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    pid = call("clone3", ctypes.c_char_p(arguments), len(arguments))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def forks(most):
    """How many children could be had at once; never more than `most`."""
    children = []
    problem = ""
    try:
        while len(children) < most:
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                signal.pause()
                os._exit(0)
            children.append(pid)
    except OSError as error:
        problem = errno.errorcode[error.errno]
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return [len(children), problem]


def hold(count):
    """Children that stay for a while."""
    for _ in range(count):
        if os.fork() == 0:
            signal.alarm(20)
            signal.pause()
            os._exit(0)


def hog(most, in_file):
    """Take memory, a little at a time and never more than `most` MiB."""
    held = []
    for number in range(most // 8):
        if in_file:
            fd = os.memfd_create(str(number))
            os.write(fd, b"x" * (8 << 20))
            held.append(fd)
        else:
            held.append(b"%d" % number * (8 << 20))
        time.sleep(0.05)  # so that it is a bounded rate
    return len(held)


def fill(path, step, most):
    """How many MiB fit in a file."""
    with open(path, "wb", buffering=0) as file:
        for number in range(0, most, step):
            try:
                if file.write(b"x" * (step << 20)) < step << 20:
                    return [number, "short"]
            except OSError as error:
                return [number, errno.errorcode[error.errno]]
    return [most, ""]


def status(pid="self"):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def view(_):
    """What it sees of itself and of the machine."""
    own = status()
    with open("/proc/net/dev") as file:
        devices = [line.split(":")[0].strip() for line in file if ":" in line]
    return {
        "uid": os.getresuid(),
        "groups": os.getgroups(),
        "capabilities": {key: own[key] for key in own if key.startswith("Cap")},
        "no_new_privileges": own["NoNewPrivs"],
        "seccomp": own["Seccomp"],
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
        "environment": sorted(os.environ),
        "devices": sorted(os.listdir("/dev")),
        "network": devices,
        "host": socket.gethostname(),
        "root": sorted(os.listdir("/")),
        "nosuid": bool(os.statvfs("/usr").f_flag & os.ST_NOSUID),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
        "cwd": os.getcwd(),
    }


def memory_program(_):
    """Execute a program that is in no file system, and tell what rights it has."""
    program = os.memfd_create("program")
    with open("/bin/cat", "rb") as file:
        os.write(program, file.read())
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(write, 1)
            os.execve(program, ["cat", "/proc/self/status"], dict(os.environ))
        finally:
            os._exit(1)
    os.close(write)
    os.close(program)
    with open(read) as answer:
        found = dict(line.rstrip("\n").split(":\t", 1) for line in answer if ":\t" in line)
    os.waitpid(pid, 0)
    return {key: found[key] for key in ("Uid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}


def first_environment(_):
    with open("/proc/1/environ", "rb") as file:
        return file.read().decode()


ATTACKS = {
    "read": lambda a: open(a).close(),
    "create": create,
    "touch": lambda a: opened(a, os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "append": lambda a: opened(a, os.O_WRONLY),
    "tcp": lambda a: connect(socket.AF_INET, tuple(a)),
    "udp": lambda a: connect(socket.AF_INET, tuple(a), socket.SOCK_DGRAM),
    "unix": lambda a: connect(socket.AF_UNIX, a),
    "abstract": lambda a: connect(socket.AF_UNIX, "\0" + a),
    "family": lambda a: socket.socket(*a).close(),
    "kill": lambda a: os.kill(a, 0),
    "pidfd": lambda a: os.close(call("pidfd_open", a, 0)),
    "ptrace": lambda a: call("ptrace", 16, a, 0, 0),
    "traceme": lambda _: in_child(lambda: 0) or call("ptrace", 0, 0, 0, 0),
    "peek": lambda a: call("process_vm_readv", a, 0, 0, 0, 0, 0),
    "unshare": lambda _: call("unshare", NEWUSER),
    "unshare-mount": lambda _: call("unshare", NEWNS),
    "clone": lambda _: namespace_child(),
    "clone3": lambda _: newest_clone(),
    "setns": lambda _: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0),
    "mount": lambda _: call("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
    "remount": lambda _: call("mount", b"none", b"/usr", 0, 0x1020, 0),
    "umount": lambda _: call("umount2", b"/proc/sys", 2),
    "fsopen": lambda _: call("fsopen", b"tmpfs", 0),
    "open-tree": lambda _: call("open_tree", -100, b"/", 1),
    "move-mount": lambda _: call("move_mount", -1, b"", -100, b"/tmp", 4),
    "chroot": lambda _: call("chroot", b"/tmp"),
    "pivot-root": lambda _: call("pivot_root", b"/tmp", b"/tmp"),
    "mknod": lambda _: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)),
    "handle": lambda _: call("open_by_handle_at", -100, b"\0" * 16, 0),
    "keyctl": lambda _: call("keyctl", 0, -4, 0, 0, 0),
    "add-key": lambda _: call("add_key", b"user", b"mcpd-test", b"x", 1, -2),
    "io-uring": lambda _: call("io_uring_setup", 1, ctypes.create_string_buffer(120)),
    "userfaultfd": lambda _: call("userfaultfd", 1),
    "personality": lambda _: call("personality", 0x0040000),
    "bpf": lambda _: call("bpf", 0, ctypes.create_string_buffer(128), 128),
    "perf": lambda _: call("perf_event_open", ctypes.create_string_buffer(struct.pack("<II", 1, 112), 112), 0, -1, -1, 0),
    "kexec": lambda _: call("kexec_load", 0, 0, 0, 0),
    "module": lambda _: call("init_module", 0, 0, b""),
    "swapon": lambda _: call("swapon", b"/nowhere", 0),
    "hostname": lambda _: call("sethostname", b"x", 1),
    "reboot": lambda _: call("reboot", 0, 0, 0, 0),
    "quota": lambda _: call("quotactl", 0, 0, 0, 0),
    "kernel-log": lambda _: call("syslog", 10, 0, 0),
    "statmount": lambda _: call("statmount", 0, 0, 0, 0),
    "tiocsti": lambda _: fcntl.ioctl(2, 0x5412, b"x"),
    "tioclinux": lambda _: fcntl.ioctl(2, 0x541C, b"\x03"),
    "x32": lambda _: in_child(lambda: libc.syscall(ctypes.c_long(0x40000000 + 39))),
    "i386": lambda _: in_child(foreign_numbers),
    "forks": forks,
    "hold": hold,
    "hog": lambda a: hog(a, False),
    "memfd": lambda a: hog(a, True),
    "fill": lambda a: fill(*a),
    "files": lambda a: len([os.open("/dev/null", os.O_RDONLY) for _ in range(a)]),
    "listen": lambda a: socket.create_server(("127.0.0.1", 0)).close(),
    "view": view,
    "memory-program": memory_program,
    "environ-1": first_environment,
}  # fmt: skip


def main():
    if os.getuid() == 0 or os.geteuid() == 0:
        sys.exit("not as root")
    if os.readlink("/proc/self/ns/mnt") == sys.argv[1]:
        sys.exit("not in the host's mount namespace")
    for line in sys.stdin:
        name, argument = json.loads(line)
        answer = {"attack": name}
        try:
            answer["got"] = ATTACKS[name](argument)
        except OSError as error:
            answer["errno"] = errno.errorcode.get(error.errno, str(error))
        print(json.dumps(answer), flush=True)


main()
