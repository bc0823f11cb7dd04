"""One micro series, prepared and trained once, undisturbed; tests that change a folder work on a copy."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.__main__ import main

REPOSITORY = Path(__file__).resolve().parents[2]


def run_training(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a training command as a user would, and check its exit code."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return done


def start_training(*arguments: object) -> subprocess.Popen[str]:
    """Start a training command; what it says as it stops can be read."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def train_here(out: Path) -> None:
    """Train in this process, which has torch loaded, and leave torch's threads as they were."""
    threads = torch.get_num_threads()
    assert main(["run", "--out", str(out)]) == 0
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def training() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a training command: training("run", "--out", folder, expect=0)."""
    return run_training


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts a training command and does not wait for it."""
    return start_training


@pytest.fixture(scope="session")
def finish() -> Callable[[Path], None]:
    """Trains what is left, in this process."""
    return train_here


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro series before training."""
    out = tmp_path_factory.mktemp("prepared") / "micro"
    run_training("prepare", "--recipe", "micro", "--out", out)
    return out


@pytest.fixture(scope="session")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro series after training without a break."""
    out = tmp_path_factory.mktemp("trained") / "micro"
    shutil.copytree(prepared, out)
    train_here(out)
    return out
