"""Controls: the mistakes that people make, made on purpose to show what the score check can see.

Each takes the source's own queries and keys and handles them wrongly. A right check must see every
one. They are made for one key head and the query heads that share it.

Notation: T tokens, H query heads, K key heads, N = H / K, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from ropeconv.kernels import ScoreForm
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Repeat, Rope, RopeLayout, row_order


class Turn(IntEnum):
    """By which angles a variant is rotated."""

    RIGHT = 0
    SHIFTED = 1  # all positions moved by one large number
    WRONG = 2  # another theta


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The source's queries and keys, handled in some way.

    Shapes:
        q [1, T, N, D], k [1, T, 1, D], before the rotation.
    """

    name: str
    q: Tensor
    k: Tensor
    layout: RopeLayout  # that it is rotated in
    turn: Turn = Turn.RIGHT


def wrong_variants(form: ScoreForm, group: int) -> list[Variant]:
    """The source's form of one layer, handled wrongly in each way.

    Args:
        form: all heads of a layer, q [1, T, H, D] and k [1, T, K, D].
        group: the key head in question.
    """
    own = form.layout
    other = HALF_SPLIT if own == INTERLEAVED else INTERLEAVED
    ours, head_dim = one_group(form, group), form.q.shape[-1]
    q, k = ours.q, ours.k
    there, back = _order(1, head_dim, own, other), _order(1, head_dim, other, own)
    wrong = [
        Variant(name="not reordered", q=q, k=k, layout=other),
        Variant(name="wrong direction", q=q[..., back], k=k[..., back], layout=other),
        Variant(
            name="reordered twice", q=q[..., there[there]], k=k[..., there[there]], layout=other
        ),
        Variant(name="only q reordered", q=q[..., there], k=k, layout=own),
        Variant(name="only k reordered", q=q, k=k[..., there], layout=own),
        Variant(name="another theta", q=q, k=k, layout=own, turn=Turn.WRONG),
    ]
    if form.q.shape[-2] > 1:
        moved = [
            x.flatten(-2)[..., _order(1, x.shape[-2] * head_dim, own, other)].view(x.shape)
            for x in (form.q, form.k)
        ]
        one = one_group(replace(form, q=moved[0], k=moved[1]), group)
        wrong.append(Variant(name="matrix as one head", q=one.q, k=one.k, layout=other))
    if head_dim % 4 == 0:
        halves = _order(2, head_dim // 2, own, other)
        wrong.append(
            Variant(name="wrong head count", q=q[..., halves], k=k[..., halves], layout=other)
        )
    return wrong


def one_group(form: ScoreForm, group: int) -> ScoreForm:
    """One key head with the query heads that share it."""
    share = form.q.shape[-2] // form.k.shape[-2]
    q = form.q[..., group * share : (group + 1) * share, :]
    return replace(form, q=q, k=form.k[..., group : group + 1, :])


def _order(heads: int, rows: int, source: RopeLayout, target: RopeLayout) -> Tensor:
    return torch.tensor(row_order((Repeat(heads, Rope(rows)),), source, target))
