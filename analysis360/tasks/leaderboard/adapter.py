"""lm-eval's model with one of our engines behind it, which answers under whatever checkpoint it has loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM

from analysis360.digests import counter_seed
from analysis360.engines import Engine
from analysis360.engines.trees import distinct_ids
from analysis360.tasks.leaderboard.encoding import Encoder
from analysis360.text import cut


class EngineLM(LM):  # type: ignore[misc]  # lm-eval has no types
    """Answers lm-eval's three kinds of request. Prompts are cut into ids once, whatever is loaded afterwards."""

    def __init__(self, encoder: Encoder, engine: Engine | None = None, seed: int = 0) -> None:
        super().__init__()
        self.encoder, self.engine, self.seed = encoder, engine, seed
        self.asked = 0
        """Ids of all sequences that were scored so far."""
        self.distinct = 0
        """Those that are left when what sequences begin with in common counts once."""

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log-probability, greedy) of each continuation."""
        self.encoder.prepare(requests)
        return [tuple(one) for one in self._score([self.encoder.pair(one).request() for one in requests])]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-probability of each text as a whole, in windows that do not overlap."""
        self.encoder.prepare(requests)
        windows = [self.encoder.windows(one) for one in requests]
        answers = iter(self._score([window.request() for some in windows for window in some]))
        return [sum(next(answers).logprob for _ in some) for some in windows]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What follows each context, up to the first of the task's stops."""
        self.encoder.prepare(requests)
        counts: dict[Any, int] = {}
        prompts = []
        for one in requests:
            key = (one.task_name, one.doc_id, one.idx)
            counts[key] = counts.get(key, -1) + 1  # repeats of a question are further samples
            prompts.append(self.encoder.prompt(one, counter_seed(self.seed, *key, counts[key])))
        assert self.engine is not None
        made = self.engine.complete(prompts)
        texts = (self.encoder.text.decode(ids) for ids in made)
        return [cut(text, prompt.stop) for text, prompt in zip(texts, prompts, strict=True)]

    def _score(self, requests: list[Any]) -> list[Any]:
        assert self.engine is not None
        self.asked += sum(len(one.context) + len(one.continuation) - 1 for one in requests)
        self.distinct += distinct_ids(requests)
        return self.engine.score(requests)
