"""Requests of vLLM: how each is put, and how its output is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from analysis360.engines import Prompt
from analysis360.engines.queries import Answer, Query
from analysis360.engines.stopping import ends_within_character
from analysis360.engines.weights import one_line
from analysis360.errors import EngineError


def completion(prompt: Prompt, vocabulary: int, decoder: Tokenizer | None) -> Any:
    """SamplingParams of a prompt; ids beyond the vocabulary, which a tokenizer may have, could never stop it.

    Where the prompt ends within a character, vLLM would look for stops in its own text: then it looks for none.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    how = prompt.sampling
    looks = bool(prompt.stop) and decoder is not None and not ends_within_character(decoder, prompt.ids)
    try:
        return SamplingParams(
            max_tokens=prompt.most,
            temperature=how.temperature,
            top_p=how.top_p,
            top_k=how.top_k or 0,
            seed=how.seed,
            ignore_eos=True,  # what ends it is said here, not by the model's config
            stop_token_ids=[token for token in prompt.stop_ids if 0 <= token < vocabulary],
            stop=list(prompt.stop) if looks else None,
            include_stop_str_in_output=True,
            detokenize=looks,
            skip_special_tokens=False,
        )
    except VLLMValidationError as error:
        raise EngineError(f"vLLM does not sample as asked: {one_line(error)}; try --engine torch") from None


def question(query: Query, cached: bool) -> Any:
    """SamplingParams of a query; where `cached`, prefixes that vLLM has read before are not read again."""
    from vllm import SamplingParams

    asked: dict[str, Any] = {"logprob_token_ids": list(query.last)} if query.last else {}
    if query.start < len(query.ids):
        asked["prompt_logprobs"] = 2
    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        ignore_eos=True,
        detokenize=False,
        flat_logprobs=True,  # lists instead of an object for each position
        skip_reading_prefix_cache=not cached,
        **asked,
    )


def unread(query: Query, output: Any) -> bool:
    """Whether the prefix cache held positions that are scored: of these vLLM tells nothing, or what memory held."""
    return query.start < len(query.ids) and (output.num_cached_tokens or 0) >= query.start


def read_answer(query: Query, output: Any) -> Answer:
    """What vLLM says; positions are counted from the end, as those that were cached may be left out."""
    made = output.outputs[0]
    scored = len(query.ids) - query.start
    entries = [output.prompt_logprobs[-i] for i in range(scored, 0, -1)]
    given = zip(query.ids[query.start :], entries, strict=True)
    following = made.logprobs[0] if query.last else {}
    return Answer(
        tuple((entry[token].logprob, by_choice(entry)[0] == token) for token, entry in given),
        {token: following[token].logprob for token in query.last},
        int(made.token_ids[0]),
    )


def by_choice(entries: Mapping[int, Any]) -> list[int]:
    """Ids of one position, best first and, at exact ties, the lowest first: the choice of greedy decoding."""
    return sorted(entries, key=lambda token: (-entries[token].logprob, token))
