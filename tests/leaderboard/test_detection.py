"""Detection of toxic text, and WMDP and CrowS-Pairs, over small files in the columns of the published data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little import words

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'analysis360[leaderboard]'")

import lm_eval

from analysis360.evaluating import leaderboard
from analysis360.tasks.leaderboard.detection import FOLDER, filters

DETECTION = ("toxigen_detection", "sbf_detection", "dynahate_detection")
BUILT_IN = Path(lm_eval.__file__).parent / "tasks"
Rows = list[dict[str, Any]]


def toxigen(rng: np.random.Generator) -> Rows:
    return [
        {"text": words(rng, 4), "toxicity_human": float(rng.choice([1.0, 5.0, 2.33, 5.0]))} for _ in range(30)
    ]


def social_bias_frames(rng: np.random.Generator) -> Rows:
    posts = [words(rng, 4) for _ in range(14)]
    votes = ["0.0", "0.5", "1.0", ""]
    return [
        {"post": post, "offensiveYN": str(rng.choice(votes)), "who": "x"} for post in posts for _ in "abc"
    ]


def dynahate(rng: np.random.Generator) -> Rows:
    return [{"text": words(rng, 4), "label": int(rng.integers(0, 2))} for _ in range(20)]


def wmdp(rng: np.random.Generator) -> Rows:
    return [
        {
            "question": words(rng, 4),
            "choices": [words(rng, 1) for _ in range(4)],
            "answer": int(rng.integers(0, 4)),
        }
        for _ in range(12)
    ]


def crows(rng: np.random.Generator) -> Rows:
    return [{"sent_more": words(rng, 4), "sent_less": words(rng, 4), "bias_type": "age"} for _ in range(16)]


def put(folder: Path, base: Path, rows: dict[str, Rows]) -> None:
    """A task over files instead of the Hub: the YAML that docs/people.md shows."""
    lines = [
        f"include: {base}",
        "dataset_path: json",
        "dataset_name: null",
        "dataset_kwargs:",
        "  data_files:",
    ]
    for split, some in rows.items():
        path = folder / f"{base.stem}-{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
        lines.append(f"    {split}: {path}")
    (folder / base.name).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detection")
    rng = np.random.default_rng(0)
    put(root, FOLDER / "toxigen_detection.yaml", {"train": toxigen(rng), "test": toxigen(rng)})
    put(
        root,
        FOLDER / "sbf_detection.yaml",
        {"test": social_bias_frames(rng), "validation": social_bias_frames(rng)},
    )
    put(root, FOLDER / "dynahate_detection.yaml", {"test": dynahate(rng), "train": dynahate(rng)})
    for name in ("bio", "chem", "cyber"):
        put(root, BUILT_IN / f"wmdp/wmdp_{name}.yaml", {"test": wmdp(rng)})
    (root / "_wmdp.yaml").write_text(f"include: {BUILT_IN / 'wmdp/_wmdp.yaml'}\n")
    put(root, BUILT_IN / "crows_pairs/crows_pairs_english.yaml", {"test": crows(rng)})
    return root


@pytest.fixture(scope="module")
def result(reader: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("answers")
    names = "toxicity_detection,wmdp,crows_pairs_english"
    options = {"include": folder, "engine": "torch", "progress": False, "out": out}
    return leaderboard(reader, "0,1", tasks=names, **options)


def read(folder: Path, name: str) -> Rows:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def truth(folder: Path, task: str) -> list[int]:
    """The right answers of a task's questions, by loops."""
    if task == "toxigen_detection":
        rows = read(folder, "toxigen_detection-train.jsonl")
        return [int(row["toxicity_human"] == 5) for row in rows if row["toxicity_human"] in (1, 5)]
    if task == "dynahate_detection":
        return [row["label"] for row in read(folder, "dynahate_detection-test.jsonl")]
    found = []
    rows = read(folder, "sbf_detection-test.jsonl")
    for post in dict.fromkeys(row["post"] for row in rows):
        votes = [float(row["offensiveYN"]) for row in rows if row["post"] == post and row["offensiveYN"]]
        if votes and sum(votes) != len(votes) / 2:
            found.append(int(sum(votes) > len(votes) / 2))
    return found


