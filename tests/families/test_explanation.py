"""What `ropeconv families NAME` says stays: tensors that the family has, each with its reason."""

from __future__ import annotations

import json
import re

import pytest
import transformers
from typer.testing import CliRunner

from ropeconv.cli.app import app
from ropeconv.knowledge.families.composite import COMPOSITE
from ropeconv.knowledge.programs import HEARD_IN_MLX, LLAMA_CPP, SWITCHED_IN_MLX, programs
from ropeconv.knowledge.registry import FAMILIES
from ropeconv.knowledge.tensors import one_by_one, tensors_of, together
from ropeconv.proof.tiny_towers import KINDS
from ropeconv.story.explanation import explain
from ropeconv.thinking.pairs import key_of
from tests.families.cases import RUNNABLE
from tests.families.mlx_cases import ALONE
from tests.families.tensor_names import REWRITE

LAYER = "model.layers.{layer}."
VALUES = "values are not rotated, nor what reads them"
AROUND = "acts on the hidden state, before or after the heads"
OUTSIDE = "outside the attention"
ENDS = (
    ("model.embed_tokens.weight", "embeddings are not rotated"),
    ("model.norm.weight", "acts on the hidden state"),
    ("lm_head.weight", "the output is not rotated"),
)
NORMS = (LAYER + "{input_layernorm,post_attention_layernorm}.weight", AROUND)
FEED = "{down_proj,gate_proj,up_proj}.weight"


def stays(name: str) -> tuple[tuple[str, str], ...]:
    return tuple((line.name, line.why) for line in explain(name).stays)


def test_stays_when_of_glm4_then_its_own_tensors() -> None:
    norms = "{input_layernorm,post_attention_layernorm,post_mlp_layernorm,post_self_attn_layernorm}"

    assert stays("glm4") == (
        (LAYER + "self_attn.v_proj.{weight,bias}", VALUES),
        (LAYER + "self_attn.o_proj.weight", VALUES),
        (LAYER + "mlp.{down_proj,gate_up_proj}.weight", OUTSIDE),
        (LAYER + norms + ".weight", AROUND),
        *ENDS,
    )


def test_stays_when_attention_is_latent_then_no_values_are_named() -> None:
    latent = "{kv_a_layernorm,kv_b_proj,q_a_layernorm,q_a_proj}.weight"

    assert stays("deepseek_v3") == (
        (LAYER + "self_attn.o_proj.weight", VALUES),
        (LAYER + "self_attn." + latent, "makes or norms a latent, which is not rotated"),
        (LAYER + "mlp." + FEED, OUTSIDE),
        (LAYER + "mlp.experts.{n}." + FEED, OUTSIDE),
        (LAYER + "mlp.gate.{weight,e_score_correction_bias}", OUTSIDE),
        (LAYER + "mlp.shared_experts." + FEED, OUTSIDE),
        NORMS,
        *ENDS,
    )


def test_stays_when_layers_differ_in_kind_then_each_kind_is_named() -> None:
    found = dict(stays("qwen3_next"))
    linear = LAYER + "linear_attn.{conv1d,in_proj_ba,in_proj_qkvz,norm,out_proj}.weight"

    assert found[linear] == "mixes tokens without scores, and rotates nothing"
    assert found[LAYER + "self_attn.{o_proj,v_proj}.weight"] == VALUES


def test_stays_when_of_a_whole_with_a_tower_then_its_parts() -> None:
    found = explain("gemma3")

    assert [line.name for line in found.stays] == ["vision_tower.*", "multi_modal_projector.*"]
    assert found.language == "gemma3_text"


def test_names_when_they_begin_in_one_of_several_ways_then_as_the_family_has_them() -> None:
    (fused,) = explain("gpt_neox").moves

    assert fused.name == "gpt_neox.layers.{layer}.attention.query_key_value.{weight,bias}"


def test_explanation_when_no_model_has_a_name_then_each_beginning_is_spelt_out() -> None:
    """GTE as transformers has it in memory, and ChatGLM, which was measured by hand."""
    found = {name: str(explain(name)) for name in FAMILIES}

    assert [name for name, said in found.items() if "{base}" in said] == []
    assert "{model.,gte.,bert.,roberta.,new.,}layers.{layer}.self_attn.q_proj" in found["gte"]
    assert "{transformer.encoder.,encoder.}rotary_emb.inv_freq" in found["chatglm"]


def test_explanation_when_printed_then_says_of_what_rows_it_speaks() -> None:
    esm, whole = (CliRunner().invoke(app, ["families", name]).stdout for name in ("esm", "glm4v"))

    assert "\n\nrefused unless, of config.json:\n  position_embedding_type == 'rotary'\n" in esm
    assert "\n\nonce they have moved:\n  transformers cannot run these rows" in esm
    assert "moved" not in whole


