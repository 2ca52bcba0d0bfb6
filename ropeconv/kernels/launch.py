"""From tensors to a launch: shapes and strides decide everything, so a plan is made once for a kind of call.

Notation: B sequences, T tokens, H query heads, K key heads, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ropeconv.kernels.backend import BACKEND
from ropeconv.kernels.rope_kernel import rope_kernel
from ropeconv.words.errors import UsageError

# Where B, T and H lie among a tensor's dimensions; THD is one sequence.
AXES: dict[str, tuple[int | None, int, int]] = {
    "BTHD": (0, 1, 2),
    "BHTD": (0, 2, 1),
    "THD": (None, 0, 1),
}
STORAGES = tuple(AXES)

_MAX_BLOCK = 1 << 20  # Triton's own limit on the elements of a block


class Rotation(NamedTuple):
    """What is done, apart from the tensors: whole numbers only, so that a compiled graph can carry it."""

    pair_stride: int
    part_stride: int
    rotary_dim: int
    rotary_start: int
    column_step: int  # columns of the table from one pair to the next
    storage: int  # an index into STORAGES
    q_step: int  # rows of the table from one token to the next
    k_step: int
    same_positions: int  # 1: k reads the rows that q reads
    conjugate: int  # 1: turn backwards
    in_place: int  # 1: what does not rotate is where it belongs already


class Tile(NamedTuple):
    """What one program rotates, and its warps."""

    tokens: int
    q_heads: int
    warps: int


class Place(NamedTuple):
    """Shape and strides of a tensor."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A launch without its pointers."""

    grid: tuple[int]
    numbers: tuple[int, ...]
    constants: dict[str, Any]


def launch(
    rotation: Rotation,
    q: Tensor,
    k: Tensor | None,
    q_out: Tensor,
    k_out: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    offsets: tuple[int, int],
) -> None:
    """Rotates q into q_out and k into k_out; the last dimension of each is contiguous."""
    plan = make_plan(
        rotation, q.dtype,
        _place(q), _place(q_out), _place(k), _place(k_out), _place(cos), _place(q_ids), _place(k_ids),
    )  # fmt: skip
    if plan is None:
        return
    # An absent tensor is passed as q: its pointer is never followed.
    arguments = (
        q, q if k is None else k, q_out, q if k_out is None else k_out, cos, sin,
        q if q_ids is None else q_ids, q if k_ids is None else k_ids, *offsets, *plan.numbers,
    )  # fmt: skip
    if q.is_cuda and q.device.index != torch.cuda.current_device():
        with torch.cuda.device(q.device):
            rope_kernel[plan.grid](*arguments, **plan.constants)
    else:
        rope_kernel[plan.grid](*arguments, **plan.constants)


