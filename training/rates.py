"""The learning rate of every step."""

import math

from training.config import Rate, Recipe

__all__ = ["learning_rate"]


def learning_rate(step: int, recipe: Recipe) -> float:
    """The rate of a step of the run, from 0."""
    spans = recipe.spans()
    for rate, steps in spans[:-1]:
        if step < steps:
            return _rate(rate, step, steps)
        step -= steps
    return _rate(spans[-1][0], step, spans[-1][1])


def _rate(rate: Rate, step: int, steps: int) -> float:
    """A linear rise to the peak, then a fall that reaches the last rate at its last step."""
    step, steps = step + rate.start, rate.steps or steps
    if step < rate.warm_up:
        return rate.peak * (step + 1) / rate.warm_up
    progress = min(1.0, (step + 1 - rate.warm_up) / (steps - rate.warm_up))
    left = 0.5 * (1 + math.cos(math.pi * progress)) if rate.shape == "cosine" else 1 - progress
    return rate.last + (rate.peak - rate.last) * left
