# ruff: noqa: ANN001, ANN202, N803, N806, FBT001, FBT003 - Triton's own language: arguments are typed by the
# launch, constants are upper case.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The rotation in Triton: q and k, both layouts, one launch.

Notation: a program owns a tile of TOKENS x HEADS; P pairs of a head are padded to PAIRS, a power of two.
Part c of pair p lies at ROTARY_START + p * PAIR_STRIDE + c * PART_STRIDE.

What the compiler cares about:
- Interleaved pairs (PART_STRIDE 1) are loaded as one contiguous run and taken apart in registers: stride-2
  loads are 13 times slower. That is the one branch on the layout.
- Loads of q and k are issued before those of the table; the table is read once for all heads of a tile.
- Offsets are 64 bits wide: q may have more than 2^31 elements, and so may one head's stride.
- Products are joined by an explicit fma, so that every use of `rotate` rounds alike, whatever the layout.
- Values become fp32 (fp64) right after each load: the interpreter computes nonsense on bf16.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rotate(first, second, cos, sin):
    """Both parts of the pairs, turned by their angles."""
    return tl.fma(first, cos, -(second * sin)), tl.fma(second, cos, first * sin)


@triton.jit
def _narrow(x, DTYPE: tl.constexpr, ROUND_BF16: tl.constexpr):
    """The one rounding, on the way out.

    The interpreter truncates float32 to bfloat16, whatever rounding is asked for (triton 3.6 to 3.9); so
    there the nearest even is found by hand, on the bits.
    """
    if ROUND_BF16:
        bits = x.to(tl.uint32, bitcast=True)
        nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.uint16)
        quiet = tl.full(x.shape, 0x7FC0, tl.uint16)
        y = tl.where(x == x, nearest, quiet).to(tl.bfloat16, bitcast=True)
    else:
        y = x.to(DTYPE)
    return y


