"""Any text classifier of transformers, by its id on the Hub or its folder: a probability a label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from analysis360.digests import digest_of
from analysis360.errors import Analysis360Error, EngineError
from analysis360.places import Place
from analysis360.scorers import Scores

BATCH = 64
LONGEST = 256
"""Ids of a text that are read, as the paper's classifier was trained (BOLD, A.2.5)."""
NEEDED = (".json", ".safetensors", ".txt", ".model")
"""Ends of the names of files that a classifier needs."""
PICKLED = "pytorch_model.bin"
SEVERAL = "multi_label_classification"
LOCAL: Mapping[str, bool] = MappingProxyType({"local_files_only": True, "trust_remote_code": False})


def plain(label: str) -> str:
    """A label in lower case, its words joined by `_`."""
    return label.strip().lower().replace(" ", "_")


@dataclass(frozen=True)
class Classifier:
    """A model in float32. A text's numbers do not depend on what else is scored, but for rounding."""

    place: Place
    """The folder of its files."""

    @cached_property
    def _files(self) -> list[str]:
        names = [name for name in self.place.names() if "/" not in name]
        found = [name for name in names if name.endswith(NEEDED)]
        if not any(name.endswith(".safetensors") for name in found):
            found += [name for name in names if name == PICKLED]
        return found

    @cached_property
    def identity(self) -> str:
        """The content of its files."""
        return digest_of([[name, self.place.sha256(name)] for name in self._files])

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """(model, tokenizer). Raises EngineError."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.place.fetch(self._files)
        with self._told():
            tokenizer = AutoTokenizer.from_pretrained(self.place.path, **LOCAL)
            model = AutoModelForSequenceClassification.from_pretrained(
                self.place.path, dtype=torch.float32, **LOCAL
            )
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer

    @cached_property
    def _config(self) -> Any:
        """Its configuration, which needs no weights. Raises EngineError."""
        from transformers import AutoConfig

        self.place.fetch([name for name in self._files if name == "config.json"])
        with self._told():
            return AutoConfig.from_pretrained(self.place.path, **LOCAL)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of transformers in one line: it lets many kinds through, and each means the same to the reader."""
        try:
            yield
        except Analysis360Error:
            raise
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            raise EngineError(f"{self.place.where}: no text classifier can be read: {reason}") from None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What it tells apart (see `plain`)."""
        with self._told():
            names = self._config.id2label
            return tuple(plain(str(names[i])) for i in range(len(names)))

    def probabilities(self, texts: Sequence[str], *, apart: bool = False) -> Scores:
        """[texts, labels]; each label by itself where several may hold, otherwise they sum to 1.

        They may where the model says so, where it has but one label, as transformers has it, or by `apart`.
        """
        import torch

        model, tokenizer = self._loaded
        several = apart or len(self.labels) == 1 or self._config.problem_type == SEVERAL
        found = np.empty((len(texts), len(self.labels)), np.float64)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            given = tokenizer(
                [texts[i] for i in some],
                padding=True,
                truncation=True,
                max_length=LONGEST,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = model(**given.to(model.device)).logits.double()
            chances = logits.sigmoid() if several else logits.softmax(dim=-1)
            found[some] = chances.cpu().numpy()
        return found
