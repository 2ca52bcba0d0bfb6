"""What measured scores mean: the same, different, or seen with too little power. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from ropeconv.proof.verdict import LayerScores, Outcome

# a control must exceed the bound by this factor, or the check saw too little
SMALLEST_MARGIN = 10.0


def judge(layers: Sequence[LayerScores]) -> tuple[Outcome, str]:
    """The outcome over all layers, with the reason; one difference outweighs all else."""
    if not layers:
        return Outcome.INCONCLUSIVE, "no layer was compared"
    judged = [judge_layer(layer) for layer in layers]
    for outcome in (Outcome.DIFFERENT, Outcome.INCONCLUSIVE):
        for found, why in judged:
            if found is outcome:
                return outcome, why
    return Outcome.SAME, ""


def judge_layer(layer: LayerScores) -> tuple[Outcome, str]:
    """The outcome of one layer: a difference beyond rounding, or a control that did not fail."""
    if not layer.finite:
        return Outcome.INCONCLUSIVE, (
            f"layer {layer.layer}: the projections hold NaN or infinity, so no score can be"
            " compared"
        )
    beyond = {
        f"head {layer.worst_head}: scores differ": layer.max_difference,
        "scores differ with every query at one position": layer.clamped,
        "scores change when both positions shift": layer.shifted,
    }
    for words, difference in beyond.items():
        if not difference <= layer.bound:
            return Outcome.DIFFERENT, (
                f"layer {layer.layer}, {words} by {difference:.3g}, rounding allows"
                f" {layer.bound:.3g}"
            )
    if not layer.margin >= SMALLEST_MARGIN:
        weakest = min(layer.controls, key=lambda control: control.difference)
        return Outcome.INCONCLUSIVE, (
            f"layer {layer.layer}: the planted mistake `{weakest.name}` differs by"
            f" {weakest.difference:.3g} only, rounding allows {layer.bound:.3g}; these weights"
            " cannot tell right from wrong"
        )
    return Outcome.SAME, ""
