"""From shapes and strides to a launch: they decide all, so one plan serves every call of its kind.

Notation: B sequences, T tokens, H query heads, K key heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import torch
import triton
import triton.language as tl

from ropeconv.kernels.backend import BACKEND
from ropeconv.kernels.refusals import check
from ropeconv.kernels.rotation import AXES, STORAGES, Place, Rotation, is_gathered
from ropeconv.kernels.tile import choose_tile
from ropeconv.words.errors import UsageError

_COMPLEX_STEP = 2  # columns from one cosine to the next, with a sine between them


@dataclass(kw_only=True)
class Plan:
    """A launch without its pointers."""

    grid: tuple[int, int, int]
    numbers: tuple[int, ...]  # the kernel's first arguments
    constants: dict[str, Any]  # by name, those behind them; pointers and offsets are the last
    options: dict[str, Any]  # of the launch
    rows: int  # of the table
    together: bool  # whether sines are read with their cosines
    offsets: tuple[int, int, int, int]  # the first allowed and the end, for q and then for k
    run: Callable[..., None] | None = None  # the compiled kernel on its grid, once launched

    def refuse(self, offsets: tuple[int, int]) -> NoReturn:
        """Say which of the two offsets is not allowed."""
        q_first, q_end, _, k_end = self.offsets
        strayed, end = (0, q_end) if not q_first <= offsets[0] < q_end else (1, k_end)
        first = offsets[strayed]
        raise UsageError(
            what=f"positions {first} to {first + self.rows - end} are not all in a table of "
            f"{self.rows} rows",
            fix="make the table longer",
        )


@lru_cache(maxsize=4096)
def make_plan(
    rotation_numbers: tuple[int, ...],
    q_place: tuple[Any, ...],
    k_place: tuple[Any, ...] | None,
    table_place: tuple[Any, ...],
    q_ids_place: tuple[Any, ...] | None = None,
    k_ids_place: tuple[Any, ...] | None = None,
    sines_behind: bool = False,  # noqa: FBT001, FBT002 - part of a key made on every call
) -> Plan | None:
    """The launch for such tensors; None if there is nothing to rotate.

    Args:
        rotation_numbers: a `Rotation`, and the places too, as a plain tuple: they are made on the
            way of every call.
        q_place: a `Place` of q.
        k_place: the same of k, or None.
        table_place: the same of the table.
        q_ids_place: the same of the ids of q, or None.
        k_ids_place: the same of the ids of k, or None.
        sines_behind: whether a sine lies right behind its cosine.

    Raises:
        UsageError: the tensors do not go together.
    """
    rotation, q, table = Rotation(*rotation_numbers), Place(*q_place), Place(*table_place)
    k, q_ids, k_ids = (
        None if place is None else Place(*place) for place in (k_place, q_ids_place, k_ids_place)
    )
    q_out, k_out = (q, k) if rotation.in_place else (_out_of(q), k and _out_of(k))
    check(rotation, q, k, table, (q_ids, k_ids))
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
        itemsize=q.dtype.itemsize,
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

    rows, column_step = table.shape[-2], rotation.column_step * table.stride[-1]
    together = sines_behind and column_step == _COMPLEX_STEP
    numbers = (
        *strides(q), *strides(q_out), *strides(k), *strides(k_out),
        table.stride[0] if is_gathered(table) and table.shape[0] > 1 else 0,
        *_id_strides(q_ids), *_id_strides(k_ids),
        rows, tokens, q_heads, k_heads,
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
        "COLUMN_STEP": column_step,
        "TOGETHER": together,
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
    return Plan(
        grid=(triton.cdiv(tokens, tile.tokens) * head_blocks, sequences, 1),
        numbers=numbers,
        constants=constants,
        # Nothing is left to fuse, and the default differs between Triton's versions.
        options={"num_warps": tile.warps, "enable_fp_fusion": False},
        rows=rows,
        together=together,
        offsets=(
            *_offsets(rows, q_ids, rotation.q_step * (tokens - 1)),
            *_offsets(rows, k_ids, rotation.k_step * (tokens - 1)),
        ),
    )


def _offsets(rows: int, ids: Place | None, reach: int) -> tuple[int, int]:
    """The first allowed offset and the end: all that are, where only the device knows the ids."""
    return (0, rows - reach) if ids is None else (-(1 << 63), 1 << 63)


def _out_of(place: Place) -> Place:
    """Where `torch.empty_like` puts the result: it follows the strides, and closes gaps."""
    like = torch.empty_strided(place.shape, place.stride, dtype=place.dtype, device="meta")
    return place._replace(stride=torch.empty_like(like).stride())


def _id_strides(ids: Place | None) -> tuple[int, int]:
    """Strides over sequences and tokens; 0 where one id serves all."""
    if ids is None:
        return 0, 0
    in_batch = ids.stride[0] if len(ids.shape) > 1 and ids.shape[0] > 1 else 0
    return in_batch, ids.stride[-1] if ids.shape[-1] > 1 else 0
