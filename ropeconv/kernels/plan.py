"""From shapes and strides to a launch: they decide all, so one plan serves every call of its kind.

Notation: B sequences, T tokens, H query heads, K key heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from ropeconv.kernels.backend import BACKEND
from ropeconv.words.errors import UsageError

# Where B, T and H lie among a tensor's dimensions; THD is one sequence.
AXES: dict[str, tuple[int | None, int, int]] = {
    "BTHD": (0, 1, 2),
    "BHTD": (0, 2, 1),
    "THD": (None, 0, 1),
}
STORAGES = tuple(AXES)

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_MAX_BLOCK = 1 << 20  # Triton's own limit on the elements of a block
_MAX_SEQUENCES = 65535  # CUDA's limit on the second number of a grid


class Rotation(NamedTuple):
    """What is done, in whole numbers only, so that a compiled graph can carry it."""

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


class Place(NamedTuple):
    """All of a tensor but its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Tile(NamedTuple):
    """What one program rotates, and its warps."""

    tokens: int
    q_heads: int
    warps: int


@dataclass(kw_only=True)
class Plan:
    """A launch without its pointers."""

    grid: tuple[int, int, int]
    numbers: tuple[int, ...]  # arguments behind the pointers and offsets
    constants: dict[str, Any]  # by name, launch options among them
    tail: tuple[Any, ...]  # numbers and constants, as a compiled kernel takes them
    run: Callable[..., None] | None = None  # the compiled kernel on its grid, once launched


