"""The score check: both forms through one Triton kernel, with controls that must fail.

Notation: T probe positions, C hidden size, H query heads, K key heads, D head dimension.
"""

# ruff: noqa: N803, N806 - axes stand in names: see the notation above

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ropeconv.kernels import BACKEND, RopeTable, ScoreDifference, ScoreForm, score_compare
from ropeconv.moving.examine import read_rows
from ropeconv.proof.bounds import score_bound
from ropeconv.proof.controls import one_group, stack_queries, stacked_rows, wrong_forms
from ropeconv.proof.distances import by_distance
from ropeconv.proof.judgement import judge
from ropeconv.proof.probe import SHIFT, Probe, make_probe
from ropeconv.proof.verdict import ByDistance, Control, LayerScores, ScoreCheck
from ropeconv.thinking.inventory import Inventory
from ropeconv.words.events import BytesDone, Listener, WorkDone, WorkPlanned
from ropeconv.words.frequencies import RopeSettings, frequencies
from ropeconv.words.model import Model

# isort: split
import triton  # after `ropeconv.kernels`, which chooses its backend

CONTROL_THETAS = (1e4, 5e5)  # what a lost or guessed theta becomes; the one that is not the model's


@dataclass(frozen=True, kw_only=True)
class Form:
    """One side's checkpoint with what its own config says of the rotation."""

    inventory: Inventory
    model: Model


@dataclass(frozen=True, kw_only=True)
class Angles:
    """Tables for the positions of a probe: as they are, all shifted, and of another theta."""

    plain: RopeTable
    shifted: RopeTable
    wrong: RopeTable


def check_scores(
    source: Form, target: Form, *, layers: Sequence[int], listen: Listener
) -> ScoreCheck:
    """Compare the attention scores of the chosen layers.

    Each side projects the same seeded hidden states with its own weights, and rotates them in its
    own layout with its own config's angles. Where only rows moved, the difference is exactly zero.
    """
    model = source.model
    probe = make_probe(model.rope, model.geometry.head_dim, model.max_positions)
    device = torch.device("cuda" if BACKEND == "cuda" else "cpu")
    listen(WorkPlanned(title="comparing scores", total_nbytes=_layer_nbytes(source) * len(layers)))
    found = []
    for layer in layers:
        found.append(_compare_layer(source, target, layer, probe, device))
        listen(BytesDone(nbytes=_layer_nbytes(source)))
    listen(WorkDone(title="comparing scores"))
    outcome, why = judge(found)
    return ScoreCheck(
        outcome=outcome,
        backend="Triton interpreter" if BACKEND == "interpreter" else "Triton",
        device=torch.cuda.get_device_name() if BACKEND == "cuda" else "CPU",
        num_positions=len(probe.positions),
        largest_position=probe.positions[-1],
        layers=tuple(found),
        num_layers=model.geometry.num_layers,
        why=why,
        by_distance=_worst_by_distance(source, target, found, probe, device),
        versions=(("torch", torch.__version__), ("triton", triton.__version__)),
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

    All heads are compared. Controls and properties are measured on one key head and the query heads
    that share it, another one in each layer: they show what the check can see, which heads share.

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
    difference = _compare(source, target)
    ours, theirs = one_group(source, group), one_group(target, group)
    controls = tuple(
        Control(name=wrong.name, difference=_largest(_compare(ours, one_group(wrong.form, group))))
        for wrong in wrong_forms(source, angles.wrong)
    )
    tokens = source.q.shape[1]
    last = [tokens - 1] * tokens
    shifted = _compare(ours, replace(ours, table=angles.shifted))
    return LayerScores(
        layer=layer,
        max_difference=_largest(difference),
        bound=bound,
        worst_head=_worst_head(difference, source),
        groups=tuple(difference.max_abs.flatten().tolist()),
        shifted=_largest(shifted),
        clamped=_largest(_compare(ours, theirs, query_rows=last, key_rows=[0] * tokens)),
        controls=controls,
        control_group=group,
    )


def _compare(
    one: ScoreForm,
    other: ScoreForm,
    *,
    query_rows: Sequence[int] | None = None,
    key_rows: Sequence[int] | None = None,
) -> ScoreDifference:
    tokens = one.q.shape[1]
    rows = range(tokens) if query_rows is None else query_rows
    return score_compare(
        stack_queries(one),
        stack_queries(other),
        query_rows=stacked_rows(one, rows),
        key_rows=None if key_rows is None else torch.tensor(key_rows, device=one.k.device),
    )


def _largest(difference: ScoreDifference) -> float:
    return float(difference.max_abs.max())


def _worst_head(difference: ScoreDifference, form: ScoreForm) -> int:
    group = int(difference.max_abs.flatten().argmax())
    share = form.q.shape[2] // form.k.shape[2]
    query = int(difference.place.view(-1, 2)[group, 0])
    return group * share + query // form.q.shape[1]


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


def _worst_by_distance(
    source: Form,
    target: Form,
    layers: Sequence[LayerScores],
    probe: Probe,
    device: torch.device,
) -> ByDistance | None:
    """The worst key head of the worst layer; among equals, the layer of the weakest control."""
    computed = [layer for layer in layers if layer.groups]
    if not computed:
        return None
    worst = max(computed, key=lambda layer: (layer.max_difference, -layer.margin))
    exact = max(worst.groups) == 0
    group = worst.control_group if exact else worst.groups.index(max(worst.groups))
    hidden_TC = _hidden(source, worst.layer, probe, device)
    ours, theirs = (
        one_group(_form(form, worst.layer, hidden_TC, probe, torch.float64), group)
        for form in (source, target)
    )
    return ByDistance(
        layer=worst.layer,
        group=group,
        bound=worst.bound,
        points=by_distance(ours, theirs, probe.positions),
    )


def _compare_layer(
    source: Form, target: Form, layer: int, probe: Probe, device: torch.device
) -> LayerScores:
    hidden_TC = _hidden(source, layer, probe, device)
    head_dim = source.model.geometry.head_dim
    numbers = frequencies(source.model.rope, head_dim)
    return compare_forms(
        _form(source, layer, hidden_TC, probe),
        _form(target, layer, hidden_TC, probe),
        angles=make_angles(source.model.rope, head_dim, probe, device),
        layer=layer,
        hidden_size=hidden_TC.shape[1],
        amplitude=numbers.attention_factor,
    )


def _hidden(form: Form, layer: int, probe: Probe, device: torch.device) -> Tensor:
    """Seeded hidden states, the same for both sides."""
    generator = torch.Generator().manual_seed(probe.seed + layer)
    shape = (len(probe.positions), form.model.geometry.hidden_size)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)


