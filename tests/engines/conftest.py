"""Series of small random models, and what the slow reference says of each checkpoint; made once, never changed."""

from collections.abc import Iterator

import pytest
import torch
from small_models import Known, llama, make_known, neox


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small run many times faster on one thread when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Known:
    return make_known(lambda seed: llama(seed, tied=True), tmp_path_factory.mktemp("tied"))


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Known:
    return make_known(lambda seed: llama(seed + 10), tmp_path_factory.mktemp("untied"))


@pytest.fixture(scope="session")
def pythia(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Known:
    return make_known(neox, tmp_path_factory.mktemp("neox"))
