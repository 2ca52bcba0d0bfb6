"""What measured scores mean: the same, different, or seen with too little power. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ropeconv.proof.verdict import LayerScores, Outcome

# a control must exceed the bound by this factor, or the check saw too little
SMALLEST_MARGIN = 10.0


def judge(layers: Sequence[LayerScores]) -> tuple[Outcome, str]:
    """The outcome over all layers; one difference outweighs all else.

    The reason is the worst layer's, and says how many there are.
    """
    if not layers:
        return Outcome.INCONCLUSIVE, "no layer was compared"
    judged = [(layer, *judge_layer(layer)) for layer in layers]
    for outcome, words, badness in (
        (Outcome.DIFFERENT, "that differ", _excess),
        (Outcome.INCONCLUSIVE, "without power", _weakness),
    ):
        found = [(badness(layer), why) for layer, which, why in judged if which is outcome]
        if found:
            _, why = max(found, key=lambda one: one[0])
            several = f"; the worst of {len(found)} layers {words}" if len(found) > 1 else ""
            return outcome, why + several
    return Outcome.SAME, ""


def judge_layer(layer: LayerScores) -> tuple[Outcome, str]:
    """The outcome of one layer: a difference beyond rounding, or a control that did not fail."""
    if not layer.finite:
        return Outcome.INCONCLUSIVE, (
            f"layer {layer.layer}: the source's projections hold NaN or infinity, so no score can"
            " be compared"
        )
    if not layer.groups:
        return Outcome.DIFFERENT, (
            f"layer {layer.layer}: the target's projections hold NaN or infinity, and the source's"
            " do not"
        )
    for words, difference in _measured(layer).items():
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


def _excess(layer: LayerScores) -> float:
    """How many times the bound a different layer's largest difference is."""
    if not layer.groups or not layer.bound:
        return math.inf
    return max(_or_infinite(each) for each in _measured(layer).values()) / layer.bound


def _weakness(layer: LayerScores) -> float:
    """More for a layer that says less."""
    return math.inf if not layer.finite else _or_infinite(-layer.margin)


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _measured(layer: LayerScores) -> dict[str, float]:
    """What must not exceed the bound, in the words of a sentence."""
    return {
        f"head {layer.worst_head}: scores differ": layer.max_difference,
        "scores differ with every query at one position": layer.clamped,
        "scores change when both positions shift": layer.shifted,
    }
