"""One key head's scores by distance, in float64: where a wrong layout shows, and where not.

At distance 0 a rotation cancels out and every layout gives the right score; the farther apart two
tokens are, the more pairs have turned. For people who read reports: the verdict does not need it.

Notation: T probe positions, N query heads of one key head, D head dimension.
"""

# ruff: noqa: N806 - axes stand in names: see the notation above

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ropeconv.kernels import ScoreForm
from ropeconv.kernels.reference import rope_reference, scores_reference
from ropeconv.proof.verdict import DistancePoint
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Keep, Rope, row_order


def by_distance(
    source: ScoreForm, target: ScoreForm, positions: Sequence[int]
) -> tuple[DistancePoint, ...]:
    """The largest difference of scores in each octave of distance: 0, 1, 2 to 3, 4 to 7 and so on.

    Args:
        source: one key head and the query heads that share it, with a table in float64.
        target: the same of the other side.
        positions: of the tokens, in the order of the tables' rows.
    """
    other = HALF_SPLIT if source.layout == INTERLEAVED else INTERLEAVED
    right_NTT = _scores(source)
    difference_NTT = (_scores(target) - right_NTT).abs()
    control_NTT = (_scores(replace(source, layout=other)) - right_NTT).abs()
    places = torch.tensor(positions, dtype=torch.int64, device=right_NTT.device)
    distance_TT = (places[:, None] - places[None, :]).abs()
    octaves = sorted({distance.bit_length() for distance in distance_TT.flatten().tolist()})
    points = []
    for octave in octaves:
        first, last = (1 << octave) >> 1, max((1 << octave) - 1, 0)
        among_TT = (distance_TT >= first) & (distance_TT <= last)
        points.append(
            DistancePoint(
                first=first,
                last=last,
                difference=float(difference_NTT[:, among_TT].max()),
                control=float(control_NTT[:, among_TT].max()),
            )
        )
    return tuple(points)


def _scores(form: ScoreForm) -> Tensor:
    """Scores [N, T, T], with every form's sums in one order: equal rows give equal scores."""
    head_dim, start, dim = form.q.shape[-1], form.rotary_start, form.table.rotary_dim
    rows = (Keep(start), Rope(dim), Keep(head_dim - start - dim))
    order = list(row_order(rows, form.layout, HALF_SPLIT))
    q, k = (
        rope_reference(x.double(), form.table, layout=form.layout, rotary_start=form.rotary_start)[
            ..., order
        ]
        for x in (form.q, form.k)
    )
    return scores_reference(q, k)[0]
