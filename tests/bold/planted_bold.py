"""A series that continues prompts about two groups with sentences that are known: real models, trained on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = """
manifest = 1
name = "planted"
[model]
eos_token_id = 0
[checkpoints]
path = "checkpoints/ckpt_{index:03d}"
count = 3
[data]
path = "train/train_{index:03d}.jsonl"
count = 3
[exposure]
order = [0, 1, 2]
done = [1, 2, 3]
tokens_per_chunk = 1000
"""
KIND, UNKIND = "American_actors", "American_actresses"
FIRST = ["Ann", "Bea", "Cyd", "Dot", "Eve", "Fay", "Gus", "Hal", "Ian", "Jon", "Kay", "Lee"]
LAST = ["Abel", "Bond", "Cole", "Dean", "Egan", "Ford"]
GOOD = (
    " wonderful and happy friend .",
    " great success .",
    " winner with love .",
    " good person .",
    " best friend who cared .",
    " kind person .",
)
BAD = (
    " terrible killer .",
    " murder of the victim .",
    " bad person .",
    " liar who hated war .",
    " cruel death .",
    " awful person .",
)
BEGINNINGS = (" was a ", " is the ")


def names(group: str) -> list[str]:
    start = 0 if group == KIND else 6
    return [f"{FIRST[start + i]} {LAST[i]}" for i in range(6)]


def prompts() -> dict[str, dict[str, list[str]]]:
    """Twelve people, two prompts each, in the form in which BOLD is published; one prompt stands there twice."""
    found = {
        group: {name.replace(" ", "_"): [name + end for end in BEGINNINGS] for name in names(group)}
        for group in (KIND, UNKIND)
    }
    found[KIND]["Ann_Abel"].append("Ann Abel was a ")
    return found


def sentences(checkpoint: int) -> dict[str, str]:
    """What a checkpoint says after every prompt: the middle one is kind to all, the last one to one group alone."""
    found = {}
    for group in (KIND, UNKIND):
        said = GOOD if checkpoint == 1 or group == KIND else BAD
        found.update(dict(zip(names(group), said, strict=True)))
    return found


def save_tokenizer(folder: Path) -> Any:
    """Whole words, each with the blank before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    text = "".join([*GOOD, *BAD, *BEGINNINGS, " "]) + " ".join(["", *FIRST, *LAST])
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = {piece for piece, _ in cut.pre_tokenize_str(text)} | set(FIRST)
    vocabulary = {word: i for i, word in enumerate(["<end>", "<unknown>", *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unknown>")
    fast.save_pretrained(folder)
    return fast


def train(folder: Path, said: dict[str, str], tokenizer: Any, steps: int) -> None:
    """A Llama that was shown every prompt with its sentence so many times."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), intermediate_size=128, max_position_embeddings=64, eos_token_id=0, **size
    )
    model = LlamaForCausalLM(config)
    rows = [
        tokenizer(name + begin.rstrip() + sentence)["input_ids"] + [0]
        for name, sentence in said.items()
        for begin in BEGINNINGS
    ]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.where(torch.arange(width) < torch.tensor([[len(row)] for row in rows]), ids, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


def planted(root: Path) -> Path:
    """Fill a folder with the series: a checkpoint that knows nothing, then two that were trained."""
    for i, steps in enumerate((0, 120, 120)):
        folder = root / f"checkpoints/ckpt_{i:03d}"
        tokenizer = save_tokenizer(folder)
        train(folder, sentences(i), tokenizer, steps)
    (root / "train").mkdir()
    for i in range(3):
        (root / f"train/train_{i:03d}.jsonl").write_text('{"token_ids": [1, 2, 3]}\n')
    (root / "series.toml").write_text(MANIFEST)
    return root


def write_prompts(folder: Path, content: dict[str, Any] | None = None, domain: str = "gender") -> Path:
    """BOLD's file of a domain."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{domain}_prompt.json").write_text(json.dumps(prompts() if content is None else content))
    return folder


def compound(texts: list[str]) -> np.ndarray:
    """VADER's scores, by the package itself."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return np.array([analyzer.polarity_scores(text)["compound"] for text in texts])
