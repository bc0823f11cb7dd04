"""Work handed to a thread: in order, one thing waiting at most, and no failure lost."""

import threading
import time

import pytest

from analysis360.behind import Behind


def test_all_is_done_in_order_by_the_end() -> None:
    behind, done = Behind(), []
    for i in range(20):
        behind.put(lambda i=i: done.append(i))
    behind.close()
    assert done == list(range(20))


def test_no_more_than_one_thing_waits() -> None:
    behind, go, entered = Behind(), threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert go.wait(10)

    behind.put(slow)
    assert entered.wait(10)
    second = threading.Thread(target=behind.put, args=(lambda: None,))
    second.start()
    second.join(0.1)
    assert second.is_alive()  # handing over waits for what is under way
    go.set()
    second.join(10)
    assert not second.is_alive()
    behind.close()


def fail() -> None:
    raise OSError("disk full")


def test_a_failure_is_raised_by_the_next_thing_which_is_done_still() -> None:
    behind, done = Behind(), []
    behind.put(fail)
    with pytest.raises(OSError, match="disk full"):
        behind.put(lambda: done.append("closed"))
    behind.close()  # told once
    assert done == ["closed"]


def test_a_failure_of_the_last_thing_is_raised_at_the_end() -> None:
    behind = Behind()
    behind.put(fail)
    with pytest.raises(OSError, match="disk full"):
        behind.close()


def test_seconds_are_of_the_work_not_of_the_waiting() -> None:
    behind = Behind()
    behind.put(lambda: time.sleep(0.05))
    time.sleep(0.2)
    behind.close()
    assert 0.05 <= behind.seconds < 0.2
