"""What lm-eval's own `hf` backend says of a fixed subset of real tasks: the numbers others must agree with.

    python tests/oracle.py [--documents 20] [--out tests/golden/oracle.json]

SmolLM2-135M at batch 1 in float32, with the shots of lm-eval's group `openllm`. Of each task the first
documents are taken, since lm-eval draws shots document after document from one seed: in a full run they get
the same. Kept are log-likelihoods, greedy flags and lm-eval's own metrics; of each request's text a hash alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pretrained import NAME, smollm2
from real_tasks import SHOTS, tasks

GOLDEN = Path(__file__).with_name("golden") / "oracle.json"
SUBJECTS = (
    "abstract_algebra",
    "high_school_european_history",
    "moral_scenarios",
    "nutrition",
    "sociology",
)
"""Of MMLU: all four groups of subjects; contexts from 200 to 3,000 tokens."""
SEED = 1234
"""Of the shots: what lm-eval's command line has when none is given."""
COLUMNS = ("task", "document", "choice", "text", "context_ids", "continuation_ids", "logprob", "greedy")
"""Of a request: `text` is `text_hash`, `*_ids` are counts."""


def text_hash(context: str, continuation: str) -> str:
    """16 hexadecimal digits that stand for a request."""
    return hashlib.sha256(f"{context}\0{continuation}".encode()).hexdigest()[:16]


def subset(documents: int) -> dict[str, list[int]]:
    """Documents of each task; those of MMLU are shared out among its subjects."""
    mmlu = {f"mmlu_{subject}": list(range(-(-documents // len(SUBJECTS)))) for subject in SUBJECTS}
    return {name: list(range(documents)) for name in SHOTS if name != "mmlu"} | mmlu


def load(names: list[str]) -> Any:
    """What lm-eval's TaskManager loads of the tasks, with their shots and seed."""
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_defaults=False, include_path=str(tasks())).load(names)
    for name, task in loaded["tasks"].items():
        task.set_config("num_fewshot", SHOTS["mmlu" if name.startswith("mmlu_") else name])
        task.set_fewshot_seed(SEED)
    return loaded


def ask(documents: int) -> dict[str, Any]:
    """The whole of the golden file."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    chosen = subset(documents)
    lm = HFLM(pretrained=str(smollm2()), dtype="float32", batch_size=1, device="cpu")
    found = evaluate(lm, load(list(chosen)), samples=chosen, bootstrap_iters=0)
    results = {name: found["results"][name] for name in sorted(chosen)}
    packages = ("datasets", "lm-eval", "tokenizers", "torch", "transformers")
    return {
        "model": NAME,
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "settings": {
            "backend": "hf",
            "batch": 1,
            "dtype": "float32",
            "bos_prepended": lm.tok_encode("a")[0] == lm.tokenizer.bos_token_id,
            "prefix_id": lm.prefix_token_id,
            "max_length": lm.max_length,
            "shots": SHOTS,
            "seed": SEED,
        },
        "metrics": {name: _metrics(result) for name, result in results.items()},
        "columns": COLUMNS,
        "requests": [row for name in sorted(chosen) for row in _rows(lm, name, found["samples"][name])],
    }


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    """As fractions."""
    return {key: float(result[f"{key},none"]) for key in ("acc", "acc_norm") if f"{key},none" in result}


def _rows(lm: Any, task: str, samples: list[dict[str, Any]]) -> Iterator[list[Any]]:
    for sample in sorted(samples, key=lambda sample: int(sample["doc_id"])):
        pairs = zip(sample["arguments"], sample["filtered_resps"], strict=True)
        for choice, ((context, continuation), (logprob, greedy)) in enumerate(pairs):
            counts = [len(ids) for ids in lm._encode_pair(context, continuation)]
            said = [round(float(logprob), 6), bool(greedy)]
            yield [task, sample["doc_id"], choice, text_hash(context, continuation), *counts, *said]


def write(path: Path, golden: dict[str, Any]) -> None:
    """One line a request, so that a change can be read."""
    head = json.dumps({key: value for key, value in golden.items() if key != "requests"}, indent=1)
    rows = ",\n  ".join(json.dumps(row) for row in golden["requests"])
    path.write_text(f'{head[:-2]},\n "requests": [\n  {rows}\n ]\n}}\n')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask lm-eval's own backend; some ten minutes on two cores.")
    parser.add_argument("--documents", type=int, default=20, help="of each task (20)")
    parser.add_argument("--out", type=Path, default=GOLDEN, help=f"the file written ({GOLDEN})")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = (
        "1"  # before anything of theirs is loaded
    )
    write(arguments.out, ask(arguments.documents))
