"""Detection of toxic text, as tasks of lm-eval: does a model tell what people find toxic, hateful or offensive?

A task is data, a YAML file: which data set and fields, what is asked, which answers. The four examples before each
question are drawn from a split that is not scored. Yes and No are weighed by their likelihood, so every question has
an answer, and no rate can exceed one. LLM360's Analysis360 asks of the same data sets.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the task files are."""
