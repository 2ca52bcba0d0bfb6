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
def _scores(
    q_ptr, k_ptr, cos_ptr, sin_ptr, q_stride_t, q_stride_d, k_stride_t, k_stride_d, table_stride,
    query, key, q_live, k_live, q_row, k_row,
    HEAD_DIM: tl.constexpr, START: tl.constexpr, DIM: tl.constexpr,
    PAIR_STRIDE: tl.constexpr, PART_STRIDE: tl.constexpr, COLUMN_STEP: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PAIRS: tl.constexpr,
):
    """One form's scores before scaling, [QUERIES, KEYS] in float32."""
    q = q_ptr + query.to(tl.int64)[:, None] * q_stride_t
    k = k_ptr + key.to(tl.int64)[:, None] * k_stride_t
    q_angles = q_row * table_stride
    k_angles = k_row * table_stride
    scores = tl.zeros((QUERIES, KEYS), dtype=tl.float32)
    for start in range(0, DIM // 2, PAIRS):
        pair = start + tl.arange(0, PAIRS)
        q_first, q_second = _turned(q, q_live, q_stride_d, cos_ptr, sin_ptr, q_angles, pair,
                                    START, DIM, PAIR_STRIDE, PART_STRIDE, COLUMN_STEP)
        k_first, k_second = _turned(k, k_live, k_stride_d, cos_ptr, sin_ptr, k_angles, pair,
                                    START, DIM, PAIR_STRIDE, PART_STRIDE, COLUMN_STEP)
        scores = tl.dot(q_first, tl.trans(k_first), acc=scores, input_precision="ieee")
        scores = tl.dot(q_second, tl.trans(k_second), acc=scores, input_precision="ieee")
    for start in range(0, HEAD_DIM - DIM, PAIRS):
        index = start + tl.arange(0, PAIRS)
        q_still = _still(q, q_live, q_stride_d, index, START, DIM, HEAD_DIM)
        k_still = _still(k, k_live, k_stride_d, index, START, DIM, HEAD_DIM)
        scores = tl.dot(q_still, tl.trans(k_still), acc=scores, input_precision="ieee")
    return scores


@triton.jit
def score_kernel(
    qa_ptr, ka_ptr, cos_a_ptr, sin_a_ptr, qb_ptr, kb_ptr, cos_b_ptr, sin_b_ptr,
    q_rows_ptr, k_rows_ptr, worst_ptr, sums_ptr,
    qa_stride_b, qa_stride_t, qa_stride_h, qa_stride_d,
    ka_stride_b, ka_stride_t, ka_stride_h, ka_stride_d,
    qb_stride_b, qb_stride_t, qb_stride_h, qb_stride_d,
    kb_stride_b, kb_stride_t, kb_stride_h, kb_stride_d,
    table_a_stride, table_b_stride, queries, keys, q_heads, group, query_blocks, key_blocks, scale,
    HEAD_DIM: tl.constexpr, START: tl.constexpr, DIM: tl.constexpr,
    PAIR_STRIDE_A: tl.constexpr, PART_STRIDE_A: tl.constexpr, COLUMN_STEP_A: tl.constexpr,
    PAIR_STRIDE_B: tl.constexpr, PART_STRIDE_B: tl.constexpr, COLUMN_STEP_B: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PAIRS: tl.constexpr,
):
    """One tile of one query head: its largest difference, with the place, and three sums.

    The grid is one number: sequences x query heads x query blocks x key blocks, key blocks fastest.
    """
    program = tl.program_id(0).to(tl.int64)
    tiles = query_blocks * key_blocks
    tile = (program % tiles).to(tl.int32)
    batch = program // tiles // q_heads
    q_head = program // tiles % q_heads
    k_head = q_head // group
    query = (tile // key_blocks) * QUERIES + tl.arange(0, QUERIES)
    key = (tile % key_blocks) * KEYS + tl.arange(0, KEYS)
    q_live = query < queries
    k_live = key < keys
    q_row = tl.load(q_rows_ptr + query, mask=q_live, other=0)
    k_row = tl.load(k_rows_ptr + key, mask=k_live, other=0)
    a = _scores(qa_ptr + batch * qa_stride_b + q_head * qa_stride_h,
                ka_ptr + batch * ka_stride_b + k_head * ka_stride_h, cos_a_ptr, sin_a_ptr,
                qa_stride_t, qa_stride_d, ka_stride_t, ka_stride_d, table_a_stride,
                query, key, q_live, k_live, q_row, k_row, HEAD_DIM, START, DIM,
                PAIR_STRIDE_A, PART_STRIDE_A, COLUMN_STEP_A, QUERIES, KEYS, PAIRS)
    b = _scores(qb_ptr + batch * qb_stride_b + q_head * qb_stride_h,
                kb_ptr + batch * kb_stride_b + k_head * kb_stride_h, cos_b_ptr, sin_b_ptr,
                qb_stride_t, qb_stride_d, kb_stride_t, kb_stride_d, table_b_stride,
                query, key, q_live, k_live, q_row, k_row, HEAD_DIM, START, DIM,
                PAIR_STRIDE_B, PART_STRIDE_B, COLUMN_STEP_B, QUERIES, KEYS, PAIRS)
    # Rows and columns beyond the last are 0 in both forms, and change no sum.
    difference = tl.abs(a - b) * scale
    a *= scale
    b *= scale
    # The bits of floats that are not negative are ordered as their values are, NaN above infinity.
    # Below them stands the place, counted backwards, so that the first of equals wins.
    place = tl.arange(0, QUERIES)[:, None] * KEYS + tl.arange(0, KEYS)[None, :]
    bits = (difference.to(tl.int32, bitcast=True) & 0x7FFFFFFF).to(tl.int64)
    ranked = (bits << 32) | (QUERIES * KEYS - 1 - place).to(tl.int64)
    ranked = tl.where(q_live[:, None] & k_live[None, :], ranked, -1)
    tl.store(worst_ptr + program, tl.max(tl.max(ranked, 1), 0))
    tl.store(sums_ptr + program * 3, tl.sum(tl.sum(difference * difference, 1), 0))
    tl.store(sums_ptr + program * 3 + 1, tl.sum(tl.sum(a * a, 1), 0))
    tl.store(sums_ptr + program * 3 + 2, tl.sum(tl.sum(b * b, 1), 0))
