"""The line between a judge and a judged program: plain data by value, everything else by reference.

A message is one line of JSON. Scalars are themselves, other values [kind, content]; what is no plain data stays
where it is, and its number crosses: ["remote", 7]. Reading a message can make nothing but plain data, so no
message, however it is made, can run anything or make an object that is equal to whatever it is compared with.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import deque
from importlib import import_module

TYPE_CHECKING = False  # every import costs each judged program milliseconds, `typing` among the most
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PLAIN: dict[type, Callable[[Any], Any]] = {int: int.__int__, float: float.__float__, str: str.__str__}
"""What makes a plain value of one of a subclass, whatever that overrides."""
NUMBERS = ("fractions.Fraction", "decimal.Decimal")
SEQUENCES: dict[str, Callable[[Any], Any]] = {
    kind.__name__: kind for kind in (list, tuple, set, frozenset, deque)
}


class GoneError(BaseException):
    """The other side is gone, or says what is no message. No test takes it for an exception of the program's."""


class Line:
    """Messages of up to `most` bytes over a socket. Raises GoneError."""

    def __init__(self, fd: int, most: int) -> None:
        self._in, self._out = os.fdopen(fd, "rb"), os.fdopen(os.dup(fd), "wb")
        self._most = most
        self.gone = False
        """Whether it broke at some time, whatever was made of the GoneError that said so."""

    def put(self, message: Any) -> None:
        """Send a message."""
        text = json.dumps(message).encode()
        if len(text) >= self._most:
            raise ValueError(f"a value of more than {self._most} bytes")
        try:
            self._out.write(text + b"\n")
            self._out.flush()
        except OSError as error:
            self.gone = True
            raise GoneError from error

    def get(self) -> Any:
        """Wait for a message."""
        try:
            line = self._in.readline(self._most)
            if not line.endswith(b"\n"):
                raise GoneError
            return json.loads(line)
        except (OSError, ValueError) as error:
            raise GoneError from error


def encode(value: Any, refer: Callable[[Any], int]) -> Any:
    """A value as JSON; `refer` numbers what has to stay here. Subclasses of plain types cross as those."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    for plain in PLAIN:
        if isinstance(value, plain):
            return PLAIN[plain](value)
    for name, kind in SEQUENCES.items():
        if isinstance(value, kind):  # type: ignore[arg-type]
            return [name, [encode(item, refer) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[encode(key, refer), encode(item, refer)] for key, item in value.items()]]
    if isinstance(value, bytes | bytearray):
        return [type(value).__name__, value.decode("latin-1")]
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if type(value) is range:
        return ["range", [value.start, value.stop, value.step]]
    name = f"{type(value).__module__}.{type(value).__name__}"
    return [name, str(value)] if name in NUMBERS else ["remote", refer(value)]


def decode(tree: Any, resolve: Callable[[int], Any]) -> Any:
    """The value of some JSON; `resolve` makes what a number refers to. Raises GoneError where it is no value."""
    if not isinstance(tree, list):
        if isinstance(tree, dict):
            raise GoneError
        return tree
    try:
        kind, content = tree
        if kind in SEQUENCES:
            return SEQUENCES[kind](decode(item, resolve) for item in content)
        if kind == "dict":
            return {decode(key, resolve): decode(item, resolve) for key, item in content}
        if kind in ("bytes", "bytearray"):
            return {"bytes": bytes, "bytearray": bytearray}[kind](content, "latin-1")
        if kind in ("complex", "range"):
            return {"complex": complex, "range": range}[kind](*content)
        if kind in NUMBERS:
            module, name = kind.split(".")
            return getattr(import_module(module), name)(content)
        if kind == "remote":
            return resolve(int(content))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise GoneError from error
    raise GoneError


def begin(limits: dict[str, int]) -> Line:
    """Take the limits on, for good, and the socket that is descriptor 0, which then reads nothing."""
    line = Line(os.dup(0), limits["message"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.set_int_max_str_digits(0)
    for what, most in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits["files"]),
    ):
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"] + 1))
    return line


def seed_if_used(source: str) -> None:
    """What draws at random draws the same in each run; importing what is not used would only take time."""
    if "random" in source:
        import random

        random.seed(0)


def read(file: str) -> str:
    """A text file."""
    with open(file, encoding="utf-8") as opened:  # noqa: PTH123 (`pathlib` takes long to import)
        return opened.read()
