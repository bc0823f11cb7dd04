"""HumanEval and MBPP, read as they are published: from a folder, or from the Hub.

    FOLDER/humaneval.jsonl, FOLDER/mbpp.jsonl        (or .json, .parquet, .arrow)
    the repositories `openai/openai_humaneval` and `google-research-datasets/mbpp`, or copies of them

Of MBPP the 500 problems of its test split are scored, task ids 11 to 510; ids 2, 3 and 4 are the examples of the
published prompt, and stand in the same file or in the repository's `prompt` split.
"""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from analysis360.errors import DataError, MissingError
from analysis360.places import Place
from analysis360.tasks.code.sandbox import Program

SCORED = range(11, 511)
SHOTS = (2, 3, 4)
Row = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What a model is asked to program."""

    task_id: str
    """`HumanEval/0`, `MBPP/11`."""
    text: str
    """HumanEval: the head of a function, which the program begins with. MBPP: the task in words."""
    reference: str
    """A program that is right; of HumanEval what follows `text`."""
    test: str
    """Python that judges a program."""
    examples: tuple[str, ...]
    """Tests that a prompt may show; HumanEval shows its own in `text`."""
    names: tuple[str, ...]
    """What the tests take from the program."""
    head: str = ""
    """What every program begins with, before what a model wrote."""

    def program(self, written: str) -> Program:
        """What a model wrote as a program that can be judged."""
        return Program(self.head + written, self.test, self.names)


@dataclass(frozen=True)
class Benchmark:
    """Where the problems of a benchmark lie."""

    name: str
    repository: str
    """On the Hub."""
    files: str
    """Regular expression of its files' names, without the ending."""


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("humaneval", "openai/openai_humaneval", r"humaneval|openai_humaneval/test\b[^/]*"),
        Benchmark("mbpp", "google-research-datasets/mbpp", r"mbpp|full/(test|prompt)\b[^/]*"),
    )
}
FORMATS = r"\.(jsonl|json|parquet|arrow)"


@dataclass(frozen=True)
class ProblemSet:
    """The problems of a benchmark in order, and those that prompts may show solved."""

    name: str
    problems: tuple[Problem, ...]
    shots: tuple[Problem, ...] = ()


def read_problems(name: str, place: Place) -> ProblemSet:
    """A benchmark out of a folder. Raises MissingError where it is not there, DataError where it is broken."""
    wanted = re.compile(rf"(.*/)?({BENCHMARKS[name].files}){FORMATS}", re.IGNORECASE)
    files = [file for file in place.names() if wanted.fullmatch(file)]
    if not files:
        raise MissingError(
            f"{place.where}: expected {name}.jsonl, .json, .parquet or .arrow, or the files of "
            f"{BENCHMARKS[name].repository}, and none is there"
        )
    made: dict[str, Problem] = {}
    for file in files:
        where = f"{place.where}/{file}"
        for number, row in enumerate(_rows(place.read(file), file, where)):
            problem = _problem(name, row, f"{where}, row {number}")
            if made.setdefault(problem.task_id, problem) != problem:
                raise DataError(
                    f"{where}, row {number}: {problem.task_id} is there twice, and differs; keep one file"
                )
    return _split(name, made, place.where)


def _split(name: str, made: dict[str, Problem], where: str) -> ProblemSet:
    if not made:
        raise DataError(f"{where}: the files of {name} hold no problems")
    if name == "humaneval":
        return ProblemSet(name, tuple(made.values()))
    by_number = {int(task_id.removeprefix("MBPP/")): problem for task_id, problem in made.items()}
    scored = tuple(problem for number, problem in sorted(by_number.items()) if number in SCORED)
    if not scored:
        raise DataError(f"{where}: MBPP's test split has the task ids 11 to 510, and none is there")
    return ProblemSet(name, scored, tuple(by_number[number] for number in SHOTS if number in by_number))


def _rows(content: bytes, file: str, where: str) -> Iterator[Row]:
    """Rows of a file in one of the FORMATS. Raises DataError."""
    try:
        if file.endswith(".parquet"):
            yield from pq.read_table(io.BytesIO(content)).to_pylist()
        elif file.endswith(".arrow"):
            yield from _arrow(content).to_pylist()
        elif file.endswith(".jsonl"):
            yield from (json.loads(line) for line in content.decode().splitlines() if line.strip())
        else:
            yield from json.loads(content)
    except (ValueError, TypeError, OSError, RecursionError, pa.ArrowException) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{where}: not what its name says: {reason}") from None


def _arrow(content: bytes) -> pa.Table:
    """Arrow's file format, or its stream."""
    opened = pyarrow.ipc.open_file if content.startswith(b"ARROW1") else pyarrow.ipc.open_stream
    return opened(content).read_all()


def _problem(name: str, row: Any, where: str) -> Problem:
    """Raises DataError where a field is missing or no Python."""
    try:
        return _humaneval(row) if name == "humaneval" else _mbpp(row)
    except KeyError as error:
        raise DataError(
            f"{where}: no field {error}; expected the fields of {BENCHMARKS[name].repository}"
        ) from None
    except (TypeError, ValueError, AttributeError, SyntaxError, MemoryError, RecursionError) as error:
        raise DataError(f"{where}: {type(error).__name__}: {error}") from None


def _humaneval(row: Row) -> Problem:
    head, reference = row["prompt"], row["canonical_solution"]
    test = f"{row['test']}\ncheck({row['entry_point']})\n"
    names = _taken(test, head + reference)
    return Problem(str(row["task_id"]), head, reference, test, (), names, head)


def _mbpp(row: Row) -> Problem:
    text = row["text"]
    tests = tuple(row["test_list"])
    test = "\n".join([row.get("test_setup_code") or "", *tests]) + "\n"
    return Problem(f"MBPP/{int(row['task_id'])}", text, row["code"], test, tests, _taken(test, row["code"]))


def _taken(test: str, reference: str) -> tuple[str, ...]:
    """Names of a test that the reference defines at top level, built-in ones too where it does (MBPP/126: `sum`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some references escape what need not be escaped
        trees = ast.parse(test), ast.parse(reference)
    used = {node.id for node in ast.walk(trees[0]) if isinstance(node, ast.Name)}
    return tuple(sorted(used & set(_defined(trees[1].body))))


def _defined(statements: Sequence[ast.stmt]) -> Iterable[str]:
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
