"""The oracle's file made again: lm-eval's own `hf` backend at batch 1 on the real tasks (tests/oracle.py).

    python tests/benchmarks/golden.py [--quick]

The tests hold the leaderboard to a file of log-likelihoods, for making them takes minutes. Here they are made, and
compared with the file: the largest difference, in nats, of any choice.
"""

from __future__ import annotations

import os
from typing import Any

from harness import Figure, Line, alone, once

TOLERANCE = 1e-3
"""Nats by which the leaderboard may be off in the tests."""


def made_again(documents: int) -> dict[str, Any]:
    """The largest difference from the file, over the first documents of each task."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    import json

    from oracle import COLUMNS, GOLDEN, ask

    kept = {tuple(row[:4]): row[-2:] for row in json.loads(GOLDEN.read_text())["requests"]}
    rows = ask(documents)["requests"]
    place = COLUMNS.index("logprob")
    worst = max(abs(row[place] - kept[tuple(row[:4])][0]) for row in rows)
    return {
        "requests": len(rows),
        "worst": worst,
        "greedy": sum(row[-1] != kept[tuple(row[:4])][1] for row in rows),
    }


def lines(quick: bool) -> list[Line]:
    """One line: nothing is timed."""
    run = once(made_again, documents=1 if quick else 20)()
    said = run.facts
    detail = (
        f"{said['requests']} choices; {said['greedy']} of them greedy here and not there, or the other way"
    )
    worst = said["worst"] / TOLERANCE
    what = (
        "lm-eval's hf backend made again beside its kept file: largest difference, times the tests' tolerance"
    )
    return [Line(what, Figure(worst, worst, worst, run.others), at_most=1.0, detail=detail)]


if __name__ == "__main__":
    alone(lines, __doc__)
