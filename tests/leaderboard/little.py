"""Small tasks for lm-eval, their data beside them, and a series of small models that read characters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from small_series import save_llama, small

CHARACTERS = [chr(code) for code in range(32, 127)]
"""Ids 1 to 95; 0 is EOS. `small_series` has as many ids."""
WINDOW = 128

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}, train: {shots}}}}}
output_type: multiple_choice
test_split: test
training_split: train
doc_to_text: "{text}"
doc_to_target: answer
doc_to_choice: choices
target_delimiter: "{delimiter}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
GROUP = """
group: pair
task: [choosing, letters]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
metadata: {version: 1}
"""
WRITING = """
task: writing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: generate_until
test_split: test
doc_to_text: question
doc_to_target: written
generation_kwargs: {{until: ["{stop}"], max_gen_toks: 12, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
READING = """
task: reading
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: page
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: bits_per_byte}}
metadata: {{version: 1.0}}
"""


def words(rng: np.random.Generator, n: int) -> str:
    """Random words of small letters."""
    return " ".join("".join(rng.choice(list("abcdefghij"), rng.integers(1, 6)).tolist()) for _ in range(n))


def questions(n: int, seed: int) -> list[dict[str, Any]]:
    """Questions with three to five choices of unequal lengths."""
    rng = np.random.default_rng(seed)
    return [
        {
            "question": words(rng, int(rng.integers(2, 8))),
            "choices": [words(rng, int(rng.integers(1, 4))) for _ in range(rng.integers(3, 6))],
            "answer": int(rng.integers(0, 3)),
            "page": words(rng, int(rng.integers(5, 90))),
            "written": words(rng, 1),
        }
        for _ in range(n)
    ]


def write_tasks(folder: Path, documents: list[dict[str, Any]] | None = None, stop: str = "a") -> Path:
    """Task files and their data: `choosing` (shots are drawn), `letters` (one-id choices), `writing`, `reading`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"file": folder / "test.jsonl", "shots": folder / "train.jsonl"}
    rows = questions(10, 0) if documents is None else documents
    files["file"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    files["shots"].write_text("".join(json.dumps(row) + "\n" for row in questions(8, 1)))
    text = {"text": "{{question}}", "delimiter": " "}
    (folder / "choosing.yaml").write_text(CHOICE.format(name="choosing", **text, **files))
    letters = CHOICE.format(name="letters", text="Q {{question}}\\\\nA", delimiter="", **files)
    (folder / "letters.yaml").write_text(
        letters.replace("doc_to_choice: choices", 'doc_to_choice: ["a", "b", "c"]')
    )
    (folder / "pair.yaml").write_text(GROUP)
    (folder / "writing.yaml").write_text(WRITING.format(stop=stop, **files))
    (folder / "reading.yaml").write_text(READING.format(**files))
    return folder


def save_tokenizer(folder: Path, bos: bool = False) -> None:
    """A tokenizer of characters."""
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"</s>": 0} | {character: i for i, character in enumerate(CHARACTERS, 1)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.Fuse()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing("</s> $A", None, [("</s>", 0)])
    special = {"eos_token": "</s>", "bos_token": "</s>"} if bos else {"eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def reading_series(root: Path, checkpoints: int = 3, **config: Any) -> Path:
    """A series whose checkpoints bring a tokenizer."""
    small(root, checkpoints=checkpoints, name="reader")
    for i in range(checkpoints):
        folder = root / f"checkpoints/ckpt_{i:03d}"
        save_llama(folder, i, **config)
        save_tokenizer(folder)
    return root
