"""The vLLM engine: one engine for all checkpoints, weights swapped in place, each swap verified."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from analysis360.engines import (
    INVARIANT,
    Forced,
    Ids,
    Likelihood,
    Prompt,
    Request,
    VllmOptions,
    check_parts,
)
from analysis360.engines.queries import Answers, Query, pieces, plan
from analysis360.engines.stopping import check_prompts, cut, open_tokenizer
from analysis360.engines.torch_engine import TorchEngine, cut_at_stop
from analysis360.engines.vllm_requests import (
    by_choice,
    completion,
    question,
    read_answer,
    unread,
)
from analysis360.engines.vllm_worker import HANDED
from analysis360.engines.weights import one_line
from analysis360.errors import EngineError
from analysis360.series import Checkpoint

TOLERANCE = {"float32": 2e-3, "bfloat16": 0.25, "float16": 0.05}
"""Largest difference of log-probability (nats) between vLLM and transformers on the same weights."""
PROBES, PROBE_LENGTH, PROBE_STEPS = 1, 8, 2
MAX_SEQUENCES, STEP_TOKENS = 512, 16384
"""What one step of vLLM takes: all prompts of 512 sequences at once, then a token of each."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in process: starts in seconds, and swaps need no pickling
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB, taken as it is used; the default reserves a share of the machine
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process that has asked for a GPU cannot use one
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",  # checkpoints are local folders by the time they are loaded
}


