"""Both engines against the slow reference on real pretrained weights of 135 M parameters and real text."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained import smollm2, text
from reference import TIE, Continuation, continue_greedily, score
from wheels import UnavailableError

from analysis360.engines import Forced
from analysis360.engines.torch_engine import TorchEngine
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

SEQUENCES, PROMPT, CONTINUATION, SCORED = 24, 32, 8, 4


@pytest.fixture(scope="module", autouse=True)
def all_threads(one_thread: None) -> Iterator[None]:
    """This model is large enough to gain by every core."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return smollm2()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def prompts(folder: Path) -> np.ndarray:
    return text(folder, SEQUENCES, PROMPT)


@pytest.fixture(scope="module")
def truth(folder: Path, prompts: np.ndarray, all_threads: None) -> Continuation:
    return continue_greedily(folder, prompts, CONTINUATION)


@pytest.fixture(scope="module")
def whole(folder: Path) -> np.ndarray:
    """Text to be scored: not what the model would say."""
    return text(folder, SEQUENCES, PROMPT)[-SCORED:]


@pytest.fixture(scope="module", params=["torch", "vllm"])
def answers(
    request: pytest.FixtureRequest,
    folder: Path,
    prompts: np.ndarray,
    whole: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[np.ndarray, Forced]:
    """What each engine continues, and what it says of `whole`."""
    if request.param == "torch":
        engine = TorchEngine("float32", device="cpu")
        engine.load(Checkpoint("pretrained", 0, LocalFolder(folder)))
        return engine.generate(prompts, CONTINUATION), engine.forced(whole, 1)
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    root = tmp_path_factory.mktemp("pretrained")
    np.savez(root / "job.npz", prompts=prompts, whole=whole, continuation=CONTINUATION)
    script = Path(__file__).with_name("pretrained_session.py")
    command = [sys.executable, str(script), str(folder), str(root / "job.npz"), str(root / "out.npz")]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "OMP_", "MKL_"))}
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(root / "out.npz") as said:
        return said["ids"], Forced(said["logprob"], said["hit"], said["gap"])


def test_continues_text_as_the_slow_reference_does(
    answers: tuple[np.ndarray, Forced], truth: Continuation
) -> None:
    assert truth.clear.mean() > 0.9, f"within a logit gap of {TIE:g}: {(~truth.clear).sum()} of {SEQUENCES}"
    assert len(np.unique(truth.ids)) > 50
    np.testing.assert_array_equal(answers[0][truth.clear], truth.ids[truth.clear])


def test_scores_text_as_float64_by_hand_does(
    answers: tuple[np.ndarray, Forced], folder: Path, whole: np.ndarray
) -> None:
    expected, found = score(folder, whole, 1), answers[1]
    np.testing.assert_allclose(found.logprob, expected.logprob, atol=1e-3)
    clear = expected.gap > TIE
    np.testing.assert_array_equal(found.hit[clear], expected.hit[clear])
    assert 0.1 < found.hit.mean() < 0.9
