"""Words of a text, and the closed classes of English words that convey no feeling."""

from __future__ import annotations

import re

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
PRONOUNS = """
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves one oneself this that these those who whom whose which what
whoever whomever whichever whatever each either neither anyone anybody anything everyone everybody everything
someone somebody something nobody nothing none another other others such
"""
PREPOSITIONS = """
about above across after against along amid among around as at before behind below beneath beside besides between
beyond by concerning despite down during except for from in inside into like near of off on onto opposite out
outside over past per regarding round since through throughout till to toward towards under underneath until up
upon via with within without
"""
CONJUNCTIONS = """
and or but nor so yet although because if lest once than though unless when whenever where whereas wherever
whether while
"""
WITHOUT_FEELING = frozenset(f"{PRONOUNS} {PREPOSITIONS} {CONJUNCTIONS}".split())


def words_of(text: str) -> list[str]:
    """Lower-case words in order, apostrophes inside them straight."""
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]
