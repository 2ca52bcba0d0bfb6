"""Families moved into their other layout and run there by mlx-lm, as whole models.

Nothing here knows a row. For families whose code is not in transformers this is the measurement;
for others it is a second one, by a program that shares no code with the first.
"""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from ropeconv.knowledge import registry
from ropeconv.knowledge.families.refused import REFUSED
from ropeconv.knowledge.family import Peer
from ropeconv.knowledge.programs import MLX_SWITCH, programs
from ropeconv.knowledge.tensors import tensors_of
from ropeconv.story.relayout import relayout
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout
from tests.families.mlx_cases import ALONE, BOTH, TEXTS, VARIANTS, config_of, text_of
from tests.families.tensor_names import REWRITE, templates_of

pytest.importorskip("mlx_lm", reason="mlx-lm has no wheels for this platform")
from tests.families import mlx_peer

pytestmark = pytest.mark.peer

# mlx computes in float32 on a CPU: 2^-24 for each rounding. The worst of all families is 2.0e-6 of
# the largest number (Step 3.5), with sums in another order; the weakest control 0.032 (Command R).
TOLERANCE = 1e-5
VISIBLE = 2e-2
# what may change: projections of queries and keys, and what is attached to their rows
ROTATED = re.compile(
    r"(q|k|q_b|qkv|q_k_v|c_attn|W_pack|wqkv|Wqkv|query_key_value|kv_a_proj_with_mqa|wq_b|wk)"
    r"(_proj)?\.(weight|bias)$|(q|k|query|key)_(norm|layernorm|weight)|gate_projections"
)


def _other(layout: RopeLayout) -> RopeLayout:
    return HALF_SPLIT if layout == INTERLEAVED else INTERLEAVED


def _difference(one: mlx_peer.Array, other: mlx_peer.Array) -> float:
    """The largest difference, relative to the largest number; what is masked aside."""
    seen = np.isfinite(one) & (np.abs(one) < 1e30)
    return float(np.abs(one[seen] - other[seen]).max() / np.abs(one[seen]).max())


def _check_same_model(
    folder: Path, name: str, changed: dict[str, Any] | None = None
) -> mlx_peer.Array:
    """Logits and scores of the moved model, run in the other layout, are those of the source."""
    layout = registry.FAMILIES[text_of(name)].layout
    mlx_peer.write_model(config_of(name, changed), folder / "source")
    relayout(folder / "source", folder / "moved", _other(layout))
    relayout(folder / "moved", folder / "back", layout)
    expected, expected_scores = mlx_peer.run(folder / "source")
    actual, scores = mlx_peer.run(folder / "moved", _other(layout))
    control, control_scores = mlx_peer.run(folder / "moved", layout)
    pairs = [(expected, actual), *zip(expected_scores, scores, strict=True)]
    unmoved = [(expected, control), *zip(expected_scores, control_scores, strict=True)]

    assert max(_difference(*pair) for pair in pairs) <= TOLERANCE
    assert _difference(*unmoved[0]) >= VISIBLE
    assert max(_difference(*pair) for pair in unmoved[1:] or unmoved) >= VISIBLE
    _check_round_trip(folder)
    return expected


def _check_round_trip(folder: Path) -> None:
    source, moved, back = (
        load_file(folder / at / "model.safetensors") for at in ("source", "moved", "back")
    )
    changed = {key for key in source if not np.array_equal(source[key], moved[key])}

    assert source.keys() == moved.keys() == back.keys()
    assert all(source[key].tobytes() == back[key].tobytes() for key in source)
    assert changed
    assert changed == {key for key in changed if ROTATED.search(key)}
    assert (folder / "source" / "config.json").read_bytes() == (
        folder / "back" / "config.json"
    ).read_bytes()


def test_list_of_families_when_measured_by_mlx_then_it_is_run_here() -> None:
    families = registry.FAMILIES.items()

    assert set(ALONE) == {name for name, one in families if one.measured_by is Peer.MLX_LM}
    assert set(BOTH) <= {name for name, one in families if one.measured_by is Peer.TRANSFORMERS}


def test_list_of_families_when_mlx_runs_one_then_it_has_a_table_or_a_reason() -> None:
    """A model type that a newer mlx-lm adds is seen here."""
    code = files("mlx_lm") / "models"
    texts = {Path(file.name).stem: file.read_text() for file in code.iterdir() if file.is_file()}
    found = {name for name, text in texts.items() if "\nclass Model(" in text}
    others = {
        "bailing_moe_v3",  # runs what config.json calls bailing_hybrid
        "phixtral",  # runs phi-msft
        "prism_hadamard_qwen35",  # packs of two bits, of which nothing here makes a tiny one
    }

    assert len(found) > 100
    assert found - set(registry.FAMILIES) - set(REFUSED) == others


@pytest.mark.parametrize(
    ("name", "changed"), [*((name, {}) for name in (*ALONE, *BOTH)), *VARIANTS]
)
def test_family_when_moved_then_mlx_computes_the_same(
    tmp_path: Path, name: str, changed: dict[str, Any]
) -> None:
    expected = _check_same_model(tmp_path, name, changed)
    _check_switch(tmp_path, name, expected)
    recorded = name in ALONE and not changed
    assert not recorded or templates_of(tmp_path / "source", name) == tensors_of(name), REWRITE


def _check_switch(folder: Path, name: str, expected: mlx_peer.Array) -> None:
    """What a user of mlx-lm writes into config.json runs moved rows where its code has the switch.

    Just there, or where it reads transformers' own switch, which the moved folder has.
    """
    other = _other(registry.FAMILIES[name].layout)
    actual, _ = mlx_peer.run(folder / "moved", **{MLX_SWITCH: other == INTERLEAVED})
    said = programs(registry.FAMILIES[name], other)

    assert (_difference(expected, actual) <= TOLERANCE) == any("mlx-lm" in one for one in said)


@pytest.mark.parametrize("name", TEXTS)
def test_text_of_a_wrapper_when_moved_then_mlx_computes_the_same(tmp_path: Path, name: str) -> None:
    """Its files as they are published: the text inside, under its own model type."""
    _check_same_model(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("internlm2", "Repeat(K, Repeat(G, Rope(r), Keep(D - r)), Rope(r), Keep(D - r), Keep(D))",
         "Repeat(H, Rope(r), Keep(D - r)), Repeat(K, Rope(r), Keep(D - r)), Keep(K * D)"),
        ("qwen", "Repeat(K, Rope(r), Keep(D - r))", "Keep(K * D)"),  # keys forgotten
        ("exaone", "Repeat(K, Rope(r), Keep(D - r))", "Repeat(K, Keep(D))"),
        ("kimi_k2", "Keep(R), Rope(r)", "Rope(r), Keep(R)"),  # the key at the wrong end
        ("openelm", "Rope(r), Keep(D - r)", "Keep(D)"),  # norms, among others
        ("iquestloopcoder", "Repeat(H, Rope(r), Keep(D - r))", "Repeat(H, Keep(D))"),
    ],
)  # fmt: skip
def test_table_when_wrong_then_mlx_sees_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, old: str, new: str
) -> None:
    """One rule of the table is wrong: the last that has these rows."""
    family = registry.FAMILIES[name]
    wrong = max(at for at, rule in enumerate(family.rules) if old in rule.rows)
    rules = tuple(
        replace(rule, rows=rule.rows.replace(old, new)) if at == wrong else rule
        for at, rule in enumerate(family.rules)
    )
    monkeypatch.setitem(registry.FAMILIES, name, replace(family, rules=rules))

    with pytest.raises(AssertionError, match="<= 1e-05"):
        _check_same_model(tmp_path, name)
