"""What a rotation is asked for, and where tensors lie: all that decides a launch.

Notation: B sequences, T tokens, H query heads, D head_dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

# Where B, T and H lie among a tensor's dimensions; THD is one sequence.
AXES: dict[str, tuple[int | None, int, int]] = {
    "BTHD": (0, 1, 2),
    "BHTD": (0, 2, 1),
    "THD": (None, 0, 1),
}
STORAGES = tuple(AXES)
STORAGE_NUMBERS = {storage: number for number, storage in enumerate(STORAGES)}


class Rotation(NamedTuple):
    """What is done, in whole numbers only, so that a compiled graph can carry it."""

    pair_stride: int
    part_stride: int
    rotary_dim: int
    rotary_start: int
    column_step: int  # columns of the table from one pair to the next
    storage: int  # one of STORAGE_NUMBERS
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


def is_gathered(table: Place) -> bool:
    """Whether a table is [B, T, columns], and not [T, columns]."""
    return len(table.shape) == 3  # noqa: PLR2004 - its dimensions
