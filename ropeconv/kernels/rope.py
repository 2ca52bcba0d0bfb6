"""The rotation as a function of tensors: out of place, differentiable, traceable.

Notation: B sequences, T tokens, H query heads, K key heads, D head_dim, r rotary rows.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ropeconv.kernels.backend import BACKEND
from ropeconv.kernels.launch import STORAGES, Rotation, launch
from ropeconv.kernels.positions import FROM_ZERO, Positions
from ropeconv.kernels.table import RopeTable
from ropeconv.words.errors import UsageError
from ropeconv.words.layout import RopeLayout

Storage = Literal["BTHD", "BHTD", "THD"]

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def apply_rope(
    q: Tensor,
    k: Tensor | None,
    table: RopeTable,
    *,
    layout: RopeLayout,
    rotary_start: int = 0,
    positions: Positions = FROM_ZERO,
    k_positions: Positions | None = None,
    storage: Storage = "BTHD",
    in_place: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """q and k with their rotary rows turned by their positions' angles; one launch.

    Arithmetic is float32 (float64 for float64) whatever the dtype, with one rounding at the end. Rows that
    do not rotate are passed through. The gradient is the same rotation, turned backwards.

    Shapes:
        q [B, T, H, D], k [B, T, K, D]; with storage "BHTD" [B, H, T, D], with "THD" [T, H, D]. Any strides.

    Args:
        q: queries, bf16, fp16, fp32 or fp64.
        k: keys of the same dtype, or None.
        table: cosines and sines.
        layout: where the two parts of a pair lie.
        rotary_start: the first rotary row of a head.
        positions: which row of the table each token reads.
        k_positions: the same for k, if it differs.
        storage: the order of the dimensions.
        in_place: overwrite q and k; refused where a gradient is being recorded.

    Returns:
        The rotated q and k, None for a k of None. A token whose position was given in a tensor and lies
        outside the table is NaN.

    Raises:
        UsageError: shapes, dtypes or devices do not go together, or a position known to the host lies
            outside the table.

    Source:
        Su et al. 2021, https://arxiv.org/abs/2104.09864, section 3.4.2.
    """
    k_positions = positions if k_positions is None else k_positions
    _check_call(q, k, table, positions, k_positions, storage)
    pair_stride, part_stride = layout.strides(table.rotary_dim // 2)
    rotation = Rotation(
        pair_stride, part_stride, table.rotary_dim, rotary_start, table.column_step,
        STORAGES.index(storage), positions.token_step, k_positions.token_step,
        int(k_positions is positions), 0, int(in_place),
    )  # fmt: skip
    offsets = positions.offset, k_positions.offset
    tensors = q, k, table.cos, table.sin, positions.ids, k_positions.ids
    needs_grad = torch.is_grad_enabled() and (
        q.requires_grad or (k is not None and k.requires_grad)
    )
    if not in_place:
        if needs_grad:
            return _Rope.apply(*tensors, rotation, offsets)  # type: ignore[no-untyped-call, no-any-return]
        return _turn(*tensors, rotation, offsets)
    if needs_grad or any(x is not None and x.stride(-1) != 1 for x in (q, k)):
        raise UsageError(
            what="q and k cannot be rotated in place here",
            why="a gradient is being recorded, or the rows of a head are not contiguous",
            fix="leave out `in_place`",
        )
    launch(rotation, q, k, q, k, *tensors[2:], offsets)
    return q, k


class _Rope(torch.autograd.Function):
    """Backward is the conjugate rotation, itself differentiable; q and k are not kept."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch names no type for it
        q: Tensor,
        k: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        q_ids: Tensor | None,
        k_ids: Tensor | None,
        rotation: Rotation,
        offsets: tuple[int, int],
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(cos, sin, q_ids, k_ids)
        ctx.rotation, ctx.offsets = rotation, offsets
        return _turn(q, k, cos, sin, q_ids, k_ids, rotation, offsets)

    @staticmethod
    def backward(ctx: Any, q_grad: Tensor, k_grad: Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401 - as above
        back = ctx.rotation._replace(conjugate=1 - ctx.rotation.conjugate)
        grads = _Rope.apply(q_grad, k_grad, *ctx.saved_tensors, back, ctx.offsets)
        return *grads, None, None, None, None, None, None


def _turn(
    q: Tensor,
    k: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    rotation: Rotation,
    offsets: tuple[int, int],
) -> tuple[Tensor, Tensor | None]:
    """Out of place; a compiled graph sees one operator, eager code pays for none."""
    if torch.compiler.is_compiling():
        nothing = q.new_empty(0)
        q_out, k_out = _rotate_op(
            q, nothing if k is None else k, cos, sin, q_ids, k_ids, list(rotation), list(offsets)
        )
        return q_out, None if k is None else k_out
    # A gradient may arrive expanded, or transposed.
    q = q if q.stride(-1) == 1 else q.contiguous()
    k = k if k is None or k.stride(-1) == 1 else k.contiguous()
    q_out = torch.empty_like(q)
    k_out = None if k is None else torch.empty_like(k)
    launch(rotation, q, k, q_out, k_out, cos, sin, q_ids, k_ids, offsets)
    return q_out, k_out


@torch.library.custom_op("ropeconv::rotate", mutates_args=())
def _rotate_op(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    rotation: list[int],
    offsets: list[int],
) -> tuple[Tensor, Tensor]:
    """The launch as an operator; a k of no elements stands for no k."""
    q_offset, k_offset = offsets
    q_out, k_out = _turn(
        q,
        k if k.numel() else None,
        cos,
        sin,
        q_ids,
        k_ids,
        Rotation(*rotation),
        (q_offset, k_offset),
    )
    return q_out, torch.empty_like(k) if k_out is None else k_out


@_rotate_op.register_fake
def _(q: Tensor, k: Tensor, *_rest: object) -> tuple[Tensor, Tensor]:
    return _like(q), _like(k)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x if x.stride(-1) == 1 else x.contiguous())


