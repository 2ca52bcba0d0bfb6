# ruff: noqa: ANN001, ANN201, ANN202, N803, FBT003 - Triton: a launch gives the types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, possibly-undefined"
# Arguments stand in rows by meaning: pointers, strides, sizes, constants.
# fmt: off
"""The rotation in Triton: q and k, both layouts, one launch.

Notation: a program owns a tile of TOKENS x HEADS; the pairs of a head are padded to PAIRS, a power
of two. Part c of pair p lies at row START + p * PAIR_STRIDE + c * PART_STRIDE of a head; DIM rows
rotate.

What the compiler cares about:
- Interleaved pairs (PART_STRIDE 1) are loaded as one contiguous run and taken apart in registers:
  stride-2 loads are 13 times slower. That is the one branch on the layout.
- Loads of q and k are issued before those of the table, which is read once for all heads of a tile.
- Offsets are 64 bits wide, everywhere: q may have more than 2^31 elements, and so may the tokens of
  one head. It costs 6 % more instructions, in a kernel that waits for memory.
- The grid needs no division by a number that is known only at the launch: 60 instructions before
  the first load.
- Products are joined by an explicit fma, so that every use of `rotate` rounds alike, whatever the
  layout and the compiler's own taste for fusing.
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
def _heads(
    ptr, stride_b, stride_t, stride_h, batch, token_block, head_block, TOKENS: tl.constexpr, HEADS:
    tl.constexpr,
):
    """Pointers to row 0 of the heads of a tile, [TOKENS, HEADS, 1]."""
    token = (token_block * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)[:, None, None]
    head = (head_block * HEADS + tl.arange(0, HEADS)).to(tl.int64)[None, :, None]
    return ptr + (batch * stride_b + token * stride_t + head * stride_h)


@triton.jit
def _live(live_token, head_block, heads, HEADS: tl.constexpr, WHOLE: tl.constexpr):
    """Which heads of a tile there are, [TOKENS, HEADS or 1, 1]."""
    live = live_token[:, None, None]
    if not WHOLE:
        live = live & ((head_block * HEADS + tl.arange(0, HEADS))[None, :, None] < heads)
    return live


@triton.jit
def _load_parts(
    head, live, START: tl.constexpr, DIM: tl.constexpr, PAIR_STRIDE: tl.constexpr, PART_STRIDE:
    tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr, PAIRS: tl.constexpr, MATH:
    tl.constexpr,
):
    """First and second parts of the pairs, [TOKENS, HEADS, PAIRS] each."""
    if PART_STRIDE == 1:
        row = tl.arange(0, 2 * PAIRS)[None, None, :]
        run = tl.load(head + (START + row), mask=live & (row < DIM), other=0.0)
        first, second = tl.split(tl.reshape(run, (TOKENS, HEADS, PAIRS, 2)))
    else:
        pair = tl.arange(0, PAIRS)[None, None, :]
        live = live & (pair < DIM // 2)
        row = START + pair * PAIR_STRIDE
        first = tl.load(head + row, mask=live, other=0.0)
        second = tl.load(head + (row + PART_STRIDE), mask=live, other=0.0)
    return first.to(MATH), second.to(MATH)


@triton.jit
def _store_parts(
    head, live, first, second, START: tl.constexpr, DIM: tl.constexpr, PAIR_STRIDE: tl.constexpr,
    PART_STRIDE: tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr, PAIRS: tl.constexpr,
    ROUND_BF16: tl.constexpr,
):
    first = _narrow(first, head.dtype.element_ty, ROUND_BF16)
    second = _narrow(second, head.dtype.element_ty, ROUND_BF16)
    if PART_STRIDE == 1:
        row = tl.arange(0, 2 * PAIRS)[None, None, :]
        run = tl.reshape(tl.join(first, second), (TOKENS, HEADS, 2 * PAIRS))
        tl.store(head + (START + row), run, mask=live & (row < DIM))
    else:
        pair = tl.arange(0, PAIRS)[None, None, :]
        live = live & (pair < DIM // 2)
        row = START + pair * PAIR_STRIDE
        tl.store(head + row, first, mask=live)
        tl.store(head + (row + PART_STRIDE), second, mask=live)


@triton.jit
def _narrow(x, DTYPE: tl.constexpr, ROUND_BF16: tl.constexpr):
    """The one rounding, on the way out.

    The interpreter truncates float32 to bfloat16, whatever rounding is asked for (triton 3.6 to
    3.9); so there the nearest even is found by hand, on the bits.
    """
    if ROUND_BF16:
        bits = x.to(tl.uint32, bitcast=True)
        nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.uint16)
        quiet_nan = tl.full(x.shape, 0x7FC0, tl.uint16)
        y = tl.where(x == x, nearest, quiet_nan).to(tl.bfloat16, bitcast=True)  # noqa: PLR0124
    else:
        y = x.to(DTYPE)
    return y


@triton.jit
def _copy_rest(
    source, target, live, START: tl.constexpr, DIM: tl.constexpr, HEAD_DIM: tl.constexpr,
    REST: tl.constexpr,
):
    """The rows of a head that do not rotate, before and behind those that do."""
    row = tl.arange(0, REST)[None, None, :]
    live = live & (row < HEAD_DIM - DIM)
    row = tl.where(row < START, row, row + DIM) if START > 0 else row + DIM
    tl.store(target + row, tl.load(source + row, mask=live, other=0.0), mask=live)


@triton.jit
def _cos_sin(
    cos_ptr, sin_ptr, rows, ids_ptr, ids_stride_b, ids_stride_t, offset, batch, token, live_token,
    IDS: tl.constexpr, STEP: tl.constexpr, ROW_STRIDE: tl.constexpr, COLUMN_STEP: tl.constexpr,
    TOGETHER: tl.constexpr, DIM: tl.constexpr, TOKENS: tl.constexpr, PAIRS: tl.constexpr, MATH:
    tl.constexpr, CONJUGATE: tl.constexpr,
):
    """Cosines and sines, [TOKENS, 1, PAIRS]. Outside the table is NaN, never another row."""
    row = token.to(tl.int64) * STEP + offset
    if IDS:
        id_ptr = ids_ptr + batch * ids_stride_b + token.to(tl.int64) * ids_stride_t
        row += tl.load(id_ptr, mask=live_token, other=0).to(tl.int64)
    at = (row * ROW_STRIDE)[:, None, None]
    live = (live_token & (row >= 0) & (row < rows))[:, None, None]
    # Many programs read these rows; q and k pass by once.
    if TOGETHER:
        column = tl.arange(0, 2 * PAIRS)[None, None, :]
        run = tl.load(cos_ptr + (at + column), mask=live & (column < DIM), other=float("nan"),
                      eviction_policy="evict_last")
        cos, sin = tl.split(tl.reshape(run, (TOKENS, 1, PAIRS, 2)))
    else:
        pair = tl.arange(0, PAIRS)[None, None, :]
        at += pair * COLUMN_STEP
        live &= pair < DIM // 2
        cos = tl.load(cos_ptr + at, mask=live, other=float("nan"), eviction_policy="evict_last")
        sin = tl.load(sin_ptr + at, mask=live, other=float("nan"), eviction_policy="evict_last")
    cos = cos.to(MATH)
    sin = sin.to(MATH)
    if CONJUGATE:
        sin = -sin
    return cos, sin


# What changes from call to call stands last, so that a launcher can be bound to the rest, and must
# not recompile: 1 and multiples of 16 would be variants.
@triton.jit(do_not_specialize=["q_offset", "k_offset", "rows", "tokens"])
def rope_kernel(
    q_stride_b, q_stride_t, q_stride_h, q_out_stride_b, q_out_stride_t, q_out_stride_h,
    k_stride_b, k_stride_t, k_stride_h, k_out_stride_b, k_out_stride_t, k_out_stride_h,
    table_stride_b, q_ids_stride_b, q_ids_stride_t, k_ids_stride_b, k_ids_stride_t,
    rows, tokens, q_heads, k_heads,
    HEAD_DIM: tl.constexpr, START: tl.constexpr, DIM: tl.constexpr,
    PAIR_STRIDE: tl.constexpr, PART_STRIDE: tl.constexpr,
    ROW_STRIDE: tl.constexpr, COLUMN_STEP: tl.constexpr, TOGETHER: tl.constexpr,
    Q_IDS: tl.constexpr, K_IDS: tl.constexpr, Q_STEP: tl.constexpr, K_STEP: tl.constexpr,
    SAME_POSITIONS: tl.constexpr, HAS_K: tl.constexpr, COPY_REST: tl.constexpr,
    CONJUGATE: tl.constexpr, WHOLE_TOKENS: tl.constexpr, WHOLE_Q: tl.constexpr,
    WHOLE_K: tl.constexpr, HEAD_BLOCKS: tl.constexpr,
    TOKENS: tl.constexpr, Q_HEADS: tl.constexpr, K_HEADS: tl.constexpr, PAIRS: tl.constexpr,
    REST: tl.constexpr, MATH: tl.constexpr, ROUND_BF16: tl.constexpr,
    q_ptr, k_ptr, q_out_ptr, k_out_ptr, cos_ptr, sin_ptr, q_ids_ptr, k_ids_ptr, q_offset, k_offset,
):
    """Rotates Q_HEADS heads of q and the K_HEADS of k that go with them, of TOKENS tokens.

    The grid is (token blocks x HEAD_BLOCKS, sequences), head blocks fastest, so that the programs
    which share a row of the table run together.
    """
    head_block = tl.program_id(0) % HEAD_BLOCKS
    token_block = tl.program_id(0) // HEAD_BLOCKS
    batch = tl.program_id(1).to(tl.int64)
    token = token_block * TOKENS + tl.arange(0, TOKENS)
    live_token = tl.full((TOKENS,), True, tl.int1) if WHOLE_TOKENS else token < tokens

    q = _heads(q_ptr, q_stride_b, q_stride_t, q_stride_h, batch, token_block, head_block, TOKENS,
               Q_HEADS)
    q_live = _live(live_token, head_block, q_heads, Q_HEADS, WHOLE_Q)
    q_first, q_second = _load_parts(q, q_live, START, DIM, PAIR_STRIDE, PART_STRIDE, TOKENS,
                                    Q_HEADS, PAIRS, MATH)
    if HAS_K:
        k = _heads(k_ptr, k_stride_b, k_stride_t, k_stride_h, batch, token_block, head_block,
                   TOKENS, K_HEADS)
        k_live = _live(live_token, head_block, k_heads, K_HEADS, WHOLE_K)
        k_first, k_second = _load_parts(k, k_live, START, DIM, PAIR_STRIDE, PART_STRIDE, TOKENS,
                                        K_HEADS, PAIRS, MATH)

    cos_ptr += batch * table_stride_b
    sin_ptr += batch * table_stride_b
    cos, sin = _cos_sin(cos_ptr, sin_ptr, rows, q_ids_ptr, q_ids_stride_b, q_ids_stride_t, q_offset,
                        batch, token, live_token, Q_IDS, Q_STEP, ROW_STRIDE, COLUMN_STEP, TOGETHER,
                        DIM, TOKENS, PAIRS, MATH, CONJUGATE)
    q_first, q_second = rotate(q_first, q_second, cos, sin)
    q_out = _heads(q_out_ptr, q_out_stride_b, q_out_stride_t, q_out_stride_h, batch, token_block,
                   head_block, TOKENS, Q_HEADS)
    _store_parts(q_out, q_live, q_first, q_second, START, DIM, PAIR_STRIDE, PART_STRIDE, TOKENS,
                 Q_HEADS, PAIRS, ROUND_BF16)
    if COPY_REST:
        _copy_rest(q, q_out, q_live, START, DIM, HEAD_DIM, REST)
    if HAS_K:
        if not SAME_POSITIONS:
            cos, sin = _cos_sin(cos_ptr, sin_ptr, rows, k_ids_ptr, k_ids_stride_b, k_ids_stride_t,
                                k_offset, batch, token, live_token, K_IDS, K_STEP, ROW_STRIDE,
                                COLUMN_STEP, TOGETHER, DIM, TOKENS, PAIRS, MATH, CONJUGATE)
        k_first, k_second = rotate(k_first, k_second, cos, sin)
        k_out = _heads(k_out_ptr, k_out_stride_b, k_out_stride_t, k_out_stride_h, batch,
                       token_block, head_block, TOKENS, K_HEADS)
        _store_parts(k_out, k_live, k_first, k_second, START, DIM, PAIR_STRIDE, PART_STRIDE, TOKENS,
                     K_HEADS, PAIRS, ROUND_BF16)
        if COPY_REST:
            _copy_rest(k, k_out, k_live, START, DIM, HEAD_DIM, REST)
