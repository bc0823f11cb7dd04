"""The leaderboard over checkpoints, beside lm-eval's own backends run once a checkpoint.

    python tests/benchmarks/evaluations.py [--quick]

8 checkpoints of a small Llama (19 M parameters, two thirds of them its embedding; a window of 2048 ids; the
tokenizer of SmolLM2), with random weights, for what they answer takes as long as what others would. Real questions,
20 of each task, with the shots of the 2023 leaderboard: ARC (25), HellaSwag (10), TruthfulQA (0) and five subjects
of MMLU (5). Ours is one command with nothing stored before. A peer is a process a checkpoint: lm-eval with its `hf`
backend, at the batch size that was best of several, and with its `vllm` backend as it comes. One of the 8 is run and
multiplied. Both find the tasks in a folder, so that neither reads the index of all that lm-eval ships (16 s).
All must give the same accuracies, or there is no result.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from harness import Contestant, Line, Rounds, Run, alone, command, median, once, ratio, take_turns
from materials import SEVEN, altered, random_llama, write_chunk, write_manifest

SUBJECTS = ("abstract_algebra", "high_school_european_history", "moral_scenarios", "nutrition", "sociology")
SHOTS = {"arc_challenge": 25, "hellaswag": 10, "truthfulqa_mc2": 0} | {f"mmlu_{name}": 5 for name in SUBJECTS}
BATCHES = (1, 4, 8, 16)
"""Of the hf backend, tried once each; 32 sequences' logits do not fit 24 GiB."""
SAME = 0.051
"""Accuracies of two contestants may differ by so much: one of 20 questions, whose choices nearly tie."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def peer(backend: str, folder: str, tasks: str, limit: int, batch: int | str) -> dict[str, Any]:
    """lm-eval's own backend and evaluator on one checkpoint, and where its time went."""
    marks = [time.perf_counter()]
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count())}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; its default takes half of the machine
    from lm_eval.api.registry import get_model
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    if backend == "vllm":
        from vllm.platforms import current_platform

        assert (
            current_platform.device_type == "cpu"
        )  # found by its own name, before another is put in its place
    plain = metadata.version  # lm-eval looks for the package for GPUs, and would not start
    with mock.patch.object(metadata, "version", lambda name: plain("vllm-cpu" if name == "vllm" else name)):
        kind = get_model(backend)
    given: dict[str, Any] = {"pretrained": folder, "dtype": "float32", "batch_size": batch}
    model = kind(**given | ({"device": "cpu"} if backend == "hf" else {"max_model_len": 2048}))
    marks.append(time.perf_counter())
    loaded = TaskManager(include_defaults=False, include_path=tasks).load(list(SHOTS))
    for name, task in loaded["tasks"].items():
        task.set_config("num_fewshot", SHOTS[name])
        task.set_fewshot_seed(1234)
    marks.append(time.perf_counter())
    found = evaluate(model, loaded, limit=limit, bootstrap_iters=0)
    marks.append(time.perf_counter())
    model_s, tasks_s, evaluate_s = (later - earlier for earlier, later in pairwise(marks))
    accuracy = {name: found["results"][name]["acc,none"] for name in SHOTS}
    return {"start": model_s, "tasks": tasks_s, "evaluate": evaluate_s, "accuracy": accuracy}


def ours(series: Path, tasks: Path, limit: int, engine: str) -> Contestant:
    """The command, with an empty store at each turn."""
    names = ",".join(f"{name}@{shots}" for name, shots in SHOTS.items())
    words = [
        sys.executable,
        "-m",
        "analysis360.cli",
        "leaderboard",
        "--series",
        str(series),
        "--tasks",
        names,
    ]
    words += ["--limit", str(limit), "--include", str(tasks), "--engine", engine, "--dtype", "float32"]

    def run() -> Run:
        with tempfile.TemporaryDirectory() as out:
            done = command([*words, "--out", out])()
            file = next(Path(out).glob("*/lm-eval/*/000/*.json"))
            results = json.loads(file.read_text())["results"]
        accuracy = {name: results[name]["acc,none"] for name in SHOTS}
        return replace(done, facts=done.facts | {"accuracy": accuracy})

    return run


def as_many(contestant: Contestant, checkpoints: int) -> Contestant:
    """A contestant that ran one checkpoint of so many."""

    def run() -> Run:
        one = contestant()
        return replace(one, seconds=one.seconds * checkpoints)

    return run


def expect_same(one: dict[str, Run]) -> None:
    """Stop where a contestant did other work than ours."""
    for who, run in one.items():
        for name, value in run.facts["accuracy"].items():
            if abs(value - one["ours, torch"].facts["accuracy"][name]) > SAME:
                raise SystemExit(f"{who} has {value} on {name}: {one['ours, torch'].facts['accuracy']}")