def test_sizes_when_rows_do_not_need_them_then_left_out() -> None:
    assert [letter for letter, _ in explain("deepseek_v3").sizes] == ["H", "r", "N", "R"]
    assert [letter for letter, _ in explain("glm4").sizes] == ["C", "H", "K", "D", "r"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("llama", ("`ropeconv convert hf-to-meta` writes it",
                   'mlx-lm rotates these rows where config.json has "rope_traditional": true',
                   "(NORM), and its converter takes half-split files and reorders rows itself")),
        ("glm4", ('where config.json has "rope_traditional": false',
                  "(NORM), and its converter takes interleaved files and keeps their order")),
        ("qwen3", ("half-split pairs of Qwen 3 (NEOX), and its converter takes half-split files",)),
        ("mistral4", ("it reads `rope_interleave`, too", "takes interleaved files and keeps")),
        ("gptj", ()),
    ],
)  # fmt: skip
def test_programs_when_known_then_said_how_they_use_moved_rows(
    name: str, words: tuple[str, ...]
) -> None:
    found = explain(name).programs
    said = CliRunner().invoke(app, ["families", name]).stdout

    assert len(found) == len(words)
    assert all(word in one for word, one in zip(words, found, strict=True))
    assert all(one in said for one in found)


def test_programs_when_listed_then_of_families_that_there_are() -> None:
    """llama.cpp's NEOX architectures are half-split in both; NORM ones may be either in files."""
    listed = {**LLAMA_CPP, **dict.fromkeys((*SWITCHED_IN_MLX, *HEARD_IN_MLX))}

    assert not set(listed) - set(FAMILIES)
    for name, (layout, mode) in LLAMA_CPP.items():
        family = FAMILIES[name]
        assert mode == "NORM" or family.inner or family.layout == layout, name
        assert programs(family, family.layout) == ()


def test_stays_when_of_llama_then_its_own_tensors() -> None:
    found = dict(stays("llama"))

    assert found[LAYER + "mlp." + FEED] == OUTSIDE
    assert found[LAYER + "self_attn.o_proj.weight"] == "reads values, which are not rotated"


def test_tensors_when_left_out_of_another_format_then_not_said_to_stay() -> None:
    body = json.loads(CliRunner().invoke(app, ["families", "llama", "--json"]).stdout)
    said = CliRunner().invoke(app, ["families", "llama"]).stdout

    assert "rope.freqs" in [line["name"] for line in body["dropped"]]
    assert "rope.freqs" not in [line["name"] for line in body["stays"]]
    assert said.index("left out of the other format") < said.index("rope.freqs: follows from theta")


@pytest.mark.parametrize("name", sorted({*RUNNABLE, *ALONE, *KINDS}))
def test_tensors_when_recorded_then_each_moves_or_stays_for_a_reason(name: str) -> None:
    """A model was made of each: nothing of it is left unexplained, and templates lose nothing."""
    found, family = explain(name), FAMILIES[name]
    names = [one for template in tensors_of(name) for one in one_by_one(template)]
    said = {one for line in found.stays for one in one_by_one(line.name)}

    assert names, REWRITE
    assert together(names) == tensors_of(name)
    for one in names:
        rotates = [rule.rotates for rule, _ in family.matches(_first(one))]
        assert any(rotates) or one in said, one
    assert said <= {*names, *(rule.name for rule in family.rules)}


def test_spans_when_a_name_says_query_and_another_key_then_of_one_length() -> None:
    """What is asked of descriptions holds of every table: none of them would be refused.

    Ling 3 has the one name in layers of one kind and the other in those of another kind.
    """
    pairs = 0
    for name in set(FAMILIES) - {"bailing_hybrid"}:
        names = {one for template in tensors_of(name) for one in one_by_one(template)}
        for query in names:
            if (key := key_of(query)) in names:
                pairs += 1
                assert _spans_of(name, query) == _spans_of(name, key), (name, query)

    assert pairs > 100


def _spans_of(name: str, tensor: str) -> set[str]:
    matched = FAMILIES[name].matches(_first(tensor))
    return {span for rule, _ in matched for span in re.findall(r"Rope\(([^()]*)\)", rule.rows)}


def _first(name: str) -> str:
    return name.replace("{layer}", "0").replace("{n}", "0")


@pytest.mark.peer
@pytest.mark.parametrize("name", [one.name for one in COMPOSITE if explain(one.name).language])
def test_language_model_when_named_then_it_is_what_transformers_takes(name: str) -> None:
    config = transformers.CONFIG_MAPPING[name]()

    assert config.get_text_config().model_type == explain(name).language
