"""Several requests at a time, in threads that never keep an interrupted program from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_threads(ask: Callable[[Item], Answer], items: Iterable[Item], at_a_time: int) -> list[Answer]:
    """`ask` of every item, in order. The first failure stops what has not begun, and is raised.

    Unlike those of an executor, the threads are daemons: after Ctrl-C nothing waits for a silent server.
    """
    listed = list(items)
    answers: dict[int, Answer] = {}
    failures: list[BaseException] = []
    todo, lock = iter(enumerate(listed)), threading.Lock()

    def work() -> None:
        while not failures:
            with lock:
                place, item = next(todo, (-1, None))
            if place < 0:
                return
            try:
                answers[place] = ask(item)  # type: ignore[arg-type]
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_a_time, len(listed)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:
        failures.append(error)
        raise
    if failures:
        raise failures[0]
    return [answers[place] for place in range(len(listed))]
