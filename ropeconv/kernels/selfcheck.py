"""The kernel proved on this machine: against float64, against itself, and against planted mistakes.

Notation: u is the unit roundoff of the arithmetic (2^-24, 2^-53 for float64), v that of the dtype
in which results are stored. A rotated part is y = x0 * c - x1 * s (or its like): the table rounds c
and s, the product is rounded, the fused sum is rounded, so |error| <= 3u (|x0| + |x1|) to first
order, and storing adds v |y|. Errors are therefore given relative to |x0| + |x1| of their pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton

from ropeconv.kernels.backend import BACKEND, Backend
from ropeconv.kernels.positions import Positions
from ropeconv.kernels.reference import rope_reference
from ropeconv.kernels.rope import apply_rope
from ropeconv.kernels.score_compare import ScoreForm, score_compare
from ropeconv.kernels.table import RopeTable
from ropeconv.words.frequencies import RopeSettings
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Keep, Rope, RopeLayout, row_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

# Odd on purpose: no power of two, partial, a third as many key heads.
_TOKENS, _HEADS, _KV_HEADS, _START, _ROTARY, _HEAD_DIM = 19, 6, 2, 4, 22, 30
_SETTINGS = RopeSettings(theta=500000.0)
_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_EXACT = "the same operations on the same numbers, only their places differ"


@dataclass(frozen=True, kw_only=True)
class KernelCheck:
    """One check: an error that must not exceed a bound, or, of a control, must exceed it."""

    name: str
    error: float
    bound: float
    reason: str  # where the bound comes from
    control: bool = False

    @property
    def passed(self) -> bool:
        """Whether the check says what it should; NaN never does."""
        return self.error > self.bound if self.control else self.error <= self.bound


@dataclass(frozen=True, kw_only=True)
class KernelReport:
    """What `check_kernel` found on this machine."""

    device: str
    backend: Backend
    torch: str  # versions
    triton: str
    checks: tuple[KernelCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed, controls among them."""
        return all(check.passed for check in self.checks)


