"""The task: what is asked of an engine, what is stored of its answers, and that they can be judged again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from code_materials import character_tokenizer, write_problems

from analysis360.engines import Prompt
from analysis360.errors import SelectionError
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint
from analysis360.series.manifest import Model
from analysis360.sweep import _together
from analysis360.tasks.code.problems import read_problems
from analysis360.tasks.code.prompts import style
from analysis360.tasks.code.task import Asked, Code, Questions, Settings, judge, rescore, seed_of
from analysis360.text import Text

Writer = Callable[[str, Prompt], str]
"""What is written after a prompt."""


class Planted:
    """An engine that writes what it is told, and remembers what it was asked."""

    def __init__(self, text: Text, write: Writer) -> None:
        self.text, self.write = text, write
        self.asked: list[Prompt] = []

    def complete(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        self.asked += prompts
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Prompt) -> tuple[int, ...]:
        before = self.text.decode(prompt.ids)
        whole = self.text.encode([before + self.write(before, prompt)])[0].tolist()
        assert tuple(whole[: len(prompt.ids)]) == prompt.ids
        return (*whole[len(prompt.ids) :], 0)


@pytest.fixture(scope="module", params=[True, False], ids=["marked", "plain"])
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Text:
    folder = tmp_path_factory.mktemp("tokenizer")
    return Text(character_tokenizer(folder, marked=request.param), Model(eos_token_id=0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(write_problems(tmp_path_factory.mktemp("problems")))


def task_of(
    data: LocalFolder, text: Text, benchmark: str, prompt: str | None = None, **settings: Any
) -> Code:
    questions = Questions(read_problems(benchmark, data), style(benchmark, prompt))
    checkpoint = Checkpoint("ckpt_000", 0, data)
    return Code([(checkpoint, [Asked(questions, text)])], Settings(**settings))


def add(name: str) -> Writer:
    """Solutions of every problem but those whose name or number holds a 2."""

    def write(before: str, prompt: Prompt) -> str:
        number = before.rsplit(name, 1)[1].split("(" if name == "add" else ".")[0]
        wrong = " + 1" if "2" in number else ""
        body = f"    return x + {number}{wrong}\n"
        return body if name == "add" else f"def f(x):\n{body}"

    return write


@pytest.mark.parametrize(("benchmark", "passed"), [("humaneval", [1, 1, 0]), ("mbpp", [1, 0, 1, 1])])
def test_what_passes_and_what_was_written_is_stored(
    benchmark: str, passed: list[int], data: LocalFolder, text: Text
) -> None:
    task = task_of(data, text, benchmark)
    name = "add" if benchmark == "humaneval" else "Add "
    engine = Planted(text, add(name))
    (table,) = task.run(engine, task.units())
    assert table["position"].to_pylist() == list(range(len(passed)))
    assert table["passed"].to_pylist() == [[bool(one)] for one in passed]
    assert {v[0] for v in table["verdict"].to_pylist()} == {"passed", "failed: AssertionError"}
    first = table["samples"].to_pylist()[0][0]
    assert first.endswith("    return x + 0\n" if benchmark == "humaneval" else "    return x + 11\n")
    assert first.startswith("    return" if benchmark == "humaneval" else "def f(x):\n")  # no space is lost


def test_an_engine_is_asked_what_the_settings_say(data: LocalFolder, text: Text) -> None:
    task = task_of(data, text, "mbpp", "paper", samples=2, temperature=0.8, top_p=0.95, new_tokens=50, seed=7)
    engine = Planted(text, add("Add "))
    task.run(engine, task.units())
    assert len(engine.asked) == 8
    for prompt in engine.asked:
        assert (prompt.most, prompt.stop, prompt.stop_ids) == (50, ("[DONE]",), (0,))
        assert (prompt.sampling.temperature, prompt.sampling.top_p, prompt.sampling.top_k) == (
            0.8,
            0.95,
            None,
        )
    seeds = [prompt.sampling.seed for prompt in engine.asked]
    assert seeds == [seed_of(7, f"MBPP/{number}", sample) for number in (11, 12, 13, 14) for sample in (0, 1)]
    assert len(set(seeds)) == 8
    assert text.decode(engine.asked[0].ids).count("[BEGIN]") == 4


def test_part_of_a_unit_is_that_part_of_the_whole(data: LocalFolder, text: Text) -> None:
    task = task_of(data, text, "mbpp", samples=2, temperature=1.0)
    (unit,) = task.units()
    whole, part = Planted(text, add("Add ")), Planted(text, add("Add "))
    (all_rows,) = task.run(whole, [unit])
    (some_rows,) = task.run(part, [replace(unit, start=1, stop=3)])
    assert some_rows.equals(all_rows.slice(1, 2))
    assert part.asked == whole.asked[2:6]
    assert len(task_of(data, text, "mbpp").units()[0]) == 4
    assert len(replace(task, limit=3).units()[0]) == 3


@pytest.mark.parametrize(
    ("samples", "slices"), [(1, [(0, 4)]), (200, [(0, 2), (2, 4)]), (600, [(i, i + 1) for i in range(4)])]
)
def test_a_unit_is_about_as_many_programs_as_an_engine_gets_at_once(
    samples: int, slices: list[tuple[int, int]], data: LocalFolder, text: Text
) -> None:
    task = task_of(data, text, "mbpp", samples=samples, temperature=1.0)
    assert [(unit.start, unit.stop) for unit in task.units()] == slices
    assert {unit.weight for unit in task.units()} == {samples}
    assert len(list(_together(task.units()))) == len(slices) - (samples == 200)
    assert [(unit.start, unit.stop) for unit in task.wholes()] == [(0, 4)]


def test_whatever_is_written_can_be_stored(data: LocalFolder, tmp_path: Path) -> None:
    questions = Questions(read_problems("mbpp", data), style("mbpp"))
    odd = ["'\ud83d'", "x = '\0'", "\x1b\u2028é", "def f(x): return {}['\\ud83d']"]
    table = judge(questions, range(4), [[one] for one in odd])
    pq.write_table(table, tmp_path / "part.parquet")
    stored = pq.read_table(tmp_path / "part.parquet")
    assert stored["samples"].to_pylist() == [["'?'"], *([one] for one in odd[1:])]
    assert rescore(stored, questions).equals(table)


def test_the_text_ends_before_the_first_stop(data: LocalFolder, text: Text) -> None:
    task = task_of(data, text, "humaneval")
    solve = add("add")
    engine = Planted(text, lambda before, prompt: solve(before, prompt) + "\nprint(1)\n\nclass A:")
    (table,) = task.run(engine, task.units())
    assert table["samples"].to_pylist()[0] == ["    return x + 0\n"]


def test_judging_again_gives_the_same(data: LocalFolder, text: Text) -> None:
    task = task_of(data, text, "mbpp")
    (table,) = task.run(Planted(text, add("Add ")), task.units())
    questions = Questions(read_problems("mbpp", data), style("mbpp"))
    assert rescore(table, questions).equals(table)
    assert rescore(table.slice(2), questions).equals(table.slice(2))


def test_questions_are_known_by_content(data: LocalFolder, text: Text, tmp_path: Path) -> None:
    def digest(prompt: str | None = None, folder: LocalFolder = data) -> str:
        return Asked(Questions(read_problems("mbpp", folder), style("mbpp", prompt)), text).digest

    assert digest() == digest("docstring", LocalFolder(write_problems(tmp_path / "again")))
    changed = write_problems(tmp_path / "changed") / "mbpp.jsonl"
    changed.write_text(changed.read_text().replace("assert f(2) == 16", "assert f(2) == 15"))
    assert len({digest(), digest("paper"), digest(folder=LocalFolder(changed.parent))}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples: expected at least 1"),
        ({"new_tokens": 0}, "new tokens: expected at least 1"),
        ({"samples": 2}, "2 samples at temperature 0 are the same"),
        ({"temperature": -1.0}, "temperature: expected 0 or more"),
        ({"temperature": float("nan")}, "temperature: expected 0 or more"),
        ({"top_p": 0.0}, "top p: expected more than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        Settings(**settings)


def test_a_prompt_that_there_is_not_is_named() -> None:
    with pytest.raises(SelectionError, match=r"prompt 'shot' of mbpp: expected one of docstring, paper"):
        style("mbpp", "shot")
    with pytest.raises(SelectionError, match=r"benchmark 'apps': expected one of humaneval, mbpp"):
        style("apps")


def test_seeds_depend_on_seed_problem_and_sample_alone() -> None:
    seeds = {seed_of(seed, f"HumanEval/{i}", s) for seed in (0, 1) for i in range(164) for s in range(20)}
    assert len(seeds) == 2 * 164 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "HumanEval/0", 0) == 3508546553561605939  # a release keeps its draws
