"""Where kernels run, what the interpreter gets wrong, and what the compiler makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_cases import BOTH, table_of, vectors

from ropeconv.kernels import BACKEND, KernelCheck, apply_rope, check_kernel
from ropeconv.words.layout import INTERLEAVED

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).parent / "compile_probe.py"
NO_DEVICE = {"CUDA_VISIBLE_DEVICES": ""}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


SAY = """
import os
from ropeconv.kernels import BACKEND
print(BACKEND, os.environ["TRITON_INTERPRET"])
"""


def test_a_machine_without_a_gpu_interprets_by_itself() -> None:
    assert run("-c", SAY, **NO_DEVICE).stdout.split() == ["interpreter", "1"]


def test_the_environment_decides_if_it_says_something() -> None:
    assert run("-c", SAY, **NO_DEVICE, TRITON_INTERPRET="0").stdout.split() == ["cuda", "0"]
    assert run("-c", SAY, TRITON_INTERPRET="1").stdout.split() == ["interpreter", "1"]


def test_triton_imported_too_early_is_refused() -> None:
    """Its own functions are compiled ones by then: no silent other way."""
    done = run("-c", "import triton, ropeconv.kernels", **NO_DEVICE)

    assert done.returncode == 1
    assert "triton was imported before `ropeconv.kernels`" in done.stderr


def test_tensors_on_the_cpu_are_refused_by_compiled_kernels() -> None:
    code = (
        "import torch; from ropeconv.kernels import *;"
        "from ropeconv.words.layout import INTERLEAVED;"
        "apply_rope(torch.zeros(1, 1, 1, 2), None, RopeTable.from_pairs(torch.ones(1, 1),"
        "torch.zeros(1, 1)), layout=INTERLEAVED)"
    )
    done = run("-c", code, **NO_DEVICE, TRITON_INTERPRET="0")

    assert "q lies on `cpu`, and the kernel is compiled for CUDA" in done.stderr


@pytest.mark.parametrize("layout", BOTH, ids=str)
def test_bf16_is_rounded_to_nearest_even_everywhere(device: torch.device, layout: Any) -> None:
    """The interpreter's own cast truncates: half of all values would be off by one."""
    q, k = vectors(device, torch.bfloat16)
    table = table_of(7, 10, device)

    rounded = apply_rope(q, k, table, layout=layout)
    wide = apply_rope(q.float(), k.float(), table, layout=layout)

    for short, long in zip(rounded, wide, strict=True):
        assert short is not None
        assert long is not None
        assert torch.equal(short, long.bfloat16())
        truncated = (long.view(torch.int32) & -65536).view(torch.float32).bfloat16()
        assert not torch.equal(short, truncated)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy says that inf * 0 is NaN
def test_nan_and_infinity_stay_what_they_are(device: torch.device) -> None:
    q = torch.tensor([float("nan"), 1.0, float("inf"), 0.0], dtype=torch.bfloat16, device=device)
    table = table_of(1, 4, device)

    got, _ = apply_rope(q.view(1, 1, 1, 4), None, table, layout=INTERLEAVED)

    assert got.flatten()[:2].isnan().all()
    assert got.flatten()[2] == float("inf")


