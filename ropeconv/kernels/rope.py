"""The rotation as a function of tensors: out of place, differentiable, traceable.

Notation: B sequences, T tokens, H query heads, K key heads, D head_dim, r rotary rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from ropeconv.kernels.launch import launch
from ropeconv.kernels.plan import STORAGES, Rotation
from ropeconv.kernels.positions import FROM_ZERO, Positions
from ropeconv.words.errors import UsageError

if TYPE_CHECKING:
    from ropeconv.kernels.table import RopeTable
    from ropeconv.words.layout import RopeLayout

Storage = Literal["BTHD", "BHTD", "THD"]
Keys = TypeVar("Keys", bound=Tensor | None)  # None comes back as None


def apply_rope(
    q: Tensor,
    k: Keys,
    table: RopeTable,
    *,
    layout: RopeLayout,
    rotary_start: int = 0,
    positions: Positions = FROM_ZERO,
    k_positions: Positions | None = None,
    storage: Storage = "BTHD",
    in_place: bool = False,
) -> tuple[Tensor, Keys]:
    """Turn the rotary rows of q and k by the angles of their positions, in one launch.

    Arithmetic is float32 (float64 for float64) whatever the dtype, with one rounding at the end.
    Rows that do not rotate are passed through. The gradient is the same rotation, turned backwards.

    Shapes:
        q [B, T, H, D], k [B, T, K, D]; with storage "BHTD" [B, H, T, D], with "THD" [T, H, D]. Any
        strides.

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
        The rotated q and k, None for a k of None. A token whose position was given in a tensor and
        lies outside the table is NaN.

    Raises:
        UsageError: shapes, dtypes or devices do not go together, or a position known to the host
            lies outside the table.

    Source:
        Su et al. 2021, https://arxiv.org/abs/2104.09864, section 3.4.2.
    """
    if k_positions is None:
        k_positions = positions
    if storage not in STORAGES or q.ndim != len(storage):
        raise UsageError(
            what=f"q has {q.ndim} dimensions and the storage is `{storage}`",
            fix=f"name one of {', '.join(STORAGES)}, and pass a tensor with these dimensions",
        )
    tokens = q.shape[storage.index("T")]
    _check_rows(table, positions, tokens)
    if k_positions is not positions:
        _check_rows(table, k_positions, tokens)

    pair_stride, part_stride = layout.strides(table.rotary_dim // 2)
    rotation = Rotation(
        pair_stride, part_stride, table.rotary_dim, rotary_start, table.column_step,
        STORAGES.index(storage), positions.token_step, k_positions.token_step,
        int(k_positions is positions), 0, int(in_place),
    )  # fmt: skip
    offsets = positions.offset, k_positions.offset
    tensors = q, k, table.cos, table.sin, positions.ids, k_positions.ids
    recorded = torch.is_grad_enabled() and (q.requires_grad or (k is not None and k.requires_grad))
    if not in_place:
        turn: Any = _Rope.apply if recorded else _turn
        q_out, k_out = turn(*tensors, rotation, offsets)
        return q_out, k_out
    if recorded or any(x is not None and x.stride(-1) != 1 for x in (q, k)):
        raise UsageError(
            what="q and k cannot be rotated in place here",
            why="a gradient is being recorded"
            if recorded
            else "the rows of a head are not contiguous",
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
    def backward(
        ctx: Any,  # noqa: ANN401 - as above
        q_grad: Tensor,
        k_grad: Tensor | None,
    ) -> tuple[Any, ...]:
        back = ctx.rotation._replace(conjugate=1 - ctx.rotation.conjugate)
        turn: Any = _Rope.apply if torch.is_grad_enabled() else _turn
        q_back, k_back = turn(q_grad, k_grad, *ctx.saved_tensors, back, ctx.offsets)
        return q_back, k_back, None, None, None, None, None, None


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
        keys = q.new_empty(0) if k is None else k
        q_out, k_out = rotate_operator(
            q, keys, cos, sin, q_ids, k_ids, list(rotation), list(offsets)
        )
        return q_out, None if k is None else k_out
    # A gradient may arrive expanded, or transposed.
    q = q if q.stride(-1) == 1 else q.contiguous()
    q_out = torch.empty_like(q)
    if k is None:
        launch(rotation, q, None, q_out, None, cos, sin, q_ids, k_ids, offsets)
        return q_out, None
    k = k if k.stride(-1) == 1 else k.contiguous()
    k_out = torch.empty_like(k)
    launch(rotation, q, k, q_out, k_out, cos, sin, q_ids, k_ids, offsets)
    return q_out, k_out


@torch.library.custom_op("ropeconv::rotate", mutates_args=())
def rotate_operator(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    rotation: list[int],
    offsets: list[int],
) -> tuple[Tensor, Tensor]:
    """The launch as an operator of torch; a k of no elements stands for no k."""
    q_offset, k_offset = offsets
    keys = k if k.numel() else None
    spec = Rotation(*rotation)
    q_out, k_out = _turn(q, keys, cos, sin, q_ids, k_ids, spec, (q_offset, k_offset))
    return q_out, torch.empty_like(k) if k_out is None else k_out


@rotate_operator.register_fake
def _(q: Tensor, k: Tensor, *_rest: object) -> tuple[Tensor, Tensor]:
    return _like(q), _like(k)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x if x.stride(-1) == 1 else x.contiguous())


def _check_rows(table: RopeTable, positions: Positions, tokens: int) -> None:
    """What changes from call to call; all else is checked with the plan, once for its kind."""
    if positions is FROM_ZERO and tokens <= table.rows:
        return
    if positions.ids is None:
        first = positions.offset
        last = first + positions.token_step * (tokens - 1)
        if tokens and not 0 <= first <= last < table.rows:
            raise UsageError(
                what=f"positions {first} to {last} are not all in a table of {table.rows} rows",
                fix="make the table longer",
            )
    from_zero = (positions.offset, positions.token_step, positions.ids) == (0, 1, None)
    if table.gathered and not from_zero:
        raise UsageError(
            what="a gathered table has a row for each token, and positions were given too",
            fix="leave out the positions, or pass the table before it was gathered",
        )
