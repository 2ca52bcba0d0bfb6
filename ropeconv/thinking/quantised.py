"""Companions of quantised weights: scales, zero points and packed weights, by name and shape.

Rows move without loss together with their scales where each scale belongs to one row, and beside
them where no row leaves the block of rows that shares a scale. Everything else is refused: a weight
with another row's scale loads, and computes nonsense.

Source:
    The formats of compressed-tensors, DeepSeek's FP8 files, FBGEMM, bitsandbytes and MLX.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ropeconv.formats.checkpoint import StoredTensor
from ropeconv.words.errors import Unsupported
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Keep, Rows, num_rows, row_order

BLOCK_ROWS = 128  # rows that share a scale in DeepSeek's FP8 files
PACKED = ".weight_packed"  # a weight whose rows are several numbers to an integer
WEIGHTS = (".weight", PACKED)
_BLOCKS = ".weight_scale_inv"
_CACHE = (".q_scale", ".k_scale", ".v_scale")
_EACH_ROW = (
    _BLOCKS, PACKED, ".weight_scale", ".weight_zero_point", ".weight_offset", ".SCB", ".scales",
    ".biases", *_CACHE,
)  # fmt: skip
_WHOLE = (
    ".input_scale", ".input_zero_point", ".input_global_scale", ".weight_global_scale",
    ".weight_scale_2", ".weight_shape", ".weight_g_idx", ".g_idx", ".weight_format",
    ".output_scale", ".activation_scale",
)  # fmt: skip
_COLUMNS = "its rows are columns of packed integers there, which moving whole rows cannot follow"
_FLAT = "its blocks of 64 numbers run over the ends of rows"
_GROUPS = "its numbers belong to groups of columns, and columns move"
_REFUSED = {
    ".qweight": _COLUMNS,
    ".qzeros": _COLUMNS,
    ".weight.absmax": _FLAT,
    ".weight.nested_absmax": _FLAT,
    ".weight.quant_map": _FLAT,
    ".weight.nested_quant_map": _FLAT,
    ".weight.quant_state.bitsandbytes__nf4": _FLAT,
    ".weight.quant_state.bitsandbytes__fp4": _FLAT,
}


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A tensor that belongs to a weight.

    Attributes:
        weight: the weight's name.
        kind: the rest of the tensor's own name.
    """

    weight: str
    kind: str


def companion(name: str) -> Companion | None:
    """What a tensor belongs to, by its name; None if it is no companion of a weight."""
    for kind in (*_EACH_ROW, *_WHOLE, *_REFUSED):
        if name.endswith(kind):
            return Companion(weight=_owner(name.removesuffix(kind), kind) + ".weight", kind=kind)
    return None


def _owner(module: str, kind: str) -> str:
    """The projection: scales of a cache may be attached to it, or to the attention around it."""
    if kind not in _CACHE or module.endswith("_proj"):
        return module
    return f"{module}.{kind[1]}_proj"


def rows_of_companion(
    stored: StoredTensor,
    found: Companion,
    rows: tuple[Rows, ...],
    block: Any,  # noqa: ANN401
    *,
    inputs: bool,
) -> tuple[Rows, ...]:
    """The rows of a companion of a weight that moves; all `Keep` where it stays.

    Args:
        stored: the companion.
        found: what it is.
        rows: of the weight.
        block: the config's `weight_block_size`.
        inputs: it is the weight's columns that move.

    Raises:
        Unsupported: its numbers do not belong to single rows.
    """
    kept = (Keep(math.prod(stored.shape[:1])),)
    expected = num_rows(*rows)
    if found.kind in _WHOLE or math.prod(stored.shape) == 1:
        return kept
    if inputs and found.kind not in _REFUSED and math.prod(stored.shape[1:]) == 1:
        return kept  # one for each row
    if found.kind in _REFUSED or inputs:
        raise Unsupported(
            what=f"`{stored.name}` is of a quantised weight that must be reordered",
            why=_REFUSED.get(found.kind, _GROUPS),
            fix="start from weights that are not quantised",
        )
    if found.kind == _BLOCKS or (block and stored.shape[:1] == (-(-expected // BLOCK_ROWS),)):
        _check_blocks(stored, found, rows, block)
        return kept
    if stored.shape[:1] == (expected,):
        return rows
    raise Unsupported(
        what=f"`{stored.name}` has the shape {list(stored.shape)}, expected {expected} rows",
        why=f"`{found.weight}` has as many; numbers that several rows share, or that are packed"
        " along rows, cannot follow them",
        fix="start from weights that are not quantised",
    )


def _check_blocks(
    stored: StoredTensor,
    found: Companion,
    rows: tuple[Rows, ...],
    block: Any,  # noqa: ANN401 - a JSON value
) -> None:
    """Scales of blocks of rows stay, if no row that moves leaves its block."""
    order = row_order(rows, INTERLEAVED, HALF_SPLIT)
    blocks = -(-len(order) // BLOCK_ROWS)
    if block != [BLOCK_ROWS, BLOCK_ROWS] or stored.shape[:1] != (blocks,):
        raise Unsupported(
            what=f"`{stored.name}` has the shape {list(stored.shape)}, expected {blocks} blocks of"
            f" {BLOCK_ROWS} rows",
            why=f"the config's weight_block_size is {block}; only scales of such blocks are known",
        )
    if any(place // BLOCK_ROWS != row // BLOCK_ROWS for place, row in enumerate(order)):
        raise Unsupported(
            what=f"rows of `{found.weight}` would leave the blocks of `{stored.name}`",
            why=f"its heads do not fit blocks of {BLOCK_ROWS} rows: new scales would change values",
            fix="start from weights that are not quantised",
        )
