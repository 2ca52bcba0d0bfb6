"""Hypothesis strategies: rows, layouts and small values of the words floor."""

from __future__ import annotations

from hypothesis import strategies as st

from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Keep, Repeat, Rope, Rows

layouts = st.sampled_from([INTERLEAVED, HALF_SPLIT])
keeps = st.integers(0, 7).map(Keep)
ropes = st.integers(1, 9).map(lambda pairs: Rope(2 * pairs))


def _repeats(inner: st.SearchStrategy[Rows]) -> st.SearchStrategy[Rows]:
    parts = st.lists(inner, min_size=1, max_size=3)
    return st.builds(lambda times, found: Repeat(times, *found), st.integers(0, 4), parts)


rows = st.lists(st.recursive(keeps | ropes, _repeats, max_leaves=5), min_size=1, max_size=4).map(
    tuple
)
