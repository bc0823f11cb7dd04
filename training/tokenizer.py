"""A byte-level BPE: every text comes back as it was. One special token, end of sequence; there is no BOS."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["EOS", "EOS_ID", "tokenizer_files", "train_tokenizer"]

EOS = "</s>"
EOS_ID = 0


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
