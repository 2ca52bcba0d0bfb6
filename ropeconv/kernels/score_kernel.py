# ruff: noqa: ANN001, ANN202, N803, N806, FBT001, FBT003 - Triton's own language: arguments are typed by the
# launch, constants are upper case.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The score comparison in Triton: two forms of q and k, tile by tile, nothing T x T in memory.

Both forms bring the first and second parts of their pairs into pair order before the dot products, and
sum in the same order with the same instructions. So two forms that differ by a right reorder give equal
numbers, and their difference is 0.0, not merely small.

What the compiler cares about: dot products are `ieee`, since tf32 would drop 13 bits of what is compared;
they go over PAIRS pairs at a time, since an `ieee` dot over a whole head spills. Rows of q and k have any
stride, which is what lets q be a projection's weight seen as one-hot tokens.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ropeconv.kernels.rope_kernel import rotate


@triton.jit
def _turned(ptr, at, live, stride_d, cos_ptr, sin_ptr, table_at, pair, ROTARY_START: tl.constexpr,
            ROTARY_DIM: tl.constexpr, PAIR_STRIDE: tl.constexpr, PART_STRIDE: tl.constexpr,
            COLUMN_STEP: tl.constexpr):  # fmt: skip
    """Both parts of these pairs of a block of tokens, turned: [tokens, PAIRS] each."""
    mask = live[:, None] & (pair < ROTARY_DIM // 2)[None, :]
    row = (ROTARY_START + pair * PAIR_STRIDE)[None, :].to(tl.int64)
    first = tl.load(ptr + (at[:, None] + row * stride_d), mask=mask, other=0.0).to(tl.float32)
    second = tl.load(ptr + (at[:, None] + (row + PART_STRIDE) * stride_d), mask=mask, other=0.0).to(
        tl.float32
    )
    angle_at = table_at[:, None] + (pair * COLUMN_STEP)[None, :]
    cos = tl.load(cos_ptr + angle_at, mask=mask, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + angle_at, mask=mask, other=0.0).to(tl.float32)
    return rotate(first, second, cos, sin)


@triton.jit
def _rest(ptr, at, live, stride_d, index, ROTARY_START: tl.constexpr, ROTARY_DIM: tl.constexpr,
          HEAD_DIM: tl.constexpr):  # fmt: skip
    """Rows that do not rotate, numbered without those that do: [tokens, PAIRS]."""
    mask = live[:, None] & (index < HEAD_DIM - ROTARY_DIM)[None, :]
    row = tl.where(index < ROTARY_START, index, index + ROTARY_DIM)[None, :].to(tl.int64)
    return tl.load(ptr + (at[:, None] + row * stride_d), mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _scores(q_ptr, k_ptr, q_stride_b, q_stride_t, q_stride_h, q_stride_d, k_stride_b, k_stride_t, k_stride_h,
            k_stride_d, cos_ptr, sin_ptr, table_stride, batch, q_head, k_head, query, key, q_live, k_live,
            q_row, k_row, HEAD_DIM: tl.constexpr, ROTARY_START: tl.constexpr, ROTARY_DIM: tl.constexpr,
            PAIR_STRIDE: tl.constexpr, PART_STRIDE: tl.constexpr, COLUMN_STEP: tl.constexpr,
            QUERIES: tl.constexpr, KEYS: tl.constexpr, PAIRS: tl.constexpr):  # fmt: skip
    """One form's scores before scaling, [QUERIES, KEYS] in float32."""
    q_at = batch * q_stride_b + q_head * q_stride_h + query.to(tl.int64) * q_stride_t
    k_at = batch * k_stride_b + k_head * k_stride_h + key.to(tl.int64) * k_stride_t
    scores = tl.zeros((QUERIES, KEYS), dtype=tl.float32)
    for start in range(0, ROTARY_DIM // 2, PAIRS):
        pair = start + tl.arange(0, PAIRS)
        q_first, q_second = _turned(q_ptr, q_at, q_live, q_stride_d, cos_ptr, sin_ptr, q_row * table_stride, pair,
                                    ROTARY_START, ROTARY_DIM, PAIR_STRIDE, PART_STRIDE, COLUMN_STEP)  # fmt: skip
        k_first, k_second = _turned(k_ptr, k_at, k_live, k_stride_d, cos_ptr, sin_ptr, k_row * table_stride, pair,
                                    ROTARY_START, ROTARY_DIM, PAIR_STRIDE, PART_STRIDE, COLUMN_STEP)  # fmt: skip
        scores = tl.dot(q_first, tl.trans(k_first), acc=scores, input_precision="ieee")
        scores = tl.dot(q_second, tl.trans(k_second), acc=scores, input_precision="ieee")
    for start in range(0, HEAD_DIM - ROTARY_DIM, PAIRS):
        index = start + tl.arange(0, PAIRS)
        q_rest = _rest(q_ptr, q_at, q_live, q_stride_d, index, ROTARY_START, ROTARY_DIM, HEAD_DIM)
        k_rest = _rest(k_ptr, k_at, k_live, k_stride_d, index, ROTARY_START, ROTARY_DIM, HEAD_DIM)
        scores = tl.dot(q_rest, tl.trans(k_rest), acc=scores, input_precision="ieee")
    return scores


@triton.jit
def score_kernel(
    qa_ptr, ka_ptr, cos_a_ptr, sin_a_ptr, qb_ptr, kb_ptr, cos_b_ptr, sin_b_ptr,
    q_rows_ptr, k_rows_ptr, worst_ptr, sums_ptr,
    qa_stride_b, qa_stride_t, qa_stride_h, qa_stride_d, ka_stride_b, ka_stride_t, ka_stride_h, ka_stride_d,
    qb_stride_b, qb_stride_t, qb_stride_h, qb_stride_d, kb_stride_b, kb_stride_t, kb_stride_h, kb_stride_d,
    table_a_stride, table_b_stride, queries, keys, q_heads, group, query_blocks, key_blocks, scale,
    HEAD_DIM: tl.constexpr, ROTARY_START: tl.constexpr, ROTARY_DIM: tl.constexpr,
    PAIR_STRIDE_A: tl.constexpr, PART_STRIDE_A: tl.constexpr, COLUMN_STEP_A: tl.constexpr,
    PAIR_STRIDE_B: tl.constexpr, PART_STRIDE_B: tl.constexpr, COLUMN_STEP_B: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """One tile of one query head: its largest difference, with the place, and three sums.

    The grid is one number: sequences x query heads x query blocks x key blocks, key blocks fastest.
    """
    program = tl.program_id(0)
    tiles = query_blocks * key_blocks
    tile = program % tiles
    head_of_all = (program // tiles).to(tl.int64)
    batch = head_of_all // q_heads
    q_head = head_of_all % q_heads
    k_head = q_head // group
    query = (tile // key_blocks) * QUERIES + tl.arange(0, QUERIES)
    key = (tile % key_blocks) * KEYS + tl.arange(0, KEYS)
    q_live = query < queries
    k_live = key < keys
    q_row = tl.load(q_rows_ptr + query, mask=q_live, other=0)
    k_row = tl.load(k_rows_ptr + key, mask=k_live, other=0)
    a = _scores(qa_ptr, ka_ptr, qa_stride_b, qa_stride_t, qa_stride_h, qa_stride_d, ka_stride_b, ka_stride_t,
                ka_stride_h, ka_stride_d, cos_a_ptr, sin_a_ptr, table_a_stride, batch, q_head, k_head, query, key,
                q_live, k_live, q_row, k_row, HEAD_DIM, ROTARY_START, ROTARY_DIM, PAIR_STRIDE_A, PART_STRIDE_A,
                COLUMN_STEP_A, QUERIES, KEYS, PAIRS)  # fmt: skip
    b = _scores(qb_ptr, kb_ptr, qb_stride_b, qb_stride_t, qb_stride_h, qb_stride_d, kb_stride_b, kb_stride_t,
                kb_stride_h, kb_stride_d, cos_b_ptr, sin_b_ptr, table_b_stride, batch, q_head, k_head, query, key,
                q_live, k_live, q_row, k_row, HEAD_DIM, ROTARY_START, ROTARY_DIM, PAIR_STRIDE_B, PART_STRIDE_B,
                COLUMN_STEP_B, QUERIES, KEYS, PAIRS)  # fmt: skip
    # Padding rows and columns are 0 in both forms, and change no sum.
    a *= scale
    b *= scale
    difference = tl.abs(a - b)
    # The bits of non-negative floats are ordered as their values are, and NaN lies above infinity; below
    # them the place, turned round so that the smallest wins.
    place = tl.arange(0, QUERIES)[:, None] * KEYS + tl.arange(0, KEYS)[None, :]
    bits = (difference.to(tl.int32, bitcast=True) & 0x7FFFFFFF).to(tl.int64)
    ranked = (bits << 32) | (QUERIES * KEYS - 1 - place).to(tl.int64)
    ranked = tl.where(q_live[:, None] & k_live[None, :], ranked, -1)
    out = program.to(tl.int64)
    tl.store(worst_ptr + out, tl.max(tl.max(ranked, 1), 0))
    tl.store(sums_ptr + out * 3, tl.sum(tl.sum(difference * difference, 1), 0))
    tl.store(sums_ptr + out * 3 + 1, tl.sum(tl.sum(a * a, 1), 0))
    tl.store(sums_ptr + out * 3 + 2, tl.sum(tl.sum(b * b, 1), 0))
