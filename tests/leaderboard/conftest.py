"""Fixtures of the leaderboard's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from little import reading_series, write_tasks


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small tasks."""
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints that read characters. Do not change it."""
    return reading_series(tmp_path_factory.mktemp("reader"))
