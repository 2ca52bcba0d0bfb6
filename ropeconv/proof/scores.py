"""The score check: both forms through one Triton kernel, with controls that must fail.

Notation: T probe positions, C hidden size, H query heads, K key heads, D head dimension.
"""

# ruff: noqa: N803, N806 - axes stand in names: see the notation above

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ropeconv.kernels import BACKEND, RopeTable, ScoreForm
from ropeconv.proof.comparison import Angles, compare_forms, make_angles
from ropeconv.proof.controls import one_group
from ropeconv.proof.distances import by_distance
from ropeconv.proof.judgement import judge
from ropeconv.proof.probe import Probe, make_probe
from ropeconv.proof.projection import hidden_states, one_by_one, project
from ropeconv.proof.threads import one_thread
from ropeconv.proof.verdict import ByDistance, LayerScores, ScoreCheck
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.whole import WholeTensor
from ropeconv.words.events import LayerDone, LayersPlanned, Listener, WorkDone
from ropeconv.words.frequencies import frequencies
from ropeconv.words.model import Model

# isort: split
import triton  # after `ropeconv.kernels`, which chooses its backend


@dataclass(frozen=True, kw_only=True)
class Form:
    """One side's checkpoint with what its own config says of the rotation."""

    inventory: Inventory
    model: Model


@one_thread()
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
    listen(LayersPlanned(title="comparing scores", num_layers=len(layers)))
    angles = make_angles(model.rope, model.geometry.head_dim, probe, device)
    table = _table(target, probe, device)
    found = []
    for layer in one_by_one(layers, (source.inventory, target.inventory), _projections):
        found.append(_compare_layer(source, target, layer, probe, angles, table))
        listen(LayerDone(layer=layer))
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
        one_group(
            _form(form, worst.layer, hidden_TC, _table(form, probe, device, torch.float64)), group
        )
        for form in (source, target)
    )
    return ByDistance(
        layer=worst.layer,
        group=group,
        bound=worst.bound,
        points=by_distance(ours, theirs, probe.positions),
    )


def _compare_layer(
    source: Form, target: Form, layer: int, probe: Probe, angles: Angles, table: RopeTable
) -> LayerScores:
    geometry = source.model.geometry
    hidden_TC = _hidden(source, layer, probe, table.cos.device)
    numbers = frequencies(source.model.rope, geometry.head_dim)
    return compare_forms(
        _form(source, layer, hidden_TC, angles.plain),
        _form(target, layer, hidden_TC, table),
        angles=angles,
        layer=layer,
        hidden_size=geometry.hidden_size,
        amplitude=numbers.attention_factor,
    )


def _hidden(form: Form, layer: int, probe: Probe, device: torch.device) -> Tensor:
    """The same for both sides."""
    width = form.model.geometry.hidden_size
    return hidden_states(probe.seed + layer, len(probe.positions), width, device)


def _table(
    form: Form, probe: Probe, device: torch.device, dtype: torch.dtype = torch.float32
) -> RopeTable:
    """By the side's own config."""
    positions = torch.tensor(probe.positions, dtype=torch.int64)
    return RopeTable.from_settings(
        form.model.rope, form.model.geometry.head_dim, positions, device=device, dtype=dtype
    )


def _form(form: Form, layer: int, hidden_TC: Tensor, table: RopeTable) -> ScoreForm:
    q, k = (
        project(form.inventory, tensor, hidden_TC).view(
            1, len(hidden_TC), -1, form.model.geometry.head_dim
        )
        for tensor in _projections(form.inventory, layer)
    )
    return ScoreForm(q=q, k=k, layout=form.inventory.layout, table=table)


def _projections(inventory: Inventory, layer: int) -> Iterator[WholeTensor]:
    """Of queries, and of keys."""
    for name in ("q", "k"):
        tensor = inventory.find(f"model.layers.{layer}.self_attn.{name}_proj.weight")
        assert tensor is not None
        yield tensor
