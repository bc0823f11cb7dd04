"""Code: a checkpoint writes programs for HumanEval and MBPP, and a sandbox judges them.

`problems.py` reads the benchmarks, `prompts.py` asks, `task.py` is the task of a sweep, `sandbox.py` judges,
`passing.py` counts.
"""
