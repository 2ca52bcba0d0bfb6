# ruff: noqa: ANN001, ANN201, ANN202, N803 - Triton's language: a launch gives types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Arguments stand in rows by meaning: pointers, strides, sizes, constants.
# fmt: off
"""The score comparison in Triton: two forms of q and k, tile by tile, nothing T x T in memory.

Both forms bring the first and second parts of their pairs into pair order before the dot products,
and sum in the same order with the same instructions. So two forms that differ by a right reorder
give equal numbers, and their difference is 0.0, not merely small.

What the compiler cares about:
- Dot products are `ieee`: tf32 would drop 13 bits of what is compared. They go over PAIRS pairs at
  a time, since an `ieee` dot over a whole head spills.
- A tile is one head, two-dimensional in everything. Triton's interpreter takes 25 ms for a program
  of any size, so there a tile is as many heads as fit: their tokens are its rows, one head after
  the other, and only the dot product goes head by head.
- The difference is taken before the scale is applied, and fusing is switched off: a * scale - b *
  scale as one fma rounds one product and not the other (measured on an H100: 1e-7 where 0 is
  right).
- Rows of q and k have any stride, so that q may be a projection's weight seen as one-hot tokens.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ropeconv.kernels.rope_kernel import rotate


@triton.jit
def _turned(
    token, live, stride_d, cos_ptr, sin_ptr, table_at, pair,
    START: tl.constexpr, DIM: tl.constexpr,
    PAIR_STRIDE: tl.constexpr, PART_STRIDE: tl.constexpr, COLUMN_STEP: tl.constexpr,
):
    """Both parts of these pairs of a block of tokens, turned, [tokens, PAIRS] each."""
    live = live[:, None] & (pair < DIM // 2)[None, :]
    row = (START + pair * PAIR_STRIDE)[None, :].to(tl.int64)
    second_row = row + PART_STRIDE
    first = tl.load(token + row * stride_d, mask=live, other=0.0).to(tl.float32)
    second = tl.load(token + second_row * stride_d, mask=live, other=0.0).to(tl.float32)
    angle = table_at[:, None] + (pair * COLUMN_STEP)[None, :]
    cos = tl.load(cos_ptr + angle, mask=live, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + angle, mask=live, other=0.0).to(tl.float32)
    return rotate(first, second, cos, sin)


@triton.jit
def _still(
    token, live, stride_d, index, START: tl.constexpr, DIM: tl.constexpr, HEAD_DIM: tl.constexpr,
):
    """Rows that do not rotate, numbered without those that do, [tokens, PAIRS]."""
    live = live[:, None] & (index < HEAD_DIM - DIM)[None, :]
    row = tl.where(index < START, index, index + DIM)[None, :].to(tl.int64)
    return tl.load(token + row * stride_d, mask=live, other=0.0).to(tl.float32)


@triton.jit
def _dot(q, k, scores, HEADS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr):
    """The scores with the products of every query with every key of its own head added."""
    if HEADS == 1:
        scores = tl.dot(q, tl.trans(k), acc=scores, input_precision="ieee")
    else:
        q = tl.reshape(q, (HEADS, QUERIES, q.shape[1]))
        k = tl.permute(tl.reshape(k, (HEADS, KEYS, k.shape[1])), (0, 2, 1))
        scores = tl.reshape(scores, (HEADS, QUERIES, KEYS))
        scores = tl.dot(q, k, acc=scores, input_precision="ieee")
        scores = tl.reshape(scores, (HEADS * QUERIES, KEYS))
    return scores


@triton.jit
def _scores(
    q, k, q_stride_d, k_stride_d, cos_ptr, sin_ptr, table_stride, q_live, k_live, q_row, k_row,
    HEAD_DIM: tl.constexpr, START: tl.constexpr, DIM: tl.constexpr,
    PAIR_STRIDE: tl.constexpr, PART_STRIDE: tl.constexpr, COLUMN_STEP: tl.constexpr,
    HEADS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PAIRS: tl.constexpr,
):
    """One form's scores before scaling, [HEADS * QUERIES, KEYS] in float32."""
    q_angles = q_row * table_stride
    k_angles = k_row * table_stride
    scores = tl.zeros((HEADS * QUERIES, KEYS), dtype=tl.float32)
    for start in range(0, DIM // 2, PAIRS):
        pair = start + tl.arange(0, PAIRS)
        q_first, q_second = _turned(q, q_live, q_stride_d, cos_ptr, sin_ptr, q_angles, pair,
                                    START, DIM, PAIR_STRIDE, PART_STRIDE, COLUMN_STEP)
        k_first, k_second = _turned(k, k_live, k_stride_d, cos_ptr, sin_ptr, k_angles, pair,
                                    START, DIM, PAIR_STRIDE, PART_STRIDE, COLUMN_STEP)
        scores = _dot(q_first, k_first, scores, HEADS, QUERIES, KEYS)
        scores = _dot(q_second, k_second, scores, HEADS, QUERIES, KEYS)
    for start in range(0, HEAD_DIM - DIM, PAIRS):
        index = start + tl.arange(0, PAIRS)
        q_still = _still(q, q_live, q_stride_d, index, START, DIM, HEAD_DIM)
        k_still = _still(k, k_live, k_stride_d, index, START, DIM, HEAD_DIM)
        scores = _dot(q_still, k_still, scores, HEADS, QUERIES, KEYS)
    return scores


@triton.jit
def _begins(ptr, stride_b, stride_t, stride_h, sequence, token, head):
    """Where the head of each row of a tile begins, [rows, 1]."""
    own = ptr + (sequence * stride_b + head.to(tl.int64) * stride_h)
    return (own + token.to(tl.int64) * stride_t)[:, None]


@triton.jit
def _squares(x, HEADS: tl.constexpr, QUERIES: tl.constexpr):
    """The sum of the squares of each head, [HEADS]."""
    return tl.sum(tl.reshape(tl.sum(x * x, 1), (HEADS, QUERIES)), 1)


@triton.jit
def score_kernel(
    qa_ptr, ka_ptr, cos_a_ptr, sin_a_ptr, qb_ptr, kb_ptr, cos_b_ptr, sin_b_ptr,
    q_rows_ptr, k_rows_ptr, worst_ptr, sums_ptr,
    qa_stride_b, qa_stride_t, qa_stride_h, qa_stride_d,
    ka_stride_b, ka_stride_t, ka_stride_h, ka_stride_d,
    qb_stride_b, qb_stride_t, qb_stride_h, qb_stride_d,
    kb_stride_b, kb_stride_t, kb_stride_h, kb_stride_d,
    table_a_stride, table_b_stride, queries, keys, heads, q_heads, group, query_blocks, key_blocks,
    scale,
    HEAD_DIM: tl.constexpr, START: tl.constexpr, DIM: tl.constexpr,
    PAIR_STRIDE_A: tl.constexpr, PART_STRIDE_A: tl.constexpr, COLUMN_STEP_A: tl.constexpr,
    PAIR_STRIDE_B: tl.constexpr, PART_STRIDE_B: tl.constexpr, COLUMN_STEP_B: tl.constexpr,
    HEADS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PAIRS: tl.constexpr,
):
    """One tile of HEADS query heads: the largest difference of each, its place, and three sums.

    The grid is one number: blocks of heads x query blocks x key blocks, key blocks fastest. Heads
    are counted through all sequences.
    """
    program = tl.program_id(0)
    tiles = query_blocks * key_blocks
    tile = program % tiles
    first_head = program // tiles * HEADS
    q_place = tl.arange(0, HEADS * QUERIES)
    k_place = tl.arange(0, HEADS * KEYS)
    q_head = first_head
    k_head = first_head
    if HEADS > 1:
        q_head += q_place // QUERIES
        k_head += k_place // KEYS
        q_place = q_place % QUERIES
        k_place = k_place % KEYS
    query = tile // key_blocks * QUERIES + q_place
    key = tile % key_blocks * KEYS + k_place
    q_live = query < queries
    k_live = key < keys
    if HEADS > 1:
        q_live &= q_head < heads
        k_live &= k_head < heads
    q_sequence = (q_head // q_heads).to(tl.int64)
    k_sequence = (k_head // q_heads).to(tl.int64)
    q_row = tl.load(q_rows_ptr + q_sequence * queries + query, mask=q_live, other=0)
    k_row = tl.load(k_rows_ptr + k_sequence * keys + key, mask=k_live, other=0)
    q_head = q_head % q_heads
    k_head = k_head % q_heads // group
    qa = _begins(qa_ptr, qa_stride_b, qa_stride_t, qa_stride_h, q_sequence, query, q_head)
    ka = _begins(ka_ptr, ka_stride_b, ka_stride_t, ka_stride_h, k_sequence, key, k_head)
    a = _scores(qa, ka, qa_stride_d, ka_stride_d, cos_a_ptr, sin_a_ptr, table_a_stride,
                q_live, k_live, q_row, k_row, HEAD_DIM, START, DIM,
                PAIR_STRIDE_A, PART_STRIDE_A, COLUMN_STEP_A, HEADS, QUERIES, KEYS, PAIRS)
    qb = _begins(qb_ptr, qb_stride_b, qb_stride_t, qb_stride_h, q_sequence, query, q_head)
    kb = _begins(kb_ptr, kb_stride_b, kb_stride_t, kb_stride_h, k_sequence, key, k_head)
    b = _scores(qb, kb, qb_stride_d, kb_stride_d, cos_b_ptr, sin_b_ptr, table_b_stride,
                q_live, k_live, q_row, k_row, HEAD_DIM, START, DIM,
                PAIR_STRIDE_B, PART_STRIDE_B, COLUMN_STEP_B, HEADS, QUERIES, KEYS, PAIRS)
    # Rows and columns beyond the last are 0 in both forms, and change no sum.
    difference = tl.abs(a - b) * scale
    a *= scale
    b *= scale
    # The bits of floats that are not negative are ordered as their values are, NaN above infinity.
    # Below them stands the place, counted backwards, so that the first of equals wins.
    column = tl.arange(0, KEYS)
    place = q_place[:, None] * KEYS + column[None, :]
    bits = (difference.to(tl.int32, bitcast=True) & 0x7FFFFFFF).to(tl.int64)
    ranked = (bits << 32) | (QUERIES * KEYS - 1 - place).to(tl.int64)
    there = q_live[:, None] & (tile % key_blocks * KEYS + column < keys)[None, :]
    ranked = tl.where(there, ranked, -1)
    head = first_head + tl.arange(0, HEADS)
    live = head < heads
    at = head.to(tl.int64) * tiles + tile
    worst = tl.max(tl.reshape(tl.max(ranked, 1), (HEADS, QUERIES)), 1)
    tl.store(worst_ptr + at, worst, mask=live)
    tl.store(sums_ptr + at * 3, _squares(difference, HEADS, QUERIES), mask=live)
    tl.store(sums_ptr + at * 3 + 1, _squares(a, HEADS, QUERIES), mask=live)
    tl.store(sums_ptr + at * 3 + 2, _squares(b, HEADS, QUERIES), mask=live)
