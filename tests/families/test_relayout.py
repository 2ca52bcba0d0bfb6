"""Every family moved into its other layout, and run there by a real model's rotation.

Nothing here knows a row: the checkpoint is converted, the model's own code loads it, and its
rotation is exchanged for that of another model of transformers (or its config's switch is set).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file

from ropeconv.knowledge.registry import FAMILIES
from ropeconv.knowledge.tensors import tensors_of
from ropeconv.story.relayout import relayout
from tests.families.cases import (
    RUNNABLE,
    UNSEEN,
    VARIANTS,
    difference,
    load,
    other_layout,
    random_model,
    run,
)
from tests.families.swap import rotating
from tests.families.tensor_names import REWRITE, templates_of

pytestmark = pytest.mark.peer

# Norms and rotations of many models compute in float32 inside a float64 model: 2^-24 for each
# rounding. The worst of all families is 1.3e-6 of the largest logit; a wrong row costs 0.05.
TOLERANCE = 3e-6
VISIBLE = 2e-2

transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()


@pytest.mark.parametrize(
    ("name", "changed"), [*((name, {}) for name in RUNNABLE), *VARIANTS, *UNSEEN]
)
def test_family_when_moved_then_its_model_computes_the_same(
    tmp_path: Path, name: str, changed: dict[str, Any]
) -> None:
    family = FAMILIES[name]
    other = other_layout(name)
    made = random_model(name, changed)
    made.save_pretrained(tmp_path / "source")
    relayout(tmp_path / "source", tmp_path / "moved", other)
    attention = made.config._attn_implementation
    model, twin = (load(type(made), tmp_path / at, attention) for at in ("source", "moved"))
    expected, expected_scores = run(model)
    if family.switch:
        control, control_scores = _run_switched_back(twin, family.switch)
        actual, scores = run(twin)
    else:
        control, control_scores = run(twin)
        with rotating(twin, other):
            actual, scores = run(twin)

    assert len(scores) == len(expected_scores) > 0
    worst = max(map(difference, expected_scores, scores))
    assert worst <= TOLERANCE
    assert difference(expected, actual) <= TOLERANCE
    assert max(map(difference, expected_scores, control_scores)) >= VISIBLE
    assert difference(expected, control) >= VISIBLE

    relayout(tmp_path / "moved", tmp_path / "back", family.layout)
    _check_round_trip(tmp_path, name)
    assert changed or templates_of(tmp_path / "source", name) == tensors_of(name), REWRITE


def _run_switched_back(twin: Any, switch: str) -> tuple[Any, Any]:
    """The control: moved rows under the old switch."""
    assert getattr(twin.config, switch) is False
    setattr(twin.config, switch, True)
    try:
        return run(twin)
    finally:
        setattr(twin.config, switch, False)


def _check_round_trip(tmp_path: Path, name: str) -> None:
    source, moved, back = (
        load_file(tmp_path / at / "model.safetensors") for at in ("source", "moved", "back")
    )
    assert source.keys() == moved.keys() == back.keys()
    assert all(source[key].equal(back[key]) for key in source)
    changed = {key for key in source if not source[key].equal(moved[key])}
    rules = FAMILIES[name].rules
    assert changed
    assert all(any(rule.rotates for rule, _ in FAMILIES[name].matches(key)) for key in changed)
    assert len(rules) > 0
    assert (tmp_path / "source" / "config.json").read_text() == (
        tmp_path / "back" / "config.json"
    ).read_text()