@triton.jit
def _load_parts(ptr, at, mask, ROTARY_DIM: tl.constexpr, PAIR_STRIDE: tl.constexpr,
                PART_STRIDE: tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr, PAIRS: tl.constexpr,
                MATH: tl.constexpr):  # fmt: skip
    """First and second parts of the pairs, each [TOKENS, HEADS, PAIRS]."""
    if PART_STRIDE == 1:
        row = tl.arange(0, 2 * PAIRS)[None, None, :]
        run = tl.load(ptr + (at + row), mask=mask & (row < ROTARY_DIM), other=0.0)
        first, second = tl.split(tl.reshape(run, (TOKENS, HEADS, PAIRS, 2)))
    else:
        pair = tl.arange(0, PAIRS)[None, None, :]
        mask = mask & (pair < ROTARY_DIM // 2)
        first = tl.load(ptr + (at + pair * PAIR_STRIDE), mask=mask, other=0.0)
        second = tl.load(ptr + (at + pair * PAIR_STRIDE + PART_STRIDE), mask=mask, other=0.0)
    return first.to(MATH), second.to(MATH)


@triton.jit
def _store_parts(ptr, at, mask, first, second, ROTARY_DIM: tl.constexpr, PAIR_STRIDE: tl.constexpr,
                 PART_STRIDE: tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr, PAIRS: tl.constexpr,
                 ROUND_BF16: tl.constexpr):  # fmt: skip
    first = _narrow(first, ptr.dtype.element_ty, ROUND_BF16)
    second = _narrow(second, ptr.dtype.element_ty, ROUND_BF16)
    if PART_STRIDE == 1:
        row = tl.arange(0, 2 * PAIRS)[None, None, :]
        run = tl.reshape(tl.join(first, second), (TOKENS, HEADS, 2 * PAIRS))
        tl.store(ptr + (at + row), run, mask=mask & (row < ROTARY_DIM))
    else:
        pair = tl.arange(0, PAIRS)[None, None, :]
        mask = mask & (pair < ROTARY_DIM // 2)
        tl.store(ptr + (at + pair * PAIR_STRIDE), first, mask=mask)
        tl.store(ptr + (at + pair * PAIR_STRIDE + PART_STRIDE), second, mask=mask)


@triton.jit
def _copy_rest(x_ptr, x_at, y_ptr, y_at, mask, ROTARY_START: tl.constexpr, ROTARY_DIM: tl.constexpr,
               HEAD_DIM: tl.constexpr, REST: tl.constexpr):  # fmt: skip
    """The rows of a head that do not rotate, before and behind those that do."""
    row = tl.arange(0, REST)[None, None, :]
    mask = mask & (row < HEAD_DIM - ROTARY_DIM)
    if ROTARY_START > 0:
        row = tl.where(row < ROTARY_START, row, row + ROTARY_DIM)
    else:
        row = row + ROTARY_DIM
    tl.store(y_ptr + (y_at + row), tl.load(x_ptr + (x_at + row), mask=mask, other=0.0), mask=mask)


@triton.jit
def _cos_sin(cos_ptr, sin_ptr, stride_row, rows, ids_ptr, ids_stride, offset, token, live,
             HAS_IDS: tl.constexpr, TOKEN_STEP: tl.constexpr, COLUMN_STEP: tl.constexpr,
             ROTARY_DIM: tl.constexpr, PAIRS: tl.constexpr, MATH: tl.constexpr,
             CONJUGATE: tl.constexpr):  # fmt: skip
    """Cosines and sines, [TOKENS, 1, PAIRS]. A position outside the table is NaN, never another row."""
    position = token.to(tl.int64) * TOKEN_STEP + offset
    if HAS_IDS:
        position += tl.load(ids_ptr + token.to(tl.int64) * ids_stride, mask=live, other=0).to(
            tl.int64
        )
    pair = tl.arange(0, PAIRS)[None, None, :]
    at = (position * stride_row)[:, None, None] + pair * COLUMN_STEP
    inside = (live & (position >= 0) & (position < rows))[:, None, None] & (pair < ROTARY_DIM // 2)
    # Every program of the chip reads the same few rows; q and k pass by once.
    cos = tl.load(cos_ptr + at, mask=inside, other=float("nan"), eviction_policy="evict_last").to(
        MATH
    )
    sin = tl.load(sin_ptr + at, mask=inside, other=float("nan"), eviction_policy="evict_last").to(
        MATH
    )
    if CONJUGATE:
        sin = -sin
    return cos, sin


@triton.jit(do_not_specialize=["q_offset", "k_offset", "tokens", "token_blocks", "rows"])
def rope_kernel(
    q_ptr, k_ptr, q_out_ptr, k_out_ptr, cos_ptr, sin_ptr, q_ids_ptr, k_ids_ptr, q_offset, k_offset,
    q_stride_b, q_stride_t, q_stride_h, q_out_stride_b, q_out_stride_t, q_out_stride_h,
    k_stride_b, k_stride_t, k_stride_h, k_out_stride_b, k_out_stride_t, k_out_stride_h,
    table_stride_b, table_stride_row, rows, q_ids_stride_b, q_ids_stride_t, k_ids_stride_b, k_ids_stride_t,
    tokens, token_blocks, q_heads, k_heads, head_blocks,
    HEAD_DIM: tl.constexpr, ROTARY_START: tl.constexpr, ROTARY_DIM: tl.constexpr,
    PAIR_STRIDE: tl.constexpr, PART_STRIDE: tl.constexpr, COLUMN_STEP: tl.constexpr,
    Q_IDS: tl.constexpr, K_IDS: tl.constexpr, Q_STEP: tl.constexpr, K_STEP: tl.constexpr,
    SAME_POSITIONS: tl.constexpr, HAS_K: tl.constexpr, COPY_REST: tl.constexpr, CONJUGATE: tl.constexpr,
    WHOLE_TOKENS: tl.constexpr, WHOLE_Q: tl.constexpr, WHOLE_K: tl.constexpr,
    TOKENS: tl.constexpr, Q_HEADS: tl.constexpr, K_HEADS: tl.constexpr, PAIRS: tl.constexpr, REST: tl.constexpr,
    MATH: tl.constexpr, ROUND_BF16: tl.constexpr,
):  # fmt: skip
    """Rotates Q_HEADS heads of q and the K_HEADS heads of k that go with them, of TOKENS tokens.

    The grid is one number: sequences x token_blocks x head_blocks, head blocks fastest, so that the
    programs which share a row of the table run together.
    """
    program = tl.program_id(0)
    head_block = program % head_blocks
    token_block = (program // head_blocks) % token_blocks
    batch = (program // (head_blocks * token_blocks)).to(tl.int64)
    token = token_block * TOKENS + tl.arange(0, TOKENS)
    live = tl.full((TOKENS,), True, tl.int1) if WHOLE_TOKENS else token < tokens
    token_at = token.to(tl.int64)[:, None, None]

    q_head = head_block * Q_HEADS + tl.arange(0, Q_HEADS)[None, :, None]
    q_mask = live[:, None, None] if WHOLE_Q else live[:, None, None] & (q_head < q_heads)
    q_at = batch * q_stride_b + token_at * q_stride_t + q_head.to(tl.int64) * q_stride_h
    q_out_at = (
        batch * q_out_stride_b + token_at * q_out_stride_t + q_head.to(tl.int64) * q_out_stride_h
    )
    q_first, q_second = _load_parts(q_ptr, q_at + ROTARY_START, q_mask, ROTARY_DIM, PAIR_STRIDE, PART_STRIDE,
                                    TOKENS, Q_HEADS, PAIRS, MATH)  # fmt: skip
    if HAS_K:
        k_head = head_block * K_HEADS + tl.arange(0, K_HEADS)[None, :, None]
        k_mask = live[:, None, None] if WHOLE_K else live[:, None, None] & (k_head < k_heads)
        k_at = batch * k_stride_b + token_at * k_stride_t + k_head.to(tl.int64) * k_stride_h
        k_out_at = (
            batch * k_out_stride_b
            + token_at * k_out_stride_t
            + k_head.to(tl.int64) * k_out_stride_h
        )
        k_first, k_second = _load_parts(k_ptr, k_at + ROTARY_START, k_mask, ROTARY_DIM, PAIR_STRIDE, PART_STRIDE,
                                        TOKENS, K_HEADS, PAIRS, MATH)  # fmt: skip

    cos_ptr += batch * table_stride_b
    sin_ptr += batch * table_stride_b
    cos, sin = _cos_sin(cos_ptr, sin_ptr, table_stride_row, rows, q_ids_ptr + batch * q_ids_stride_b,
                        q_ids_stride_t, q_offset, token, live, Q_IDS, Q_STEP, COLUMN_STEP, ROTARY_DIM, PAIRS,
                        MATH, CONJUGATE)  # fmt: skip
    q_first, q_second = rotate(q_first, q_second, cos, sin)
    _store_parts(q_out_ptr, q_out_at + ROTARY_START, q_mask, q_first, q_second, ROTARY_DIM, PAIR_STRIDE,
                 PART_STRIDE, TOKENS, Q_HEADS, PAIRS, ROUND_BF16)  # fmt: skip
    if COPY_REST:
        _copy_rest(
            q_ptr, q_at, q_out_ptr, q_out_at, q_mask, ROTARY_START, ROTARY_DIM, HEAD_DIM, REST
        )
    if HAS_K:
        if not SAME_POSITIONS:
            cos, sin = _cos_sin(cos_ptr, sin_ptr, table_stride_row, rows, k_ids_ptr + batch * k_ids_stride_b,
                                k_ids_stride_t, k_offset, token, live, K_IDS, K_STEP, COLUMN_STEP, ROTARY_DIM,
                                PAIRS, MATH, CONJUGATE)  # fmt: skip
        k_first, k_second = rotate(k_first, k_second, cos, sin)
        _store_parts(k_out_ptr, k_out_at + ROTARY_START, k_mask, k_first, k_second, ROTARY_DIM, PAIR_STRIDE,
                     PART_STRIDE, TOKENS, K_HEADS, PAIRS, ROUND_BF16)  # fmt: skip
        if COPY_REST:
            _copy_rest(
                k_ptr, k_at, k_out_ptr, k_out_at, k_mask, ROTARY_START, ROTARY_DIM, HEAD_DIM, REST
            )
