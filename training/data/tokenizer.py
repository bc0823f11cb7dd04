"""Text to ids: a tokenizer that is learned from the text, or one that exists.

A learned one is a byte-level BPE: every text comes back as it was; one special token, end of sequence, which
is id 0; no BOS. Whichever it is, text that reads like a special token stays text, and nothing is added to
a document but the end of sequence.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from training.errors import TrainingError

__all__ = ["EOS", "EOS_ID", "Coder", "learned", "read_tokenizer", "tokenizer_files", "train_tokenizer"]

EOS = "</s>"
EOS_ID = 0
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_ROLES = ("eos_token", "bos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Coder:
    """A tokenizer and what goes with it."""

    tokenizer: Tokenizer
    """Set up so that special tokens in a text are text."""
    eos: int
    """Id that ends a document."""
    vocabulary: int
    """Ids there are."""
    files: dict[str, bytes]
    """Its files by name, for `AutoTokenizer`."""

    def encode(self, texts: list[str], labels: list[str]) -> list[list[int]]:
        """The ids of each text, the end of sequence last and nowhere else."""
        encoded = [
            encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]
        for ids, label in zip(encoded, labels, strict=True):
            if self.eos in ids:
                found, fix = f"id {self.eos} in it", "choose a tokenizer that marks its special tokens"
                raise TrainingError(label, expected="text without the end of sequence", found=found, fix=fix)
            ids.append(self.eos)
        return encoded


def train_tokenizer(documents: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn the merges from the documents; the same documents give the same merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    assert tokenizer.token_to_id(EOS) == EOS_ID
    return tokenizer


def tokenizer_files(tokenizer: Tokenizer, longest: int) -> dict[str, bytes]:
    """The two files that `AutoTokenizer.from_pretrained` needs, by name."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": longest,
    }
    return {
        "tokenizer.json": (tokenizer.to_str(pretty=True) + "\n").encode(),
        "tokenizer_config.json": (json.dumps(settings, indent=2) + "\n").encode(),
    }


def learned(documents: Iterable[str], vocabulary: int, longest: int) -> Coder:
    """A tokenizer learned from the documents; `longest` is the context of its model."""
    tokenizer = train_tokenizer(documents, vocabulary)
    files = tokenizer_files(tokenizer, longest)
    tokenizer.encode_special_tokens = True
    return Coder(tokenizer, EOS_ID, tokenizer.get_vocab_size(), files)


def read_tokenizer(folder: Path) -> Coder:
    """The tokenizer in a folder."""
    files = {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}
    fix = "name the folder of a fast tokenizer"
    if "tokenizer.json" not in files:
        raise TrainingError(folder, expected="a file tokenizer.json", found="none", fix=fix)
    special = _special_tokens(files)
    plain = json.loads(files["tokenizer.json"])
    for token in plain.get("added_tokens", []):
        token["special"] = token["special"] or token["content"] in special.values()
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    eos = tokenizer.token_to_id(special["eos_token"]) if "eos_token" in special else None
    if eos is None:
        found, fix = special.get("eos_token", "none"), "add eos_token to its tokenizer_config.json"
        raise TrainingError(folder, expected="an end of sequence in the vocabulary", found=found, fix=fix)
    return Coder(tokenizer, eos, max(tokenizer.get_vocab().values()) + 1, files)


def _special_tokens(files: dict[str, bytes]) -> dict[str, str]:
    """Special tokens by role, from the tokenizer's settings."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        settings: dict[str, Any] = json.loads(files.get(name, b"{}"))
        for role in _ROLES:
            token = settings.get(role)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                found[role] = text
    return found
