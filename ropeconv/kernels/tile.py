"""How much of a tensor one program of the kernel rotates."""

from __future__ import annotations

from typing import NamedTuple

import triton

from ropeconv.kernels.backend import BACKEND

_MAX_BLOCK = 1 << 20  # Triton's own limit on the elements of a block


class Tile(NamedTuple):
    """What one program rotates, and its warps."""

    tokens: int
    q_heads: int
    warps: int


def choose_tile(
    tokens: int,
    q_heads: int,
    k_heads: int,
    row_bytes: int,
    *,
    itemsize: int,
    padded: bool,
    tokens_adjacent: bool,
) -> Tile:
    """The tile for heads of row_bytes rotary bytes, padding included.

    On a GPU: one token and up to 8 KiB of its q, so that the table is read once a token; where a
    head's tokens lie side by side, up to 16 tokens of up to 4 heads. 128 bytes of q a thread.
    Measured on an H100, as fractions of a copy: 0.98, with 64 bytes 0.97. Where lanes are lost to
    padding half the tile and 32 bytes a thread (head_dim 80: 0.98, not 0.94). Where k is as large
    as q a thread holds as much again: 16 heads, and 64 bytes a thread in 2-byte types, 32 in wider
    ones (head_dim 64, bf16: 0.990, not 0.986; fp32: 0.985, not 0.975).

    In the interpreter a program costs the same whatever its size: as much as a block holds.
    """
    q_heads = triton.next_power_of_2(max(q_heads, 1))
    if BACKEND == "interpreter":
        widest = max(q_heads, triton.next_power_of_2(k_heads)) * row_bytes // 2
        return Tile(min(triton.next_power_of_2(tokens), max(1, _MAX_BLOCK // widest)), q_heads, 4)
    if padded:
        full, thread_bytes = 4096, 32
    elif 2 * k_heads > q_heads and not tokens_adjacent:
        full, thread_bytes = min(8192, 16 * row_bytes), max(32, 128 // itemsize)
    else:
        full, thread_bytes = 8192, 128
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
