"""Towers for images and sound: measured, moved into the other layout, and run there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from ropeconv.knowledge import registry
from ropeconv.knowledge.families.alone import ALONE
from ropeconv.knowledge.families.towers import TOWERS
from ropeconv.knowledge.tensors import tensors_of
from ropeconv.proof.family_probe import probe
from ropeconv.proof.jacobian import recording, register
from ropeconv.proof.tiny_towers import KINDS, tiny_tower
from ropeconv.story.relayout import relayout
from ropeconv.thinking.sizes import Sizes
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED
from tests.families.cases import difference, load, other_layout
from tests.families.tensor_names import REWRITE, templates_of
from tests.families.tower_swap import tower_rotating

pytestmark = pytest.mark.peer
transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()

NAMES = tuple(sorted(KINDS))
# measured by the rows that transformers loads, below
OTHERS = {"gradium_phonon_tts", "nemo_speechlm"}
OF_TOWERS = tuple(sorted(family.name for family in TOWERS))


def test_list_of_models_without_text_when_one_has_a_table_then_it_is_measured() -> None:
    assert {family.name for family in (*TOWERS, *ALONE)} - OTHERS == set(KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_tower_when_measured_then_table_is_right(name: str) -> None:
    """Two tokens that differ on every axis: each pair of a head turns by one of them."""
    report = probe(name)

    assert report.differences == ()
    assert report.agrees


@pytest.mark.parametrize("name", OF_TOWERS)
def test_tower_when_config_is_bare_then_sizes_are_those_that_transformers_takes(name: str) -> None:
    """Configs of whole models leave out what equals the default: Pixtral's has no head count."""
    plain = transformers.CONFIG_MAPPING[name]().to_dict()
    bare, full = (Sizes(registry.FAMILIES[name], at, "config").whole for at in ({}, plain))

    assert bare == full


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("gemma4_vision", "Repeat(2, Rope(d))", "Rope(D)"),  # the usual rule
        ("pixtral", "Rope(r), Keep(D - r)", "Repeat(2, Rope(D // 2))"),  # Gemma's rule
        ("qwen2_vl_vision", "Repeat(K, Rope(r), Keep(D - r))", "Repeat(K, Keep(D))"),
        ("glmasr_encoder", "Rope(r), Keep(D - r)", "Keep(D - r), Rope(r)"),
        ("moonshine", "Rope(r), Keep(D - r)", "Keep(D - r), Rope(r)"),
        ("pe_audio_video", "Repeat(Kvideo, Rope(Dvideo))", "Repeat(Kvideo, Keep(Dvideo))"),
    ],
)
def test_table_when_wrong_then_measuring_sees_it(
    monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str
) -> None:
    family = registry.FAMILIES[name]
    new = new.replace("D // 2", "6")
    rules = tuple(replace(rule, rows=rule.rows.replace(old, new)) for rule in family.rules)
    assert rules != family.rules
    monkeypatch.setitem(registry.FAMILIES, name, replace(family, rules=rules))

    assert not probe(name).agrees


def _scores(model: Any, name: str) -> list[torch.Tensor]:
    with torch.no_grad(), recording(model) as seen:
        model(**KINDS[name].inputs())
    scores = []
    for calls in seen.values():
        for query, key in calls:
            groups = query.shape[1] // key.shape[1]
            scores.append(query @ key.repeat_interleave(groups, dim=1).transpose(-1, -2))
    return scores


@pytest.mark.parametrize("name", NAMES)
def test_tower_when_moved_then_scores_are_the_same_in_the_other_layout(
    tmp_path: Path, name: str
) -> None:
    """Nothing here knows a row: the tower's own code runs, with another model's rotation."""
    attention = register()
    made = tiny_tower(name, attention)
    made.save_pretrained(tmp_path / "source")
    native, other = registry.FAMILIES[name].layout, other_layout(name)
    relayout(tmp_path / "source", tmp_path / "moved", other)
    twin = load(type(made), tmp_path / "moved", attention, config=made.config)
    expected, control = _scores(made, name), _scores(twin, name)
    with tower_rotating(twin, other):
        actual = _scores(twin, name)

    assert len(actual) == len(expected) > 0
    # 2^-24 for each rounding of towers that rotate in float32, whose tables of angles are rounded
    # apart: one was made in float32, its twin in float64; a wrong row costs 0.05 and more
    assert max(map(difference, expected, actual)) <= 1e-5
    assert max(map(difference, expected, control)) >= 2e-2

    relayout(tmp_path / "moved", tmp_path / "back", native)
    source, moved, back = (
        load_file(tmp_path / at / "model.safetensors") for at in ("source", "moved", "back")
    )
    assert all(source[key].equal(back[key]) for key in source)
    changed = {key for key in source if not source[key].equal(moved[key])}
    rules = registry.FAMILIES[name].matches
    assert changed == {key for key in source if rules(key)}
    assert templates_of(tmp_path / "source", name) == tensors_of(name), REWRITE


