"""The Triton RoPE kernel for both layouts, its score comparison, and their float64 oracle."""

from ropeconv.kernels.backend import BACKEND, Backend  # first: it decides how Triton starts

# isort: split
from ropeconv.kernels.positions import Positions
from ropeconv.kernels.rope import apply_rope
from ropeconv.kernels.score_compare import ScoreDifference, ScoreForm, score_compare
from ropeconv.kernels.selfcheck import KernelCheck, KernelReport, check_kernel
from ropeconv.kernels.table import RopeTable, mrope_axes

__all__ = [
    "BACKEND",
    "Backend",
    "KernelCheck",
    "KernelReport",
    "Positions",
    "RopeTable",
    "ScoreDifference",
    "ScoreForm",
    "apply_rope",
    "check_kernel",
    "mrope_axes",
    "score_compare",
]
