"""Text that ends before a stop."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.text import cut


@settings(deadline=None)
@given(st.text("ab\n#", max_size=12), st.lists(st.text("ab\n#", min_size=1, max_size=3), max_size=4))
def test_a_text_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    found = cut(text, stops)
    assert text.startswith(found)
    assert not any(stop in found for stop in stops)
    assert found == text or any(text.startswith(stop, len(found)) for stop in stops)
