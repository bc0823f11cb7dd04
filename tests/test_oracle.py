"""The oracle's file: its texts are those of today's tasks, its metrics follow from its numbers, the model says so."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretrained import smollm2
from wheels import UnavailableError

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'analysis360[leaderboard]'")
from oracle import COLUMNS, GOLDEN, load, text_hash

AGAIN = 6
"""Requests asked again, the shortest ones."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_text())
    found["requests"] = [dict(zip(found["columns"], row, strict=True)) for row in found["requests"]]
    return found


@pytest.fixture(scope="module")
def tasks(golden: dict[str, Any]) -> dict[str, Any]:
    """The golden file's tasks, with the requests of the documents that it has."""
    last: dict[str, int] = {}
    for row in golden["requests"]:
        last[row["task"]] = max(row["document"], last.get(row["task"], 0))
    try:
        loaded: dict[str, Any] = load(list(last))["tasks"]
    except UnavailableError as error:
        pytest.skip(str(error))
    for name, task in loaded.items():
        task.build_all_requests(limit=last[name] + 1)
    return loaded


def instances(tasks: dict[str, Any]) -> dict[tuple[str, int, int], Any]:
    return {(name, of.doc_id, of.idx): of for name, task in tasks.items() for of in task.instances}


def test_texts_are_those_that_the_tasks_ask_today(golden: dict[str, Any], tasks: dict[str, Any]) -> None:
    asked = {key: text_hash(*instance.args) for key, instance in instances(tasks).items()}
    kept = {(row["task"], row["document"], row["choice"]): row["text"] for row in golden["requests"]}
    assert tuple(golden["columns"]) == COLUMNS
    assert kept == asked


def test_metrics_follow_from_the_likelihoods(golden: dict[str, Any], tasks: dict[str, Any]) -> None:
    said: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in golden["requests"]:
        said[row["task"], row["document"]].append(row["logprob"])
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (name, document), logprobs in said.items():
        for metric, value in by_hand(tasks[name], name, document, np.array(logprobs)):
            found[name][metric].append(value)
    assert found.keys() == golden["metrics"].keys()
    for name, metrics in golden["metrics"].items():
        assert {
            metric: pytest.approx(np.mean(values), abs=1e-5) for metric, values in found[name].items()
        } == metrics


def by_hand(task: Any, name: str, document: int, logprobs: np.ndarray) -> Iterator[tuple[str, float]]:
    """Of a document: is the likeliest choice right, also by character; the share of probability on true answers."""
    doc = task.eval_docs[document]
    if name == "truthfulqa_mc2":
        probability = np.exp(logprobs - logprobs.max())
        true = np.array(doc["mc2_targets"]["labels"]) == 1
        yield "acc", float(probability[true].sum() / probability.sum())
        return
    if name == "truthfulqa_mc1":
        right = 0
    elif name == "arc_challenge":
        right = doc["choices"]["label"].index(doc["answerKey"])
    else:
        right = int(doc["label"] if name == "hellaswag" else doc["answer"])
    yield "acc", float(np.argmax(logprobs) == right)
    if name in ("arc_challenge", "hellaswag"):
        choices = doc["choices"]["text"] if name == "arc_challenge" else doc["choices"]
        yield "acc_norm", float(np.argmax(logprobs / [len(choice) for choice in choices]) == right)


def test_the_model_says_what_is_written_asked_without_lm_eval(
    golden: dict[str, Any], tasks: dict[str, Any]
) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    try:
        folder = smollm2()
    except UnavailableError as error:
        pytest.skip(str(error))
    threads = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, texts = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), instances(tasks)
    rows = sorted(golden["requests"], key=lambda row: row["context_ids"] + row["continuation_ids"])[:AGAIN]
    for row in rows:
        context, continuation = texts[row["task"], row["document"], row["choice"]].args
        n, ids = len(tokenizer.encode(context).ids), tokenizer.encode(context + continuation).ids
        assert (n, len(ids) - n) == (row["context_ids"], row["continuation_ids"])
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, n - 1 : -1].double()
        target = torch.tensor(ids[n:])
        logprob = logits.log_softmax(-1).gather(1, target[:, None]).sum()
        assert row["logprob"] == pytest.approx(float(logprob), abs=1e-3)
        assert row["greedy"] == bool((logits.argmax(-1) == target).all())
    torch.set_num_threads(threads)
