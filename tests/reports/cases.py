"""Verdicts made by hand, so that tests of reports need no model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from ropeconv.proof.verdict import (
    ByDistance,
    ConfigCheck,
    Control,
    DistancePoint,
    ExactCheck,
    Finding,
    LayerScores,
    LogitsCheck,
    Outcome,
    ScoreCheck,
    Side,
    Verdict,
)

BOUND = 3e-5
# what a stranger may call a tensor or a folder
HOSTILE = "<script>alert(1)</script>]]>&\"'`|\x00\x1b[31m\u202e\nhttps://evil.example\udcff"


def layer(number: int, *, differences: tuple[float, ...] = (0.0, 0.0, 0.0)) -> LayerScores:
    """A layer with three key heads that two query heads share each."""
    worst = max(range(len(differences)), key=lambda head: differences[head])
    return LayerScores(
        layer=number,
        max_difference=differences[worst],
        bound=BOUND,
        worst_head=2 * worst,
        groups=differences,
        shifted=2e-6,
        clamped=0.0,
        controls=(
            Control(name="not reordered", difference=2.5),
            Control(name="only q reordered", difference=1.25 + number / 64),
        ),
        control_group=number % 3,
    )


def without_numbers(number: int) -> LayerScores:
    """A layer whose source holds NaN."""
    return replace(
        layer(number), max_difference=math.inf, bound=0.0, groups=(), controls=(), finite=False
    )


def scores(*layers: LayerScores, outcome: Outcome = Outcome.SAME, why: str = "") -> ScoreCheck:
    """A score check of these layers, of a model with one more."""
    points = [
        DistancePoint(first=first, last=last, difference=0.0, control=control)
        for first, last, control in ((0, 0, 4e-16), (1, 1, 0.5), (2, 3, 1.5), (4, 7, 1.25))
    ]
    return ScoreCheck(
        outcome=outcome,
        backend="Triton interpreter",
        device="CPU",
        num_positions=7,
        largest_position=1024,
        layers=layers,
        num_layers=len(layers) + 1,
        why=why,
        by_distance=ByDistance(layer=0, group=1, bound=BOUND, points=tuple(points)),
        versions=(("torch", "2.0.0"), ("triton", "3.0.0")),
    )


def same(*, name: str = "out") -> Verdict:
    """Nothing differs; the last of three layers was not chosen."""
    return Verdict(
        target=Side(path=Path(name), format="hf", layout="half-split", family="llama"),
        source=Side(path=Path("llama 2"), format="meta", layout="interleaved", family="llama"),
        exact=ExactCheck(
            outcome=Outcome.SAME, num_tensors=21, num_reordered=4, nbytes=86_400, findings=()
        ),
        config=ConfigCheck(outcome=Outcome.SAME, num_frequencies=5, findings=()),
        scores=scores(layer(0), layer(1, differences=(0.0, 4e-6, 0.0))),
    )


def different(*, tensor: str = "model.layers.1.self_attn.k_proj.weight") -> Verdict:
    """Layer 1 was not reordered, one more tensor differs, and so does a field of the config."""
    unnamed = Finding(tensor=tensor, text=f"holds the bytes of {tensor}")
    named = Finding(tensor="model.layers.1.self_attn.q_proj.weight", text="not reordered")
    return replace(
        same(),
        exact=replace(
            same().exact,
            outcome=Outcome.DIFFERENT,
            findings=(named, unnamed),
            diagnosis=("q_proj of layer 1: not reordered, the rows are still interleaved",),
            named=(named.tensor,),
        ),
        config=ConfigCheck(
            outcome=Outcome.DIFFERENT,
            num_frequencies=5,
            findings=(Finding(tensor="norm_eps", text="1e-06, source says 1e-05"),),
        ),
        scores=scores(
            layer(0),
            layer(1, differences=(0.5, 2.0, 0.0)),
            outcome=Outcome.DIFFERENT,
            why="layer 1, head 2: scores differ by 2, rounding allows 3e-05",
        ),
    )


def inconclusive() -> Verdict:
    """Layer 1 holds NaN."""
    why = "layer 1: the source's projections hold NaN or infinity, so no score can be compared"
    found = scores(layer(0), without_numbers(1), outcome=Outcome.INCONCLUSIVE, why=why)
    return replace(same(), scores=found)


def not_comparable() -> Verdict:
    """Two geometries: the scores were not run."""
    found = ScoreCheck(
        outcome=Outcome.NOT_RUN,
        backend="",
        device="",
        num_positions=0,
        largest_position=0,
        layers=(),
        num_layers=2,
        why="the two have different geometries, so their heads cannot be compared",
    )
    return replace(different(), scores=found)


def with_logits() -> Verdict:
    """Both models were run as well."""
    found = LogitsCheck(
        outcome=Outcome.SAME,
        num_tokens=128,
        text="",
        source_runtime="plain PyTorch",
        target_runtime="transformers",
        source_loss=0.95,
        target_loss=0.95,
        mean_kl=1e-9,
        largest_kl=1e-8,
        argmax_agreement=1.0,
        rms_error=1e-6,
        bound=8e-6,
    )
    return replace(same(), logits=found)


EVERY = (same(), different(), inconclusive(), not_comparable(), with_logits())
