"""Compile the kernels for GPUs that are not here, and report what the machine code does, as JSON.

Run as a process of its own with TRITON_INTERPRET=0: a process that interprets cannot compile.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ropeconv.kernels.plan import make_plan
from ropeconv.kernels.rope_kernel import rope_kernel
from ropeconv.kernels.rotation import Place, Rotation
from ropeconv.words.layout import LAYOUTS

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}


def contiguous(*shape: int, dtype: torch.dtype) -> Place:
    stride = torch.empty(shape, device="meta").stride()
    return Place(shape, stride, dtype, torch.device("cuda"))


def compile_rope(
    layout: str, dtype: torch.dtype, arch: int, head_dim: int, rotary: int, table: str
) -> dict[str, Any]:
    """Counts of the memory instructions of one variant, by width.

    A table holds "pairs", each value once, or is "complex", or as complex is read part by part
    ("parts"), which is what a kernel does that does not know that they lie together.
    """
    # "stride-two" is what an interleaved kernel does that loads the parts of its pairs one by one.
    strides = {"stride-two": (2, rotary)} | {
        name: each.strides(rotary // 2) for name, each in LAYOUTS.items()
    }
    pair_stride, part_stride = strides[layout]
    step = 1 if table == "pairs" else 2
    rotation = Rotation(pair_stride, part_stride, rotary, 0, step, 0, 1, 1, 1, 0, 0)
    q = contiguous(2, 4096, 32, head_dim, dtype=dtype)
    k = contiguous(2, 4096, 8, head_dim, dtype=dtype)
    rows = contiguous(4096, step * rotary // 2, dtype=torch.float32)
    plan = make_plan(rotation, q, k, rows, sines_behind=table == "complex")
    assert plan is not None
    pointers = [TYPES[dtype]] * 4 + ["*fp32"] * 2 + [TYPES[dtype]] * 2
    types = ["i32"] * len(plan.numbers) + ["constexpr"] * len(plan.constants) + pointers
    names = rope_kernel.arg_names
    signature = dict(zip(names, types + ["i32"] * 2, strict=True))
    divisible = [
        number % 16 == 0 and name not in rope_kernel.do_not_specialize
        for name, number in zip(names, plan.numbers, strict=False)
    ]
    divisible += [False] * len(plan.constants) + [True] * len(pointers)
    attrs = {(at,): [["tt.divisibility", 16]] for at, yes in enumerate(divisible) if yes}
    source = ASTSource(rope_kernel, signature, plan.constants, attrs)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=plan.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(CUOBJDUMP), "--dump-sass", file.name]
        sass = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    instructions = re.findall(
        r"^\s+/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\w+ )?([\w.]+)", sass, re.MULTILINE
    )
    widths: Counter[str] = Counter()
    for name in instructions:
        if match := re.match(r"(LDG|STG|LDL|STL|LDS|STS|BAR)\b", name):
            width = re.search(r"\.(U8|U16|64|128)\b", name)
            widths[f"{match[1]}.{width[1] if width else 32}"] += 1
    return {
        "widths": dict(widths),
        "instructions": len(instructions),
        "shared": compiled.metadata.shared,
    }


if __name__ == "__main__":
    cases = json.loads(sys.argv[1])
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    sys.stdout.write(
        json.dumps([compile_rope(*[dtypes.get(x, x) for x in case]) for case in cases])
    )
