"""One layer's scores in two forms: the comparison, its properties and its controls.

The kernel is launched three times a layer, whatever the number of heads and controls: for the two
forms, for what is rotated in the other layout, and for what is rotated in its own.

Notation: T tokens, H query heads, K key heads, D head dimension.
"""

# ruff: noqa: N806 - axes stand in names: see the notation above

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ropeconv.kernels import RopeTable, ScoreForm, score_compare
from ropeconv.proof.bounds import score_bound
from ropeconv.proof.controls import Turn, Variant, one_group, wrong_variants
from ropeconv.proof.probe import SHIFT, Probe
from ropeconv.proof.verdict import Control, LayerScores
from ropeconv.words.frequencies import RopeSettings

CONTROL_THETAS = (1e4, 5e5)  # what a lost or guessed theta becomes; the one that is not the model's


@dataclass(frozen=True, kw_only=True)
class Angles:
    """Tables for the positions of a probe.

    Attributes:
        plain: a row for each position.
        repeated: the same for each `Turn`, one after the other.
        turned: as `Turn` says: as they are, all shifted, of another theta.
    """

    plain: RopeTable
    repeated: RopeTable
    turned: RopeTable


def make_angles(
    rope: RopeSettings, rotary_dim: int, probe: Probe, device: torch.device | str
) -> Angles:
    """The tables of a probe."""
    positions = torch.tensor(probe.positions, dtype=torch.int64)
    wrong_theta = next(theta for theta in CONTROL_THETAS if theta != rope.theta)
    turns = {
        Turn.RIGHT: (rope, positions),
        Turn.SHIFTED: (rope, positions + SHIFT),
        Turn.WRONG: (replace(rope, theta=wrong_theta), positions),
    }
    tables = [
        RopeTable.from_settings(settings, rotary_dim, places, device=device)
        for settings, places in (turns[turn] for turn in Turn)
    ]
    return Angles(
        plain=tables[0],
        repeated=_joined(tables[:1] * len(tables)),
        turned=_joined(tables),
    )


def _joined(tables: list[RopeTable]) -> RopeTable:
    """The rows of several tables, one after the other."""
    return RopeTable.from_pairs(
        torch.cat([table.cos for table in tables]), torch.cat([table.sin for table in tables])
    )


def compare_forms(
    source: ScoreForm,
    target: ScoreForm,
    *,
    angles: Angles,
    layer: int,
    hidden_size: int,
    amplitude: float = 1.0,
) -> LayerScores:
    """Compare two forms of one layer, and measure the controls on the source's form.

    All heads are compared, at all positions and with all queries at one and all keys at zero.
    Controls and the shift are measured on one key head and the query heads that share it, another
    one in each layer: they show what the check can see, which heads share.

    Args:
        source: q [1, T, H, D] and k [1, T, K, D] before the rotation.
        target: the same of the other side.
        angles: the source's; the target's plain table is in its form.
        layer: its number.
        hidden_size: terms of the projections' sums, for the bound.
        amplitude: the attention factor.
    """
    head_dim = source.q.shape[-1]
    kv_heads = source.k.shape[-2]
    group = layer % kv_heads
    if not _all_finite(source):
        return _without_numbers(layer, group, finite=False)
    if not _all_finite(target):
        return _without_numbers(layer, group, finite=True)
    norms = [
        max(float(x.norm(dim=-1).max()) for x in pair)
        for pair in ((source.q, target.q), (source.k, target.k))
    ]
    bound = score_bound(
        query_norm=norms[0],
        key_norm=norms[1],
        head_dim=head_dim,
        hidden_size=hidden_size,
        scale=1 / math.sqrt(head_dim),
        amplitude=amplitude,
    )
    moving_H, clamped_H = _differences(source, target)
    ours = one_group(source, group)
    shift = Variant(name="shifted", q=ours.q, k=ours.k, layout=ours.layout, turn=Turn.SHIFTED)
    found = _variants(ours, [shift, *wrong_variants(source, group)], angles)
    groups = moving_H.view(kv_heads, -1).amax(1)
    return LayerScores(
        layer=layer,
        max_difference=float(moving_H.max()),
        bound=bound,
        worst_head=int(moving_H.argmax()),
        groups=tuple(groups.tolist()),
        shifted=found.pop(shift.name),
        clamped=float(clamped_H.max()),
        controls=tuple(Control(name=name, difference=value) for name, value in found.items()),
        control_group=group,
    )


def _differences(source: ScoreForm, target: ScoreForm) -> tuple[Tensor, Tensor]:
    """The largest difference of each query head, [H]: everywhere, and from one place to the first.

    They are two sequences of one launch.
    """
    tokens = source.q.shape[1]
    places = torch.arange(tokens)
    found = score_compare(
        *(
            replace(form, q=form.q.expand(2, -1, -1, -1), k=form.k.expand(2, -1, -1, -1))
            for form in (source, target)
        ),
        query_rows=torch.stack([places, torch.full_like(places, tokens - 1)]),
        key_rows=torch.stack([places, torch.zeros_like(places)]),
    )
    return found.max_abs[0], found.max_abs[1]


def _variants(ours: ScoreForm, variants: Sequence[Variant], angles: Angles) -> dict[str, float]:
    """By how much each variant's scores differ from the right ones at most, by name.

    Those of one layout are the sequences of one launch.
    """
    tokens = torch.arange(ours.q.shape[1])
    found = {variant.name: math.nan for variant in variants}
    for layout in dict.fromkeys(variant.layout for variant in variants):
        alike = [variant for variant in variants if variant.layout == layout]
        rows = torch.stack([variant.turn * len(tokens) + tokens for variant in alike])
        right = replace(
            ours,
            q=ours.q.expand(len(alike), -1, -1, -1),
            k=ours.k.expand(len(alike), -1, -1, -1),
            table=angles.repeated,
        )
        wrong = replace(
            ours,
            q=torch.cat([variant.q for variant in alike]),
            k=torch.cat([variant.k for variant in alike]),
            layout=layout,
            table=angles.turned,
        )
        largest = score_compare(right, wrong, query_rows=rows, key_rows=rows).max_abs.amax(1)
        found |= zip([variant.name for variant in alike], largest.tolist(), strict=True)
    return found


def _all_finite(form: ScoreForm) -> bool:
    return all(bool(x.isfinite().all()) for x in (form.q, form.k))


def _without_numbers(layer: int, group: int, *, finite: bool) -> LayerScores:
    """A layer that cannot be computed: inconclusive if the source is so itself, else different."""
    return LayerScores(
        layer=layer,
        max_difference=math.inf,
        bound=0.0,
        worst_head=0,
        groups=(),
        shifted=0.0,
        clamped=0.0,
        controls=(),
        control_group=group,
        finite=finite,
    )
