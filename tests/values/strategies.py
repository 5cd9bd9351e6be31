"""Hypothesis strategies for Convex values."""

from __future__ import annotations

from hypothesis import strategies as st

field_names = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=6).filter(
    lambda name: not name.startswith("$")
)
int64s = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [0, 1, -1, 127, 128, -128, -129, 2**15 - 1, 2**15, -(2**15) - 1, 2**31, 2**63 - 1, -(2**63)]
)
floats = st.floats() | st.sampled_from([0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), 5e-324, 1e16, 1e21])
texts = st.text(max_size=8) | st.sampled_from(["", "\0", "a\0", "a\0b", "\uffff", "\U00010000"])
scalars = st.none() | st.booleans() | int64s | floats | texts | st.binary(max_size=6)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names, inner, max_size=4),
    max_leaves=12,
)
