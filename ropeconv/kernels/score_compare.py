"""Attention scores of two forms of a model, compared without a T x T matrix in memory.

Notation: B sequences, T query tokens, S key tokens, H query heads, K key heads, D head_dim, C
    hidden_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton

from ropeconv.kernels.backend import BACKEND
from ropeconv.kernels.score_kernel import score_kernel
from ropeconv.words.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from ropeconv.kernels.table import RopeTable
    from ropeconv.words.layout import RopeLayout

_MOST_ELEMENTS = 1 << 20  # of a tensor in a kernel; Triton's own limit
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreForm:
    """q and k before their rotation, with all that says how to rotate them.

    Shapes:
        q [B, T, H, D], k [B, S, K, D], any strides.

    Attributes:
        layout: where the two parts of a pair lie.
        table: row t of it belongs to token t, of q and of k.
        rotary_start: the first rotary row of a head.
    """

    q: Tensor
    k: Tensor
    layout: RopeLayout
    table: RopeTable
    rotary_start: int = 0

    @classmethod
    def from_weights(
        cls,
        q_weight: Tensor,
        k_weight: Tensor,
        *,
        head_dim: int,
        layout: RopeLayout,
        table: RopeTable,
        rotary_start: int = 0,
    ) -> ScoreForm:
        """The rows of two projections as they are.

        Token c is the unit vector e_c, so its q is column c. A view, nothing is copied. Slice
        columns to compare fewer tokens: `q_weight[:, ::16]`.

        Shapes:
            q_weight [H * D, C], k_weight [K * D, C].

        Raises:
            UsageError: the rows are not whole heads.
        """
        for weight in (q_weight, k_weight):
            if weight.ndim != 2 or weight.shape[0] % head_dim:  # noqa: PLR2004 - a matrix
                raise UsageError(
                    what=f"a projection is {list(weight.shape)}, not whole heads of {head_dim}",
                    fix="check head_dim",
                )
        q, k = (
            weight.view(-1, head_dim, weight.shape[1]).permute(2, 0, 1)[None]
            for weight in (q_weight, k_weight)
        )
        return cls(q=q, k=k, layout=layout, table=table, rotary_start=rotary_start)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreDifference:
    """How far the scores of two forms lie apart, for each sequence and query head.

    Shapes:
        max_abs [B, H] float32; place [B, H, 2], query and key index of it; the sums [B, H] float64.
    """

    max_abs: Tensor
    place: Tensor
    sum_squared_difference: Tensor
    sum_squares_a: Tensor
    sum_squares_b: Tensor
    scores: int  # compared in each head

    @property
    def relative_rms(self) -> Tensor:
        """Root mean square of the difference over that of the larger form; 0 where both are 0."""
        size = torch.maximum(self.sum_squares_a, self.sum_squares_b)
        smallest = torch.finfo(torch.float64).tiny
        return (self.sum_squared_difference / size.clamp_min(smallest)).sqrt()

    @property
    def is_zero(self) -> bool:
        """Whether every score of every head is the same number in both forms."""
        return bool((self.max_abs == 0).all())


def score_compare(
    form_a: ScoreForm,
    form_b: ScoreForm,
    *,
    query_rows: Tensor | None = None,
    key_rows: Tensor | None = None,
    scale: float | None = None,
) -> ScoreDifference:
    """Rotates both forms, each in its own layout by its own table, and compares all their scores.

    Exactly zero for a right reorder if both forms share one table.

    Args:
        form_a: one form.
        form_b: the other, of the same shapes; its layout, table and dtype may differ.
        query_rows: [T] or [B, T], the table row of each query; None for 0, 1, ...
        key_rows: [S] or [B, S], the same for keys.
        scale: multiplies the scores; None for 1 / sqrt(D).

    Raises:
        UsageError: shapes do not go together, or a row lies outside a table.
    """
    _check(form_a, form_b)
    sequences, queries, q_heads, head_dim = form_a.q.shape
    keys, k_heads = form_a.k.shape[1:3]
    device = form_a.q.device
    q_rows = _rows(query_rows, sequences, queries, form_a, form_b)
    k_rows = _rows(key_rows, sequences, keys, form_a, form_b)

    rotary_dim = form_a.table.rotary_dim
    heads = sequences * q_heads
    head_tile, q_tile, k_tile, pair_tile = _tile(heads, queries, keys, rotary_dim // 2)
    blocks = triton.cdiv(queries, q_tile), triton.cdiv(keys, k_tile)
    tiles = blocks[0] * blocks[1]
    worst = torch.empty((heads, tiles), dtype=torch.int64, device=device)
    sums = torch.empty((heads, tiles, 3), dtype=torch.float32, device=device)
    with torch.cuda.device(device if device.type == "cuda" else -1):
        score_kernel[(triton.cdiv(heads, head_tile) * tiles,)](
            form_a.q, form_a.k, form_a.table.cos, form_a.table.sin,
            form_b.q, form_b.k, form_b.table.cos, form_b.table.sin, q_rows, k_rows, worst, sums,
            *form_a.q.stride(), *form_a.k.stride(), *form_b.q.stride(), *form_b.k.stride(),
            form_a.table.cos.stride(0), form_b.table.cos.stride(0),
            queries, keys, heads, q_heads, q_heads // k_heads, *blocks,
            1 / math.sqrt(head_dim) if scale is None else scale,
            HEAD_DIM=head_dim, START=form_a.rotary_start, DIM=rotary_dim,
            **_constants("A", form_a), **_constants("B", form_b),
            HEADS=head_tile, QUERIES=q_tile, KEYS=k_tile, PAIRS=pair_tile,
            num_warps=8, num_stages=1,
            enable_fp_fusion=False,  # the default differs between Triton versions
        )  # fmt: skip

    best, tile = worst.max(1)
    place = q_tile * k_tile - 1 - (best & 0xFFFFFFFF)
    query = tile // blocks[1] * q_tile + place // k_tile
    key = tile % blocks[1] * k_tile + place % k_tile
    totals = sums.double().sum(1).view(sequences, q_heads, 3)
    return ScoreDifference(
        max_abs=(best >> 32).int().view(torch.float32).view(sequences, q_heads),
        place=torch.stack([query, key], -1).view(sequences, q_heads, 2),
        sum_squared_difference=totals[..., 0],
        sum_squares_a=totals[..., 1],
        sum_squares_b=totals[..., 2],
        scores=queries * keys,
    )


def _tile(heads: int, queries: int, keys: int, pairs: int) -> tuple[int, int, int, int]:
    """Heads, queries, keys and pairs at a time; `tl.dot` wants at least 16 of the last three."""
    interpreted = BACKEND == "interpreter"
    most, most_pairs = (1024, pairs) if interpreted else (64, 16)
    q_tile, k_tile = (
        min(most, max(16, triton.next_power_of_2(count))) for count in (queries, keys)
    )
    pair_tile = max(16, triton.next_power_of_2(min(most_pairs, pairs)))
    if not interpreted:
        return 1, q_tile, k_tile, pair_tile
    fit = _MOST_ELEMENTS // max(q_tile * k_tile, q_tile * pair_tile, k_tile * pair_tile)
    return min(fit, triton.next_power_of_2(heads)), q_tile, k_tile, pair_tile


def _constants(side: str, form: ScoreForm) -> dict[str, int]:
    pair_stride, part_stride = form.layout.strides(form.table.rotary_dim // 2)
    return {
        f"PAIR_STRIDE_{side}": pair_stride,
        f"PART_STRIDE_{side}": part_stride,
        f"COLUMN_STEP_{side}": form.table.column_step * form.table.cos.stride(-1),
    }


def _rows(rows: Tensor | None, sequences: int, tokens: int, *forms: ScoreForm) -> Tensor:
    """The table row of each token of each sequence, [B, tokens]."""
    device, last = forms[0].q.device, min(form.table.rows for form in forms) - 1
    if rows is None:
        rows = torch.arange(tokens, device=device)
        lowest, highest = 0, tokens - 1
    else:
        lowest, highest = (int(end) for end in torch.aminmax(rows))
    shapes = [(tokens,), (sequences, tokens)]
    if rows.shape not in shapes or not 0 <= lowest <= highest <= last:
        raise UsageError(
            what=f"rows {lowest} to {highest} for {tokens} tokens, the tables end at row {last}",
            fix="give both tables a row for each token, or name the row of each token",
        )
    return rows.to(device, torch.int64).expand(sequences, tokens).contiguous()


def _check(form_a: ScoreForm, form_b: ScoreForm) -> None:
    a, b = form_a, form_b
    shapes = [[tuple(x.shape) for x in (form.q, form.k)] for form in (a, b)]
    (q_shape, k_shape), other = shapes
    fits = (
        shapes[0] == other
        and len(q_shape) == len(k_shape) == 4  # noqa: PLR2004 - [B, T, H, D]
        and q_shape[0] == k_shape[0]
        and q_shape[3] == k_shape[3]
        and min(*q_shape, *k_shape) > 0
        and q_shape[2] % k_shape[2] == 0
    )
    if not fits:
        raise UsageError(
            what=f"q and k are {shapes[0]} in one form, {other} in the other",
            why="both forms need q [B, T, H, D] and k [B, S, K, D], with H a multiple of K",
            fix="compare two forms of one model",
        )
    spans = [(form.rotary_start, form.table.rotary_dim) for form in (a, b)]
    if spans[0] != spans[1] or sum(spans[0]) > q_shape[3] or spans[0][0] < 0:
        raise UsageError(
            what=f"rotary start and rows are {spans[0]} in one form, {spans[1]} in the other, "
            f"in heads of {q_shape[3]} rows",
            fix="compare forms with the same rotary span",
        )
    if a.table.gathered or b.table.gathered:
        raise UsageError(
            what="a gathered table has no rows to look up",
            fix="use a [T, columns] table, and name its rows by query_rows and key_rows",
        )
    tensors = [x for form in (a, b) for x in (form.q, form.k)]
    if any(x.dtype not in _DTYPES for x in tensors):
        raise UsageError(
            what=f"q and k are {', '.join(str(x.dtype) for x in tensors)}",
            why="scores are compared in float32; float64 would lose bits without a word",
            fix="pass bfloat16, float16 or float32",
        )
    devices = {x.device for x in (*tensors, a.table.cos, b.table.cos)}
    if len(devices) > 1 or (BACKEND == "cuda" and not a.q.is_cuda):
        raise UsageError(
            what=f"the forms lie on {', '.join(sorted(map(str, devices)))}",
            why=f"kernels run on `{BACKEND}`",
            fix="move both forms and their tables to one device",
        )
