"""The leaderboard agrees with lm-eval's own backend and evaluator, continues what was begun, and says what is wrong."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little import WINDOW, questions, reading_series, save_tokenizer, write_tasks

import analysis360 as a360
from analysis360.cli import main
from analysis360.engines.torch_engine import TorchEngine
from analysis360.errors import CheckpointError, DataError, NotStoredError, SelectionError
from analysis360.evaluating import leaderboard
from analysis360.text import PROBE, Text

TASKS = "choosing,letters,writing,reading"
CLOSE = 1e-3


def run(series: Path, tasks: Path, out: Path, names: str = TASKS, **options: Any) -> Any:
    given = {"shots": 2, "include": tasks, "engine": "torch", "progress": False} | options
    return leaderboard(series, given.pop("ckpts", ":"), tasks=names, out=out, **given)


@pytest.fixture(scope="module")
def out(reader: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all tasks under all checkpoints."""
    folder = tmp_path_factory.mktemp("results")
    run(reader, tasks, folder)
    return folder


def of_lm_eval(folder: Path, tasks: Path, shots: int = 2) -> dict[str, Any]:
    """lm-eval's own backend at batch 1, and its own evaluator."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=str(folder), dtype="float32", batch_size=1, device="cpu", max_length=WINDOW)
    found: dict[str, Any] = simple_evaluate(
        model,
        tasks=TASKS.split(","),
        num_fewshot=shots,
        task_manager=TaskManager(include_defaults=False, include_path=str(tasks)),
        bootstrap_iters=100,
    )
    return found


def test_every_answer_is_that_of_lm_evals_backend(reader: Path, tasks: Path, out: Path) -> None:
    result = run(reader, tasks, out)
    frame = result.frame().set_index(["ckpt", "task", "metric"])
    for checkpoint in result.checkpoints[:2]:
        truth = of_lm_eval(checkpoint.path, tasks)
        for task in TASKS.split(","):
            rows = result.questions(checkpoint.name, task)
            samples = sorted(truth["samples"][task], key=lambda sample: sample["doc_id"])
            assert len(rows) == len(samples) == 10
            for row, sample in zip(rows.itertuples(), samples, strict=True):
                said = sample["filtered_resps"]
                if task == "writing":
                    assert list(row.text) == said
                elif task == "reading":
                    assert row.logprob == pytest.approx(said, abs=CLOSE)
                else:
                    assert list(row.logprob) == pytest.approx([one[0] for one in said], abs=CLOSE)
                    assert list(row.greedy) == [one[1] for one in said]
            for key, value in truth["results"][task].items():
                if "," in key and "_stderr" not in key:
                    ours = frame.loc[(checkpoint.name, task, key)]
                    assert ours["value"] == pytest.approx(value, rel=1e-4)
                    error = truth["results"][task][key.replace(",", "_stderr,")]
                    if error != "N/A" and task != "reading":  # a bootstrap of its own
                        assert ours["stderr"] == pytest.approx(error, rel=1e-6)


def test_contexts_longer_than_the_window_were_among_them(reader: Path, tasks: Path, tmp_path: Path) -> None:
    result = run(reader, tasks, tmp_path, "choosing", ckpts="0", shots=6)
    assert any("longer than the window" in line for line in result.report.details)


def test_lm_evals_file_is_what_its_evaluator_writes(reader: Path, tasks: Path, out: Path) -> None:
    truth = of_lm_eval(reader / "checkpoints/ckpt_001", tasks)
    run(reader, tasks, out, "pair", ckpts="1")
    for file in (out / "reader/lm-eval").glob("settings=*/ckpt_001/results_*.json"):
        written = json.loads(file.read_text())
        for task in written["results"].keys() & truth["results"].keys():
            for key, value in truth["results"][task].items():
                if "," in key and "stderr" not in key:
                    assert written["results"][task][key] == pytest.approx(value, rel=1e-4)
            assert written["n-shot"][task] == truth["n-shot"][task]
            assert written["versions"][task] == truth["versions"][task]
        if "pair" in written["results"]:
            both = [truth["results"][task]["acc,none"] for task in ("choosing", "letters")]
            assert written["groups"]["pair"]["acc,none"] == pytest.approx(np.mean(both))
            break
    else:
        raise AssertionError("no file has the group")


def test_what_is_stored_is_not_asked_again(reader: Path, tasks: Path, out: Path) -> None:
    again = run(reader, tasks, out)
    assert again.report.computed == 0
    assert again.report.stored == 3 * 4 * 10


def test_a_larger_limit_asks_the_rest(reader: Path, tasks: Path, tmp_path: Path) -> None:
    few = run(reader, tasks, tmp_path, "choosing", ckpts="0", limit=4)
    more = run(reader, tasks, tmp_path, "choosing", ckpts="0", limit=9)
    whole = run(reader, tasks, tmp_path / "whole", "choosing", ckpts="0", limit=9)
    assert (few.report.computed, more.report.computed, more.report.stored) == (4, 5, 4)
    some, all_ = (one.questions("ckpt_000", "choosing") for one in (more, whole))
    assert np.concatenate(some["logprob"]) == pytest.approx(np.concatenate(all_["logprob"]), abs=1e-4)
    assert few.frame()["n"].eq(4).all()


def test_other_questions_are_other_questions(reader: Path, tmp_path: Path) -> None:
    documents = questions(5, 3)
    first = run(reader, write_tasks(tmp_path / "a", documents), tmp_path / "out", "letters", ckpts="0")
    documents[2]["question"] += " x"
    second = run(reader, write_tasks(tmp_path / "b", documents), tmp_path / "out", "letters", ckpts="0")
    moved = run(reader, write_tasks(tmp_path / "c", documents), tmp_path / "out", "letters", ckpts="0")
    assert (first.report.computed, second.report.computed, moved.report.computed) == (5, 5, 0)


def test_a_killed_sweep_goes_on_with_the_next_task(
    reader: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis360.sweep.TOGETHER", 1)
    score, calls = TorchEngine.score, 0

    def interrupted(self: TorchEngine, requests: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return score(self, requests)

    monkeypatch.setattr(TorchEngine, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(reader, tasks, tmp_path, "choosing,letters")

    def exported() -> dict[str, int]:
        """lm-eval's files, and when each was written."""
        files = (tmp_path / "reader/lm-eval").glob("settings=*/*/results_*.json")
        return {file.parent.name: file.stat().st_mtime_ns for file in files}

    monkeypatch.setattr(TorchEngine, "score", score)
    first = exported()
    assert list(first) == ["ckpt_000"]  # whose questions were all answered
    rest = run(reader, tasks, tmp_path, "choosing,letters")
    assert (rest.report.stored, rest.report.computed) == (30, 30)
    assert sorted(exported()) == ["ckpt_000", "ckpt_001", "ckpt_002"]
    assert exported()["ckpt_000"] == first["ckpt_000"]  # written once
    whole = run(reader, tasks, tmp_path / "whole", "choosing,letters")
    assert rest.frame().equals(whole.frame())