def make_series(folder: Path, checkpoints: int) -> None:
    """Random checkpoints that bring a tokenizer."""
    from pretrained import smollm2

    shape = {**SEVEN, "num_hidden_layers": 6, "vocab_size": 49152, "max_position_embeddings": 2048}
    once(random_llama, folder=str(folder / "model"), tie_word_embeddings=True, **shape)()
    once(altered, source=str(folder / "model"), folder=str(folder / "checkpoints"), copies=checkpoints)()
    for place in (folder / "checkpoints").iterdir():
        for name in TOKENIZER:
            if (smollm2() / name).exists():
                shutil.copyfile(smollm2() / name, place / name)
    write_chunk(folder / "train/000.jsonl", 0, 2, 65, 1000)
    write_manifest(folder, "bench", checkpoints, 1, 65)


def where_ours_went(run: Run, checkpoints: int) -> str:
    """From what the command printed: start-up, tokens, sharing."""
    said = run.facts["said"]
    parts = re.findall(
        r"questions loaded in [\d.]+ s|built and cut into ids in [\d.]+ s|\(([\d.]+) times fewer\)", said
    )
    found = [
        re.search(p, said)
        for p in (r"loaded in ([\d.]+) s", r"into ids in ([\d.]+) s", r"generate ([\d.]+) s")
    ]
    loaded, cut, generate = (float(one[1]) if one else float("nan") for one in found)
    fewer = next((one for one in parts if one), "?")
    return (
        f"of ours {run.seconds:.0f} s: questions {loaded:.0f} s, ids {cut:.1f} s, answers {generate:.0f} s for "
        f"{checkpoints} checkpoints, start-up and the rest {run.seconds - loaded - cut - generate:.0f} s; what prompts "
        f"share is read once: {fewer} times fewer ids"
    )


def lines(quick: bool) -> list[Line]:
    """One command against a process a checkpoint."""
    from real_tasks import tasks

    checkpoints, limit, repeats = (2, 1, 1) if quick else (8, 20, 3)
    with tempfile.TemporaryDirectory() as scratch:
        folder, include = Path(scratch), tasks()
        make_series(folder, checkpoints)
        given = {"folder": str(folder / "checkpoints/000"), "tasks": str(include), "limit": limit}
        tried = {
            n: once(peer, backend="hf", batch=n, **given)().seconds
            for n in (BATCHES[:1] if quick else BATCHES)
        }
        best = min(tried, key=tried.__getitem__)
        contestants = {
            "ours, torch": ours(folder, include, limit, "torch"),
            "ours, vllm": ours(folder, include, limit, "vllm"),
            "hf": as_many(once(peer, backend="hf", batch=best, **given), checkpoints),
            "vllm": as_many(once(peer, backend="vllm", batch="auto", **given), checkpoints),
        }
        rounds = take_turns(contestants, repeats)
    for one in rounds:
        expect_same(one)
    return [*beside(rounds, checkpoints, tried), sharing(rounds)]


def beside(rounds: Rounds, checkpoints: int, tried: dict[int, float]) -> list[Line]:
    """Ours against each peer."""
    batches = ", ".join(f"{n}: {seconds:.0f} s" for n, seconds in tried.items())
    best = min(tried, key=tried.__getitem__)
    about = {
        "hf": (2.5, f"batch {best}, the best of {batches} a checkpoint"),
        "vllm": (5.0, "as it comes"),
    }
    found = []
    for who, (goal, how) in about.items():
        facts = rounds[-1][who].facts
        spent = ", ".join(f"{part} {facts[part]:.0f} s" for part in ("start", "tasks", "evaluate"))
        detail = (
            f"{median(rounds, 'ours, torch'):.0f} s and {median(rounds, who):.0f} s, from 1 of {checkpoints}"
        )
        detail += f" ({how}; {spent} of each)"
        what = f"{checkpoints} checkpoints, four tasks: leaderboard (torch) beside lm-eval, {who}"
        found.append(Line(what, ratio(rounds, who, "ours, torch"), at_least=goal, detail=detail))
    detail = f"{median(rounds, 'ours, vllm'):.0f} s"
    what = f"{checkpoints} checkpoints, four tasks: leaderboard (vllm) beside lm-eval, vllm"
    return [*found, Line(what, ratio(rounds, "vllm", "ours, vllm"), detail=detail)]


def sharing(rounds: Rounds) -> Line:
    """Where ours went, as a line without a goal."""
    from harness import figure

    run = rounds[-1]["ours, torch"]
    checkpoints = run.facts["said"].count("\n0")
    share = figure(
        rounds, lambda one: generated(one["ours, torch"]) / one["ours, torch"].seconds, "ours, torch"
    )
    return Line(
        "the same: share of the time that the engine answered",
        share,
        "%",
        detail=where_ours_went(run, checkpoints),
    )


def generated(run: Run) -> float:
    """Seconds in which the engine answered."""
    found = re.search(r"generate ([\d.]+) s", run.facts["said"])
    return float(found[1]) if found else float("nan")


if __name__ == "__main__":
    alone(lines, __doc__)
