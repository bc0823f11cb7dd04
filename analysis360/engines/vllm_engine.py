"""The vLLM engine: one engine for all checkpoints, weights swapped in place, each swap verified."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from analysis360.engines import Forced, Ids
from analysis360.engines.torch_engine import TorchEngine, cut_at_stop
from analysis360.engines.weights import one_line
from analysis360.errors import EngineError
from analysis360.series import Checkpoint

TOLERANCE = {"float32": 2e-3, "bfloat16": 0.25, "float16": 0.05}
"""Largest difference of log-probability (nats) between vLLM and transformers on the same weights."""
PROBES, PROBE_LENGTH = 2, 8
MAX_SEQUENCES = 256
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in process: starts in seconds, and swaps need no pickling
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default reserves a share of the machine
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",  # checkpoints are local folders by the time they are loaded
}


class VllmEngine:
    """vLLM in this process; token ids in, token ids out, no tokenizer.

    Greedy results can depend on the composition of a batch where two logits nearly tie, so callers
    submit one unit a call.
    """

    kind = "vllm"

    def __init__(self, dtype: str = "float32", max_tokens: int = 64, like: Checkpoint | None = None) -> None:
        for key, value in ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        # Unset, vLLM's CPU build drops to one thread.
        os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
        self.dtype = dtype
        self._max_tokens = max(max_tokens, PROBE_LENGTH) + 1
        self._oracle = TorchEngine(dtype, device="cpu", like=like)
        self._llm: Any = None
        self._loaded: Checkpoint | None = None

    def load(self, checkpoint: Checkpoint) -> None:
        """Swap the weights and compare log-probabilities of probe sequences with transformers' own.

        Raises CheckpointError where the files are wrong, EngineError where the swap did not take.
        """
        self._loaded = None
        self._oracle.load(checkpoint)  # names, shapes, config and finiteness, before vLLM sees any
        if self._llm is None:
            self._llm = self._start(checkpoint)
        else:
            try:
                self._llm.collective_rpc("a360_swap", args=(str(checkpoint.path),))
            except Exception as error:
                self.close()
                raise EngineError(
                    f"checkpoint {checkpoint.name}: the swap failed: {one_line(error)}"
                ) from error
        self._loaded = checkpoint
        self._verify(checkpoint)

    def _start(self, checkpoint: Checkpoint) -> Any:
        import torch
        from vllm import LLM

        from analysis360.engines.vllm_worker import keep_freed_memory

        if not torch.cuda.is_available():
            keep_freed_memory()
        # One more than is asked, as scoring a sequence has vLLM generate one; the model's window permitting.
        window = int(checkpoint.config.get("max_position_embeddings") or self._max_tokens)
        if window < self._max_tokens - 1:
            asked = f"sequences of {self._max_tokens - 1} ids are asked for"
            raise EngineError(f"checkpoint {checkpoint.name}: {asked}; the model reads {window}")
        self._max_tokens = min(self._max_tokens, window)
        options: dict[str, Any] = {
            "model": str(checkpoint.path),
            "skip_tokenizer_init": True,
            "trust_remote_code": checkpoint.trusted,
            "dtype": self.dtype,
            "max_model_len": self._max_tokens,
            "max_num_seqs": MAX_SEQUENCES,
            "max_num_batched_tokens": MAX_SEQUENCES * 32,
            "enable_prefix_caching": False,  # blocks of one checkpoint must not serve the next
            "worker_extension_cls": "analysis360.engines.vllm_worker.SwapExtension",
            "generation_config": "vllm",  # not the sampling defaults a checkpoint may ship
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "enforce_eager": not torch.cuda.is_available(),
            "seed": 0,
        }
        try:
            with quiet():
                return LLM(**options)
        except Exception as error:
            raise EngineError(
                f"checkpoint {checkpoint.name}: vLLM does not start: {one_line(error)}; try --engine torch"
            ) from error

    def _verify(self, checkpoint: Checkpoint) -> None:
        vocabulary = checkpoint.vocabulary
        probes = np.random.default_rng(0).integers(0, vocabulary, (PROBES, PROBE_LENGTH), dtype=np.int32)
        found = self.forced(probes, 1).logprob
        expected = self._oracle.forced(probes, 1).logprob
        worst = float(np.abs(found - expected).max())
        if not worst <= TOLERANCE[self.dtype]:
            self.close()
            raise EngineError(
                f"checkpoint {checkpoint.name}: after the swap vLLM's log-probabilities differ from transformers' "
                f"by {worst:.3g} nats (at most {TOLERANCE[self.dtype]:g} expected); try --engine torch"
            )

    def generate(self, ids: Ids, n: int, *, stop: Collection[int] = ()) -> Ids:
        """Greedy continuation [batch, n]; see `Engine.generate`."""
        from vllm import SamplingParams

        if ids.ndim == 2 and ids.shape[1] + n > self._max_tokens:
            asked = f"{ids.shape[1]} + {n}"
            raise EngineError(
                f"{asked} ids asked of an engine opened for {self._max_tokens}; open a longer one"
            )
        # ignore_eos without min_tokens: EOS may be chosen, and generation goes on past it.
        params = SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False)
        outputs = self._submit(ids, params)
        chosen = np.array([output.outputs[0].token_ids for output in outputs], dtype=np.int32)
        return cut_at_stop(chosen.reshape(len(ids), n), stop)

    def forced(self, ids: Ids, start: int) -> Forced:
        """Teacher-forced scores; see `Engine.forced`."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=2, detokenize=False)
        shape = (len(ids), ids.shape[1] - start)
        result = Forced(np.empty(shape, np.float32), np.empty(shape, np.bool_), np.empty(shape, np.float32))
        for row, output in enumerate(self._submit(ids, params)):
            for column, position in enumerate(range(start, ids.shape[1])):
                entries = output.prompt_logprobs[position]
                given = int(ids[row, position])
                # Best first and, at exact ties, the lowest id first: the choice of greedy decoding.
                ranked = sorted(entries, key=lambda token: (-entries[token].logprob, token))
                result.logprob[row, column] = entries[given].logprob
                result.hit[row, column] = ranked[0] == given
                result.gap[row, column] = entries[ranked[0]].logprob - entries[ranked[1]].logprob
        return result

    def _submit(self, ids: Ids, params: Any) -> list[Any]:
        if self._llm is None or self._loaded is None:
            raise EngineError(
                "no checkpoint is loaded: call load(checkpoint) first, and again after a failed load"
            )
        if ids.ndim != 2:
            raise EngineError(f"expected ids of shape [batch, length], found {list(ids.shape)}")
        prompts = [{"prompt_token_ids": row} for row in ids.tolist()]
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
        engine = f"vllm {vllm.__version__}, {oracle['engine']}"
        return oracle | {"engine": engine, "device": self._device()}

    def _device(self) -> str:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

    def close(self) -> None:
        """Drop the engine; the next load starts another."""
        self._llm = self._loaded = None
        self._oracle.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Eager kernels and silent progress bars: helpers that vLLM compiles on first use cost 20 s on a CPU."""
    import torch

    if torch.cuda.is_available():
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