@lru_cache(maxsize=4096)
def make_plan(
    rotation: Rotation,
    dtype: torch.dtype,
    q: Place,
    q_out: Place,
    k: Place | None,
    k_out: Place | None,
    table: Place,
    q_ids: Place | None,
    k_ids: Place | None,
) -> Plan | None:
    """The launch for tensors of these shapes; None if there is nothing to rotate.

    Raises:
        UsageError: shapes that do not go together.
    """
    batch_axis, token_axis, head_axis = AXES[STORAGES[rotation.storage]]
    sequences = 1 if batch_axis is None else q.shape[batch_axis]
    tokens, q_heads, head_dim = q.shape[token_axis], q.shape[head_axis], q.shape[-1]
    k_heads = 0 if k is None else k.shape[head_axis]
    _check(rotation, q, k, table, q_ids, k_ids)
    if 0 in (sequences, tokens, q_heads + k_heads, head_dim):
        return None

    pairs = triton.next_power_of_2(rotation.rotary_dim // 2)
    tile = choose_tile(
        tokens, q_heads, k_heads, 2 * pairs * dtype.itemsize,
        tokens_adjacent=q.stride[token_axis] < q.stride[head_axis],
    )  # fmt: skip
    head_blocks = triton.cdiv(max(q_heads, 1), tile.q_heads)
    k_tile = triton.next_power_of_2(max(triton.cdiv(k_heads, head_blocks), 1))
    head_blocks = max(head_blocks, triton.cdiv(k_heads, k_tile))
    token_blocks = triton.cdiv(tokens, tile.tokens)

    def strides(place: Place | None) -> tuple[int, int, int]:
        if place is None:
            return 0, 0, 0
        in_batch = 0 if batch_axis is None else place.stride[batch_axis]
        return in_batch, place.stride[token_axis], place.stride[head_axis]

    gathered = len(table.shape) == 3  # noqa: PLR2004 - [B, T, columns] against [T, columns]
    numbers = (
        *strides(q), *strides(q_out), *strides(k), *strides(k_out),
        table.stride[0] if gathered and table.shape[0] > 1 else 0, table.stride[-2], table.shape[-2],
        *_id_strides(q_ids), *_id_strides(k_ids),
        tokens, token_blocks, q_heads, k_heads, head_blocks,
    )  # fmt: skip
    rest = head_dim - rotation.rotary_dim
    constants = {
        "HEAD_DIM": head_dim,
        "ROTARY_START": rotation.rotary_start,
        "ROTARY_DIM": rotation.rotary_dim,
        "PAIR_STRIDE": rotation.pair_stride,
        "PART_STRIDE": rotation.part_stride,
        "COLUMN_STEP": rotation.column_step * table.stride[-1],
        "Q_IDS": q_ids is not None,
        "K_IDS": k_ids is not None,
        "Q_STEP": rotation.q_step,
        "K_STEP": rotation.k_step,
        "SAME_POSITIONS": bool(rotation.same_positions),
        "HAS_K": k_heads > 0,
        "COPY_REST": rest > 0 and not rotation.in_place,
        "CONJUGATE": bool(rotation.conjugate),
        "WHOLE_TOKENS": tokens % tile.tokens == 0,
        "WHOLE_Q": head_blocks * tile.q_heads == q_heads,
        "WHOLE_K": head_blocks * k_tile == k_heads,
        "TOKENS": tile.tokens,
        "Q_HEADS": tile.q_heads,
        "K_HEADS": k_tile,
        "PAIRS": pairs,
        "REST": triton.next_power_of_2(max(rest, 1)),
        "MATH": tl.float64 if dtype == torch.float64 else tl.float32,
        "ROUND_BF16": BACKEND == "interpreter" and dtype == torch.bfloat16,
        "num_warps": tile.warps,
    }
    return Plan(
        grid=(sequences * token_blocks * head_blocks,), numbers=numbers, constants=constants
    )


def choose_tile(
    tokens: int, q_heads: int, k_heads: int, row_bytes: int, *, tokens_adjacent: bool
) -> Tile:
    """The tile for heads of row_bytes rotary bytes.

    On a GPU: one token and up to 8 KiB of its q, so that the table is read once a token and goes straight
    to registers; where a head's tokens lie side by side, up to 16 tokens of up to 4 heads. About 64 bytes
    of q a thread. In the interpreter a program costs the same whatever its size: as much as a block holds.
    """
    q_heads = triton.next_power_of_2(max(q_heads, 1))
    if BACKEND == "interpreter":
        widest = max(q_heads, triton.next_power_of_2(k_heads)) * row_bytes // 2
        return Tile(min(triton.next_power_of_2(tokens), max(1, _MAX_BLOCK // widest)), q_heads, 4)
    if tokens_adjacent:
        heads = min(q_heads, 4)
        block = max(1, min(16, triton.next_power_of_2(tokens), 8192 // (heads * row_bytes)))
    else:
        heads = max(1, min(q_heads, 8192 // row_bytes))
        block = 1
        while block < 16 and block < tokens and block * heads * row_bytes < 4096:  # noqa: PLR2004 - half a tile
            block *= 2
    warps = max(1, min(8, block * heads * row_bytes // 2048))
    return Tile(block, heads, warps)


def _check(
    rotation: Rotation,
    q: Place,
    k: Place | None,
    table: Place,
    q_ids: Place | None,
    k_ids: Place | None,
) -> None:
    batch_axis, token_axis, head_axis = AXES[STORAGES[rotation.storage]]
    sequences = 1 if batch_axis is None else q.shape[batch_axis]
    tokens, head_dim = q.shape[token_axis], q.shape[-1]
    if k is not None and (
        len(k.shape) != len(q.shape)
        or any(k.shape[axis] != q.shape[axis] for axis in range(len(q.shape)) if axis != head_axis)
    ):
        raise UsageError(
            what=f"k is {list(k.shape)}, q is {list(q.shape)}: they may differ in heads only",
            fix=f"check the storage, `{STORAGES[rotation.storage]}`",
        )
    start, rotary_dim = rotation.rotary_start, rotation.rotary_dim
    if start < 0 or start + rotary_dim > head_dim:
        raise UsageError(
            what=f"{rotary_dim} rotary rows from row {start} do not fit into a head of {head_dim}",
            fix="check the table's rotary_dim and rotary_start",
        )
    gathered = table.shape[:-1] if len(table.shape) == 3 else None  # noqa: PLR2004 - [B, T, columns]
    if gathered is not None and (gathered[0] not in (1, sequences) or gathered[1] != tokens):
        raise UsageError(
            what=f"a gathered table is for {list(gathered)} tokens, q has {[sequences, tokens]}",
            fix="gather the table by the positions of these tokens",
        )
    for ids in (q_ids, k_ids):
        if ids is not None and (
            ids.shape[-1] not in (1, tokens)
            or (len(ids.shape) == 2 and ids.shape[0] not in (1, sequences))  # noqa: PLR2004 - [B, T]
        ):
            raise UsageError(
                what=f"positions are {list(ids.shape)}, q has {[sequences, tokens]} tokens",
                fix="pass one position for each token, or one offset for each sequence",
            )


def _place(tensor: Tensor | None) -> Place | None:
    return None if tensor is None else Place(tensor.shape, tensor.stride())


def _id_strides(ids: Place | None) -> tuple[int, int]:
    """Strides over sequences and tokens; 0 where one id serves all."""
    if ids is None:
        return 0, 0
    in_batch = ids.stride[0] if len(ids.shape) == 2 and ids.shape[0] > 1 else 0  # noqa: PLR2004 - [B, T]
    return in_batch, ids.stride[-1] if ids.shape[-1] > 1 else 0
