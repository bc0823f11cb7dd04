"""Judges programs that a model wrote: in sandboxes, and so that a program cannot say how it was judged.

A program and its tests run in two processes, each behind walls of its own (`walls.py`) and a filter of system
calls (`seccomp.py`). The tests call what the program defined over a line that carries plain data
(`inside/wire.py`). So the program never holds what the tests expect, shares no interpreter, memory, namespace or
descriptor with what judges it, and can reach the verdict by one way: values that are right.

What remains: a test that calls a helper of the program's own believes it, as the published harnesses do
(HumanEval/32, 33, 38 and 50). An argument that a call changes stays as it was on the tests' side. Whoever can
break out of the kernel's namespaces is out. Time is measured, so a program at its limit may fall on either side.
Only the standard library is inside, and nothing can be written, so a program that keeps files fails. Hash seeds and
Python's `random` are fixed, so verdicts repeat.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from analysis360.errors import SandboxError
from analysis360.tasks.code.inside.judge import FILE as TEST
from analysis360.tasks.code.inside.program import FILE as PROGRAM
from analysis360.tasks.code.walled import Walled, orphans_adopted, start
from analysis360.tasks.code.walls import INSTALL

KINDS = ("passed", "failed", "timed out", "out of memory", "killed", "output limit", "refused")
START_SECONDS = 60.0
"""Wall time in which both sandboxes must stand; a busy machine is no program's fault."""
SIGNALLED = 128
"""A shell's, and bubblewrap's, exit code of a process that a signal ended, less the signal's number."""
READ = 65536
LINES = 2
"""That a judge writes: its hello, and the verdict."""
DETAIL = 300
"""Characters of a verdict's detail, at most."""


@dataclass(frozen=True)
class Program:
    """A program and the tests that judge it."""

    code: str
    """What a model wrote, whole."""
    test: str
    """Python that ends without an exception where the program is right."""
    names: tuple[str, ...]
    """Names that the tests take from the program; all others are Python's or the tests' own."""


@dataclass(frozen=True)
class Limits:
    """What a program may use. They change verdicts, so they belong to the settings."""

    seconds: int = 5
    """Processor time; on the wall twice as much."""
    memory: int = 1 << 30
    """Bytes of address space."""
    output: int = 1 << 20
    """Bytes printed."""
    files: int = 64
    """Files open at a time."""
    message: int = 16 << 20
    """Bytes of one call's arguments or value."""


@dataclass(frozen=True)
class Verdict:
    """How a program ended."""

    kind: str
    """One of KINDS."""
    detail: str = ""
    """The exception's type and first line, printable ASCII up to DETAIL characters, or the signal."""

    @property
    def passed(self) -> bool:
        """Whether the tests ended without an exception."""
        return self.kind == "passed"

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def run(
    programs: Sequence[Program], limits: Limits | None = None, workers: int | None = None
) -> list[Verdict]:
    """The verdict of each program, `workers` at a time (as many as there are processors, if left out).

    Raises SandboxError where there is no sandbox; nothing runs outside one.
    """
    check_sandbox()
    chosen = limits or Limits()
    with orphans_adopted(), ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda program: _Trial(program, chosen).verdict(), programs))


@lru_cache(maxsize=1)
def check_sandbox() -> None:
    """Judge a program that is right, once a process. Raises SandboxError where bubblewrap is missing or cannot work."""
    with orphans_adopted():
        verdict = _Trial(Program("def f(): return 1", "assert f() == 1", ("f",)), Limits()).verdict()
    if not verdict.passed:
        raise SandboxError(f"the sandbox does not work here: a program that is right is judged {verdict}")