class VllmEngine:
    """vLLM in this process; token ids in, token ids out, and a tokenizer only for texts that stop completions.

    Where two logits nearly tie, a greedy result can depend on the batch it was computed in, unless
    `options.batch_invariant`. With `options.tensor_parallel` above 1 each part runs in a process of its own,
    started anew: a script that asks for it needs the usual `if __name__ == "__main__":`.
    """

    kind = "vllm"

    def __init__(
        self,
        dtype: str = "float32",
        max_tokens: int = 64,
        like: Checkpoint | None = None,
        options: VllmOptions | None = None,
        tokenizer: Path | None = None,
        share_prefixes: bool = False,
    ) -> None:
        self._options = options or VllmOptions()
        self._folder, self._shares = tokenizer, share_prefixes
        self._tokenizer: Any = None
        prepare(self._options)
        self.dtype = dtype
        self._max_tokens = max(max_tokens, PROBE_LENGTH + PROBE_STEPS - 1) + 1
        self._oracle = TorchEngine(dtype, device="cpu", like=like)
        self._llm: Any = None
        self._loaded: Checkpoint | None = None

    def load(self, checkpoint: Checkpoint) -> None:
        """Swap the weights and compare log-probabilities of probe sequences with transformers' own.

        Raises CheckpointError where the files are wrong, EngineError where the swap did not take.
        """
        self._loaded = None
        with self._beside_vllm():
            self._oracle.load(checkpoint)  # names, shapes, config and finiteness, before vLLM sees any
        try:
            started = self._llm is None
            if started:
                self._llm = self._start(checkpoint)
            else:
                self._swap(checkpoint)
            self._forget(checkpoint)
            self._verify(checkpoint, continuing=started)
        except BaseException:
            self.close()  # weights that nobody has verified must not answer
            raise
        self._loaded = checkpoint
        self._oracle.unload()

    def _beside_vllm(self) -> AbstractContextManager[None]:
        """Where classes of transformers that vLLM runs, and has decorated (GPT-NeoX), can be made for the oracle."""
        if self._llm is None:
            return nullcontext()
        from vllm.config import set_current_vllm_config

        context: AbstractContextManager[None] = set_current_vllm_config(self._llm.llm_engine.vllm_config)
        return context

    def _swap(self, checkpoint: Checkpoint) -> None:
        HANDED.update(self._oracle.tensors())
        try:
            self._llm.collective_rpc("a360_swap", args=(str(checkpoint.path),))
        except Exception as error:
            raise EngineError(f"checkpoint {checkpoint.name}: the swap failed: {one_line(error)}") from error
        finally:
            HANDED.clear()

    def _forget(self, checkpoint: Checkpoint) -> None:
        """Blocks of one checkpoint must not serve the next."""
        if self._shares and not self._llm.reset_prefix_cache():
            raise EngineError(
                f"checkpoint {checkpoint.name}: vLLM keeps prefixes of the one before; try --engine torch"
            )

    def _start(self, checkpoint: Checkpoint) -> Any:
        import torch

        check_parts(checkpoint, self._options)
        # One more than is asked, as scoring a sequence has vLLM generate one.
        window = int(checkpoint.config.get("max_position_embeddings") or self._max_tokens)
        if window < self._max_tokens - 1:
            asked = f"sequences of {self._max_tokens - 1} ids are asked for"
            raise EngineError(f"checkpoint {checkpoint.name}: {asked}; the model reads {window}")
        if self._max_tokens > window:  # what is generated last is never read, so the model need not reach it
            os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
        options: dict[str, Any] = {
            "model": str(checkpoint.path),
            "skip_tokenizer_init": True,
            "trust_remote_code": checkpoint.trusted,
            "dtype": self.dtype,
            "max_model_len": self._max_tokens,
            "max_num_seqs": MAX_SEQUENCES,
            "max_num_batched_tokens": STEP_TOKENS,
            "tensor_parallel_size": self._options.tensor_parallel,
            "enable_prefix_caching": self._shares,  # see _forget
            "worker_extension_cls": "analysis360.engines.vllm_worker.SwapExtension",
            "generation_config": "vllm",  # not the sampling defaults a checkpoint may ship
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            # CUDA graphs read the weights where they lie, and a swap writes them there: captured once a sweep.
            "enforce_eager": not torch.cuda.is_available(),
            "seed": 0,
        }
        try:
            from vllm import LLM

            with quiet():
                return LLM(**options)
        except Exception as error:
            raise EngineError(
                f"checkpoint {checkpoint.name}: vLLM does not start: {reason(error)}; try --engine torch"
            ) from error

    def _verify(self, checkpoint: Checkpoint, *, continuing: bool) -> None:
        """Probe what reads prompts and what continues them: on a GPU these are different kernels and graphs.

        On a CPU both have the same weights: after a swap, unlike a start, the probe need not continue.
        """
        import torch

        steps = PROBE_STEPS if continuing or torch.cuda.is_available() else 1
        vocabulary = checkpoint.vocabulary
        probes = np.random.default_rng(0).integers(0, vocabulary, (PROBES, PROBE_LENGTH), dtype=np.int32)
        found, chosen, decoded = self._ask(probes, 1, steps)
        expected = self._oracle.forced(np.concatenate([probes, chosen], axis=1), 1)
        worst = float(np.abs(np.concatenate([found.logprob, decoded], axis=1) - expected.logprob).max())
        if not worst <= TOLERANCE[self.dtype]:
            raise EngineError(
                f"checkpoint {checkpoint.name}: after the swap vLLM's log-probabilities differ from transformers' "
                f"by {worst:.3g} nats (at most {TOLERANCE[self.dtype]:g} expected); try --engine torch"
            )

    def generate(self, ids: Ids, n: int, *, stop: Collection[int] = ()) -> Ids:
        """Greedy continuation [batch, n]; see `Engine.generate`."""
        from vllm import SamplingParams

        self._check(ids, n)
        # ignore_eos without min_tokens: EOS may be chosen, and generation goes on past it.
        params = SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False)
        outputs = self._submit(ids.tolist(), params)
        chosen = np.array([output.outputs[0].token_ids for output in outputs], dtype=np.int32)
        return cut_at_stop(chosen.reshape(len(ids), n), stop)

    def forced(self, ids: Ids, start: int) -> Forced:
        """Teacher-forced scores; see `Engine.forced`. The engine must be open for one id more than the rows have."""
        self._check(ids, 1)
        return self._ask(ids, start, 1)[0]

    def score(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Likelihoods; see `Engine.score`. Context and continuation may fill the model's window."""
        self._ready()
        for context, continuation in requests:
            self._check_room(len(context) + len(continuation) - 1, 1)
        answers = Answers()
        for piece in pieces(plan(requests, self._block())):
            outputs = self._put(piece, cached=True)
            again = [unread(query, output) for query, output in zip(piece, outputs, strict=True)]
            asked = [query for query, anew in zip(piece, again, strict=True) if anew]
            fresh = iter(self._put(asked, cached=False))
            for query, output, anew in zip(piece, outputs, again, strict=True):
                answers.add(query, read_answer(query, next(fresh) if anew else output))
        return [answers.likelihood(request) for request in requests]

    def _put(self, queries: Sequence[Query], *, cached: bool) -> list[Any]:
        return self._submit([query.ids for query in queries], [question(query, cached) for query in queries])

    def _block(self) -> int | None:
        """Ids of a block of the prefix cache; None without one."""
        size = self._llm.llm_engine.vllm_config.cache_config.block_size
        return int(size) if self._shares else None

    def complete(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        """Completions; see `Engine.complete`."""
        vocabulary = self._ready().vocabulary
        check_prompts(prompts, self._folder)
        for prompt in prompts:
            self._check_room(len(prompt.ids), prompt.most)
        decoder = self._decoder() if any(prompt.stop for prompt in prompts) else None
        once = list(dict.fromkeys(prompts))
        params = [completion(prompt, vocabulary, decoder) for prompt in once]
        outputs = self._submit([prompt.ids for prompt in once], params)
        made = {
            prompt: cut(prompt, output.outputs[0].token_ids, decoder)
            for prompt, output in zip(once, outputs, strict=True)
        }
        return [made[prompt] for prompt in prompts]

    def _decoder(self) -> Tokenizer:
        """The tokenizer that tells vLLM where texts stop; vLLM's own way to one guesses, and may run its code."""
        if self._tokenizer is None:
            assert self._folder is not None
            self._tokenizer = open_tokenizer(self._folder)
        self._llm.llm_engine.output_processor.tokenizer = self._tokenizer
        backend: Tokenizer = self._tokenizer.backend_tokenizer
        return backend

    def _ready(self) -> Checkpoint:
        if self._llm is None or self._loaded is None:
            raise EngineError(
                "no checkpoint is loaded: call load(checkpoint) first, and again after a failed load"
            )
        return self._loaded

    def _check(self, ids: Ids, n: int) -> None:
        self._ready()
        if ids.ndim != 2:
            raise EngineError(f"expected ids of shape [batch, length], found {list(ids.shape)}")
        self._check_room(ids.shape[1], n)

    def _check_room(self, length: int, n: int) -> None:
        if length + n > self._max_tokens:
            asked = f"{length} + {n}"
            raise EngineError(
                f"{asked} ids asked of an engine opened for {self._max_tokens}; open a longer one"
            )

    def _ask(self, ids: Ids, start: int, n: int) -> tuple[Forced, Ids, NDArray[np.float32]]:
        """Scores of the given ids; [batch, n] what greedy decoding has follow them, and its log-probabilities."""
        from vllm import SamplingParams

        asked = {"prompt_logprobs": 2, "logprobs": 1}
        params = SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False, **asked)
        shape = (len(ids), ids.shape[1] - start)
        result = Forced(np.empty(shape, np.float32), np.empty(shape, np.bool_), np.empty(shape, np.float32))
        outputs = self._submit(ids.tolist(), params)
        for row, output in enumerate(outputs):
            for column, position in enumerate(range(start, ids.shape[1])):
                entries = output.prompt_logprobs[position]
                given = int(ids[row, position])
                ranked = by_choice(entries)
                result.logprob[row, column] = entries[given].logprob
                result.hit[row, column] = ranked[0] == given
                result.gap[row, column] = entries[ranked[0]].logprob - entries[ranked[1]].logprob
        made = [output.outputs[0] for output in outputs]
        chosen = np.array([one.token_ids for one in made], dtype=np.int32).reshape(len(ids), n)
        pairs = [zip(one.logprobs, one.token_ids, strict=True) for one in made]
        logprobs = np.array([[step[token].logprob for step, token in row] for row in pairs], np.float32)
        return result, chosen, logprobs.reshape(len(ids), n)

    def _submit(self, ids: Sequence[Sequence[int]], params: Any) -> list[Any]:
        """Outputs of vLLM, given `params` for all or one for each."""
        prompts = [{"prompt_token_ids": list(row)} for row in ids]
        try:
            with quiet():
                outputs: list[Any] = self._llm.generate(prompts, params, use_tqdm=False)
        except BaseException:
            self.close()  # requests left inside would answer the next call
            raise
        return outputs

    def describe(self) -> dict[str, str]:
        """Versions, device and threads."""
        import vllm

        oracle = self._oracle.describe()
        how = INVARIANT if batch_invariant() else ""
        engine = f"vllm {vllm.__version__}{how}, {oracle['engine']}"
        return oracle | {"engine": engine, "device": self._device()}

    def _device(self) -> str:
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        parts = self._options.tensor_parallel
        return device if parts == 1 else f"{parts} x {device}"

    def close(self) -> None:
        """Drop the engine; the next load starts another."""
        self._llm = self._loaded = None
        self._oracle.close()


def prepare(options: VllmOptions) -> None:
    """Set what vLLM reads from the environment, where the user has not. Raises EngineError."""
    import torch

    if options.batch_invariant:
        if "vllm" in sys.modules and not batch_invariant():
            raise EngineError("vLLM was loaded without its batch-invariant mode; ask for it in a new process")
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    cpus, parts = sorted(os.sched_getaffinity(0)), options.tensor_parallel
    # Unset, vLLM's CPU build drops to one thread, and binds every part to a memory node of its own.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(len(cpus) // parts, 1)))
    if parts > 1 and not torch.cuda.is_available():
        bound = "|".join(",".join(map(str, cpus[part::parts])) for part in range(parts))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", bound)


def reason(error: Exception) -> str:
    """What went wrong, in one line; pydantic, which checks vLLM's options, has a headline and an address around it."""
    from pydantic import ValidationError  # vLLM brings it

    if isinstance(error, ValidationError):
        said = "; ".join(one["msg"].removeprefix("Value error, ").rstrip(".") for one in error.errors())
        return one_line(ValueError(" ".join(said.split())))
    return one_line(error)


def batch_invariant() -> bool:
    """Whether vLLM is in that mode: it is a whole process's, however it was set."""
    return os.environ.get("VLLM_BATCH_INVARIANT", "0") not in ("", "0")


@contextmanager
def quiet() -> Iterator[None]:
    """Eager kernels and silent progress bars: helpers that vLLM compiles on first use cost 20 s on a CPU."""
    import torch

    if torch.cuda.is_available():
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
