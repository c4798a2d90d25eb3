"""How hard the fuzz tests try: quickly as they are, longer by FUZZ_EXAMPLES=20000."""

from __future__ import annotations

import os
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "0"))

odd_text: Final = st.one_of(
    st.text(max_size=40),
    st.text("0123456789", min_size=4300, max_size=5000),  # more digits than int() takes
    st.text("٠١٢٣٤٥٦٧٨٩²", max_size=4),  # decimals that are no ASCII
    st.sampled_from(["\0", "\ud800", "a b", "a\nb", "-", "%", "nan", "1e999", "x" * 100_000]),
)
odd_number: Final = st.one_of(
    st.integers(-(2**70), 2**70), st.sampled_from([2**31, 2**63, -1, 2**200]), st.floats()
)
odd: Final = st.recursive(
    st.none() | st.booleans() | odd_number | odd_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=5,
)
"""What JSON can hold, and a message's header may."""


def fuzz(examples: int, **options: Any) -> settings:
    """So many examples, or those that were asked for."""
    checks = HealthCheck
    unhurried = [checks.function_scoped_fixture, checks.too_slow, checks.data_too_large]
    return settings(
        max_examples=EXAMPLES or examples, deadline=None, suppress_health_check=unhurried, **options
    )
