"""Tiny random models of transformers' model types, of odd geometry: what a probe looks into.

6 query heads, 2 key heads of 10 rows and a hidden size of 60 tell heads from rows and rows from
columns. Where a type cannot be that odd, its entry below says how near it comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ropeconv.proof.tiny_stacks import FURTHER, READING
from ropeconv.words.errors import Unsupported

SIZES: dict[str, Any] = {
    "hidden_size": 60,
    "n_embd": 60,
    "d_model": 60,
    "num_attention_heads": 6,
    "n_head": 6,
    "n_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "intermediate_size": 22,
    "ffn_hidden_size": 22,
    "num_hidden_layers": 4,
    "n_layer": 2,
    "n_layers": 2,
    "vocab_size": 51,
    "max_position_embeddings": 64,
    "moe_intermediate_size": 22,
    "shared_expert_intermediate_size": 22,
    "n_routed_experts": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "kv_lora_rank": 14,
    "q_lora_rank": 18,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "index_n_heads": 3,
    "index_head_dim": 10,
    "index_topk": 4,
    "sliding_window": 8,
}
LEFT_OUT = object()
SEVERAL_CODES = {"kyutai_speech_to_text"}  # types that read a token of each codebook at once

_LATENT = {"num_key_value_heads": 6, "head_dim": 6}
_SECTIONS = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 1]}
}
_MAMBA = {
    "mamba_n_heads": 12,
    "mamba_d_head": 10,
    "mamba_d_state": 4,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 4,
}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "partial_rotary_factor": 0.6,
}
_PART_INSIDE = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.6}
}
_EACH_KIND = dict.fromkeys(("full_attention", "sliding_attention"), _PART_INSIDE["rope_parameters"])
_GEMMA4 = {
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "global_head_dim": 12,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 6,
    "vocab_size_per_layer_input": 51,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "rope_theta": 1e4,
                           "partial_rotary_factor": 0.5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}  # fmt: skip
_PART = {"partial_rotary_factor": 0.6}
_EVOLLA = {
    "protein_encoder_config": {"hidden_size": 12, "num_hidden_layers": 1,
                               "num_attention_heads": 2, "intermediate_size": 8},
    "aligner_num_add_layers": 2, "resampler_depth": 1, "resampler_dim_head": 4,
    "resampler_heads": 2, "resampler_num_latents": 3,
}  # fmt: skip


def _stack(hidden_size: int, heads: int, layers: int) -> dict[str, Any]:
    return {"hidden_size": hidden_size, "num_attention_heads": heads, "num_key_value_heads": heads,
            "num_hidden_layers": layers, "intermediate_size": 22, "vocab_size": 51,
            "hidden_size_global": 120}  # fmt: skip


SPECIAL: dict[str, dict[str, Any]] = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "bailing_hybrid": {**_LATENT, "layer_types": ["linear_attention", "full_attention"] * 2},
    "bamba": {**_MAMBA, **_PART_INSIDE, "attn_layer_indices": [1, 3]},
    "blt": {
        "encoder_config": _stack(60, 6, 3), "decoder_config": _stack(60, 3, 2),
        "global_config": _stack(120, 6, 2), "patcher_config": _stack(30, 3, 1),
        "encoder_hash_byte_group_vocab": 13,
        "patching_threshold": 99.0,  # few patches: an empty last one makes NaN in float64
    },
    "chameleon": {"vq_config": {"base_channels": 32, "latent_channels": 8, "embed_dim": 8,
                                "channel_multiplier": [1], "num_res_blocks": 1,
                                "num_embeddings": 16},
                  "vocabulary_map": {"<image>": 2}, "attention_bias": True},
    "codegen": {"n_embd": 80, "n_head": 8, "rotary_dim": 6, "n_ctx": 64, "n_positions": 64,
                "head_dim": LEFT_OUT, "hidden_size": LEFT_OUT, "num_attention_heads": LEFT_OUT},
    "cosmos3_edge_text": _SECTIONS,
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
             "ffn_config": {"ffn_hidden_size": 22, "moe_num_experts": 4, "moe_top_k": 2},
             "num_key_value_heads": LEFT_OUT, "max_seq_len": 64, "head_dim": LEFT_OUT},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"] * 2},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "ernie4_5_vl_moe_text": {"moe_intermediate_size": [22, 22], **_SECTIONS},
    "EvollaModel": _EVOLLA,
    "evolla": _EVOLLA,
    "falcon": {"head_dim": LEFT_OUT, "num_kv_heads": 2, "new_decoder_architecture": True,
               "num_key_value_heads": LEFT_OUT},
    "gemma3n_text": {"num_kv_shared_layers": 0, "intermediate_size": [22] * 4,
                     "vocab_size_per_layer_input": 51, "hidden_size_per_layer_input": 6,
                     "activation_sparsity_pattern": [0.0] * 4, "laurel_rank": 4,
                     "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "glm4_moe_lite": _LATENT,
    "glm4v_moe_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                           "partial_rotary_factor": 0.6,
                                           "mrope_section": [1, 1, 1]}},
    "glm4v_text": _SECTIONS,
    "glm_moe_dsa": _LATENT,
    "glm_ocr_text": _SECTIONS,
    "gpt_neox": {"rope_parameters": _PART_INSIDE["rope_parameters"]},
    "gptj": {"rotary_dim": 6, "n_positions": 64, "head_dim": LEFT_OUT},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"] * 2,
                         "position_embedding_type": "rope", "mamba_n_heads": 12},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {**_LATENT, "num_layers": 2, "num_hidden_layers": LEFT_OUT,
                      "zero_expert_num": 1, "moe_topk": 2, "expert_ffn_hidden_size": 22},
    "minicpm3": _LATENT,
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 24, "mamba_n_heads": 4, "mamba_d_head": 6},
    "glm": _PART,
    "glm4": _PART,
    "jetmoe": {"kv_channels": 10, "num_key_value_heads": 3, "num_attention_heads": LEFT_OUT},
    "kyutai_speech_to_text": {"ffn_dim": 22, "codebook_vocab_size": 13, "num_codebooks": 2,
                              "audio_pad_token_id": 5},
    "mimo_v2_flash": {"rope_parameters": _EACH_KIND, "v_head_dim": 10, "num_key_value_heads": 1},
    "minimax_m3_vl_text": {**_PART_INSIDE, "shared_intermediate_size": 22,
                           "dense_intermediate_size": 22, "index_head_dim": 8,
                           "index_block_size": 2, "index_topk_blocks": 2, "index_local_blocks": 1,
                           "layer_types": ["full_attention", "minimax_m3_sparse"] * 2},
    "mistral_large4_text": {**_LATENT, "no_rope_layers": [1, 0, 1, 1]},
    "mllama_text_model": {"cross_attention_layers": [1], "head_dim": LEFT_OUT},
    "moshi": {"ffn_dim": 22},
    # its rotary rows are a multiple of four, every second of their pairs for columns
    "neomme": {"head_dim": 16, "layer_types": ["sliding_attention", "full_attention"] * 2,
               "embedding_rank": 7, "patch_size": 2, "attention_bias": True},
    "nemotron": _PART,
    "qwen3_5_moe_text": _DELTA,
    "qwen3_5_text": _DELTA,
    "qwen3_next": _DELTA,
    "recurrent_gemma": _PART,
    "mistral4": {**_LATENT, "head_dim": 12, "qk_nope_head_dim": 6},
    "hunyuan_vl_text": _SECTIONS,
    "qwen2_5_omni_text": _SECTIONS,
    "paddleocr_vl_text": _SECTIONS,
    "persimmon": {"partial_rotary_factor": 0.6, "head_dim": LEFT_OUT},
    "phi": {"partial_rotary_factor": 0.6, "head_dim": LEFT_OUT, "qk_layernorm": True},
    "phi4_multimodal": {
        "audio_config": {"hidden_size": 8, "intermediate_size": 8, "num_blocks": 1,
                         "num_attention_heads": 2, "nemo_conv_channels": 4},
        "vision_config": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                          "num_attention_heads": 2, "image_size": 28, "crop_size": 28},
    },
    "qwen2_5_vl_text": _SECTIONS,
    "qwen2_vl_text": _SECTIONS,
    "stablelm": {"qk_layernorm": True, "partial_rotary_factor": 0.6},
    "roformer": {"num_hidden_layers": 2},  # each further one shows less of its attention
    "unlimited_ocr_text": {"num_key_value_heads": 6},  # its eager attention shares no keys
    "youtu": _LATENT,
    "zamba2": {**_MAMBA, "layers_block_type": ["linear_attention", "hybrid"] * 2,
               "use_mem_rope": True, "use_shared_attention_adapter": True, "adapter_rank": 3,
               "num_mem_blocks": 2, "mamba_ngroups": 1, "chunk_size": 4, "n_mamba_heads": 12,
               "num_key_value_heads": 6, "kv_channels": LEFT_OUT, "head_dim": LEFT_OUT},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"] * 2,
                            "rope_parameters": {
                                "full_attention": None,
                                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4,
                                                      "mrope_section": [2, 2, 1]}}},
    "dots3_note_text": {**_LATENT, "head_dim": 10,
                        "layer_types": ["indexed_attention", "sliding_attention"] * 2,
                        "per_layer_config": {
                            at: {"num_attention_heads": 5, "num_key_value_heads": 5,
                                 "qk_nope_head_dim": 6, "qk_rope_head_dim": 8, "head_dim": 14,
                                 "kv_lora_rank": 10} for at in (1, 3)},
                        "shared_experts_intermediate_size": 22},
    "hrm_text": {"num_layers_per_stack": 2, "num_hidden_layers": LEFT_OUT, "H_cycles": 1,
                 "L_cycles": 1},
    "laguna": {"num_attention_heads_per_layer": [6, 4, 6, 4],
               "layer_types": ["full_attention", "sliding_attention"] * 2,
               "rope_parameters": {
                   "full_attention": _PART_INSIDE["rope_parameters"],
                   "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "qwen4_exp_text": {**_DELTA, "layer_types": ["linear_attention", "indexed_attention"] * 2,
                       "indexer_n_heads": 3, "indexer_kv_heads": 1, "indexer_head_dim": 8,
                       "indexer_budget": 4, "indexer_compress_ratio": 2, "hc_lowrank": 5,
                       **_PART_INSIDE},
    # a colder gate forgets the residual, and magnifies rounding
    "muse_spark_text": {"residual_gate_temperature": 16.0, "moe_hidden_size": 22},
    "step3p5": {"layer_types": ["sliding_attention", "full_attention"] * 2,
                "num_sliding_attention_heads": 8, "rope_theta": [1e4, 1e5] * 2,
                "partial_rotary_factors": [1.0, 0.6] * 2, "share_expert_dim": 22},
    "cohere": {"use_qk_norm": True, "attention_bias": True},
    "glm4_moe": {"use_qk_norm": True, "attention_bias": True, **_PART},
    "qwen3": {"attention_bias": True},
}  # fmt: skip


def tiny_config(model_type: str, **changed: Any) -> Any:  # noqa: ANN401 - transformers' own classes
    """A config of that type with small odd sizes.

    Raises:
        Unsupported: the installed transformers has no such model type.
    """
    special = {**SPECIAL, **FURTHER}.get(model_type, {})
    return made_config(model_type, SIZES, {**special, **changed})


def made_config(model_type: str, sizes: Mapping[str, Any], changed: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A config of that type, with those of the sizes that it knows, and all that is changed.

    Raises:
        Unsupported: the installed transformers has no such model type.
    """
    from transformers import CONFIG_MAPPING  # noqa: PLC0415 - optional and slow to import

    if model_type not in CONFIG_MAPPING:
        raise Unsupported(
            what=f"the installed transformers has no model type `{model_type[:60]}`",
            fix="check the spelling, or install the version that has it",
        )
    kind = CONFIG_MAPPING[model_type]
    plain = kind()
    known = {*vars(plain), *getattr(plain, "attribute_map", {})}
    chosen = {key: value for key, value in sizes.items() if key in known or hasattr(plain, key)}
    chosen |= changed
    return kind(**{key: value for key, value in chosen.items() if value is not LEFT_OUT})


