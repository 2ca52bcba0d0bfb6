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

from ropeconv.kernels import BACKEND, RopeTable, ScoreForm, score_compare
from ropeconv.moving.examine import read_rows
from ropeconv.proof.bounds import score_bound
from ropeconv.proof.probe import Probe, make_probe
from ropeconv.proof.verdict import LayerScores, Outcome, ScoreCheck
from ropeconv.thinking.inventory import Inventory
from ropeconv.words.events import BytesDone, Listener, WorkDone, WorkPlanned
from ropeconv.words.frequencies import RopeSettings, frequencies
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, Rope, RopeLayout, row_order
from ropeconv.words.model import Model

SMALLEST_MARGIN = (
    10.0  # a control must exceed the bound by this factor, or the check saw too little
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One side's checkpoint with what its own config says of the rotation."""

    inventory: Inventory
    model: Model


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
    )


def judge(layers: Sequence[LayerScores]) -> tuple[Outcome, str]:
    """The outcome over all layers: a difference beyond rounding, or a control that did not fail."""
    for layer in layers:
        if layer.finite and not layer.max_difference <= layer.bound:
            return Outcome.DIFFERENT, (
                f"layer {layer.layer}, head {layer.worst_head}: scores differ by"
                f" {layer.max_difference:.3g}, rounding allows {layer.bound:.3g}"
            )
    for layer in layers:
        if not layer.finite:
            return Outcome.INCONCLUSIVE, (
                f"layer {layer.layer}: the projections hold NaN or infinity, so no score can be"
                " compared"
            )
        if not layer.margin >= SMALLEST_MARGIN:
            return Outcome.INCONCLUSIVE, (
                f"layer {layer.layer}: a control that must fail differs by {layer.control:.3g}"
                " only,"
                f" rounding allows {layer.bound:.3g}; these weights cannot tell layouts apart"
            )
    if not layers:
        return Outcome.INCONCLUSIVE, "no layer was compared"
    return Outcome.SAME, ""


def compare_forms(
    source: ScoreForm, target: ScoreForm, *, layer: int, hidden_size: int, amplitude: float
) -> LayerScores:
    """Compare two forms of one layer, and the controls on the source's form.

    Controls, which are mistakes people make: rows not reordered (the right vectors, rotated in the
    other layout), reordered in q only, reordered in k only.
    """
    if not _all_finite(source):
        return _without_numbers(layer, finite=False)
    if not _all_finite(target):
        return _without_numbers(layer, finite=True)
    difference = score_compare(source, target)
    head_dim = source.q.shape[-1]
    scale = 1 / math.sqrt(head_dim)
    norms = [max(float(x.norm(dim=-1).max()) for x in pair) for pair in
             ((source.q, target.q), (source.k, target.k))]  # fmt: skip
    bound = score_bound(
        query_norm=norms[0],
        key_norm=norms[1],
        head_dim=head_dim,
        hidden_size=hidden_size,
        scale=scale,
        amplitude=amplitude,
    )
    controls = [float(score_compare(source, wrong).max_abs.max()) for wrong in wrong_forms(source)]
    worst = int(difference.max_abs.flatten().argmax())
    scores = difference.sum_squares_a.sum() / (difference.scores * difference.max_abs.numel())
    return LayerScores(
        layer=layer,
        max_difference=float(difference.max_abs.max()),
        bound=bound,
        control=min(controls),
        worst_head=worst,
        score_rms=float(scores.sqrt()),
    )


def _all_finite(form: ScoreForm) -> bool:
    return all(bool(x.isfinite().all()) for x in (form.q, form.k))


def _without_numbers(layer: int, *, finite: bool) -> LayerScores:
    """A layer that cannot be computed: inconclusive if the source is so itself, else different."""
    return LayerScores(
        layer=layer,
        max_difference=math.inf,
        bound=0.0,
        control=0.0,
        worst_head=0,
        score_rms=math.nan,
        finite=finite,
    )


def wrong_forms(form: ScoreForm) -> list[ScoreForm]:
    """The controls: mistakes that must be seen."""
    other = HALF_SPLIT if form.layout == INTERLEAVED else INTERLEAVED
    q, k = (_reorder(x, form, other) for x in (form.q, form.k))
    return [
        replace(form, layout=other),
        replace(form, q=q),
        replace(form, k=k),
    ]


def _reorder(x_BTHD: Tensor, form: ScoreForm, target: RopeLayout) -> Tensor:
    order = row_order((Rope(form.table.rotary_dim),), form.layout, target)
    return x_BTHD[..., torch.tensor(order, device=x_BTHD.device)].contiguous()


def _compare_layer(
    source: Form, target: Form, layer: int, probe: Probe, device: torch.device
) -> LayerScores:
    generator = torch.Generator().manual_seed(probe.seed + layer)
    shape = (len(probe.positions), source.model.geometry.hidden_size)
    hidden_TC = torch.randn(shape, generator=generator, dtype=torch.float64).to(device)
    numbers = frequencies(source.model.rope, source.model.geometry.head_dim)
    return compare_forms(
        _form(source, layer, hidden_TC, probe),
        _form(target, layer, hidden_TC, probe),
        layer=layer,
        hidden_size=shape[1],
        amplitude=numbers.attention_factor,
    )


def _form(form: Form, layer: int, hidden_TC: Tensor, probe: Probe) -> ScoreForm:
    head_dim = form.model.geometry.head_dim
    q, k = (
        _project(
            form.inventory, f"model.layers.{layer}.self_attn.{name}_proj.weight", hidden_TC
        ).view(1, len(probe.positions), -1, head_dim)
        for name in ("q", "k")
    )
    return ScoreForm(
        q=q,
        k=k,
        layout=form.inventory.layout,
        table=_table(form.model.rope, head_dim, probe, hidden_TC.device),
    )


def _table(rope: RopeSettings, rotary_dim: int, probe: Probe, device: torch.device) -> RopeTable:
    positions = torch.tensor(probe.positions, dtype=torch.int64)
    return RopeTable.from_settings(rope, rotary_dim, positions, device=device)


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
        tensor.nbytes for tensor in form.inventory.tensors
        if tensor.layer == 0 and tensor.name.endswith(names)
    )  # fmt: skip
