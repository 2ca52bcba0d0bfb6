"""Tiny configs for mlx-lm, of odd geometry: a new family that it runs is one line here.

6 query heads, 2 key heads of 10 rows and a hidden size of 60 tell heads from rows and rows from
columns. Keys are those of published config.json files, and those that mlx-lm asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIZES: dict[str, Any] = {
    "hidden_size": 60,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "intermediate_size": 22,
    "num_hidden_layers": 2,
    "vocab_size": 51,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": False,
}
_EXPERTS: dict[str, Any] = {
    "moe_intermediate_size": 22,
    "shared_expert_intermediate_size": 22,
    "n_routed_experts": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "moe_layer_freq": 1,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 6,
    "head_dim": 6,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "kv_lora_rank": 14,
    "q_lora_rank": 18,
    "rope_scaling": None,
}
_DEEPSEEK = {**_LATENT, **_EXPERTS}
_SWITCH = {"rope_interleave": True}  # transformers' own, which mlx-lm does not read
_PART = {"partial_rotary_factor": 0.6}
_BIAS = {"attention_bias": True}
_MUP = {"dim_model_base": 30, "scale_depth": 1.4, "scale_emb": 3}
_INDEXED = {**_DEEPSEEK, **_BIAS, "index_n_heads": 3, "index_head_dim": 10, "index_topk": 4}
_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
_SCALED = {"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": 0.1,
           "original_max_position_embeddings": 16}  # fmt: skip
_KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
_MAMBA = {"mamba_n_heads": 12, "mamba_d_head": 10, "mamba_d_state": 4, "mamba_n_groups": 1,
          "mamba_chunk_size": 4}  # fmt: skip
_DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 4,
          "linear_value_head_dim": 4, "linear_conv_kernel_dim": 4}  # fmt: skip
_LING = {
    **_EXPERTS, **_PART, "use_qk_norm": True, "use_qkv_bias": True,
    "moe_router_enable_expert_bias": True,
}  # fmt: skip

# families whose code is in no transformers: nothing else measures them
ALONE: dict[str, dict[str, Any]] = {
    "Klear": {**_EXPERTS, **_BIAS},
    "afm7": {"hidden_dim": 60, "num_layers": 4, "num_kv_reuse_layers": 2, "num_heads": 6,
             "num_kv_heads": 2},
    "bailing_moe": _LING,
    "bailing_moe_linear": {**_LING, "num_hidden_layers": 4, "layer_group_size": 3,
                           "group_norm_size": 2},
    "baichuan_m1": {"sliding_window": 8, "sliding_window_layers": [1], "conv_window": 2,
                    "num_swa_attention_heads": 3, "num_swa_key_value_heads": 1},
    "deepseek": _EXPERTS,
    "exaone": {"num_layers": 2, "layer_norm_epsilon": 1e-5, "head_dim": 12, "hidden_size": 72,
               **_BIAS},
    "gear": {"num_hidden_layers": 3,
             "layer_types": ["sliding_attention", "conv_mixer", "full_attention"]},
    "hunyuan": {**_BIAS, "moe_topk": 1, "num_experts": 1, "num_shared_expert": 1,
                "use_mixed_mlp_moe": True, "use_qk_norm": True, "use_cla": True,
                "cla_share_factor": 2, "num_hidden_layers": 4,
                "rope_scaling": {"alpha": 100.0, "factor": 1.0, "type": "dynamic"}},
    "internlm2": {"bias": True, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "iquestloopcoder": {**_BIAS, "loop_window_size": 4},
    "joyai_llm_flash": {**_DEEPSEEK, "q_lora_rank": None},
    "kimi_k2": {**_DEEPSEEK, **_BIAS, "rope_scaling": _YARN},
    "lille-130m": {"n_embd": 60, "n_head": 6, "n_kv_heads": 2, "n_layer": 2,
                   "layer_norm_eps": 1e-5, "block_size": 64},
    "longcat_flash_ngram": {**_LATENT, "num_layers": 2, "ffn_hidden_size": 22, "moe_topk": 2,
                            "expert_ffn_hidden_size": 22, "n_routed_experts": 4,
                            "zero_expert_num": 1, "routed_scaling_factor": 1.5,
                            "mla_scale_q_lora": True, "mla_scale_kv_lora": True,
                            "ngram_vocab_size_ratio": 2, "emb_neighbor_num": 3,
                            "emb_split_num": 2},
    "mimo": {},
    "minicpm": _MUP,
    "nanbeige": {**_BIAS, "num_loops": 2},
    "nemotron-nas": {**_BIAS, "num_hidden_layers": 4, "block_configs": [
        {"attention": {"n_heads_in_group": 3}, "ffn": {"ffn_mult": 0.5}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
        {"attention": {"replace_with_linear": True}, "ffn": {"no_op": True}},
        {"attention": {"n_heads_in_group": 2}, "ffn": {"replace_with_linear": True}},
    ]},
    "openelm": {"num_transformer_layers": 2, "model_dim": 60, "ffn_dim_divisor": 2,
                "num_query_heads": [6, 4], "num_kv_heads": [3, 2], "ffn_multipliers": [0.5, 0.8],
                "share_input_output_layers": False},
    "phi-msft": {"n_embd": 60, "n_head": 6, "n_layer": 2, "rotary_dim": 6,
                 "num_vocab": 51, "model_dim": 60, "num_heads": 6, "num_layers": 2},
    # mlx-lm silences tokens by their numbers, the last of which is 100,351
    "phi3small": {"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1,
                  "vocab_size": 100352, "dense_attention_every_n_layers": 2,
                  "ff_intermediate_size": 22, "gegelu_limit": 20.0, "layer_norm_epsilon": 1e-5},
    "plamo": {"n_shared_head": 3},
    "plamo2": {"hidden_size_per_head": 10, "mamba_num_heads": 3, "mamba_d_state": 8,
               "num_hidden_layers": 3},
    "plamo3": {"sliding_window": 8, "sliding_window_pattern": 2},
    "qwen": {"num_key_value_heads": 6, "kv_channels": 10, "layer_norm_epsilon": 1e-6},
    "spark2_5": {**_BIAS, "sliding_window": 8,
                 "layer_types": ["sliding_attention", "full_attention"],
                 "rope_parameters": {"sliding_attention": {"rope_theta": 1e4},
                                     "full_attention": {"rope_theta": 1e5, **_PART}}},
    "telechat3": _BIAS,
    "xverse": {"num_key_value_heads": 6},
    "youtu_llm": _LATENT,
}  # fmt: skip

# families that transformers runs too: two programs, written by different people, agree
BOTH: dict[str, dict[str, Any]] = {
    "afmoe": {**_EXPERTS, **_KINDS, "sliding_window": 8, "num_dense_layers": 1, "route_scale": 1.0,
              "score_func": "sigmoid", "mup_enabled": True, "global_attn_every_n_layers": 2},
    "bailing_hybrid": {**_DEEPSEEK, "head_dim": 12, "num_hidden_layers": 5, "layer_group_size": 2,
                       "group_norm_size": 2, "use_qkv_bias": True},
    "cohere": {**_BIAS, "use_qk_norm": True, "layer_norm_eps": 1e-5, "logit_scale": 0.1},
    "cohere2": {**_BIAS, "sliding_window": 8, "sliding_window_pattern": 2, "logit_scale": 0.1,
                "layer_norm_eps": 1e-5, "layer_norm_bias": False},
    "dbrx": {"d_model": 60, "n_heads": 6, "n_layers": 2, "max_seq_len": 64,
             "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
             "ffn_config": {"ffn_hidden_size": 22, "moe_num_experts": 4, "moe_top_k": 2}},
    "deepseek_v2": {**_DEEPSEEK, "rope_scaling": _YARN},
    "deepseek_v3": {**_DEEPSEEK, **_SWITCH, "rope_scaling": _YARN},
    "deepseek_v32": _INDEXED,
    "dots1": {**_EXPERTS, **_BIAS, "rope_scaling": None},
    "ernie4_5": {"use_bias": True},
    "ernie4_5_moe": {**_EXPERTS, "use_bias": False, "moe_num_experts": 4},
    "exaone4": {"sliding_window": 8, "sliding_window_pattern": "LG", "rope_scaling": None,
                "layer_types": ["sliding_attention", "full_attention"]},
    "exaone_moe": {**_EXPERTS, **_KINDS, "sliding_window": 8, "is_moe_layer": [False, True],
                   "rope_scaling": None},
    "falcon_h1": {**_MAMBA, "attention_bias": False, "mamba_d_ssm": 120, "mamba_conv_bias": True,
                  "mamba_expand": 2, "mamba_d_conv": 4, "mamba_proj_bias": False},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 10},
    "gemma3_text": {"num_hidden_layers": 6, "sliding_window": 8},
    "gemma4_text": {"num_hidden_layers": 4, "layer_types": _KINDS["layer_types"] * 2,
                    "global_head_dim": 12, "num_kv_shared_layers": 2, "sliding_window": 8,
                    "hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": 51},
    "glm4": {**_BIAS, **_PART},
    "glm4_moe": {**_EXPERTS, **_BIAS, **_PART, "use_qk_norm": True, "rope_scaling": None},
    "glm4_moe_lite": {**_DEEPSEEK, **_SWITCH},
    "glm_moe_dsa": {**_INDEXED, "rope_parameters": {"rope_theta": 1e4}},
    "gpt_neox": {"layer_norm_eps": 1e-5, "rotary_pct": 0.6, "rotary_emb_base": 10000},
    "gpt_oss": {**_EXPERTS, **_KINDS, "sliding_window": 8, "rope_scaling": {
        **_YARN, "beta_fast": 32, "beta_slow": 1}},
    "gptj": {"n_embd": 60, "n_head": 6, "n_layer": 2, "n_positions": 64, "rotary_dim": 6,
             "layer_norm_epsilon": 1e-5, "num_key_value_heads": None},
    "granite": {**_BIAS, "mlp_bias": False, "logits_scaling": 2.0, "attention_multiplier": 0.3,
                "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "helium": {**_BIAS, "mlp_bias": False},
    "hunyuan_v1_dense": {**_BIAS, "use_qk_norm": True, "rope_scaling": {
        "alpha": 10.0, "factor": 1.0, "type": "dynamic"}},
    "internlm3": {"qkv_bias": True, "bias": False},
    "iquestcoder": {},
    "laguna": {**_EXPERTS, **_KINDS, "sliding_window": 8, "num_attention_heads_per_layer": [6, 4],
               "rope_parameters": {"full_attention": {"rope_theta": 1e4, **_PART},
                                   "sliding_attention": {"rope_theta": 1e4}}},
    "lfm2": {"norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 60,
             "block_ff_dim": 22, "block_multiple_of": 2, "block_ffn_dim_multiplier": 1.0,
             "block_auto_adjust_ff_dim": False, "num_hidden_layers": 3, "full_attn_idxs": [0, 2]},
    "lfm2_moe": {**_EXPERTS, "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3,
                 "num_hidden_layers": 3, "num_dense_layers": 1, "use_expert_bias": True,
                 "layer_types": ["full_attention", "conv", "full_attention"]},
    "llama": {},
    "llama4_text": {**_BIAS, "intermediate_size_mlp": 22, "no_rope_layers": [1, 0],
                    "use_qk_norm": False},
    "longcat_flash": {**_LATENT, "num_layers": 2, "ffn_hidden_size": 22, "moe_topk": 2,
                      "expert_ffn_hidden_size": 22, "n_routed_experts": 4, "zero_expert_num": 1,
                      "zero_expert_type": "identity", "routed_scaling_factor": 1.5,
                      "mla_scale_q_lora": True, "mla_scale_kv_lora": True,
                      "attention_method": "MLA", **_BIAS},
    "mellum": {**_EXPERTS, **_KINDS, "sliding_window": 8, "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "default", "rope_theta": 1e5}}},
    "mimo_v2_flash": {**_EXPERTS, "partial_rotary_factor": 0.5, "hybrid_layer_pattern": [0, 1],
                      "moe_layer_freq": [0, 1], "swa_rope_theta": 1e4, "v_head_dim": 10,
                      "swa_num_attention_heads": 6, "swa_num_key_value_heads": 3,
                      "swa_head_dim": 8, "swa_v_head_dim": 10, "head_dim": 12,
                      "sliding_window_size": 8, "layernorm_epsilon": 1e-5,
                      "add_swa_attention_sink_bias": True,
                      "add_full_attention_sink_bias": False},
    "minicpm3": {**_LATENT, **_MUP, "rope_scaling": {
        "type": "longrope", "original_max_position_embeddings": 64,
        "short_factor": [1.0] * 3, "long_factor": [1.0, 1.1, 1.2]}},
    "minimax_m2": {**_EXPERTS, "rotary_dim": 6, "use_qk_norm": True, "shared_intermediate_size": 0},
    "ministral3": {"rope_parameters": _SCALED},
    "mistral": {},
    "mistral4": {**_DEEPSEEK, **_SWITCH, "head_dim": 10, "rope_parameters": _SCALED},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "nemotron": {**_PART, "hidden_act": "relu2", "norm_eps": 1e-5},
    "olmo2": {},
    "olmo3": {**_KINDS, "sliding_window": 8},
    "olmo_hybrid": {**_DELTA, **_BIAS, "linear_allow_neg_eigval": True,
                    "layer_types": ["linear_attention", "full_attention"],
                    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "olmoe": _EXPERTS,
    "phi": {**_PART, "layer_norm_eps": 1e-5},
    "phi3": {**_PART, "rope_scaling": None},
    "phimoe": {**_EXPERTS, "rope_scaling": {
        "type": "longrope", "short_factor": [1.0] * 5, "long_factor": [1.0, 1.1, 1.2, 1.3, 1.4],
        "short_mscale": 1.0, "long_mscale": 1.2, "original_max_position_embeddings": 16}},
    "qwen2": {},
    "qwen2_moe": _EXPERTS,
    "qwen3": {},
    "qwen3_moe": _EXPERTS,
    "qwen3_next": {**_EXPERTS, "partial_rotary_factor": 0.6, "full_attention_interval": 2,
                   **_DELTA},
    "recurrent_gemma": {"attention_bias": False, "conv1d_width": 4, "lru_width": 72,
                        "hidden_size": 72, "head_dim": 12, "num_key_value_heads": 1,
                        "intermediate_size": 44, "attention_window_size": 8,
                        "logits_soft_cap": 30.0, "block_types": ["recurrent", "attention"]},
    "seed_oss": _BIAS,
    "smollm3": {"no_rope_layers": [1, 0]},
    "solar_open": {**_EXPERTS, "partial_rotary_factor": 1.0},
    "stablelm": {**_PART, "layer_norm_eps": 1e-5, "qk_layernorm": True, "use_qkv_bias": True},
    "starcoder2": {"norm_epsilon": 1e-5, "use_bias": True},
    "step3p5": {**_EXPERTS, "num_attention_groups": 2, "num_key_value_heads": None,
                "attention_other_setting": {"num_attention_heads": 8, "num_attention_groups": 4},
                "layer_types": ["sliding_attention", "full_attention"], "moe_layers_enum": "1",
                "partial_rotary_factors": [1.0, 0.6], "moe_num_experts": 4, "moe_top_k": 2,
                "share_expert_dim": 22, "rope_theta": [1e4, 1e5]},
}  # fmt: skip

# the same family with another form of its tensors
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("bailing_hybrid", {"architectures": ["BailingMoeV3ForCausalLM"], "head_dim": 4}),
    ("deepseek_v3", {"q_lora_rank": None, "attention_bias": True}),
)

# models of vision and language: the model type of their text, and its config
TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "kimi_k25": ("kimi_k2", {**_DEEPSEEK, **_SWITCH}),
    "lfm2-vl": ("lfm2", {
        "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 60,
        "block_ff_dim": 22, "block_multiple_of": 2, "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False, "num_hidden_layers": 3, "full_attn_idxs": [0, 2]}),
    "minimax_m3_vl": ("minimax_m3_vl_text", {
        **_EXPERTS, **_PART, "rotary_dim": 6, "dense_intermediate_size": 22,
        "shared_intermediate_size": 22, "moe_layer_freq": [0, 1],
        "sparse_attention_config": {
            "sparse_num_index_heads": 2, "sparse_index_dim": 8, "sparse_block_size": 2,
            "sparse_topk_blocks": 2, "sparse_attention_freq": [0, 1]}}),
    "muse_glimmer": ("muse_glimmer_text", {
        "num_hidden_layers": 4, "sliding_window": 4, "layer_rope_theta": [1e4, 1e4, 1e4, 0],
        "layer_types": [*["sliding_attention"] * 3, "full_attention"]}),
}  # fmt: skip


def config_of(name: str, changed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A tiny config.json of that model type, with further keys changed."""
    if name in TEXTS:
        model_type, own = TEXTS[name]
        text = {"model_type": model_type, **SIZES, **own}
        return {"model_type": name, "text_config": text, "vision_config": {"hidden_size": 36}}
    return {"model_type": name, **SIZES, **{**ALONE, **BOTH}[name], **(changed or {})}


def text_of(name: str) -> str:
    """The model type that has the table: that of the text, in a model that has one."""
    return TEXTS[name][0] if name in TEXTS else name
