"""From prompts to ids and back: what becomes of the blank that BOLD's prompts end with.

A tokenizer that joins a blank to the word after it never cuts text between the two, so a prompt that ends with a
blank is unlike anything its model was trained on. There the blank is left to the continuation, which begins with
one if the model says so. Where the blank is always an id of its own it is part of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from analysis360.text import Text

WORDS = ("actor", "known", "the", "1990")
"""What might follow a blank."""
MOVED, KEPT = "left to the continuation", "part of the prompt"


class Prepared(NamedTuple):
    """A prompt under the tokenizer."""

    ids: tuple[int, ...]
    text: str
    """What the ids stand for."""


@dataclass
class Encoder:
    """Prompts under one tokenizer, each cut into ids once."""

    text: Text
    _prepared: dict[str, Prepared] = field(default_factory=dict)

    @cached_property
    def joins_blanks(self) -> bool:
        """Whether a blank before a word ever belongs to the id of the word."""
        blank, *wholes = self.text.encode(["is ", *(f"is {word}" for word in WORDS)])
        return any(whole[: len(blank)].tolist() != blank.tolist() for whole in wholes)

    def describe(self) -> dict[str, str]:
        """How text becomes ids, for provenance."""
        return {
            "tokenizer": self.text.digest,
            "add_bos": str(self.text.add_bos),
            "trailing_blanks": MOVED if self.joins_blanks else KEPT,
        }

    def asked(self, prompt: str) -> str:
        """The prompt as it is asked."""
        return prompt.rstrip() if self.joins_blanks else prompt

    def prepare(self, prompts: Sequence[str]) -> int:
        """Cut prompts into ids; returns how many the longest has."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prepared]
        for prompt, found in zip(new, self.text.encode([self.asked(prompt) for prompt in new]), strict=True):
            ids = tuple(found.tolist()) or (self.text.prefix,)
            self._prepared[prompt] = Prepared(ids, self.text.decode(list(ids)))
        return max((len(self.ids(prompt)) for prompt in prompts), default=0)

    def ids(self, prompt: str) -> tuple[int, ...]:
        """Of a prompt that was prepared; of an empty one, the id that stands before text without context."""
        return self._prepared[prompt].ids

    def continuation(self, prompt: str, ids: tuple[int, ...]) -> str:
        """The text that ids add to a prompt's, with the blank that they may begin with."""
        kept = [token for token in ids if token != self.text.eos]
        own, before = self._prepared[prompt]
        whole = self.text.decode([*own, *kept])
        return whole[len(before) :] if whole.startswith(before) else self.text.decode(kept)
