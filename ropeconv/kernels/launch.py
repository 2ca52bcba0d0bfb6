"""The launch of a rotation, with as little host time as Triton's interface allows.

A call that asks for a plan it has seen costs one look-up; then the compiled kernel is launched
directly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ropeconv.kernels.direct import DIRECT, bind
from ropeconv.kernels.plan import make_plan
from ropeconv.kernels.rope_kernel import rope_kernel
from ropeconv.kernels.rotation import Rotation

if TYPE_CHECKING:
    from torch import Tensor

_INT32 = 1 << 31
_IN_PLACE = Rotation._fields.index("in_place")

_SEVERAL = torch.cuda.device_count() > 1  # else the current device is always the right one


def launch(
    q: Tensor,
    k: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    q_ids: Tensor | None,
    k_ids: Tensor | None,
    rotation: tuple[int, ...],
    offsets: tuple[int, int],
) -> tuple[Tensor, Tensor | None]:
    """The rotated q and k: new tensors, or themselves where the rotation is in place.

    Raises:
        UsageError: the tensors do not go together, or a position lies outside the table.
    """
    if _SEVERAL and q.is_cuda and q.device.index != torch.cuda.current_device():
        with torch.cuda.device(q.device):
            return launch(q, k, cos, sin, q_ids, k_ids, rotation, offsets)
    # The rows of a head must lie side by side. A gradient may arrive expanded, or transposed.
    q_stride = q.stride()
    if q_stride[-1:] != (1,):
        q = q.contiguous()
        q_stride = q.stride()
    k_place = None
    if k is not None:
        k_stride = k.stride()
        if k_stride[-1:] != (1,):
            k = k.contiguous()
            k_stride = k.stride()
        k_place = k.shape, k_stride, k.dtype, k.device
    cos_at, sin_at = cos.data_ptr(), sin.data_ptr()
    plan = make_plan(
        rotation,
        (q.shape, q_stride, q.dtype, q.device),
        k_place,
        (cos.shape, cos.stride(), cos.dtype, cos.device),
        None if q_ids is None else (q_ids.shape, q_ids.stride(), q_ids.dtype, q_ids.device),
        None if k_ids is None else (k_ids.shape, k_ids.stride(), k_ids.dtype, k_ids.device),
        sin_at - cos_at == cos.itemsize,
    )
    if rotation[_IN_PLACE]:
        q_out, k_out = q, k
    else:
        q_out, k_out = torch.empty_like(q), None if k is None else torch.empty_like(k)
    if plan is None:
        return q_out, k_out
    q_offset, k_offset = offsets
    q_first, q_end, k_first, k_end = plan.offsets
    if not (q_first <= q_offset < q_end and k_first <= k_offset < k_end):
        plan.refuse(offsets)
    if plan.together:
        sin, sin_at = cos, cos_at
    # An absent tensor is passed as q: its address is never followed.
    q_at = q.data_ptr()
    k_at = q_at if k is None else k.data_ptr()
    q_out_at = q_out.data_ptr()
    k_out_at = q_at if k_out is None else k_out.data_ptr()
    q_ids_at = q_at if q_ids is None else q_ids.data_ptr()
    k_ids_at = q_at if k_ids is None else k_ids.data_ptr()
    # What a compiled variant assumes beyond the plan: addresses that 16 divides, short offsets.
    usual = (
        (q_at | k_at | q_out_at | k_out_at | cos_at | sin_at | q_ids_at | k_ids_at) % 16 == 0
        and q_offset < _INT32
        and k_offset < _INT32
    )
    if usual and plan.run is not None:
        # Addresses as numbers: of a tensor, the launcher asks the driver where it lies.
        plan.run(
            q_at, k_at, q_out_at, k_out_at, cos_at, sin_at, q_ids_at, k_ids_at, q_offset, k_offset
        )
        return q_out, k_out
    planned = *plan.numbers, *plan.constants.values()
    pointers = (
        q, q if k is None else k, q_out, q if k_out is None else k_out, cos, sin,
        q if q_ids is None else q_ids, q if k_ids is None else k_ids,
    )  # fmt: skip
    compiled = rope_kernel[plan.grid](*planned, *pointers, *offsets, **plan.options)
    if DIRECT and usual:
        plan.run = bind(compiled, plan.grid, q.get_device(), planned)
    return q_out, k_out