@lru_cache(maxsize=4096)
def make_plan(
    rotation: Rotation,
    q_place: tuple[Any, ...],
    k_place: tuple[Any, ...] | None,
    table_place: tuple[Any, ...],
    q_ids_place: tuple[Any, ...] | None = None,
    k_ids_place: tuple[Any, ...] | None = None,
) -> Plan | None:
    """The launch for such tensors; None if there is nothing to rotate.

    Args:
        rotation: what is done.
        q_place: a `Place` of q, as a plain tuple, since it is made on the way of every call.
        k_place: the same of k, or None.
        table_place: the same of the table.
        q_ids_place: the same of the ids of q, or None.
        k_ids_place: the same of the ids of k, or None.

    Raises:
        UsageError: the tensors do not go together.
    """
    q, table = Place(*q_place), Place(*table_place)
    k, q_ids, k_ids = (
        None if place is None else Place(*place) for place in (k_place, q_ids_place, k_ids_place)
    )
    q_out, k_out = (q, k) if rotation.in_place else (_out_of(q), k and _out_of(k))
    _check(rotation, q, k, table, (q_ids, k_ids))
    batch_axis, token_axis, head_axis = AXES[STORAGES[rotation.storage]]
    sequences = 1 if batch_axis is None else q.shape[batch_axis]
    tokens, q_heads, head_dim = q.shape[token_axis], q.shape[head_axis], q.shape[-1]
    k_heads = 0 if k is None else k.shape[head_axis]
    if 0 in (sequences, tokens, q_heads + k_heads):
        return None

    pairs = triton.next_power_of_2(rotation.rotary_dim // 2)
    tile = choose_tile(
        tokens,
        q_heads,
        k_heads,
        2 * pairs * q.dtype.itemsize,
        padded=2 * pairs != rotation.rotary_dim,
        tokens_adjacent=q.stride[token_axis] < q.stride[head_axis],
    )
    head_blocks = triton.cdiv(max(q_heads, 1), tile.q_heads)
    k_tile = triton.next_power_of_2(max(triton.cdiv(k_heads, head_blocks), 1))
    head_blocks = max(head_blocks, triton.cdiv(k_heads, k_tile))

    def strides(place: Place | None) -> tuple[int, int, int]:
        if place is None:
            return 0, 0, 0
        in_batch = 0 if batch_axis is None else place.stride[batch_axis]
        return in_batch, place.stride[token_axis], place.stride[head_axis]

    numbers = (
        *strides(q), *strides(q_out), *strides(k), *strides(k_out),
        table.stride[0] if _gathered(table) and table.shape[0] > 1 else 0,
        *_id_strides(q_ids), *_id_strides(k_ids),
        table.shape[-2], tokens, q_heads, k_heads,
    )  # fmt: skip
    rest = head_dim - rotation.rotary_dim
    constants = {
        "HEAD_DIM": head_dim,
        "START": rotation.rotary_start,
        "DIM": rotation.rotary_dim,
        "PAIR_STRIDE": rotation.pair_stride,
        "PART_STRIDE": rotation.part_stride,
        # A constant, since Triton knows the alignment of a number only if 16 divides it.
        "ROW_STRIDE": table.stride[-2],
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
        "HEAD_BLOCKS": head_blocks,
        "TOKENS": tile.tokens,
        "Q_HEADS": tile.q_heads,
        "K_HEADS": k_tile,
        "PAIRS": pairs,
        "REST": triton.next_power_of_2(max(rest, 1)),
        "MATH": tl.float64 if q.dtype == torch.float64 else tl.float32,
        "ROUND_BF16": BACKEND == "interpreter" and q.dtype == torch.bfloat16,
    }
    # Nothing is left to fuse, and the default differs between Triton's versions.
    options = {"num_warps": tile.warps, "enable_fp_fusion": False}
    return Plan(
        grid=(triton.cdiv(tokens, tile.tokens) * head_blocks, sequences, 1),
        numbers=numbers,
        constants=constants | options,
        tail=(*numbers, *constants.values()),
    )


def _out_of(place: Place) -> Place:
    """Where `torch.empty_like` puts the result: it follows the strides, and closes gaps."""
    like = torch.empty_strided(place.shape, place.stride, dtype=place.dtype, device="meta")
    return place._replace(stride=torch.empty_like(like).stride())


def choose_tile(
    tokens: int,
    q_heads: int,
    k_heads: int,
    row_bytes: int,
    *,
    padded: bool,
    tokens_adjacent: bool,
) -> Tile:
    """The tile for heads of row_bytes rotary bytes, padding included.

    On a GPU: one token and up to 8 KiB of its q, so that the table is read once a token; where a
    head's tokens lie side by side, up to 16 tokens of up to 4 heads. 128 bytes of q a thread
    (measured on an H100: 0.98 of a copy, 64 bytes 0.97); where lanes are lost to padding half the
    tile and 32 bytes a thread (head_dim 80: 0.98, against 0.94).

    In the interpreter a program costs the same whatever its size: as much as a block holds.
    """
    q_heads = triton.next_power_of_2(max(q_heads, 1))
    if BACKEND == "interpreter":
        widest = max(q_heads, triton.next_power_of_2(k_heads)) * row_bytes // 2
        return Tile(min(triton.next_power_of_2(tokens), max(1, _MAX_BLOCK // widest)), q_heads, 4)
    full, thread_bytes = (4096, 32) if padded else (8192, 128)
    if tokens_adjacent:
        heads = min(q_heads, 4)
        block = max(1, min(16, triton.next_power_of_2(tokens), full // (heads * row_bytes)))
    else:
        heads = max(1, min(q_heads, full // row_bytes))
        block = 1
        while block < min(16, tokens) and 2 * block * heads * row_bytes < full:
            block *= 2
    threads = block * heads * row_bytes // thread_bytes
    return Tile(block, heads, max(1, min(8, threads // 32)))


def _check(
    rotation: Rotation,
    q: Place,
    k: Place | None,
    table: Place,
    ids: tuple[Place | None, Place | None],
) -> None:
    storage = STORAGES[rotation.storage]
    if len(q.shape) != len(storage):
        raise UsageError(
            what=f"q has {len(q.shape)} dimensions and the storage is `{storage}`",
            fix=f"name one of {', '.join(STORAGES)}, and pass a tensor with these dimensions",
        )
    if q.dtype not in _DTYPES or (k is not None and k.dtype != q.dtype):
        raise UsageError(
            what=f"q is {q.dtype} and k is {None if k is None else k.dtype}",
            why="both must be one of bfloat16, float16, float32 and float64",
            fix="cast them to one dtype",
        )
    if BACKEND == "cuda" and q.device.type != "cuda":
        raise UsageError(
            what=f"q lies on `{q.device}`, and the kernel is compiled for CUDA",
            fix="move the tensors to the GPU, or start with TRITON_INTERPRET=1",
        )
    for other in (k, table, *ids):
        if other is not None and other.device != q.device:
            raise UsageError(
                what=f"a tensor lies on `{other.device}`, q on `{q.device}`",
                fix="move q, k, the table and the positions to one device",
            )
    batch_axis, token_axis, head_axis = AXES[storage]
    sequences = 1 if batch_axis is None else q.shape[batch_axis]
    tokens, head_dim = q.shape[token_axis], q.shape[-1]
    if sequences > _MAX_SEQUENCES:
        raise UsageError(
            what=f"q has {sequences} sequences, the most is {_MAX_SEQUENCES}",
            fix="pack them into one, [T, H, D], with a position for each token",
        )
    if k is not None and (
        len(k.shape) != len(q.shape)
        or any(k.shape[axis] != q.shape[axis] for axis in range(len(q.shape)) if axis != head_axis)
    ):
        raise UsageError(
            what=f"k is {list(k.shape)}, q is {list(q.shape)}: they may differ in heads only",
            fix=f"check the storage, `{storage}`",
        )
    start, rotary_dim = rotation.rotary_start, rotation.rotary_dim
    if start < 0 or start + rotary_dim > head_dim:
        raise UsageError(
            what=f"{rotary_dim} rotary rows from row {start} do not fit into a head of {head_dim}",
            fix="check the table's rotary_dim and rotary_start",
        )
    if _gathered(table) and (table.shape[0] not in (1, sequences) or table.shape[1] != tokens):
        raise UsageError(
            what=f"a gathered table is for {list(table.shape[:2])} tokens, "
            f"q has {[sequences, tokens]}",
            fix="gather the table by the positions of these tokens",
        )
    for each in ids:
        # [T], [1, T], [B, T] are ids; [B, 1] are offsets, which only count with a step of 1.
        if each is not None and (
            each.shape[-1] not in (1, tokens)
            or (len(each.shape) == 1 and each.shape[0] != tokens)
            or (len(each.shape) > 1 and each.shape[0] not in (1, sequences))
        ):
            raise UsageError(
                what=f"positions are {list(each.shape)}, q has {[sequences, tokens]} tokens",
                fix="pass one position for each token, or one offset for each sequence",
            )


def _id_strides(ids: Place | None) -> tuple[int, int]:
    """Strides over sequences and tokens; 0 where one id serves all."""
    if ids is None:
        return 0, 0
    in_batch = ids.stride[0] if len(ids.shape) > 1 and ids.shape[0] > 1 else 0
    return in_batch, ids.stride[-1] if ids.shape[-1] > 1 else 0


def _gathered(table: Place) -> bool:
    """Whether a table is [B, T, columns], and not [T, columns]."""
    return len(table.shape) == 3  # noqa: PLR2004 - its dimensions