@pytest.fixture(scope="module")
def machine_code() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Each variant compiled for GPUs that are not here; half a second each."""
    cases = [
        (layout, dtype, arch, head_dim, rotary, table)
        for layout in ("interleaved", "half-split")
        for dtype, arch, head_dim, rotary, table in (
            ("bf16", 90, 128, 128, "pairs"),
            ("fp32", 90, 128, 128, "pairs"),
            ("fp16", 80, 96, 64, "pairs"),
            ("bf16", 100, 80, 80, "pairs"),
            ("bf16", 90, 80, 80, "complex"),
        )
    ]
    done = run(str(PROBE), json.dumps(cases), TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout), strict=True))


def test_kernels_compile_for_every_generation(
    machine_code: dict[tuple[Any, ...], dict[str, Any]],
) -> None:
    assert len(machine_code) == 10
    for found in machine_code.values():
        assert found["instructions"] > 0
        assert not {"LDL", "STL"} & {name.split(".")[0] for name in found["widths"]}


def test_memory_is_accessed_in_16_bytes(
    machine_code: dict[tuple[Any, ...], dict[str, Any]],
) -> None:
    """Stride-2 loads, 2 bytes each, made an interleaved kernel 13 times slower: speed, on a CPU.

    Narrower accesses are left for a small k and its table only: a third of the bytes at most.
    """
    nbytes = {"U8": 1, "U16": 2, "32": 4, "64": 8, "128": 16}
    for case, found in machine_code.items():
        for kind in ("LDG", "STG"):
            moved = {
                width: count * nbytes[width]
                for name, count in found["widths"].items()
                for access, width in [name.split(".")]
                if access == kind
            }
            assert not {"U8", "U16"} & moved.keys(), (case, moved)
            assert 3 * moved["128"] >= 2 * sum(moved.values()), (case, moved)


def test_stride_two_loads_would_be_seen() -> None:
    """The controls of the test above: pairs, and the parts of a table, two columns apart."""
    cases = [
        ("stride-two", "bf16", 90, 128, 128, "pairs"),
        ("interleaved", "bf16", 90, 80, 80, "parts"),
    ]
    done = run(str(PROBE), json.dumps(cases), TRITON_INTERPRET="0")
    pairs_apart, parts_apart = json.loads(done.stdout)

    assert pairs_apart["widths"].get("LDG.U16", 0) > 0
    assert parts_apart["widths"]["LDG.32"] >= 8


def test_the_self_check_passes_and_says_why(device: torch.device) -> None:
    report = check_kernel(device)

    assert report.passed, [check for check in report.checks if not check.passed]
    assert report.backend == BACKEND
    assert sum(check.control for check in report.checks) == 18
    assert all(check.reason for check in report.checks)


def test_the_self_check_fails_on_a_planted_mistake(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotating backwards keeps every score, and is another model: the oracle sees it."""
    monkeypatch.setattr(
        "ropeconv.kernels.selfcheck.rope_reference",
        lambda x, table, *, conjugate=False, **how: real(x, table, conjugate=not conjugate, **how),
    )
    from ropeconv.kernels.reference import rope_reference as real  # noqa: PLC0415 - the original

    report = check_kernel(device)

    failed = {check.name.split(",")[0] for check in report.checks if not check.passed}
    assert failed == {"rotate", "gradient"}


def test_a_check_with_nan_fails_and_a_control_too() -> None:
    nan = float("nan")
    assert not KernelCheck(name="x", error=nan, bound=1.0, reason="").passed
    assert not KernelCheck(name="x", error=nan, bound=1.0, reason="", control=True).passed


@pytest.mark.gpu
def test_more_than_two_to_the_31_elements(device: torch.device) -> None:
    tokens = (1 << 31) // (32 * 128) + 5
    q = torch.randn(1, tokens, 32, 128, dtype=torch.bfloat16, device=device)
    table = table_of(tokens, 128, device)

    for layout in BOTH:
        got, _ = apply_rope(q, None, table, layout=layout)
        last, _ = apply_rope(
            q[:, -3:], None, type(table).from_pairs(table.cos[-3:], table.sin[-3:]), layout=layout
        )
        assert torch.equal(got[:, -3:], last)


@pytest.mark.gpu
def test_a_growing_offset_does_not_recompile(device: torch.device) -> None:
    """1 and multiples of 16 are variants to Triton, unless it is told otherwise."""
    from ropeconv.kernels import Positions  # noqa: PLC0415 - here only
    from ropeconv.kernels.rope_kernel import rope_kernel  # noqa: PLC0415 - here only

    q, k = vectors(device, tokens=1, head_dim=128)
    apply_rope(q, k, table_of(99, 128, device), layout=INTERLEAVED)
    before = len(rope_kernel.device_caches[device.index or 0][0])
    for offset in (0, 1, 2, 16, 17, 32):
        apply_rope(
            q, k, table_of(99, 128, device), layout=INTERLEAVED, positions=Positions.at(offset)
        )

    assert len(rope_kernel.device_caches[device.index or 0][0]) == before