@pytest.mark.parametrize("task", DETECTION)
def test_accuracy_and_f1_follow_from_the_likelihoods(result: Any, folder: Path, task: str) -> None:
    frame = result.frame().set_index(["ckpt", "task", "metric"])
    gold = truth(folder, task)
    assert 0 < sum(gold) < len(gold)
    for ckpt in ("ckpt_000", "ckpt_001"):
        answers = result.questions(ckpt, task)
        said = [int(yes > no) for no, yes in answers["logprob"]]
        assert len(said) == len(gold)
        right = [a == b for a, b in zip(said, gold, strict=True)]
        both = sum(a and b for a, b in zip(said, gold, strict=True))
        accuracy, f1 = (frame.loc[(ckpt, task, f"{name},none")] for name in ("acc", "f1"))
        assert accuracy["value"] == pytest.approx(np.mean(right))
        assert f1["value"] == pytest.approx(2 * both / max(sum(said) + sum(gold), 1))
        assert (accuracy["n"], accuracy["shots"]) == (len(gold), 4)
        assert accuracy["chance"] == 0.5
        assert 0 <= accuracy["value"] <= 1
        assert 0 <= f1["value"] <= 1
    assert frame.loc[(slice(None), task, "acc,none"), "stderr"].notna().all()


def test_wmdp_and_crows_pairs_run_from_files(result: Any, folder: Path) -> None:
    frame = result.frame().set_index(["ckpt", "task", "metric"])
    for name in ("bio", "chem", "cyber"):
        rows = read(folder, f"wmdp_{name}-test.jsonl")
        answers = result.questions("ckpt_000", f"wmdp_{name}")
        right = [int(np.argmax(x)) == row["answer"] for x, row in zip(answers["logprob"], rows, strict=True)]
        found = frame.loc[("ckpt_000", f"wmdp_{name}", "acc,none")]
        assert found["value"] == pytest.approx(np.mean(right))
        assert found["chance"] == 0.25
    pairs = result.questions("ckpt_000", "crows_pairs_english")
    more = [first > second for first, second in pairs["logprob"]]
    share = frame.loc[("ckpt_000", "crows_pairs_english", "pct_stereotype,none"), "value"]
    assert share == pytest.approx(np.mean(more))
    assert 0 <= share <= 1


def test_examples_are_of_the_split_that_is_not_scored(result: Any, folder: Path) -> None:
    asked = next(
        one for _, sets in result.task.plan for one in sets if one.name == "toxigen_detection@4"
    ).requests(0, 1)
    context = asked[0].args[0]
    assert context.startswith("Is the statement toxic? Answer Yes or No.\n\nStatement: ")
    assert context.count("Statement:") == 5
    shots = [line.removeprefix("Statement: ") for line in context.split("\n") if line.startswith("Statement")]
    others = {row["text"] for row in read(folder, "toxigen_detection-test.jsonl")}
    assert set(shots[:4]) <= others
    assert shots[4] not in others


@pytest.mark.parametrize(("label", "toxic"), [(0, 0), (1, 1), ("hate", 1), ("nothate", 0), ("1", 1)])
def test_dynahate_is_read_in_each_of_its_copies(label: Any, toxic: int) -> None:
    from datasets import Dataset

    assert filters.dynahate(Dataset.from_list([{"text": "a", "label": label}]))["toxic"] == [toxic]


def test_figures_that_are_no_means_start_no_process(result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval would fork: beside the threads of an engine a child may wait for ever."""
    import multiprocessing

    from analysis360.evaluations import gather

    def forked(*_: object) -> None:
        raise AssertionError("a process was forked")

    monkeypatch.setattr(multiprocessing, "Pool", forked)
    places = [i for i, unit in enumerate(result.units) if unit.chunk.name == "dynahate_detection@4"]
    answers = [gather(result.units, result.rows)[i] for i in places]
    assert all(0 <= one.figures()["f1,none"].stderr < 0.5 for one in answers)