def check_kernel(device: torch.device | str | None = None, *, seed: int = 0) -> KernelReport:
    """Run every check of the rotation and the score comparison; 5 seconds, on any backend.

    Args:
        device: where to run; None for the first CUDA device, or the CPU where there is none.
        seed: of the random queries and keys.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.device(device)
    checks = [
        check
        for layout in (INTERLEAVED, HALF_SPLIT)
        for dtype in _DTYPES
        for check in _rotation_checks(where, layout, dtype, seed)
    ]
    checks += _layout_checks(where, seed)
    for dtype in (torch.bfloat16, torch.float32):
        checks += _score_checks(where, dtype, seed)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    return KernelReport(
        device=name,
        backend=BACKEND,
        torch=torch.__version__,
        triton=triton.__version__,
        checks=tuple(checks),
    )


def _rotation_checks(
    device: torch.device, layout: RopeLayout, dtype: torch.dtype, seed: int
) -> Iterator[KernelCheck]:
    q, k = _vectors(device, dtype, seed)
    table, exact_table = (_table(device, kind) for kind in (_math(dtype), torch.float64))
    q_out, k_out = apply_rope(q, k, table, layout=layout, rotary_start=_START)
    name = f"{layout} {str(dtype).removeprefix('torch.')}"
    bound, reason = _bound(dtype)

    def error(got: Tensor, x: Tensor, *, conjugate: bool = False) -> float:
        exact = x.double()
        truth = rope_reference(
            exact, exact_table, layout=layout, rotary_start=_START, conjugate=conjugate
        )
        return _relative_to_pair(got, truth, exact, layout)

    worst = max(error(q_out, q), error(k_out, k))
    yield KernelCheck(name=f"rotate, {name}", error=worst, bound=bound, reason=reason)

    leaf = q.clone().requires_grad_()
    turned, _ = apply_rope(leaf, None, table, layout=layout, rotary_start=_START)
    (gradient,) = torch.autograd.grad(turned, leaf, q)
    worst = error(gradient, q, conjugate=True)
    yield KernelCheck(name=f"gradient, {name}", error=worst, bound=bound, reason=reason)

    rest = [*range(_START), *range(_START + _ROTARY, _HEAD_DIM)]
    changed = (q_out[..., rest] != q[..., rest]).sum() + (k_out[..., rest] != k[..., rest]).sum()
    yield KernelCheck(
        name=f"pass through, {name}",
        error=float(changed),
        bound=0.0,
        reason="values that differ; rows that do not rotate are copied",
    )

    other = HALF_SPLIT if layout is INTERLEAVED else INTERLEAVED
    wrong, _ = apply_rope(q, None, table, layout=other, rotary_start=_START)
    yield KernelCheck(
        name=f"control: rotated as {other}, {name}",
        error=error(wrong, q),
        bound=10 * bound,
        reason="another pairing is another rotation: errors of order 1",
        control=True,
    )


def _layout_checks(device: torch.device, seed: int) -> Iterator[KernelCheck]:
    order = _order()
    for dtype in _DTYPES:
        q, _ = _vectors(device, dtype, seed)
        table = _table(device, _math(dtype))
        as_is, _ = apply_rope(q, None, table, layout=INTERLEAVED, rotary_start=_START)
        moved, _ = apply_rope(q[..., order], None, table, layout=HALF_SPLIT, rotary_start=_START)
        yield KernelCheck(
            name=f"both layouts agree, {str(dtype).removeprefix('torch.')}",
            error=float((as_is[..., order] - moved).abs().max()),
            bound=0.0,
            reason=_EXACT,
        )
    q, _ = _vectors(device, torch.float32, seed)
    table = _table(device, torch.float32)
    rounded, _ = apply_rope(q.bfloat16(), None, table, layout=INTERLEAVED)
    unrounded, _ = apply_rope(q.bfloat16().float(), None, table, layout=INTERLEAVED)
    yield KernelCheck(
        name="bfloat16 is rounded to nearest even",
        error=float((rounded != unrounded.bfloat16()).sum()),
        bound=0.0,
        reason="values that differ from torch's own rounding of the float32 result",
    )
    ids = torch.arange(_TOKENS, device=device)
    ids[3], ids[5] = -1, _TOKENS
    strayed, _ = apply_rope(q, None, table, layout=INTERLEAVED, positions=Positions.of(ids))
    stray = (ids < 0) | (ids >= _TOKENS)
    rotated = strayed[..., :_ROTARY].isnan().all(-1).all(-1).any(0)
    yield KernelCheck(
        name="positions outside the table are NaN",
        error=float((rotated != stray).sum()),
        bound=0.0,
        reason="tokens that differ; another row must never be read in silence",
    )


def _score_checks(device: torch.device, dtype: torch.dtype, seed: int) -> Iterator[KernelCheck]:
    q, k = _vectors(device, dtype, seed)
    places = torch.randint(0, 1 << 20, (_TOKENS,), generator=torch.Generator().manual_seed(seed))
    table = RopeTable.from_settings(_SETTINGS, _ROTARY, places, device=device)
    order = _order()
    name = str(dtype).removeprefix("torch.")

    def form(q: Tensor, k: Tensor, layout: RopeLayout) -> ScoreForm:
        return ScoreForm(q=q, k=k, layout=layout, table=table, rotary_start=_START)

    source = form(q, k, INTERLEAVED)
    right = score_compare(source, form(q[..., order], k[..., order], HALF_SPLIT))
    yield KernelCheck(
        name=f"scores of a right reorder, {name}",
        error=float(right.max_abs.max()),
        bound=0.0,
        reason=_EXACT,
    )
    backwards = torch.argsort(order)
    swapped = q.clone()
    swapped[:, :, 1, _START], swapped[:, :, 1, _START + 1] = (
        q[:, :, 1, _START + 1],
        q[:, :, 1, _START],
    )
    # Random vectors give sqrt(2 * share) of the score, share being what goes wrong: 22 rows of 30,
    # or one pair of fifteen. Bounds are about a third of that.
    mistakes = {
        "not reordered": (form(q, k, HALF_SPLIT), 0.3),
        "only q reordered": (form(q[..., order], k, HALF_SPLIT), 0.3),
        "only k reordered": (form(q, k[..., order], HALF_SPLIT), 0.3),
        "reordered backwards": (form(q[..., backwards], k[..., backwards], HALF_SPLIT), 0.3),
        "one pair of one head swapped": (form(swapped, k, INTERLEAVED), 0.1),
    }
    for mistake, (wrong, bound) in mistakes.items():
        yield KernelCheck(
            name=f"control: {mistake}, {name}",
            error=float(score_compare(source, wrong).relative_rms.max()),
            bound=bound,
            reason="relative RMS of the worst head's scores",
            control=True,
        )


def _bound(dtype: torch.dtype) -> tuple[float, str]:
    unit = torch.finfo(_math(dtype)).eps / 2
    if dtype == torch.float64:
        return 6 * unit, "3u for the kernel, 3u for the oracle, which is float64 too; u = 2^-53"
    if dtype == torch.float32:
        return 3.01 * unit, "3u: the table, a product, a fused sum; u = 2^-24"
    store = torch.finfo(dtype).eps / 2
    return store + 3.01 * unit, f"v + 3u: stored once, v = {store:g}; u = 2^-24"


def _relative_to_pair(got: Tensor, truth: Tensor, x: Tensor, layout: RopeLayout) -> float:
    """The worst error of a rotary row over |x0| + |x1| of its pair."""
    pair_stride, part_stride = layout.strides(_ROTARY // 2)
    first = torch.arange(_ROTARY // 2, device=x.device) * pair_stride + _START
    second = first + part_stride
    size = x[..., first].abs() + x[..., second].abs()
    errors = [((got.double() - truth)[..., part].abs() / size).max() for part in (first, second)]
    return float(torch.stack(errors).max())


def _vectors(device: torch.device, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, _TOKENS, _HEADS, _HEAD_DIM, generator=generator)
    k = torch.randn(2, _TOKENS, _KV_HEADS, _HEAD_DIM, generator=generator)
    return q.to(device, dtype), k.to(device, dtype)


def _table(device: torch.device, dtype: torch.dtype) -> RopeTable:
    positions = torch.arange(_TOKENS) * 997
    return RopeTable.from_settings(_SETTINGS, _ROTARY, positions, device=device, dtype=dtype)


def _math(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _order() -> Tensor:
    """Rows of the half-split head, as rows of the interleaved one."""
    rows = (Keep(_START), Rope(_ROTARY), Keep(_HEAD_DIM - _START - _ROTARY))
    return torch.tensor(row_order(rows, INTERLEAVED, HALF_SPLIT))