def _check_call(
    q: Tensor,
    k: Tensor | None,
    table: RopeTable,
    positions: Positions,
    k_positions: Positions,
    storage: str,
) -> None:
    """What the shapes alone do not say; the rest is checked once for each kind of call, in `make_plan`."""
    if q.dtype not in _DTYPES or (k is not None and k.dtype != q.dtype):
        raise UsageError(
            what=f"q is {q.dtype} and k is {None if k is None else k.dtype}",
            why="both must be one of bfloat16, float16, float32 and float64",
            fix="cast them to one dtype",
        )
    if BACKEND == "cuda" and not q.is_cuda:
        raise UsageError(
            what=f"q lies on `{q.device}`, and the kernel is compiled for CUDA",
            fix="move q and k to the GPU, or start with TRITON_INTERPRET=1",
        )
    ids = positions.ids, k_positions.ids
    for other in (k, table.cos, *ids):
        if other is not None and other.device != q.device:
            raise UsageError(
                what=f"a tensor lies on `{other.device}`, q on `{q.device}`",
                fix="move q, k, the table and the positions to one device",
            )
    if storage not in STORAGES or q.ndim != len(storage):
        raise UsageError(
            what=f"q has {q.ndim} dimensions and the storage is `{storage}`",
            fix=f"name one of {', '.join(STORAGES)}, and pass a tensor with these dimensions",
        )
    tokens = q.shape[storage.index("T")]
    for each in (positions,) if k_positions is positions else (positions, k_positions):
        if table.gathered and each is not FROM_ZERO:
            raise UsageError(
                what="a gathered table has a row for each token, and positions were given too",
                fix="leave out the positions, or pass the table before it was gathered",
            )
        last = each.offset + each.token_step * (tokens - 1)
        if each.ids is None and tokens and not 0 <= each.offset <= last < table.rows:
            raise UsageError(
                what=f"positions {each.offset} to {last} are not all in a table of {table.rows} rows",
                fix="make the table longer",
            )
