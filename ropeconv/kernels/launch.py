"""The launch of a plan, with as little host time as Triton's public interface allows.

A call that asks for a plan it has seen costs one look-up. Then the compiled kernel is launched
directly: Triton's own entry looks at each of 60 arguments again, at more than half the cost of a
call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from ropeconv.kernels.backend import BACKEND
from ropeconv.kernels.plan import Plan, Rotation, make_plan
from ropeconv.kernels.rope_kernel import rope_kernel

if TYPE_CHECKING:
    from torch import Tensor

_INT32 = 1 << 31

# Since 3.3 a compiled kernel takes all arguments of its source, constants too; before, it took
# others.
_DIRECT = BACKEND == "cuda" and tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 3)

_SEVERAL = torch.cuda.device_count() > 1  # else the current device is always the right one


def launch(
    rotation: Rotation,
    q: Tensor,
    k: Tensor | None,
    q_out: Tensor,
    k_out: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    offsets: tuple[int, int],
) -> None:
    """Rotates q into q_out and k into k_out; the last dimension of each is contiguous.

    Raises:
        UsageError: the tensors do not go together.
    """
    plan = make_plan(
        rotation,
        (q.shape, q.stride(), q.dtype, q.device),
        None if k is None else (k.shape, k.stride(), k.dtype, k.device),
        (cos.shape, cos.stride(), cos.dtype, cos.device),
        None if q_ids is None else (q_ids.shape, q_ids.stride(), q_ids.dtype, q_ids.device),
        None if k_ids is None else (k_ids.shape, k_ids.stride(), k_ids.dtype, k_ids.device),
    )
    if plan is None:
        return
    # An absent tensor is passed as q: its pointer is never followed.
    pointers = (
        q, q if k is None else k, q_out, q if k_out is None else k_out, cos, sin,
        q if q_ids is None else q_ids, q if k_ids is None else k_ids,
    )  # fmt: skip
    if _SEVERAL and q.is_cuda and q.device.index != torch.cuda.current_device():
        with torch.cuda.device(q.device):
            _run(plan, pointers, offsets)
    else:
        _run(plan, pointers, offsets)


def _run(plan: Plan, pointers: tuple[Tensor, ...], offsets: tuple[int, int]) -> None:
    # What a compiled variant assumes beyond the plan: pointers to 16 bytes, offsets of 32 bits.
    usual = False
    if _DIRECT and offsets[0] < _INT32 and offsets[1] < _INT32:
        addresses = [pointer.data_ptr() for pointer in pointers]
        bits = 0
        for address in addresses:
            bits |= address
        usual = bits % 16 == 0
        if usual and plan.run is not None:
            # Addresses as numbers: of a tensor, the launcher asks the driver where it lies.
            plan.run(*addresses, *offsets, *plan.tail)
            return
    compiled: Any = rope_kernel[plan.grid](*pointers, *offsets, *plan.numbers, **plan.constants)
    if usual:
        plan.run = compiled[plan.grid]
