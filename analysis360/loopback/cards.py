"""The YAML at the head of a README.md, as the Hub checks it before a commit."""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]

from analysis360.loopback.call import text

__all__ = ["checked_card"]

HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


def checked_card(asked: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Errors and warnings about a card, and the status to send them with. Raises RefusedError (400)."""
    head = HEAD.match(text(asked, "content"))
    errors: list[dict[str, str]] = []
    metadata: Any = None
    if head is not None:
        try:
            metadata = yaml.safe_load(head[1])
        except yaml.YAMLError as error:
            errors = [{"message": f"Invalid YAML: {' '.join(str(error).split())}"}]
        else:
            if metadata is not None and not isinstance(metadata, dict):
                errors = [{"message": "Expected keys and values"}]
    warnings = [] if metadata or errors else [{"message": "empty or missing yaml metadata in repo card"}]
    return {"errors": errors, "warnings": warnings}, 400 if errors else 200
