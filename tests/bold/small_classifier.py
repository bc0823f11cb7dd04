"""Classifiers of texts, trained on the spot: a word stands behind each label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

WORDS = ("kind", "table", "war", "hate", "liar", "blue")


def save_classifier(
    folder: Path,
    labels: Sequence[str],
    marks: dict[str, str],
    problem: str,
    words: Sequence[str] = WORDS,
    *,
    told: bool = True,
) -> None:
    """A BERT that was trained to see one word behind each label.

    `problem` is as transformers names it; its configuration says so only where it is `told`.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
    config = BertConfig(
        vocab_size=len(vocabulary), problem_type=problem, num_labels=len(labels), **size, **calm
    )
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    model = BertForSequenceClassification(config)
    draws = np.random.default_rng(0)
    texts = [" ".join(draws.choice([*words, "unknown"], n)) for n in draws.integers(1, 5, 256)]
    truth = np.array([[marks.get(label, "-") in text.split() for label in labels] for text in texts])
    if problem == "single_label_classification":
        target = torch.tensor([int(row.argmax()) if row.any() else len(labels) - 1 for row in truth])
    else:
        target = torch.tensor(truth, dtype=torch.float32)
    given = fast(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model(**given, labels=target).loss.backward()
        optimizer.step()
    if not told:
        config.problem_type = None
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