@dataclass
class _Trial:
    """One program under its judge."""

    program: Program
    limits: Limits
    said: bytes = b""
    """What the judge wrote."""
    printed: int = 0
    """Bytes that the program printed."""
    first: bytes = field(default=b"", repr=False)
    """The first of them: bubblewrap's complaint where it could not start."""

    def verdict(self) -> Verdict:
        """Run both, and read the verdict from the judge alone."""
        try:
            with self._both() as (program, judge):
                ended = self._watch(program.process, judge.process)
                return ended or self._said(judge.process) or _by_itself(program.process, "the program")
        except UnicodeEncodeError:
            return Verdict("refused", "no text that can be written as UTF-8")

    @contextlib.contextmanager
    def _both(self) -> Iterator[tuple[Walled, Walled]]:
        """The two sides; whatever happens, both are ended with all they hold."""
        how = json.dumps(asdict(self.limits))
        ends = socket.socketpair()
        running: list[Walled] = []
        try:
            with ends[0], ends[1]:
                sides = (
                    ("program", {PROGRAM: self.program.code}, [how]),
                    ("judge", {TEST: self.program.test}, [how, json.dumps(self.program.names)]),
                )
                for end, side in zip(ends, sides, strict=True):
                    running.append(start(*side, line=end.fileno(), keep_errors=end is ends[0]))
            yield running[0], running[1]
        finally:
            for walled in running:
                walled.end()

    def _watch(self, program: subprocess.Popen[bytes], judge: subprocess.Popen[bytes]) -> Verdict | None:
        """Read both until the judge is done; a verdict where a limit comes first. Raises SandboxError."""
        assert program.stdout is not None
        assert judge.stdout is not None
        deadline, started = time.monotonic() + START_SECONDS, False
        with selectors.DefaultSelector() as selector:
            for stream in (program.stdout, judge.stdout):
                selector.register(stream, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    read = os.read(key.fd, READ)
                    if key.fileobj is judge.stdout:
                        self.said += read
                        if not read:
                            return None if started else self._refuse()
                        if self.said.count(b"\n") == LINES:
                            return None
                        if not started:
                            deadline, started = time.monotonic() + 2 * self.limits.seconds, True
                    elif not read:
                        selector.unregister(key.fileobj)
                    else:
                        self.printed += len(read)
                        self.first += read if len(self.first) < READ else b""
                        if self.printed > self.limits.output:
                            return Verdict("output limit")
        return Verdict("timed out") if started else self._refuse()

    def _refuse(self) -> Verdict:
        """No sandbox: neither of the two has begun, so what was printed is bubblewrap's or the interpreter's."""
        lines = self.first.decode(errors="replace").strip().splitlines()
        said = lines[-1] if lines else f"it is not ready after {START_SECONDS:g} s"
        raise SandboxError(
            f"the sandbox does not work here ({said}): bubblewrap must be allowed to make namespaces "
            f"(in a container, run it with user namespaces), and be recent; {INSTALL}"
        )

    def _said(self, judge: subprocess.Popen[bytes]) -> Verdict | None:
        """The judge's verdict; None where the program was gone before there was one."""
        lines = self.said.splitlines()
        if len(lines) != LINES:
            return _by_itself(judge, "the judge")
        kind, detail = json.loads(lines[1])
        return None if kind == "gone" else Verdict(kind, printable(detail))


def printable(text: str) -> str:
    """A text's first DETAIL characters, in ASCII that any file or terminal takes: the rest escaped as in Python."""
    return re.sub(r"[^ -~]", lambda found: ascii(found[0])[1:-1], text[:DETAIL])[:DETAIL]


def _by_itself(process: subprocess.Popen[bytes], name: str) -> Verdict:
    """What became of a process that was gone before the tests were through."""
    try:
        code = process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return Verdict("failed", f"{name} cut the line to the tests")
    if code <= SIGNALLED:
        return Verdict("failed", f"{name} ended before the tests did")
    number = code - SIGNALLED
    if number == signal.SIGXCPU:
        return Verdict("timed out")
    known = number in {s.value for s in signal.Signals}
    return Verdict("killed", signal.Signals(number).name if known else f"signal {number}")
