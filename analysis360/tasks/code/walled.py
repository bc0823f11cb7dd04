"""A process behind walls, and its end: nothing of it stays, not even as an entry in the table of processes.

Bubblewrap is two processes. When the outer ends, the inner dies with all that it holds, but nobody waits for it:
the system's first process should, and in many containers does not. So orphans are adopted, and waited for here.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis360.tasks.code.seccomp import seccomp_filter
from analysis360.tasks.code.walls import command

SET_SUBREAPER, GET_SUBREAPER = 36, 37
"""Of prctl's published interface."""
INFO = 4096
"""Bytes in which bubblewrap tells what it has started, at most."""


@dataclass(frozen=True)
class Walled:
    """A sandbox that runs, or has ended by itself."""

    process: subprocess.Popen[bytes]
    """The outer bubblewrap, whose output and exit code are those of what it holds."""
    info: int
    """Descriptor from which the number of the inner one is read."""

    def end(self) -> None:
        """Kill it: when bubblewrap dies its namespace of processes dies, and everything in it. Wait for both."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(BlockingIOError, ValueError):  # it had not come to the inner one
            _reap(int(json.loads(os.read(self.info, INFO))["child-pid"]))
        os.close(self.info)
        if self.process.stdout is not None:
            self.process.stdout.close()


def start(
    module: str, files: dict[str, str], arguments: Sequence[str], *, line: int, keep_errors: bool
) -> Walled:
    """Run a module of `inside`, with files of these texts, and the descriptor `line` as its standard input.

    Raises UnicodeEncodeError for a text that cannot be written, SandboxError where bubblewrap is missing.
    """
    with contextlib.ExitStack() as stack:
        fds = {name: stack.enter_context(_memory(text.encode())) for name, text in files.items()}
        seccomp = stack.enter_context(_memory(seccomp_filter()))
        info, told = os.pipe2(os.O_NONBLOCK)
        stack.callback(os.close, info)
        stack.callback(os.close, told)
        process = subprocess.Popen(
            command(module, arguments, files=fds, seccomp=seccomp, info=told),
            stdin=line,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if keep_errors else subprocess.DEVNULL,
            pass_fds=(*fds.values(), seccomp, told),
            start_new_session=True,
        )
        return Walled(process, os.dup(info))


@contextlib.contextmanager
def orphans_adopted() -> Iterator[None]:
    """Meanwhile descendants whose parent is gone are children of this process."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = ctypes.c_int()
    prctl(GET_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    prctl(SET_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(SET_SUBREAPER, before.value, 0, 0, 0)


@contextlib.contextmanager
def _memory(data: bytes) -> Iterator[int]:
    """A descriptor from which `data` is read."""
    fd = os.memfd_create("task")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _reap(pid: int) -> None:
    """Wait for a child; it is none where the outer bubblewrap has waited for it."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
