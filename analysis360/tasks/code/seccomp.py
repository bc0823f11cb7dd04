"""A seccomp filter: what a judged program may not ask of the kernel, as the bytes that bubblewrap loads.

Namespaces and limits bound what a program reaches. This closes what they leave open: new processes (a limit on
their number does not count for root), memory that belongs to no process, and rarely used, rarely tested calls.
Threads are left: they share the limits of their process.
"""

from __future__ import annotations

import errno
import platform
import struct

from analysis360.errors import SandboxError

# Of seccomp's and classic BPF's published interface.
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
KILL, ERROR, ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
CLONE_THREAD = 0x0001_0000
X32 = 0x4000_0000
"""Bit of the numbers of x86-64's second calling convention, under which each call has a second number."""

AUDIT = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
"""Its flags lie in memory, which no filter can read; the C library falls back to `clone` where it is missing."""
FORBIDDEN = {
    # call: number on x86_64, on aarch64
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}


def seccomp_filter(machine: str | None = None) -> bytes:
    """The filter for `machine`, by default this one. Raises SandboxError where its calls are not known."""
    machine = machine or platform.machine()
    if machine not in AUDIT:
        raise SandboxError(
            f"the sandbox knows the system calls of {' and '.join(AUDIT)}, and this machine is {machine}; "
            "score the stored generations on another"
        )
    steps = [_step(LOAD, ARCHITECTURE), *_if(JUMP_EQUAL, AUDIT[machine], KILL, otherwise=True)]
    steps.append(_step(LOAD, NUMBER))
    if machine == "x86_64":
        steps += _if(JUMP_AT_LEAST, X32, ERROR | errno.EPERM)
    for numbers in FORBIDDEN.values():
        number = numbers[list(AUDIT).index(machine)]
        if number is not None:
            steps += _if(JUMP_EQUAL, number, ERROR | errno.EPERM)
    steps += _if(JUMP_EQUAL, CLONE3, ERROR | errno.ENOSYS)
    steps += _if(JUMP_EQUAL, CLONE[machine], ALLOW, otherwise=True)
    steps.append(_step(LOAD, FIRST_ARGUMENT))
    steps += _if(JUMP_ANY_BIT, CLONE_THREAD, ALLOW)
    steps.append(_step(RETURN, ERROR | errno.EPERM))
    return b"".join(steps)


def _if(test: int, value: int, answer: int, *, otherwise: bool = False) -> list[bytes]:
    """Answer where the loaded word passes the test (or does not); go on after both steps if not."""
    return [_step(test, value, *((1, 0) if otherwise else (0, 1))), _step(RETURN, answer)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
