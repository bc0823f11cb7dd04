"""Which tasks make a benchmark, with how many examples, by which metric: the leaderboard of 2023, or any task by name.

The settings of the leaderboard are those of lm-eval's `openllm`: ARC-Challenge 25-shot, HellaSwag 10-shot, MMLU
5-shot, TruthfulQA 0-shot; the four of LLM360, Figure 4 and Table 4. MMLU is the plain mean of its subjects there,
not weighted by their sizes, as lm-eval's own figure for the group is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from analysis360.errors import SelectionError

SUITE = "open-llm"
STORED = "stored"
"""Whatever has been asked before."""
SUBJECTS = (
    *("abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge"),
    *("college_biology", "college_chemistry", "college_computer_science", "college_mathematics"),
    *("college_medicine", "college_physics", "computer_security", "conceptual_physics", "econometrics"),
    *("electrical_engineering", "elementary_mathematics", "formal_logic", "global_facts"),
    *("high_school_biology", "high_school_chemistry", "high_school_computer_science"),
    *("high_school_european_history", "high_school_geography", "high_school_government_and_politics"),
    *("high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics"),
    *("high_school_physics", "high_school_psychology", "high_school_statistics", "high_school_us_history"),
    *("high_school_world_history", "human_aging", "human_sexuality", "international_law", "jurisprudence"),
    *("logical_fallacies", "machine_learning", "management", "marketing", "medical_genetics"),
    *("miscellaneous", "moral_disputes", "moral_scenarios", "nutrition", "philosophy", "prehistory"),
    *("professional_accounting", "professional_law", "professional_medicine", "professional_psychology"),
    *(
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
        "virology",
        "world_religions",
    ),
)
"""The 57 of MMLU, as lm-eval names them after `mmlu_`."""


@dataclass(frozen=True)
class Benchmark:
    """A column of a leaderboard."""

    name: str
    task: str
    """lm-eval's name of the task or group to load."""
    shots: int | None = None
    """Examples before each question; None: as the task itself has it."""
    metric: str | None = None
    """lm-eval's name of the metric, with its filter; None: all of the task's."""
    parts: tuple[str, ...] = ()
    """The tasks whose plain mean it is; one, of the same name, if left out."""
    shown: str = ""
    """What its metric is called by those who use it."""

    @property
    def members(self) -> tuple[str, ...]:
        """Names of its tasks."""
        return self.parts or (self.task,)


SUITES = {
    SUITE: (
        Benchmark("ARC", "arc_challenge", 25, "acc_norm,none", shown="acc_norm"),
        Benchmark("HellaSwag", "hellaswag", 10, "acc_norm,none", shown="acc_norm"),
        Benchmark("MMLU", "mmlu", 5, "acc,none", tuple(f"mmlu_{name}" for name in SUBJECTS), "acc"),
        Benchmark("TruthfulQA", "truthfulqa_mc2", 0, "acc,none", shown="mc2"),
    )
}


def benchmarks(tasks: str | Sequence[str], shots: int | None = None) -> list[Benchmark]:
    """What `tasks` names: a suite, its benchmarks, or tasks and groups of lm-eval; with `@5` after it, 5-shot.

    `shots` is for those without a number. Raises SelectionError for nothing, or for the same task twice.
    """
    names = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else list(tasks)
    known = {one.name.lower(): one for suite in SUITES.values() for one in suite}
    known |= {one.task: one for one in known.values()}
    found: list[Benchmark] = []
    for full in filter(None, names):
        name, at, number = full.partition("@")
        if at and not number.isdecimal():
            raise SelectionError(f"tasks: {full!r}: expected a number of examples after @")
        asked = int(number) if at else shots
        some = SUITES.get(name) or (known.get(name.lower()) or Benchmark(name, name),)
        found += [one if asked is None else replace(one, shots=asked) for one in some]
    if not found:
        raise SelectionError(f"tasks: expected {SUITE} or names of lm-eval's tasks, found nothing")
    twice = sorted({one.task for one in found if sum(one.task == other.task for other in found) > 1})
    if twice:
        raise SelectionError(f"tasks: {', '.join(twice)} is named twice")
    if shots is not None and shots < 0:
        raise SelectionError(f"shots: expected 0 or more, found {shots}")
    return found


def stored_benchmarks(names: Iterable[str]) -> list[Benchmark]:
    """The benchmarks that stored question sets (`task@shots`) make: those of the leaderboard, then other tasks.

    Of several numbers of examples the leaderboard's own counts, otherwise the largest.
    """
    shots: dict[str, set[int]] = {}
    for name in names:
        task, _, number = name.rpartition("@")
        shots.setdefault(task, set()).add(int(number))
    found = []
    for one in SUITES[SUITE]:
        there = shots.keys() & set(one.members)
        if there:
            numbers = set.union(*(shots[task] for task in there))
            found.append(replace(one, shots=one.shots if one.shots in numbers else max(numbers)))
            shots = {task: some for task, some in shots.items() if task not in there}
    return found + [Benchmark(task, task, max(some)) for task, some in sorted(shots.items())]
