"""analysis360: a series of checkpoints and the data they were trained on go in; what each checkpoint
knows about each piece of data comes out.

Importing this package loads none of torch, vllm, pandas, pyarrow or matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from analysis360.errors import (
    Analysis360Error,
    CheckpointError,
    DataError,
    EngineError,
    HubError,
    SandboxError,
    SelectionError,
    SeriesError,
    StoreError,
)

if TYPE_CHECKING:
    from analysis360.api import memorization
    from analysis360.biases import BiasResult
    from analysis360.code_results import CodeResult
    from analysis360.coding import code_evaluation
    from analysis360.comparing import compare_models
    from analysis360.continuing import Scoring, bold
    from analysis360.engines import VllmOptions
    from analysis360.evaluating import leaderboard
    from analysis360.evaluations import EvaluationResult
    from analysis360.hub.options import HubOptions
    from analysis360.perplexing import perplexity
    from analysis360.perplexities import PerplexityResult
    from analysis360.results import MemorizationResult
    from analysis360.series import Checkpoint, Chunk, Exposure, Series, open_series
    from analysis360.toxicity import toxic_generation

__version__ = "0.1.0"

_LAZY = {
    "BiasResult": "analysis360.biases",
    "Checkpoint": "analysis360.series",
    "Chunk": "analysis360.series",
    "CodeResult": "analysis360.code_results",
    "Exposure": "analysis360.series",
    "EvaluationResult": "analysis360.evaluations",
    "HubOptions": "analysis360.hub.options",
    "VllmOptions": "analysis360.engines",
    "MemorizationResult": "analysis360.results",
    "Scoring": "analysis360.continuing",
    "Series": "analysis360.series",
    "bold": "analysis360.continuing",
    "code_evaluation": "analysis360.coding",
    "PerplexityResult": "analysis360.perplexities",
    "compare_models": "analysis360.comparing",
    "leaderboard": "analysis360.evaluating",
    "memorization": "analysis360.api",
    "open_series": "analysis360.series",
    "perplexity": "analysis360.perplexing",
    "toxic_generation": "analysis360.toxicity",
}

__all__ = [
    "Analysis360Error",
    "BiasResult",
    "Checkpoint",
    "CheckpointError",
    "Chunk",
    "CodeResult",
    "DataError",
    "EngineError",
    "EvaluationResult",
    "Exposure",
    "HubError",
    "HubOptions",
    "MemorizationResult",
    "PerplexityResult",
    "SandboxError",
    "Scoring",
    "SelectionError",
    "Series",
    "SeriesError",
    "StoreError",
    "VllmOptions",
    "__version__",
    "bold",
    "code_evaluation",
    "compare_models",
    "leaderboard",
    "memorization",
    "open_series",
    "perplexity",
    "toxic_generation",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'analysis360' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
