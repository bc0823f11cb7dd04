"""Tables 4 and 5 of the paper, from any mix of models and checkpoints, the paper's own rows beside them.

Frames of scores go in, a `Comparison` comes out: a frame, Markdown, LaTeX or CSV. Nothing here evaluates anything.
"""

from __future__ import annotations

from analysis360.comparison.harness import read_v03
from analysis360.comparison.layouts import LAYOUTS, published
from analysis360.comparison.table import Comparison, compare

__all__ = ["LAYOUTS", "Comparison", "compare", "published", "read_v03"]
