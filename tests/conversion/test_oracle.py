"""Conversions against the published formula, tensor by tensor, and against real models' logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fixtures import meta_folder
from ropeconv.proof.forward import Architecture, forward
from tests.conftest import KJV, SMALL
from tests.oracles import published

# In standard deviations of the logits; float32 rounding alone costs 2e-6, see test_forward.
FLOAT32_ROUNDING = 1e-5
NAMES = ["kjv-llama", *sorted(folder.name for folder in SMALL.iterdir() if folder.is_dir())]


def source_of(name: str) -> Path:
    return KJV if name == "kjv-llama" else SMALL / name


def architecture(name: str) -> Architecture:
    return meta_folder.architecture_of(meta_folder.read_params(source_of(name)))


@pytest.mark.parametrize("name", NAMES)
def test_converted_tensors_are_those_of_the_published_formula(
    converted: Callable[[str], Path], name: str
) -> None:
    heads = architecture(name)
    weights = meta_folder.read_joined(source_of(name))
    expected = published.to_hf(weights, heads.num_heads, heads.num_kv_heads)
    if name == "llama-tied":
        del expected["lm_head.weight"]
    found = load_file(converted(name) / "model.safetensors")

    assert published.bits(found) == published.bits(expected)


def test_published_formula_notices_a_row(converted: Callable[[str], Path]) -> None:
    """The control of the test above: two rows of one head exchanged."""
    found = load_file(converted("llama") / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    wrong = found | {name: found[name][[1, 0, *range(2, 20)]]}

    assert published.bits(found) != published.bits(wrong)


@pytest.mark.peer
@pytest.mark.parametrize("name", ["kjv-llama", "llama", "llama-replicated-kv", "mistral"])
def test_converted_model_in_transformers_gives_the_logits_of_the_plain_meta_form(
    converted: Callable[[str], Path], name: str
) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        converted(name), dtype=torch.float32, attn_implementation="eager"
    )
    tokens = torch.arange(80).view(2, 40) * 7 % 51
    weights = meta_folder.read_joined(source_of(name))
    plain = forward(
        {key: value.float() for key, value in weights.items()}, architecture(name), tokens
    )
    with torch.no_grad():
        logits = model(tokens).logits
    distance = float((logits - plain).abs().max() / plain.std())

    assert distance < FLOAT32_ROUNDING
    assert type(model).__name__ == (
        "MistralForCausalLM" if name == "mistral" else "LlamaForCausalLM"
    )


@pytest.mark.peer
def test_config_is_read_alike_by_transformers(converted: Callable[[str], Path]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(converted("llama-tied"))

    assert config.rope_parameters == {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    assert (config.tie_word_embeddings, config.head_dim, config.num_key_value_heads) == (
        True,
        10,
        2,
    )
    assert config.dtype == torch.bfloat16


def test_config_says_everything_in_the_spellings_of_both_generations(
    converted: Callable[[str], Path],
) -> None:
    config = json.loads((converted("llama") / "config.json").read_text())

    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 500000.0
    assert config["rope_scaling"] is None
    assert config["rope_parameters"]["rope_type"] == "default"
    assert config["torch_dtype"] == "bfloat16"
    assert (config["architectures"], config["model_type"]) == (["LlamaForCausalLM"], "llama")
