"""What the kernel refuses, checked with a plan: once for each kind of call."""

from __future__ import annotations

import torch

from ropeconv.kernels.backend import BACKEND
from ropeconv.kernels.rotation import AXES, STORAGES, Place, Rotation, is_gathered
from ropeconv.words.errors import UsageError

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_MAX_SEQUENCES = 65535  # CUDA's limit on the second number of a grid


def check(
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
    if is_gathered(table) and (table.shape[0] not in (1, sequences) or table.shape[1] != tokens):
        raise UsageError(
            what=f"a gathered table is for {list(table.shape[:2])} tokens, "
            f"q has {[sequences, tokens]}",
            fix="gather the table by the positions of these tokens",
        )
    if is_gathered(table) and (ids != (None, None) or (rotation.q_step, rotation.k_step) != (1, 1)):
        raise UsageError(
            what="a gathered table has a row for each token, and positions were given too",
            fix="leave out the positions, or pass the table before it was gathered",
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
