"""The oracle: rotation and scores in plain torch, slow and obvious, up to float64.

Written from the two strides of a layout and from nothing else; no Triton, no branch on the layout.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ropeconv.kernels.table import RopeTable
    from ropeconv.words.layout import RopeLayout


def rope_reference(
    x: Tensor,
    table: RopeTable,
    *,
    layout: RopeLayout,
    rotary_start: int = 0,
    rows: Tensor | None = None,
    conjugate: bool = False,
) -> Tensor:
    """Turn the rotary rows of x, computing in its own dtype.

    Shapes:
        x [B, T, H, D], rows [T] or [B, T] -> [B, T, H, D].

    Args:
        x: queries or keys.
        table: cosines and sines; build it in float64 for the truth.
        layout: where the two parts of a pair lie.
        rotary_start: the first rotary row of a head.
        rows: the table row of each token; None for 0, 1, ... or for a gathered table.
        conjugate: turn backwards, as a gradient does.
    """
    pairs = table.rotary_dim // 2
    pair_stride, part_stride = layout.strides(pairs)
    first_at = rotary_start + torch.arange(pairs, device=x.device) * pair_stride
    second_at = first_at + part_stride
    cos, sin = (_columns(part, table, x, rows) for part in (table.cos, table.sin))
    if conjugate:
        sin = -sin
    first, second = x[..., first_at], x[..., second_at]
    turned = x.clone()
    turned[..., first_at] = first * cos - second * sin
    turned[..., second_at] = second * cos + first * sin
    return turned


def scores_reference(q: Tensor, k: Tensor) -> Tensor:
    """Scores of every query head, scaled by 1 / sqrt(D).

    Shapes:
        q [B, T, H, D], k [B, S, K, D], rotated -> [B, H, T, S].
    """
    keys = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    return torch.einsum("bthd,bshd->bhts", q, keys) / math.sqrt(q.shape[-1])


def _columns(part: Tensor, table: RopeTable, x: Tensor, rows: Tensor | None) -> Tensor:
    """One value for each token and pair, [B or 1, T, 1, P]."""
    pairs = table.rotary_dim // 2
    values = part[..., torch.arange(pairs, device=part.device) * table.column_step].to(x.dtype)
    if table.gathered:
        return values[:, :, None]
    if rows is None:
        rows = torch.arange(x.shape[1], device=values.device)
    gathered = values[rows]
    gathered = gathered[None] if rows.ndim == 1 else gathered
    return gathered[:, :, None]
