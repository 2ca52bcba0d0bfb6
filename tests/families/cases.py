"""Every family of the table that the pinned transformers can run. A new family is one line here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ropeconv.knowledge.registry import FAMILIES
from ropeconv.proof.jacobian import recording, register
from ropeconv.proof.tiny_models import reading, tiny_config, tiny_model
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

RUNNABLE = (
    "EvollaModel",
    "afmoe",
    "apertus",
    "arcee",
    "aria_text",
    "axk1",
    "axk2",
    "bailing_hybrid",
    "bamba",
    "beam",
    "bitnet",
    "blt",
    "chameleon",
    "codegen",
    "cohere",
    "cohere2",
    "cohere2_moe",
    "cohere_compass_text",
    "cosmos3_edge_text",
    "csm",
    "cwm",
    "dbrx",
    "deepseek_ocr2_text",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "dia",
    "diffllama",
    "doge",
    "dots1",
    "dots3_note_text",
    "embedding_gemma2_text",
    "emu3_text_model",
    "ernie4_5",
    "ernie4_5_moe",
    "ernie4_5_vl_moe_text",
    "esm",
    "esmc",
    "eurobert",
    "evolla",
    "exaone4",
    "exaone_moe",
    "falcon",
    "falcon_h1",
    "flex_olmo",
    "flint",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma3n_text",
    "gemma4_text",
    "gemma4_unified_text",
    "glm",
    "glm4",
    "glm4_moe",
    "glm4_moe_lite",
    "glm4v_moe_text",
    "glm4v_text",
    "glm_image_text",
    "glm_moe_dsa",
    "glm_ocr_text",
    "gpt_neox",
    "gpt_neox_japanese",
    "gpt_oss",
    "gptj",
    "granite",
    "granite4_vision_text",
    "granite_docling_text",
    "granite_swa",
    "granitemoe",
    "granitemoe_swa",
    "granitemoehybrid",
    "granitemoeshared",
    "gte",
    "helium",
    "higgs_audio_v2",
    "hrm_text",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "hunyuan_vl_text",
    "hy_v3",
    "hy_v4",
    "hyperclovax",
    "idefics",
    "internlm3",
    "iquestcoder",
    "jais2",
    "jetmoe",
    "jina_embeddings_v3",
    "kolibri1",
    "kyutai_speech_to_text",
    "laguna",
    "lfm2",
    "lfm2_moe",
    "lfm3",
    "llama",
    "llama4_text",
    "longcat_flash",
    "mellum",
    "mimo_v2_flash",
    "minicpm3",
    "minimax",
    "minimax_m2",
    "minimax_m3_vl_text",
    "ministral",
    "ministral3",
    "mistral",
    "mistral4",
    "mistral_large4_text",
    "mixtral",
    "mllama_text_model",
    "modernbert",
    "modernbert-decoder",
    "molmo2_text",
    "moshi",
    "muse_glimmer_text",
    "muse_spark_text",
    "nemotron",
    "neomme",
    "nomic_bert",
    "olmo",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "olmoe",
    "openai_privacy_filter",
    "paddleocr_vl_text",
    "persimmon",
    "phi",
    "phi3",
    "phi4_multimodal",
    "phimoe",
    "qwen2",
    "qwen2_5_omni_text",
    "qwen2_5_vl_text",
    "qwen2_moe",
    "qwen2_vl_text",
    "qwen3",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_omni_moe_text",
    "qwen3_vl_moe_text",
    "qwen3_vl_text",
    "qwen4_exp_text",
    "recurrent_gemma",
    "roformer",
    "seed_oss",
    "smollm3",
    "solar_open",
    "stablelm",
    "starcoder2",
    "step3p5",
    "t5gemma",
    "t5gemma2",
    "ultrabert",
    "unlimited_ocr_text",
    "vaultgemma",
    "voxtral_realtime_text",
    "youtu",
    "zamba2",
)
# the same family with another form of its tensors
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("falcon", {"new_decoder_architecture": False, "multi_query": True}),
    ("falcon", {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 6}),
    ("deepseek_v3", {"q_lora_rank": None}),
    ("deepseek_v2", {"q_lora_rank": None}),
    ("deepseek_v3", {"attention_bias": True}),
    ("gemma4_text", {"attention_k_eq_v": True, "num_global_key_value_heads": 3}),
    ("gemma4_unified_text", {"attention_k_eq_v": True}),
    ("gpt_neox", {"rotary_pct": 0.6, "rope_parameters": None}),
    ("molmo2_text", {"qk_norm_type": "olmo"}),
    ("phi3", {"partial_rotary_factor": 0.6}),
)
# rotated values enter no score, so that only running the model shows them
UNSEEN: tuple[tuple[str, dict[str, Any]], ...] = (("roformer", {"rotary_value": True}),)
# types of the pinned transformers that write text or rotate, and that nothing here knows
LACKING: tuple[str, ...] = ()
TOKENS = torch.tensor([[3, 7, 4, 9, 5, 8, 6, 11]])


def other_layout(name: str) -> RopeLayout:
    """The one that the family is not in."""
    return HALF_SPLIT if FAMILIES[name].layout == INTERLEAVED else INTERLEAVED


def random_model(name: str, changed: dict[str, Any]) -> Any:
    """A tiny model in which every tensor, norms and biases too, has numbers of its own."""
    model = tiny_model(tiny_config(name, **changed), register())
    torch.manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "embed_positions" in key:  # RoFormer's angles
                continue
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return model


def load(kind: Any, folder: Path, attention: str, **choices: Any) -> Any:
    """A checkpoint in the model's own code, in float64."""
    return kind.from_pretrained(
        folder,
        **choices,
        dtype=torch.float64,
        attn_implementation=attention,
        experts_implementation="eager",
    ).eval()


def run(model: Any) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the scores before the softmax of each attention, by the order of layers."""
    with torch.no_grad(), recording(model) as seen:
        found = model(**reading(model.config, TOKENS), use_cache=False)
    scores = []
    for name in sorted(seen):
        for query, key in seen[name]:
            groups = query.shape[1] // key.shape[1]
            scores.append(query @ key.repeat_interleave(groups, dim=1).transpose(-1, -2))
    return found["logits" if "logits" in found else "last_hidden_state"], scores


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((one - other).abs().max() / one.abs().max())
