"""All of HumanEval and MBPP: what is right passes, what is wrong fails; and files that are not what they should be."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from code_materials import published
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis360.errors import DataError, MissingError
from analysis360.places import LocalFolder
from analysis360.tasks.code.problems import Problem, ProblemSet, read_problems
from analysis360.tasks.code.prompts import STYLES, style
from analysis360.tasks.code.sandbox import Limits, run
from analysis360.text import cut

SIZES = {"humaneval": 164, "mbpp": 500}
PATIENT = Limits(seconds=20)
"""The machine may be busy."""
AGREES = """
class Yes(int):
    def __new__(cls, *a, **k): return int.__new__(cls, 1)
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = lambda s, o: True
    __hash__ = int.__hash__
    __iter__ = lambda s: iter([s])
    __len__ = lambda s: 1
    __sub__ = __rsub__ = __abs__ = __add__ = __radd__ = __call__ = lambda s, *a, **k: s
"""
"""An object that agrees with whatever it is compared with."""

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def half(x):\n    '''Half.'''\n",
    "canonical_solution": "    return x / 2\n",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n",
    "entry_point": "half",
}
MBPP = {
    "text": "Write a function to add.",
    "code": "def add(a, b):\r\n    return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(-1, 1) == 0"],
    "test_setup_code": "",
    "challenge_test_list": [],
}


def agreeing(problem: Problem) -> str:
    """A program that agrees with every test instead of solving the problem."""
    defined = (f"def {name}(*a, **k): return Yes()\n" for name in problem.names)
    return f"    pass\n{AGREES}{''.join(defined)}"


@pytest.mark.parametrize("name", SIZES)
def test_references_pass_and_programs_that_agree_with_everything_fail(name: str) -> None:
    problems = published(name).problems
    assert len(problems) == SIZES[name]
    right = [problem.program(problem.reference) for problem in problems]
    wrong = [problem.program(agreeing(problem)) for problem in problems]
    verdicts = run([*right, *wrong], PATIENT)
    pairs = zip([*problems, *problems], verdicts, strict=True)
    said = [(problem.task_id, str(verdict)) for problem, verdict in pairs]
    assert [one for one in said[: len(problems)] if one[1] != "passed"] == []
    assert [one for one in said[len(problems) :] if not one[1].startswith("failed: ")] == []


def test_tests_take_from_a_program_what_its_reference_defines() -> None:
    for name in SIZES:
        problems = {problem.task_id: problem for problem in published(name).problems}
        assert all(problem.names for problem in problems.values())
    assert problems["MBPP/126"].names == ("sum",)  # a built-in name, and the program's all the same
    assert problems["MBPP/367"].names == ("Node", "is_tree_balanced")
    assert {"find_zero", "poly"} == set(
        {problem.task_id: problem for problem in published("humaneval").problems}["HumanEval/32"].names
    )


def rows(name: str) -> list[dict[str, object]]:
    if name == "humaneval":
        return [HUMANEVAL]
    return [{"task_id": number, **MBPP} for number in (1, 2, 3, 4, 11, 510, 511)]


def write(folder: Path, path: str, content: list[dict[str, object]]) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(content)
    if file.suffix == ".parquet":
        pq.write_table(table, file)
    elif file.suffix == ".arrow":
        with pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    elif file.suffix == ".json":
        file.write_text(json.dumps(content))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in content))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "arrow"])
@pytest.mark.parametrize("name", SIZES)
def test_every_format_gives_the_same_problems(name: str, suffix: str, tmp_path: Path) -> None:
    write(tmp_path, f"{name}.{suffix}", rows(name))
    write(tmp_path, "other.jsonl", [{"not": "read"}])
    found = read_problems(name, LocalFolder(tmp_path))
    write(tmp_path / "plain", f"{name}.jsonl", rows(name))
    assert found == read_problems(name, LocalFolder(tmp_path / "plain"))
    if name == "mbpp":
        assert [problem.task_id for problem in found.problems] == ["MBPP/11", "MBPP/510"]
        assert [problem.task_id for problem in found.shots] == ["MBPP/2", "MBPP/3", "MBPP/4"]


def test_the_layout_of_the_hub_is_read(tmp_path: Path) -> None:
    write(tmp_path, "openai_humaneval/test-00000-of-00001.parquet", rows("humaneval"))
    mbpp = rows("mbpp")
    write(tmp_path, "full/test-00000-of-00001.parquet", [row for row in mbpp if row["task_id"] in (11, 510)])
    write(tmp_path, "full/prompt-00000-of-00001.parquet", mbpp[:4])
    write(tmp_path, "full/train-00000-of-00001.parquet", [{"task_id": 700}])
    write(tmp_path, "sanitized/test-00000-of-00001.parquet", [{"task_id": 11}])
    assert len(read_problems("humaneval", LocalFolder(tmp_path)).problems) == 1
    found = read_problems("mbpp", LocalFolder(tmp_path))
    assert (len(found.problems), len(found.shots)) == (2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "humaneval.jsonl: not what its name says"),
        ("[]\n", "row 0: TypeError"),
        (json.dumps(HUMANEVAL | {"prompt": None}) + "\n", "row 0: TypeError"),
        (json.dumps({k: v for k, v in HUMANEVAL.items() if k != "test"}), "no field 'test'"),
        (json.dumps(HUMANEVAL | {"test": "def ("}), "row 0: SyntaxError"),
        (
            json.dumps(HUMANEVAL) + "\n" + json.dumps(HUMANEVAL | {"prompt": "def half(x):\n"}),
            "twice, and differs",
        ),
        ("", "no problems"),
    ],
)
def test_a_broken_file_is_named_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "humaneval.jsonl").write_text(content)
    with pytest.raises(DataError, match="humaneval") as found:
        read_problems("humaneval", LocalFolder(tmp_path))
    assert message in str(found.value)
    assert "\n" not in str(found.value)


words = st.text(max_size=8) | st.sampled_from(["def f(): pass", "assert f()", "(" * 300, "\0", "f"])
values = st.none() | st.integers() | words | st.lists(words, max_size=3)
FIELDS = [*HUMANEVAL, "text", "code", "test_list", "test_setup_code"]


@given(
    name=st.sampled_from(sorted(SIZES)),
    suffix=st.sampled_from(["jsonl", "json", "parquet", "arrow"]),
    content=st.binary(max_size=64)
    | st.lists(st.dictionaries(st.sampled_from(FIELDS), values), max_size=3).map(
        lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_whatever_a_file_holds_its_problems_are_read_or_it_is_refused(
    name: str, suffix: str, content: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / f"{name}-{suffix}"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.{suffix}").write_bytes(content)
    with contextlib.suppress(DataError):
        assert read_problems(name, LocalFolder(folder)).problems


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"humaneval\.jsonl.*openai/openai_humaneval"):
        read_problems("humaneval", LocalFolder(tmp_path))


def test_the_prompt_of_humaneval_is_the_published_one_as_it_is() -> None:
    problems = published("humaneval")
    assert style("humaneval").prompts(problems) == [problem.text for problem in problems.problems]


def test_the_prompts_of_mbpp(tmp_path: Path) -> None:
    write(tmp_path, "mbpp.jsonl", rows("mbpp"))
    problems = read_problems("mbpp", LocalFolder(tmp_path))
    assert style("mbpp").prompts(problems)[0] == '"""\nWrite a function to add.\nassert add(1, 2) == 3\n"""\n'
    asked = (
        "You are an expert Python programmer, and here is your task: Write a function to add. "
        "Your code should pass these tests:\n\nassert add(1, 2) == 3\nassert add(0, 0) == 0\nassert add(-1, 1) == 0\n"
        "[BEGIN]\n"
    )
    solved = asked + "def add(a, b):\n    return a + b\n[DONE]\n"
    assert style("mbpp", "paper").prompts(problems)[1] == solved * 3 + asked


def test_a_prompt_without_its_examples_is_refused() -> None:
    with pytest.raises(MissingError, match=r"2, 3, 4"):
        style("mbpp", "paper").prompts(published("mbpp"))


def test_references_hold_no_stop_before_their_end() -> None:
    """Cutting at the stops takes nothing away from a solution that could stand there."""
    lost: dict[str, list[str]] = {}
    for name in SIZES:
        problems: ProblemSet = published(name)
        for way in STYLES[name]:
            lost[f"{name}/{way.name}"] = [
                p.task_id for p in problems.problems if cut(p.reference, way.stops) != p.reference
            ]
    assert lost["humaneval/paper"] == []
    assert lost["mbpp/paper"] == []
    assert (
        len(lost["mbpp/docstring"]) <= 60
    )  # a class after a function, a comment in a string, a printed example
