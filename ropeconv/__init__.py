"""Convert LLM checkpoints between RoPE row layouts and formats, and prove the result.

    import ropeconv
    from pathlib import Path

    ropeconv.convert(Path("Llama-3.2-1B/original"), Path("out"), ropeconv.HfOptions())
    verdict = ropeconv.verify(Path("out"), Path("Llama-3.2-1B/original"))
    ropeconv.relayout(Path("glm-4"), Path("glm-4-half-split"), ropeconv.HALF_SPLIT)

    heads = ropeconv.Repeat(num_heads, ropeconv.Rope(head_dim))
    q_proj = ropeconv.reorder_rows(
        wq, heads, source=ropeconv.INTERLEAVED, target=ropeconv.HALF_SPLIT
    )

Names are loaded when they are first used; nothing here imports torch before a proof needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ropeconv.version import __version__

if TYPE_CHECKING:
    from ropeconv.moving.effort import Effort
    from ropeconv.proof.detect import LayoutEvidence, detect_layout
    from ropeconv.proof.verdict import Outcome, Verdict
    from ropeconv.story.conversion import (
        ConversionReport,
        Handling,
        HfOptions,
        MetaOptions,
        convert,
    )
    from ropeconv.story.describing import described_family
    from ropeconv.story.inspection import Inspection, inspect
    from ropeconv.story.relayout import relayout, relayout_in_place
    from ropeconv.story.verification import LogitsRequest, verify
    from ropeconv.thinking.config_map import Said
    from ropeconv.words.errors import RopeconvError
    from ropeconv.words.layout import (
        HALF_SPLIT,
        INTERLEAVED,
        Keep,
        Repeat,
        Rope,
        RopeLayout,
        num_rows,
        reorder_rows,
        row_order,
    )
    from ropeconv.words.parts import Part

__all__ = [
    "HALF_SPLIT",
    "INTERLEAVED",
    "ConversionReport",
    "Effort",
    "Handling",
    "HfOptions",
    "Inspection",
    "Keep",
    "LayoutEvidence",
    "LogitsRequest",
    "MetaOptions",
    "Outcome",
    "Part",
    "Repeat",
    "Rope",
    "RopeLayout",
    "RopeconvError",
    "Said",
    "Verdict",
    "__version__",
    "convert",
    "described_family",
    "detect_layout",
    "inspect",
    "num_rows",
    "relayout",
    "relayout_in_place",
    "reorder_rows",
    "row_order",
    "verify",
]

_HOMES = {
    "ropeconv.moving.effort": ("Effort",),
    "ropeconv.proof.detect": ("LayoutEvidence", "detect_layout"),
    "ropeconv.proof.verdict": ("Outcome", "Verdict"),
    "ropeconv.story.conversion": (
        "ConversionReport", "Handling", "HfOptions", "MetaOptions", "convert",
    ),
    "ropeconv.story.describing": ("described_family",),
    "ropeconv.story.inspection": ("Inspection", "inspect"),
    "ropeconv.story.relayout": ("relayout", "relayout_in_place"),
    "ropeconv.story.verification": ("LogitsRequest", "verify"),
    "ropeconv.thinking.config_map": ("Said",),
    "ropeconv.words.errors": ("RopeconvError",),
    "ropeconv.words.layout": (
        "HALF_SPLIT", "INTERLEAVED", "Keep", "Repeat", "Rope", "RopeLayout", "num_rows",
        "reorder_rows", "row_order",
    ),
    "ropeconv.words.parts": ("Part",),
}  # fmt: skip


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'ropeconv' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