def reading(config: Any, ids: Any) -> dict[str, Any]:  # noqa: ANN401
    """What the model is called with, to read those tokens; a decoder reads the same."""
    if config.model_type in SEVERAL_CODES:
        return {"input_ids": ids[..., None]}
    given = {"input_ids": ids}
    if config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    return given | READING.get(config.model_type, lambda _config, _ids: {})(config, ids)


def tiny_model(config: Any, attention: str = "eager") -> Any:  # noqa: ANN401
    """A random model of that config, in float64, with every vector of its own."""
    import torch  # noqa: PLC0415 - the caller decides to pay for it
    from transformers import AutoModel, AutoModelForCausalLM  # noqa: PLC0415

    refusal: Exception | None = None
    for choice in (attention, "sdpa", "eager"):  # some are older than attention by name
        torch.manual_seed(0)
        try:
            model = _make(config, choice, (AutoModelForCausalLM, AutoModel))
        except (KeyError, ValueError) as error:
            refusal = error
        else:
            return model.double().eval()
    raise ValueError(str(refusal)) from refusal


def _make(config: Any, attention: str, kinds: tuple[Any, ...]) -> Any:  # noqa: ANN401
    choices = {"attn_implementation": attention, "experts_implementation": "eager"}
    for kind in kinds:
        try:
            return kind.from_config(config, **choices)
        except ValueError as error:
            # no name of `AutoModel` for it, or one that leads nowhere
            if not str(error).startswith(("Unrecognized configuration class", "Could not find")):
                raise
    module = import_module(type(config).__module__.replace("configuration_", "modeling_"))
    kind = next(
        (
            kind
            for name, kind in vars(module).items()
            if name.endswith("Model")
            and not name.endswith("PreTrainedModel")
            and getattr(kind, "config_class", None) is type(config)
        ),
        None,
    )
    if kind is None:
        raise ValueError("no class of its code reads text by that config alone")
    return kind._from_config(config, **choices)  # noqa: SLF001 - what AutoModel calls itself
