"""One planted series for every test of BOLD: it takes seconds to train."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_bold import planted, write_prompts


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints: one that knows nothing, one that is kind to all, one that tells two groups apart."""
    return planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of BOLD's form with the two groups."""
    return write_prompts(tmp_path_factory.mktemp("prompts"))
