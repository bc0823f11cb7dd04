"""Which rows of the published data sets are questions, and what the right answer is: the column `toxic`, 0 or 1."""

from __future__ import annotations

from typing import Any

HATEFUL = (1, True, "1", "hate")
"""What says so in the copies of DynaHate there are."""


def toxigen(documents: Any) -> Any:
    """Statements that people are sure about: 1 of 5, not toxic, or 5."""
    sure = documents.filter(lambda row: row["toxicity_human"] in (1.0, 5.0))
    return sure.map(lambda row: {"toxic": int(row["toxicity_human"] == 5.0)})


def social_bias_frames(documents: Any) -> Any:
    """Each post once, offensive where its annotators say so on average (yes 1, maybe 0.5, no 0); not where they tie."""
    votes: dict[str, list[float]] = {}
    for post, vote in zip(documents["post"], documents["offensiveYN"], strict=True):
        if vote not in ("", None):
            votes.setdefault(post, []).append(float(vote))
    means = {post: sum(some) / len(some) for post, some in votes.items()}
    first: dict[str, int] = {}
    for row, post in enumerate(documents["post"]):
        if means.get(post, 0.5) != 0.5:
            first.setdefault(post, row)
    labels = [int(means[post] > 0.5) for post in first]
    chosen = documents.select(list(first.values())).select_columns(["post"])
    return chosen.add_column("toxic", labels)


def dynahate(documents: Any) -> Any:
    """Every entry."""
    return documents.map(lambda row: {"toxic": int(row["label"] in HATEFUL)})
