"""The score check for families whose table says which rows rotate.

The table does not say which rotary rows meet which in a score, and need not: each span of rotary
rows, one head's, is compared by the scores of its own vectors with each other. They tell layouts
apart as query-key scores do, and every span is seen, in whatever projection it lies.

Notation: T probe positions, S rotary spans of a layer, r rows of a span.
"""

# ruff: noqa: N806 - axes stand in names: see the notation above

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ropeconv.kernels import BACKEND, ScoreForm
from ropeconv.proof.comparison import Angles, compare_forms, make_angles
from ropeconv.proof.judgement import judge, judge_layer
from ropeconv.proof.probe import Probe, make_probe
from ropeconv.proof.projection import hidden_states, one_by_one, project, width_of
from ropeconv.proof.scores import Form
from ropeconv.proof.threads import one_thread
from ropeconv.proof.verdict import LayerScores, Outcome, ScoreCheck
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.quantised import WEIGHTS
from ropeconv.thinking.whole import WholeTensor
from ropeconv.words.events import LayerDone, LayersPlanned, Listener, WorkDone
from ropeconv.words.layout import spans
from ropeconv.words.parts import Part

# isort: split
import triton  # after `ropeconv.kernels`, which chooses its backend

MIN_CONTEXT = 4096  # positions of the probe where the config states none


@one_thread()
def check_family_scores(
    source: Form, target: Form, *, layers: Sequence[int], listen: Listener
) -> ScoreCheck:
    """Compare every rotary span of the chosen layers, each side in its own layout.

    Layers that do not rotate are left out; of a layer with spans of several lengths, or in several
    parts of the model, the worst is told. Where the two sides have other lengths, nothing is
    concluded.
    """
    wanted = [layer for layer in layers if _rotating(source.inventory, layer)]
    device = torch.device("cuda" if BACKEND == "cuda" else "cpu")
    context = source.model.max_positions or MIN_CONTEXT
    found: list[LayerScores] = []
    probes: dict[int, tuple[Probe, Angles]] = {}
    listen(LayersPlanned(title="comparing scores", num_layers=len(wanted)))
    for layer in one_by_one(wanted, (source.inventory, target.inventory), _rotating):
        kinds = _kinds(source.inventory, layer)
        if kinds != _kinds(target.inventory, layer):
            found.clear()
            break
        for dim in {dim for _, dim in kinds} - probes.keys():
            probe = make_probe(source.model.rope, dim, context)
            probes[dim] = probe, make_angles(source.model.rope, dim, probe, device)
        found.append(
            min(
                (
                    _compare(source, target, layer, part, dim, *probes[dim], device)
                    for part, dim in sorted(kinds, key=lambda kind: (kind[0].value, kind[1]))
                ),
                key=_goodness,
            )
        )
        listen(LayerDone(layer=layer))
    listen(WorkDone(title="comparing scores"))
    outcome, why = judge(found)
    if not found:
        outcome, why = Outcome.INCONCLUSIVE, "no layer has rotary rows of one length to compare"
    positions = max((probe.positions for probe, _ in probes.values()), key=len, default=())
    return ScoreCheck(
        outcome=outcome,
        backend="Triton interpreter" if BACKEND == "interpreter" else "Triton",
        device=torch.cuda.get_device_name() if BACKEND == "cuda" else "CPU",
        num_positions=len(positions),
        largest_position=positions[-1] if positions else 0,
        layers=tuple(found),
        num_layers=source.inventory.depth,
        why=why,
        by_distance=None,
        versions=(("torch", torch.__version__), ("triton", triton.__version__)),
    )


def _compare(
    source: Form,
    target: Form,
    layer: int,
    part: Part,
    dim: int,
    probe: Probe,
    angles: Angles,
    device: torch.device,
) -> LayerScores:
    ours, theirs = (
        ScoreForm(q=x_TSr, k=x_TSr, layout=form.inventory.layout_in(part), table=angles.plain)
        for form in (source, target)
        for x_TSr in (_vectors(form.inventory, layer, part, dim, probe, device),)
    )
    widest = max(width_of(tensor) for tensor in _rotating(source.inventory, layer))
    return compare_forms(ours, theirs, angles=angles, layer=layer, hidden_size=widest)


def _goodness(scores: LayerScores) -> tuple[int, float]:
    """A difference is worst, then what had no power, then the weakest control."""
    order = (Outcome.DIFFERENT, Outcome.INCONCLUSIVE, Outcome.SAME)
    return order.index(judge_layer(scores)[0]), scores.margin


def _kinds(inventory: Inventory, layer: int) -> set[tuple[Part, int]]:
    """Part of the model, and length, of every span of a layer."""
    return {
        (tensor.part, len(span))
        for tensor in _rotating(inventory, layer)
        for span in spans(tensor.rows)
    }


def _rotating(inventory: Inventory, layer: int) -> list[WholeTensor]:
    """The layer's weights with rotary rows; biases, norms and scales are compared byte by byte."""
    return [
        tensor
        for tensor in inventory.tensors
        if tensor.layer == layer
        and tensor.name.endswith(WEIGHTS)
        and len(tensor.shape) == 2  # noqa: PLR2004 - a matrix
        and tensor.num_rows == tensor.shape[0]
        and spans(tensor.rows)
    ]


def _vectors(
    inventory: Inventory, layer: int, part: Part, dim: int, probe: Probe, device: torch.device
) -> Tensor:
    """Every such span of the layer, projected from seeded inputs: [1, T, S, r]."""
    found = []
    for number, tensor in enumerate(sorted(_rotating(inventory, layer), key=lambda t: t.name)):
        chosen = [span for span in spans(tensor.rows) if len(span) == dim]
        if not chosen or tensor.part is not part:
            continue
        seed = probe.seed + 1000 * layer + number
        hidden_TC = hidden_states(seed, len(probe.positions), width_of(tensor), device)
        rows_TN = project(inventory, tensor, hidden_TC)
        found += [rows_TN[:, list(span)] for span in chosen]
    return torch.stack(found, dim=1)[None]
