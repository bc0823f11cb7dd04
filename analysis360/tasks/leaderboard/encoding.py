"""From lm-eval's requests, which are text, to the ids that an engine is asked about; once a sweep.

As lm-eval's own backends have it: blanks at the end of a context go to its continuation, the two are cut into ids
together, and what is too long for the window is cut from the left. What differs is said by the series: whether text
begins with BOS, and which id stands before text without context (lm-eval takes BOS, which Amber never saw).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis360.engines import Prompt, Request, Sampling
from analysis360.errors import DataError
from analysis360.text import Text

Ids = NDArray[np.int32]
Pair = tuple[str, str]
MOST_NEW = 256
"""Ids generated where a task does not say, as lm-eval has it."""
KNOWN = ("until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k")
"""What engines know of how text is generated."""
NEUTRAL = {"num_beams": 1, "repetition_penalty": 1.0, "min_p": 0.0, "num_return_sequences": 1}
"""Other settings that change nothing."""


class Encoded(NamedTuple):
    """A context and what follows it; the context is as long as the window permits."""

    context: Ids
    continuation: Ids

    def request(self) -> Request:
        """As an engine is asked."""
        return Request(tuple(self.context.tolist()), tuple(self.continuation.tolist()))


@dataclass
class Encoder:
    """Requests under one tokenizer and window, each cut into ids once."""

    text: Text
    window: int
    """Ids the model reads."""
    cut: int = 0
    """Contexts that were longer than the window, and lost their beginning."""
    _pairs: dict[Pair, Encoded] = field(default_factory=dict)
    _rolling: dict[str, list[Encoded]] = field(default_factory=dict)
    _contexts: dict[str, Ids] = field(default_factory=dict)

    def prepare(self, instances: Iterable[Any]) -> int:
        """Encode what is new among lm-eval's instances; returns ids of the longest sequence an engine will see."""
        by_kind: dict[str, list[Any]] = {}
        for one in instances:
            by_kind.setdefault(one.request_type, []).append(one)
        known = {"loglikelihood", "loglikelihood_rolling", "generate_until"}
        for kind in by_kind.keys() - known:
            where = by_kind[kind][0].task_name
            raise DataError(f"task {where} asks for {kind}; expected one of {', '.join(sorted(known))}")
        self._encode_pairs(by_kind.get("loglikelihood", []))
        self._encode_rolling(by_kind.get("loglikelihood_rolling", []))
        self._encode_prompts(by_kind.get("generate_until", []))
        lengths = [len(both.context) + len(both.continuation) for both in self._pairs.values()]
        lengths += [
            len(both.context) + len(both.continuation) for row in self._rolling.values() for both in row
        ]
        lengths += [self.window for _ in by_kind.get("generate_until", [])[:1]]
        return max(lengths, default=0)

    def pair(self, instance: Any) -> Encoded:
        """Of a `loglikelihood` instance that was prepared."""
        return self._pairs[instance.args]

    def windows(self, instance: Any) -> list[Encoded]:
        """Of a `loglikelihood_rolling` instance that was prepared: its windows, each id asked about once."""
        return self._rolling[instance.args[0]]

    def prompt(self, instance: Any, seed: int) -> Prompt:
        """Of a `generate_until` instance that was prepared."""
        how = _how(instance)
        ids = self._contexts[instance.args[0]][how["max_gen_toks"] - self.window :]
        eos = () if self.text.eos is None else (self.text.eos,)
        stop = tuple(one for one in how["until"] if one)
        return Prompt(tuple(ids.tolist()), how["max_gen_toks"], eos, stop, _sampling(how, seed))

    def _encode_pairs(self, instances: Sequence[Any]) -> None:
        first = {one.args: one for one in instances if one.args not in self._pairs}
        moved = {pair: _blanks_moved(*pair) for pair in first}
        contexts = sorted({context for context, _ in moved.values() if context})
        of_context = dict(zip(contexts, self.text.encode(contexts), strict=True))
        wholes = self.text.encode([context + end for context, end in moved.values()])
        for (pair, (context, end)), whole in zip(moved.items(), wholes, strict=True):
            if context:
                start, ids = of_context[context], whole[len(of_context[context]) :]
            else:
                ids = self.text.encode([end], bare=True)[0]
                start = np.array([self.text.prefix], np.int32)
                if len(ids) > 1 and ids[0] == self.text.prefix:
                    start, ids = ids[:1], ids[1:]
            self._pairs[pair] = self._fitted(start, ids, first[pair])

    def _fitted(self, context: Ids, continuation: Ids, instance: Any) -> Encoded:
        """With as much of the context's end as the window permits. Raises DataError naming the question."""
        where = f"task {instance.task_name}, question {instance.doc_id}, choice {instance.idx}"
        if not len(continuation):
            raise DataError(f"{where}: expected a continuation of one id or more, found none")
        if len(continuation) > self.window:
            raise DataError(
                f"{where}: the continuation has {len(continuation)} ids; the model reads {self.window}"
            )
        room = self.window + 1 - len(continuation)  # the last id is only asked about
        self.cut += len(context) > room
        return Encoded(context[-room:].copy(), continuation.copy())

    def _encode_rolling(self, instances: Sequence[Any]) -> None:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        texts = sorted({one.args[0] for one in instances} - self._rolling.keys())
        for text, ids in zip(texts, self.text.encode(texts), strict=True):
            given = {"prefix_token": self.text.prefix, "max_seq_len": self.window, "context_len": 1}
            windows = map(make_disjoint_window, get_rolling_token_windows(ids.tolist(), **given))
            self._rolling[text] = [Encoded(*(np.array(x, np.int32) for x in window)) for window in windows]

    def _encode_prompts(self, instances: Sequence[Any]) -> None:
        contexts = sorted({one.args[0] for one in instances} - self._contexts.keys())
        for context, ids in zip(contexts, self.text.encode(contexts), strict=True):
            self._contexts[context] = ids if len(ids) else np.array([self.text.prefix], np.int32)
        for context, most, where in {
            (one.args[0], _how(one)["max_gen_toks"], one.task_name) for one in instances
        }:
            if most >= self.window:
                raise DataError(f"task {where} asks for {most} new ids; the model reads {self.window} in all")
            if context in contexts:
                self.cut += len(self._contexts[context]) > self.window - most


def _how(instance: Any) -> dict[str, Any]:
    """How a `generate_until` instance is generated, in one spelling. Raises DataError for what engines have not."""
    from lm_eval.models.utils import normalize_gen_kwargs

    how: dict[str, Any] = dict(normalize_gen_kwargs(instance.args[1], MOST_NEW))
    unknown = {key: value for key, value in how.items() if key not in KNOWN and value != NEUTRAL.get(key)}
    if unknown:
        told = ", ".join(f"{key} {value}" for key, value in unknown.items())
        raise DataError(f"task {instance.task_name} asks for {told}; expected {', '.join(KNOWN)} alone")
    return how


def _blanks_moved(context: str, continuation: str) -> Pair:
    """Blanks at the end of a context belong to what follows: there they are part of its first id."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _sampling(how: dict[str, Any], seed: int) -> Sampling:
    """As a task's generation settings have it; greedy unless it samples."""
    temperature = float(how.get("temperature") or 0.0)
    if temperature == 0:
        return Sampling()
    top_k = how.get("top_k") or None
    return Sampling(temperature, float(how.get("top_p") or 1.0), None if top_k is None else int(top_k), seed)