def test_files_of_gradium_when_moved_then_rows_are_those_that_transformers_loads(
    tmp_path: Path,
) -> None:
    """Its one matrix of interleaved rows, which transformers takes apart and reorders itself."""
    flow = {"hidden_size": 8, "num_hidden_layers": 1, "latent_dim": 4, "condition_dim": 36}
    config = transformers.CONFIG_MAPPING["gradium_phonon_tts"](
        hidden_size=36, num_attention_heads=6, num_key_value_heads=6, head_dim=12, vocab_size=51,
        num_hidden_layers=2, intermediate_size=20, latent_dim=4, flow_head_config=flow,
    )  # fmt: skip
    model = transformers.GradiumPhononTTSForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "source")
    relayout(tmp_path / "source", tmp_path / "moved", HALF_SPLIT)
    source, moved = (load_file(tmp_path / at / "model.safetensors") for at in ("source", "moved"))
    loaded = model.state_dict()
    changed = {key for key in source if not source[key].equal(moved[key])}

    assert changed == {key for key in source if "self_attn.in_proj" in key}
    for layer in range(2):
        own = [loaded[f"model.layers.{layer}.self_attn.{x}_proj.weight"] for x in "qkv"]
        assert moved[f"flow_lm.transformer.layers.{layer}.self_attn.in_proj.weight"].equal(
            torch.cat(own)
        )


def test_files_of_nemotron_when_moved_then_rows_of_each_stack_are_those_of_its_parts(
    tmp_path: Path,
) -> None:
    """NVIDIA's one matrix of each layer; the parts that transformers makes of it are measured."""
    small = {"hidden_size": 36, "intermediate_size": 20, "num_hidden_layers": 1}
    config = transformers.CONFIG_MAPPING["nemo_speechlm"](
        audio_config={
            "asr_config": {**small, "num_attention_heads": 3, "num_mel_bins": 5},
            "diarization_config": {
                "audio_config": {**small, "num_attention_heads": 2, "num_mel_bins": 5},
                "head_config": {"audio_hidden_size": 36, "hidden_size": 8},
            },
        },
        word_timestamp_config={
            **small, "num_attention_heads": 1, "vocab_size": 11, "blank_token_id": 10,
        },
        text_config={
            "hidden_size": 36, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
            "vocab_size": 51, "layers_block_type": ["attention"], "intermediate_size": 20,
        },
    )  # fmt: skip
    made = transformers.AutoModelForMultimodalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    made.save_pretrained(tmp_path / "source")
    relayout(tmp_path / "source", tmp_path / "moved", INTERLEAVED)
    source, moved = (load_file(tmp_path / at / "model.safetensors") for at in ("source", "moved"))
    changed = {key for key in source if not source[key].equal(moved[key])}

    fused = sorted(key for key in source if key.endswith("attn.w_qkv.weight"))
    norms = {key for key in source if ".attn.q_norm." in key or ".attn.k_norm." in key}
    assert changed == {*fused, *norms}
    assert len(norms) == 8
    for key, num_heads, rotated in zip(fused, (1, 3, 2), (18, 6, 18), strict=True):
        dim = 36 // num_heads
        head = torch.arange(dim)
        head[:rotated] = head[:rotated].reshape(2, -1).T.flatten()
        order = torch.cat([at * dim + head for at in range(2 * num_heads)])

        assert moved[key][:72].equal(source[key][order])
        assert moved[key][72:].equal(source[key][72:])

    relayout(tmp_path / "moved", tmp_path / "back", HALF_SPLIT)
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert all(source[key].equal(back[key]) for key in source)
