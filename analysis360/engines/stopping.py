"""Where a completion ends: at an id, at a text, or at its full length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from analysis360.engines import Prompt
from analysis360.engines.weights import one_line
from analysis360.errors import EngineError


def check_prompts(prompts: Sequence[Prompt], tokenizer: Path | None) -> None:
    """Raises EngineError where a prompt cannot be completed, whatever the model."""
    for i, prompt in enumerate(prompts):
        if not prompt.ids or prompt.most < 1:
            found = f"{len(prompt.ids)} and {prompt.most}"
            raise EngineError(
                f"prompt {i}: expected one id or more, and one asked for or more; found {found}"
            )
        if "" in prompt.stop:
            raise EngineError(f"prompt {i}: an empty text cannot stop it; leave it out of `stop`")
        if prompt.stop and tokenizer is None:
            raise EngineError(
                f"prompt {i} stops at a text, and this engine has no tokenizer: give open_engine a folder of one"
            )


def open_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer in a folder, around one of `tokenizers`; code that it brings is never run.

    Raises EngineError.
    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers lets many kinds through; each means the same to the reader
        raise EngineError(f"{folder}: no tokenizer can be read there: {one_line(error)}") from None
    if not isinstance(getattr(found, "backend_tokenizer", None), Tokenizer):
        raise EngineError(
            f"{folder}: {type(found).__name__} cannot decode id by id; save it with tokenizer.json"
        )
    return found


def ends_within_character(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Whether the text of some ids is cut within a character, or ends as if it were."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False)).endswith("\ufffd")


def cut(prompt: Prompt, ids: Sequence[int], tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """What of `ids` completes a prompt: those up to the last, where it ends before them."""
    ending = Ending(prompt, tokenizer)
    last = next((i for i, token in enumerate(ids) if ending.after(token)), len(ids))
    return tuple(ids[: last + 1])


class Ending:
    """Is told a completion id by id, and says when it ends."""

    def __init__(self, prompt: Prompt, tokenizer: Tokenizer | None) -> None:
        self._prompt = prompt
        self._decoder = Decoder(tokenizer, prompt.ids) if tokenizer is not None and prompt.stop else None
        self._longest = max(map(len, prompt.stop), default=0)
        self._left = prompt.most
        self._text = ""

    def after(self, token: int) -> bool:
        """Whether `token` is the last."""
        self._left -= 1
        return token in self._prompt.stop_ids or self._says_stop(token) or not self._left

    def _says_stop(self, token: int) -> bool:
        if self._decoder is None:
            return False
        self._text = self._text[-self._longest :] + self._decoder.step(token)  # what came before was searched
        return any(stop in self._text for stop in self._prompt.stop)


class Decoder:
    """Text that follows a prompt, id by id; special ids are text too."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        # A stream that begins within a character would say the prompt again.
        self._stream = DecodeStream(ids=[] if ends_within_character(tokenizer, prompt) else list(prompt))

    def step(self, token: int) -> str:
        """What an id adds; nothing yet where it ends within a character."""
        try:
            return self._stream.step(self._tokenizer, token) or ""
        except Exception:  # ids that are no valid UTF-8 together can put its own state at odds with the text
            self._stream = DecodeStream(ids=[])
            return self._stream.step(self._tokenizer, token) or ""
