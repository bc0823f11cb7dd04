"""Runs a judged program, then does with what it defined whatever the judge asks: calls, attributes, items.

Nothing here is trusted. The program shares this process and may do to it what it likes; it can say values, which
the judge compares where the program is not.
"""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

from analysis360.tasks.code.inside.wire import GoneError, Line, begin, decode, encode, read, seed_if_used

TYPE_CHECKING = False  # see `wire`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FILE = "/task/program.py"
ASKED: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (len, iter, next, getattr, setattr)
}


class Objects:
    """What is no plain data, by number."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def refer(self, value: Any) -> int:
        """A number for an object."""
        self._kept.append(value)
        return len(self._kept) - 1

    def resolve(self, number: int) -> Any:
        """The object of a number."""
        return self._kept[number]


def answer(ask: str, target: Any, given: list[Any]) -> Any:
    """What the judge asks of an object."""
    if ask == "call":
        positional, named = given
        return target(*positional, **named)
    if ask == "item":
        return target[given[0]]
    return ASKED[ask](target, *given)


def serve(line: Line, module: ModuleType, objects: Objects) -> None:
    """Answer until the judge is gone."""
    while True:
        ask, target, given = line.get()
        try:
            content = decode(given, objects.resolve)
            found = vars(module)[target] if ask == "global" else answer(ask, objects.resolve(target), content)
            line.put(["value", encode(found, objects.refer)])
        except GoneError:
            raise
        except BaseException as error:
            line.put(raised(error))


def raised(error: BaseException) -> list[Any]:
    """The built-in exception that one is or derives from, its type's name, and the first line of its text."""
    kind = next(one for one in type(error).__mro__ if one.__module__ == "builtins")
    try:
        text = str(error)
    except BaseException:
        text = ""
    return ["raised", [kind.__name__, type(error).__name__[:200], (text.splitlines() or [""])[0][:200]]]


def main() -> None:
    """Hello, the program, then questions; ends the process."""
    try:
        _main()
    except GoneError:
        pass
    finally:
        sys.stdout.flush()
        os._exit(0)


def _main() -> None:
    line = begin(json.loads(sys.argv[1]))
    del sys.path[:2], sys.argv[1:]  # those that found this file
    line.put("hello")
    source = read(FILE)
    seed_if_used(source)
    module = sys.modules["program"] = ModuleType("program")
    try:
        exec(compile(source, FILE, "exec"), vars(module))
    except BaseException as error:
        line.put(raised(error))
    else:
        objects = Objects()
        names = sorted(name for name in vars(module) if isinstance(name, str))
        line.put(["value", encode(names, objects.refer)])
        serve(line, module, objects)