def test_prompts_become_ids_once_a_sweep(
    reader: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, texts = Text.encode, []

    def counted(self: Text, some: Any, **how: Any) -> Any:
        texts.extend(one for one in some if one != PROBE)
        return encode(self, some, **how)

    monkeypatch.setattr(Text, "encode", counted)
    run(reader, tasks, tmp_path / "one", ckpts="0")
    once = len(texts)
    run(reader, tasks, tmp_path / "three")
    assert len(texts) == 2 * once > 0


def test_a_model_that_knows_the_answers(tmp_path: Path, reader: Path) -> None:
    """The right choice is what the last checkpoint itself would write: it gets all right, guessing gets a third."""
    series = a360.open_series(reader)
    engine = TorchEngine()
    engine.load(series.checkpoints[-1])
    save_tokenizer(tmp_path / "tokenizer")
    text = Text(tmp_path / "tokenizer", series.manifest.model)
    documents = questions(30, 5)
    for i, document in enumerate(documents):
        prompt = text.encode([document["question"] + " "])[0]
        made = engine.generate(prompt[None], 6)[0]
        ids = [[(id + shift) % 95 + 1 for id in made.tolist()] for shift in (0, 40)]
        document["choices"] = [text.decode(row).rstrip() or "x" for row in ids]
        document["choices"].insert(i % 3, text.decode([id for id in made.tolist() if id]).rstrip() or "y")
        document["answer"] = i % 3
    result = run(reader, write_tasks(tmp_path / "tasks", documents), tmp_path / "out", "choosing", shots=0)
    frame = result.frame().query("metric == 'acc,none'").set_index("ckpt")
    assert frame.loc["ckpt_002", "value"] > 0.9
    assert frame["chance"].to_numpy() == pytest.approx(1 / 3)
    assert frame.loc["ckpt_000", "value"] < 0.8


def test_the_mean_of_subjects_is_plain_and_needs_them_all(
    reader: Path, tasks: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis360.evaluations import EvaluationResult
    from analysis360.tasks.leaderboard.suites import Benchmark

    found = run(reader, tasks, out, "choosing,letters")
    both = Benchmark("Both", "pair", 2, "acc,none", ("choosing", "letters"))
    three = Benchmark("Three", "trio", 2, "acc,none", ("choosing", "letters", "numbers"))
    parts = (
        found.series,
        found.checkpoints,
        [both, three],
        found.task,
        found.units,
        found.rows,
        found.report,
    )
    summary = EvaluationResult(*parts).summary().set_index(["ckpt", "benchmark"])
    frame = found.frame().query("metric == 'acc,none'")
    for ckpt, rows in frame.groupby("ckpt"):
        line = summary.loc[(ckpt, "Both")]
        assert line["value"] == pytest.approx(rows["value"].mean())
        assert line["stderr"] == pytest.approx(math.sqrt((rows["stderr"] ** 2).sum()) / 2)
        assert line["n"] == 20
        assert math.isnan(summary.loc[(ckpt, "Three"), "value"])
        assert summary.loc[(ckpt, "Three"), "missing"] == "2 of 3 tasks are stored"


def test_a_tokenizer_of_its_own_is_used_by_its_checkpoint(tmp_path: Path, tasks: Path) -> None:
    root = reading_series(tmp_path / "series", checkpoints=2)
    shutil.rmtree(root / "checkpoints/ckpt_001")
    shutil.copytree(root / "checkpoints/ckpt_000", root / "checkpoints/ckpt_001")
    save_tokenizer(root / "checkpoints/ckpt_001", bos=True)
    result = run(root, tasks, tmp_path / "out", "choosing")
    one, other = (result.questions(f"ckpt_00{i}", "choosing")["logprob"] for i in (0, 1))
    assert result.report.computed == 20  # equal weights, and yet other ids
    assert all(abs(a[0] - b[0]) > 1e-3 for a, b in zip(one, other, strict=True))
    told = result.provenance().set_index("checkpoint")["add_bos"]
    assert dict(told) == {"ckpt_000": "False", "ckpt_001": "True"}


def test_the_manifest_decides_on_bos_and_prefix(tmp_path: Path, tasks: Path) -> None:
    root = reading_series(tmp_path / "series", checkpoints=1)
    save_tokenizer(root / "checkpoints/ckpt_000", bos=True)
    manifest = root / "series.toml"
    as_is = run(root, tasks, tmp_path / "out", "choosing,reading")
    manifest.write_text(
        manifest.read_text().replace("[model]", "[model]\nadd_bos = false\nprefix_token_id = 7")
    )
    without = run(root, tasks, tmp_path / "out", "choosing,reading")
    assert without.report.computed == as_is.report.computed == 20
    told = without.provenance().iloc[-1]
    assert (told["add_bos"], told["prefix_token_id"]) == ("False", "7")


def test_errors_say_what_to_do(reader: Path, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"lm-eval has no chosing"):
        run(reader, tasks, tmp_path, "chosing")
    with pytest.raises(SelectionError, match="named twice"):
        run(reader, tasks, tmp_path, "letters,letters")
    with pytest.raises(SelectionError, match="is no folder of lm-eval task files"):
        run(reader, tmp_path / "none", tmp_path, "letters")
    with pytest.raises(NotStoredError, match="run `analysis360 leaderboard` first"):
        run(reader, tasks, tmp_path, "letters", compute=False)
    long = questions(3, 0)
    long[1]["choices"][2] = "x" * (WINDOW + 1)
    with pytest.raises(DataError, match=rf"task choosing, question 1, choice 2: .* the model reads {WINDOW}"):
        run(reader, write_tasks(tmp_path / "long", long), tmp_path, "choosing")


def test_tasks_that_run_programs_are_refused(reader: Path, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    text = (folder / "writing.yaml").read_text()
    (folder / "writing.yaml").write_text(text + "unsafe_code: true\n")
    with pytest.raises(SelectionError, match="use `analysis360 code`"):
        run(reader, folder, tmp_path, "writing")


def test_a_series_without_tokenizer(make_series: Any, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer in"):
        run(make_series("bare", checkpoints=1), tasks, tmp_path, "letters")


def test_the_command_prints_a_table(
    reader: Path, tasks: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--series", reader, "--include", tasks, "--engine", "torch", "--out", out, "--quiet"]
    words += ["--tasks", "choosing,letters", "--shots", "2"]
    assert main(["leaderboard", *map(str, words)]) == 0
    said = capsys.readouterr().out
    assert "ckpt_002" in said
    assert "cannot be told from guessing" in said
    assert main(["leaderboard", *map(str, words), "--limit", "0"]) == 2


def test_models_stand_in_one_table(
    reader: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names of the leaderboard's tasks over small data."""
    folder = write_tasks(tmp_path / "tasks")
    text = (folder / "choosing.yaml").read_text()
    for name in ("arc_challenge", "hellaswag"):
        (folder / f"{name}.yaml").write_text(text.replace("task: choosing", f"task: {name}"))
    single = str(reader / "checkpoints/ckpt_000")
    words = ["--models", f"{reader}:1", single, "--tasks", "arc,hellaswag", "--shots", "1"]
    words += ["--include", str(folder), "--engine", "torch", "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["leaderboard", *words]) == 0
    said = capsys.readouterr().out
    assert "AMBERCHAT" in said
    assert "reader ckpt_001" in said
    assert "| ckpt_000 " in said


def test_no_accuracy_is_made_of_answers_that_are_no_numbers(tasks: Path) -> None:
    from analysis360.tasks.leaderboard.outcomes import outcome_table
    from analysis360.tasks.leaderboard.questions import load_questions
    from analysis360.tasks.leaderboard.suites import benchmarks

    (questions_,) = load_questions(benchmarks("letters", 0), include=tasks, seed=0).sets
    questions_.build(2)
    answers = [(-1.0, False), (-2.0, False), (-3.0, False), *[(math.nan, False)] * 3]
    first, second = outcome_table(questions_, 0, 2, answers)["value"].to_pylist()
    assert all(math.isfinite(value) for value in first)
    assert all(math.isnan(value) for value in second)


def test_what_settings_of_a_tokenizer_change_is_noticed(tmp_path: Path) -> None:
    digests = set()
    for name, more in (("a", {}), ("b", {"split_special_tokens": True}), ("c", {"note": "none"})):
        save_tokenizer(tmp_path / name)
        file = tmp_path / name / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | more))
        digests.add(Text(tmp_path / name, a360.open_series(reading(tmp_path)).manifest.model).digest)
    assert len(digests) == 2


def reading(tmp_path: Path) -> Path:
    root = tmp_path / "series"
    return root if root.exists() else reading_series(root, checkpoints=1)


def test_code_that_a_task_calls_is_part_of_what_is_asked(reader: Path, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "utils.py").write_text(
        "from functools import partial\n\ndef share(n):\n    return 1 / n\n\n"
        "def judge(doc, results, n):\n    return {'acc': share(n)}\n\nprocess_results = partial(judge, n=4)\n"
    )
    text = (
        (folder / "choosing.yaml")
        .read_text()
        .replace("  - {metric: acc_norm, aggregation: mean, higher_is_better: true}\n", "")
    )
    (folder / "choosing.yaml").write_text(text + "process_results: !function utils.process_results\n")
    command = [
        sys.executable,
        "-m",
        "analysis360.cli",
        "leaderboard",
        "--series",
        str(reader),
        "--ckpts",
        "0",
    ]
    command += [
        "--tasks",
        "choosing",
        "--include",
        str(folder),
        "--engine",
        "torch",
        "--out",
        str(tmp_path / "out"),
    ]
    said = []
    for change in ("", "", "return 2 / n"):
        source = (folder / "utils.py").read_text()
        (folder / "utils.py").write_text(source.replace("return 1 / n", change or "return 1 / n"))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "25.0" in said[0]
    assert "nothing to compute" in said[1]
    assert "10 questions scored" in said[2]
    assert "50.0" in said[2]


def test_a_task_that_wants_no_examples_is_shown(reader: Path, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    text = (folder / "choosing.yaml").read_text()
    (folder / "arc_challenge.yaml").write_text(
        text.replace("task: choosing", "task: arc_challenge") + "num_fewshot: 0\n"
    )
    line = run(reader, folder, tmp_path / "out", "arc", ckpts="0", shots=3).summary().iloc[0]
    assert line["missing"] == ""
    assert line["value"] >= 0


def test_checkpoints_that_cannot_be_compared_are_named(reader: Path, tasks: Path, tmp_path: Path) -> None:
    run(reader, tasks, tmp_path / "out", "choosing", ckpts="0", limit=3)
    run(reader, tasks, tmp_path / "out", "choosing", ckpts="1:3")
    notes = run(reader, tasks, tmp_path / "out", "choosing", compute=False).notes
    assert any("3 to 10 questions are stored" in note for note in notes)
    other = write_tasks(tmp_path / "other", questions(10, 8))
    run(reader, other, tmp_path / "out", "choosing", ckpts="1")
    notes = run(reader, tasks, tmp_path / "out", "choosing", compute=False).notes
    assert any(
        "checkpoints were not asked the same: ckpt_000 and 1 more against ckpt_001" in note for note in notes
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [("num_beams: 5", "asks for num_beams 5"), ("max_new_tokens: 500", "asks for 500 new ids")],
)
def test_ways_of_writing_that_engines_have_not(
    reader: Path, tmp_path: Path, settings: str, message: str
) -> None:
    folder = write_tasks(tmp_path / "tasks")
    text = (folder / "writing.yaml").read_text().replace("max_gen_toks: 12, ", f"{settings}, ")
    (folder / "writing.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        run(reader, folder, tmp_path / "out", "writing", ckpts="0")


def test_a_checkpoint_without_tokenizer_does_not_stop_the_others(tmp_path: Path, tasks: Path) -> None:
    root = reading_series(tmp_path / "series", checkpoints=3)
    (root / "checkpoints/ckpt_001/tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="ckpt_001: no tokenizer in"):
        run(root, tasks, tmp_path / "out", "letters")
    found = run(root, tasks, tmp_path / "out", "letters", compute=False)
    assert found.frame()["ckpt"].unique().tolist() == ["ckpt_000", "ckpt_002"]


def test_text_of_two_tokenizers_is_not_written_in_one_run(tmp_path: Path, tasks: Path) -> None:
    root = reading_series(tmp_path / "series", checkpoints=2)
    save_tokenizer(root / "checkpoints/ckpt_001", bos=True)
    with pytest.raises(SelectionError, match="do not all have one tokenizer"):
        run(root, tasks, tmp_path / "out", "writing")


def test_answers_that_are_all_alike_are_no_certainty() -> None:
    import pandas as pd

    from analysis360.tables import _at_chance, _percent

    line = {"benchmark": "ARC", "metric": "acc", "value": 0.0, "stderr": 0.0, "n": 3, "chance": 0.25}
    summary = pd.DataFrame([line, line | {"value": 1.0, "n": 300}])
    assert _percent(next(summary.itertuples())) == "0.0 [0.0, 56.1]"
    assert _at_chance(summary) == ["ARC, acc: 1 of 2 checkpoints cannot be told from guessing (95 %)"]
