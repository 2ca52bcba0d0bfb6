"""Measures which rows of a transformers model rotate together, and compares with our table.

A tiny random model runs once, with two tokens; each row of each projection has its own entry of the
batch. How rows are read off is in `jacobian`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ropeconv.knowledge.families.refused import REFUSED
from ropeconv.knowledge.family import Peer
from ropeconv.knowledge.registry import FAMILIES
from ropeconv.proof.jacobian import (
    Measured,
    ProbeReport,
    expected_partners,
    experts_of,
    is_near,
    norms_of,
    partners_of,
    projections_of,
    recording,
    register,
    replaced,
    without,
)
from ropeconv.proof.rotating_types import rotating_types
from ropeconv.proof.tiny_models import reading, tiny_config, tiny_model
from ropeconv.proof.tiny_towers import KINDS
from ropeconv.proof.tower_probe import probe_tower
from ropeconv.words.errors import RopeconvError, Unsupported


def probe(model_type: str, **changed: Any) -> ProbeReport:  # noqa: ANN401 - values of a config
    """Measure a model type of the installed transformers.

    Args:
        model_type: as in config.json.
        changed: further keys of the tiny config, of a model of text.

    Raises:
        Unsupported: transformers has no such type, or cannot run a tiny model of it.
    """
    if model_type in KINDS:
        return probe_tower(model_type)
    try:
        return _probe(model_type, changed)
    except RopeconvError:
        raise
    except Exception as error:  # what foreign code ends with when sizes do not suit it: anything
        raise Unsupported(
            what=f"transformers cannot run a tiny model of the type `{model_type[:60]}`",
            why=f"{type(error).__name__}: {error}"[:300].rstrip(": "),
            fix="a type with sizes of its own needs a line in `ropeconv/proof/tiny_models.py`",
        ) from error


def _probe(model_type: str, changed: Mapping[str, Any]) -> ProbeReport:
    import torch  # noqa: PLC0415 - torch only when needed

    family = FAMILIES.get(model_type)
    try:
        config = tiny_config(model_type, **changed)
    except Unsupported as error:
        if family is None or family.measured_by is Peer.TRANSFORMERS:
            raise
        raise Unsupported(
            what=error.what,
            why=f"its table is measured against {family.measured_by.value}'s code instead",
        ) from error
    inner = part_of(config, family.inner if family and family.inner else "text_config")
    if inner is not None:  # whose sizes no tiny config of the whole reaches: gigabytes
        raise Unsupported(
            what=f"`{model_type[:60]}` is a model of several parts",
            why="each is measured by the name of its own model type",
            fix=f"`ropeconv families --probe {inner.model_type}` measures its language model",
        )
    model = tiny_model(config, register())
    projections = projections_of(model, family)
    # each row of each projection of an attention has its own entry of the batch
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for name, _, rows in projections:
        parent = name.rpartition(".")[0]
        starts[name] = ends.get(parent, 0)
        ends[parent] = starts[name] + rows
    batch = max(ends.values(), default=1)
    with ExitStack() as hooks:
        for name, module, rows in projections:
            units = torch.zeros(batch, rows)
            units[starts[name] : starts[name] + rows] = torch.eye(rows)
            hooks.enter_context(replaced(module, units[:, None]))
        for module in experts_of(model, family):
            hooks.enter_context(replaced(module, torch.zeros(())))
        for module in norms_of(model, family):
            hooks.enter_context(without(module))
        seen = hooks.enter_context(recording(model))
        with torch.no_grad():
            model(**reading(config, torch.full((batch, 2), 3)), use_cache=False)
    measured = []
    names = config.to_dict()
    for name, _, rows in projections:
        parent = name.rpartition(".")[0]
        # attention inside the parent, or the parent of an `attention` inside it (codegen, exaone)
        calls = [c for at, calls in seen.items() if is_near(at, parent) for c in calls]
        if calls:
            table = expected_partners(family, name + ".weight", names, rows) if family else None
            entries = slice(starts[name], starts[name] + rows)
            # T5Gemma 2's decoder has the encoder's keys behind its own two
            partners = partners_of(tuple(x[entries, :, :2] for x in calls[0]))
            measured.append(Measured(name=name, partners=partners, expected=table))
    return ProbeReport(model_type=model_type, measured=tuple(measured), is_known=family is not None)


def part_of(config: Any, path: str) -> Any:  # noqa: ANN401
    """The config of the language model inside another; None if there is none."""
    for key in path.split("."):
        config = getattr(config, key, None)
    return config


def lacking() -> tuple[str, ...]:
    """Types of the installed transformers that write text or rotate, and that nothing here knows.

    Those are types without a table, which are not refused either.
    """
    from transformers.models.auto import modeling_auto  # noqa: PLC0415 - optional, slow to import

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    wrapped = modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES  # of images or sound and text
    return tuple(sorted({*causal, *wrapped, *rotating_types()} - {*FAMILIES, *REFUSED}))