def make_angles(
    rope: RopeSettings,
    rotary_dim: int,
    probe: Probe,
    device: torch.device | str,
) -> Angles:
    """The tables of a probe."""
    positions = torch.tensor(probe.positions, dtype=torch.int64)
    wrong_theta = next(theta for theta in CONTROL_THETAS if theta != rope.theta)
    plain, shifted, wrong = (
        RopeTable.from_settings(settings, rotary_dim, places, device=device)
        for settings, places in (
            (rope, positions),
            (rope, positions + SHIFT),
            (replace(rope, theta=wrong_theta), positions),
        )
    )
    return Angles(plain=plain, shifted=shifted, wrong=wrong)


def _form(
    form: Form, layer: int, hidden_TC: Tensor, probe: Probe, dtype: torch.dtype = torch.float32
) -> ScoreForm:
    head_dim = form.model.geometry.head_dim
    q, k = (
        _project(
            form.inventory, f"model.layers.{layer}.self_attn.{name}_proj.weight", hidden_TC
        ).view(1, len(probe.positions), -1, head_dim)
        for name in ("q", "k")
    )
    positions = torch.tensor(probe.positions, dtype=torch.int64)
    table = RopeTable.from_settings(
        form.model.rope, head_dim, positions, device=hidden_TC.device, dtype=dtype
    )
    return ScoreForm(q=q, k=k, layout=form.inventory.layout, table=table)


def _project(inventory: Inventory, name: str, hidden_TC: Tensor) -> Tensor:
    """The projection in float64, rounded once: equal rows give equal numbers anywhere."""
    tensor = inventory.find(name)
    assert tensor is not None, name
    data = bytearray(read_rows(inventory.checkpoint, tensor, 0, tensor.num_rows))
    weight = torch.frombuffer(data, dtype=getattr(torch, tensor.dtype.torch_name))
    weight = weight.view(tensor.shape).to(hidden_TC.device, torch.float64)
    return (hidden_TC @ weight.T).to(torch.float32)


def _layer_nbytes(form: Form) -> int:
    names = ("q_proj.weight", "k_proj.weight")
    return sum(
        tensor.nbytes
        for tensor in form.inventory.tensors
        if tensor.layer == 0 and tensor.name.endswith(names)
    )
