"""Runs the tests of a program that is in another sandbox, and says the verdict.

The tests see objects that stand for what the program defined; a call crosses over and its value comes back as
plain data. What the tests expect never leaves this process, and nothing of the program's runs in it.
"""

from __future__ import annotations

import builtins
import json
import sys

from analysis360.tasks.code.inside.wire import GoneError, Line, begin, decode, encode, read, seed_if_used

TYPE_CHECKING = False  # see `wire`
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

FILE = "/task/test.py"


class Remote:
    """Stands for an object of the program. Equal to itself alone."""

    def __init__(self, line: Line, number: int) -> None:
        vars(self).update(_line=line, _number=number)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return ask(self._line, "call", self._number, [list(args), named])

    def __getattr__(self, name: str) -> Any:
        return ask(self._line, "getattr", self._number, [name])

    def __setattr__(self, name: str, value: Any) -> None:
        ask(self._line, "setattr", self._number, [name, value])

    def __len__(self) -> int:
        return int(ask(self._line, "len", self._number, []))

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: Any) -> Any:
        return ask(self._line, "item", self._number, [key])

    def __iter__(self) -> Iterator[Any]:
        iterator = ask(self._line, "iter", self._number, [])
        while True:
            try:
                yield next(iterator)
            except StopIteration:
                return

    def __next__(self) -> Any:
        return ask(self._line, "next", self._number, [])


def refer(value: Any) -> int:
    """The number of a program's object; the tests' own objects stay here."""
    if type(value) is Remote:
        number: int = vars(value)["_number"]
        return number
    raise TypeError(f"a test gave the program a {type(value).__name__}; plain data expected")


def ask(line: Line, what: str, target: int | str, given: list[Any]) -> Any:
    """Ask the program, and take its value or raise its exception. Raises GoneError."""
    line.put([what, target, encode(given, refer)])
    return hear(line)


def hear(line: Line) -> Any:
    """The program's value; raises its exception. Raises GoneError."""
    try:
        kind, content = _parts(line.get(), 2)
        if kind == "raised":
            _raise(*_parts(content, 3))
        return decode(content, lambda number: Remote(line, number))
    except GoneError:
        line.gone = True
        raise


def _parts(message: Any, n: int) -> list[Any]:
    if not isinstance(message, list) or len(message) != n:
        raise GoneError
    return message


def _raise(kind: Any, name: Any, text: Any) -> NoReturn:
    """Raise what the program raised, as the built-in exception that it is or derives from."""
    base = getattr(builtins, str(kind), None)
    if not (isinstance(base, type) and issubclass(base, BaseException)):
        base = Exception
    error = _made(base, str(text))
    vars(error)["said"] = str(name), str(text)
    raise error


def _made(base: type[BaseException], text: str) -> BaseException:
    """An exception of the kind, or of the nearest above it that a text alone makes."""
    kinds = iter(base.__mro__)
    while True:
        try:
            error: BaseException = next(kinds)(text)
        except TypeError:
            continue
        return error


def judge(line: Line, test: str, names: list[str]) -> tuple[str, str]:
    """The kind of the verdict, and its detail."""
    kind, detail = "passed", ""
    try:
        defined = hear(line)
        seed_if_used(test)
        space = {name: ask(line, "global", name, []) for name in names if name in defined}
        exec(compile(test, FILE, "exec"), {"__name__": "test", **space})
    except BaseException as error:
        kind, detail = _failure(error)
    return ("gone", "") if line.gone else (kind, detail)


def _failure(error: BaseException) -> tuple[str, str]:
    """The verdict where tests end with an exception."""
    name, text = vars(error).get("said") or (type(error).__name__, str(error))
    if name == "MemoryError":
        return "out of memory", ""
    first = (text.splitlines() or [""])[0][:200]
    return "failed", f"{name[:200]}: {first}" if first else name[:200]


def main() -> None:
    """Wait for the program's hello, pass it on, and judge."""
    limits, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    out = sys.stdout
    sys.stdout = sys.stderr  # what tests print is nobody's
    line = begin(limits)
    if line.get() != "hello":
        return
    print(json.dumps("hello"), file=out, flush=True)
    test = read(FILE)
    print(json.dumps(judge(line, test, names)), file=out, flush=True)
