"""The benchmarks' table says no more than was measured."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    path = Path(__file__).parent / "benchmarks" / "harness.py"
    spec = importlib.util.spec_from_file_location("harness_of_benchmarks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.modules[spec.name] = module  # its dataclasses look for themselves there
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_quick_figures_are_held_to_no_goal(harness: ModuleType) -> None:
    lines = [harness.Line("ours", harness.Figure(1.0, 0.9, 1.1), at_least=5)]
    whole, quick = harness.table(lines), harness.table(lines, quick=True)
    assert "at least 5.0 x" in whole
    assert "NO" in whole
    assert "mean nothing" not in whole
    for word in ("goal |", "met", "at least", "NO"):
        assert word not in quick
    header, rule, row, _, said = quick.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|") == 7
    assert "mean nothing" in said


def test_a_run_of_a_few_ticks_says_that_it_is_too_short(
    harness: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(harness, "busy_seconds", lambda: 10.5)
    assert math.isnan(harness.share(10.0, 0.25, 0.004))
    assert harness.share(10.0, 0.25, 1.0) == pytest.approx(0.125)

    def line(*others: float) -> str:
        runs = [{"ours": harness.Run(1.0, share)} for share in others]
        return str(harness.table([harness.Line("x", harness.figure(runs, lambda one: one["ours"].seconds))]))

    assert "| too short to tell |" in line(math.nan, math.nan)
    assert "| 30% disturbed |" in line(math.nan, 0.3, 0.01)


def test_a_run_too_short_to_tell_is_not_repeated(harness: ModuleType) -> None:
    made: list[float] = []

    def contestant() -> object:
        made.append(0.0)
        return harness.Run(0.003, math.nan)

    harness.take_turns({"ours": contestant}, repeats=2)
    assert len(made) == 2
