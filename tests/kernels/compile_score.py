"""Compile the score comparison for GPUs that are not here; count its instructions, as JSON.

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

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ropeconv.kernels.score_kernel import score_kernel

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
FORM = ("{}", "{}", "*fp32", "*fp32")


def compile_score(dtype: str, arch: int, head_dim: int) -> dict[str, int]:
    """Instructions of one variant by their names, interleaved rows against half-split ones."""
    names = score_kernel.arg_names
    types = [each.format(f"*{dtype}") for each in FORM * 2] + ["*i64"] * 3 + ["*fp32"]
    constants = {
        "HEAD_DIM": head_dim, "START": 0, "DIM": head_dim,
        "PAIR_STRIDE_A": 2, "PART_STRIDE_A": 1, "COLUMN_STEP_A": 1,
        "PAIR_STRIDE_B": 1, "PART_STRIDE_B": head_dim // 2, "COLUMN_STEP_B": 1,
        "HEADS": 1, "QUERIES": 64, "KEYS": 64, "PAIRS": 16,
    } | {name: 1 for name in names if name.endswith("stride_d")}  # fmt: skip
    signature = dict(zip(names, types, strict=False))
    for name in names[len(types) :]:
        signature[name] = "fp32" if name == "scale" else "i32"
    signature |= dict.fromkeys(constants, "constexpr")
    attrs = {(at,): [["tt.divisibility", 16]] for at in range(len(types))}
    compiled = triton.compile(
        ASTSource(score_kernel, signature, constants, attrs),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": 8, "num_stages": 1, "enable_fp_fusion": False},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(CUOBJDUMP), "--dump-sass", file.name]
        sass = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^\s+/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ )?(\w+)", sass, re.MULTILINE)
    return dict(Counter(found))


if __name__ == "__main__":
    cases = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps([compile_score(*case) for case in cases]))
