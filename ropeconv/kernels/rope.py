"""The rotation as a function of tensors: out of place, differentiable, traceable.

Notation: B sequences, T tokens, H query heads, K key heads, D head_dim, r rotary rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from ropeconv.kernels.launch import launch
from ropeconv.kernels.positions import FROM_ZERO, Positions
from ropeconv.kernels.rotation import STORAGE_NUMBERS, Rotation
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
    number = STORAGE_NUMBERS.get(storage)
    if number is None:
        raise UsageError(
            what=f"the storage is `{storage}`",
            fix=f"name one of {', '.join(STORAGE_NUMBERS)}",
        )
    if k_positions is None:
        k_positions = positions
    pair_stride, part_stride = layout.strides(table.rotary_dim // 2)
    # A `Rotation`, as the plain tuple that it is: naming the parts would cost 2 % of a call.
    rotation = (
        pair_stride, part_stride, table.rotary_dim, rotary_start, table.column_step, number,
        positions.token_step, k_positions.token_step, 1 if k_positions is positions else 0,
        0, 1 if in_place else 0,
    )  # fmt: skip
    offsets = positions.offset, k_positions.offset
    tensors = q, k, table.cos, table.sin, positions.ids, k_positions.ids
    recorded = torch.is_grad_enabled() and (q.requires_grad or (k is not None and k.requires_grad))
    if in_place and (recorded or any(x is not None and x.stride(-1) != 1 for x in (q, k))):
        raise UsageError(
            what="q and k cannot be rotated in place here",
            why="a gradient is being recorded"
            if recorded
            else "the rows of a head are not contiguous",
            fix="leave out `in_place`",
        )
    turn: Any = _Rope.apply if recorded else _way()
    rotated: tuple[Tensor, Keys] = turn(*tensors, rotation, offsets)
    return rotated


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
        rotation: tuple[int, ...],
        offsets: tuple[int, int],
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(cos, sin, q_ids, k_ids)
        ctx.rotation, ctx.offsets = rotation, offsets
        return _way()(q, k, cos, sin, q_ids, k_ids, rotation, offsets)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - as above
        q_grad: Tensor,
        k_grad: Tensor | None,
    ) -> tuple[Any, ...]:
        rotation = Rotation(*ctx.rotation)
        back = rotation._replace(conjugate=1 - rotation.conjugate)
        turn: Any = _Rope.apply if torch.is_grad_enabled() else _way()
        q_back, k_back = turn(q_grad, k_grad, *ctx.saved_tensors, back, ctx.offsets)
        return q_back, k_back, None, None, None, None, None, None


def _way() -> Callable[..., tuple[Tensor, Tensor | None]]:
    """A compiled graph sees one operator; eager code pays for none."""
    return _through_operator if torch.compiler.is_compiling() else launch


def _through_operator(
    q: Tensor,
    k: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    rotation: tuple[int, ...],
    offsets: tuple[int, int],
) -> tuple[Tensor, Tensor | None]:
    keys = q.new_empty(0) if k is None else k
    rest = cos, sin, q_ids, k_ids, list(rotation), list(offsets)
    if Rotation(*rotation).in_place:
        rotate_in_place_operator(q, keys, *rest)
        return q, k
    q_out, k_out = rotate_operator(q, keys, *rest)
    return q_out, None if k is None else k_out


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
    q_out, k_out = launch(q, keys, cos, sin, q_ids, k_ids, tuple(rotation), (q_offset, k_offset))
    return q_out, torch.empty_like(k) if k_out is None else k_out


@rotate_operator.register_fake
def _(q: Tensor, k: Tensor, *_rest: object) -> tuple[Tensor, Tensor]:
    return _like(q), _like(k)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x if x.stride(-1) == 1 else x.contiguous())


@torch.library.custom_op("ropeconv::rotate_in_place", mutates_args=("q", "k"))
def rotate_in_place_operator(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    rotation: list[int],
    offsets: list[int],
) -> None:
    """The same, into q and k themselves."""
    q_offset, k_offset = offsets
    keys = k if k.numel() else None
    launch(q, keys, cos, sin, q_ids, k_ids, tuple(rotation), (q_offset, k_offset))
