"""Measures which rows of a tower rotate together, and compares with our table.

A tiny random tower runs once for each row of an attention's projections. The two tokens that are
compared differ on every axis, so that every pair of a head turns.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ropeconv.knowledge.registry import FAMILIES
from ropeconv.proof.jacobian import (
    Measured,
    ProbeReport,
    expected_partners,
    is_near,
    norms_of,
    partners_of,
    projections_of,
    recording,
    register,
    replaced,
    without,
)
from ropeconv.proof.tiny_towers import KINDS, tiny_tower

if TYPE_CHECKING:
    from torch import Tensor


def probe_tower(model_type: str) -> ProbeReport:
    """Measure a tower of the installed transformers.

    Raises:
        Unsupported: transformers has no such type.
    """
    import torch  # noqa: PLC0415 - torch only when needed

    kind = KINDS[model_type]
    model = tiny_tower(model_type, register())
    family = FAMILIES.get(model_type)
    names = model.config.to_dict()
    projections = projections_of(model, family)
    # of each attention, one row of one projection is 1 in each run, in all layers at once
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for name, _, rows in projections:
        starts[name] = ends.get(_attention_of(name), 0)
        ends[_attention_of(name)] = starts[name] + rows
    uses = Counter(module.weight for _, module, _ in projections)
    calls: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name, _, _ in projections}
    for run in range(max(ends.values(), default=0)):
        with ExitStack() as hooks:
            for name, module, rows in projections:
                row = torch.zeros(rows)
                if 0 <= run - starts[name] < rows:
                    row[run - starts[name]] = 1
                hooks.enter_context(replaced(module, row))
            for norm in norms_of(model, family):
                hooks.enter_context(without(norm))
            seen = hooks.enter_context(recording(model))
            with torch.no_grad():
                model(**kind.inputs())
        for name, module, rows in projections:
            if 0 <= run - starts[name] < rows:
                near = [c for at, all_ in seen.items() if is_near(at, name) for c in all_]
                if near or uses[module.weight] == 1:  # else the same weight runs elsewhere
                    calls[name].append(tuple(x[:, :, list(kind.places)] for x in near[0]))
    measured = [
        Measured(
            name=name,
            partners=partners_of(tuple(torch.cat(x) for x in zip(*calls[name], strict=True))),
            expected=expected_partners(family, name + ".weight", names, rows) if family else None,
        )
        for name, _, rows in projections
        if calls[name]
    ]
    return ProbeReport(model_type=model_type, measured=tuple(measured), is_known=family is not None)


def _attention_of(name: str) -> str:
    return name.removesuffix(".linear").rpartition(".")[0]
