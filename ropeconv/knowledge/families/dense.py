"""Families with query and key projections of their own, one feed-forward network or many experts.

Source:
    The modeling files of transformers 5.23, https://github.com/huggingface/transformers; every
    entry is measured by `ropeconv families --probe` in the tests.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.shapes import (
    AT,
    FACTOR,
    FULL_ATTENTION,
    LAYER,
    SLIDING,
    head_norms,
    heads,
    part,
    plain,
    stays,
    wide_norms,
)
from ropeconv.knowledge.family import Rule
from ropeconv.words.layout import INTERLEAVED

NORMED = (*heads(), *head_norms())
WIDE = (*heads(), *wide_norms())
SLIDING_NORMED = (*heads(layers=SLIDING), *head_norms(layers=SLIDING))
# EXAONE 4 rotates all layers when there is no window, else those that have one
EXAONE = f"not sliding_window or {SLIDING}"
EXAONE_NORMED = (*heads(layers=EXAONE), *head_norms(layers=EXAONE))
LFM_NORMED = (*heads(), *head_norms(q="q_layernorm", k="k_layernorm"))
HUNYUAN = (*heads(), *head_norms(q="query_layernorm", k="key_layernorm"))
# Cosmos 3 is published under diffusers' names; its Omni is Qwen 3 VL inside
COSMOS = heads(q="{q_proj,to_q}", k="{k_proj,to_k}")
COSMOS_NORMED = (*COSMOS, *head_norms(q="{q_norm,norm_q}", k="{k_norm,norm_k}"))
GATED = (*heads(gate=True), *head_norms())
NO_ROPE_LAYERS = "no_rope_layers[layer] if no_rope_layers else (layer + 1) % 4 != 0"
COHERE2 = (
    "layer_types[layer] == 'sliding_attention' if layer_types"
    " else (layer + 1) % (sliding_window_pattern or 4) != 0"
)
GRIFFIN = LAYER + "temporal_block."
GEMMA3N = (
    (LAYER + "{altup,laurel}.*", "outside the attention"),
    (LAYER + "{per_layer_input_gate,per_layer_projection,post_per_layer_input_norm}.weight",
     "outside the attention"),
    ("{base}{embed_tokens_per_layer,per_layer_model_projection,per_layer_projection_norm}.weight",
     "outside the attention"),
    ("{base}{altup_projections,altup_unembed_projections}.*", "outside the attention"),
)  # fmt: skip
EVOLLA = (
    ("{base}protein_encoder.*", "the encoder of proteins, which keeps its own layout"),
    (LAYER + "adapter.*", "attention to proteins, which has no positions"),
)
_HEADS = (("{score,classifier,dense}.{weight,bias}", "the output is not rotated"),)
CROSS = (
    (LAYER + "cross_attn.*", "cross-attention has no positions"),
    (LAYER + "{cross_attn_attn_gate,cross_attn_mlp_gate}", "cross-attention has no positions"),
)
M3_INDEXER = tuple(
    Rule(
        name=AT + name + ".weight",
        rows=rows,
        optional=True,
        why="the indexer's heads are rotated as the main ones are",
    )
    for name, rows in (
        ("{indexer.q_proj,index_q_proj}", "Repeat(X, Rope(r), Keep(I - r))"),
        (
            "{indexer.k_proj,indexer.q_norm,indexer.k_norm,index_k_proj,index_q_norm,index_k_norm}",
            "Rope(r), Keep(I - r)",
        ),
    )
)
M3_PARTS = (
    "the config has a `rotary_dim`, which mlx-lm reads, and no `partial_rotary_factor`, which"
    " transformers reads: they rotate different rows"
)
# layers that predict further tokens, beside the model: Qwen's way of naming them
FURTHER = (("{base}{fc,pre_fc_norm_embedding,pre_fc_norm_hidden}.weight", "outside the attention"),)
WITH_FURTHER = ("model.", "", "mtp.")
ERNIE_FURTHER = "model.mtp_block.{layer}."
ERNIE = (
    *heads(),
    *(replace(rule, optional=True) for rule in heads(ERNIE_FURTHER + "self_attn.")),
)
ERNIE_STAYS = (
    *stays(ERNIE_FURTHER),
    ("model.{mtp_emb_norm,mtp_hidden_norm,mtp_linear_proj}.{head}.{weight,bias}",
     "outside the attention"),
)  # fmt: skip
# MiMo-V2: its own files say which layers are sliding by a list of 0 and 1
MIMO_SLIDING = (
    f"({SLIDING} if layer_types else hybrid_layer_pattern[layer] == 1 if hybrid_layer_pattern"
    " else not (layer == 0 or (layer + 1) % 6 == 0))"
)
MIMO_K = "(swa_num_key_value_heads or 2 * num_key_value_heads)"
# NeoMME: two axes of positions, whose layers with windows rotate whole heads
NEOMME_KIND = (
    "(layer_types[layer] if layer_types else 'full_attention' if (layer + 1) % 6 == 0"
    " or layer == L - 1 else 'sliding_attention')"
)
NEOMME_PART = (
    f"(rope_parameters or {{}})[{NEOMME_KIND}].partial_rotary_factor"
    f" or (0.25 if {NEOMME_KIND} == 'full_attention' else 1)"
)
NEOMME = (
    (LAYER + "lambdas", "mixes hidden states"),
    (AT + "exclusive_self_attention.alpha", "has an entry for each head, and no row leaves it"),
    (AT + "output_projection.*", "values are not rotated, nor what reads them"),
    ("{base}{embed_tokens,patch_embeddings,value_embeddings}.*", "embeddings are not rotated"),
    ("{unembedding_projection,multi_vector_head,dense_head}.*", "the output is not rotated"),
)
BY_THETA = "layer_rope_theta[layer] if layer_rope_theta else True"

PLAIN = (
    plain("arcee", "Arcee AFM"),
    plain("aria_text", "Aria, text"),
    plain("bitnet", "BitNet b1.58"),
    plain("cosmos3_edge_text", "Cosmos 3 Edge, text", COSMOS),
    plain("cwm", "Code World Model"),
    plain("deepseek_ocr2_text", "DeepSeek OCR 2, text"),
    plain("diffllama", "DiffLlama", also=((AT + "groupnorm.weight", "acts on values"),)),
    plain("emu3_text_model", "Emu 3, text"),
    plain("falcon_h1", "Falcon-H1"),
    plain("gemma", "Gemma", D="head_dim or 256"),
    plain("gemma2", "Gemma 2", D="head_dim or 256"),
    plain("gpt_oss", "gpt-oss", D="head_dim or 64"),
    plain("granite", "Granite"),
    plain("granitemoe", "Granite MoE"),
    plain("granitemoeshared", "Granite MoE with shared experts"),
    plain("granite4_vision_text", "Granite 4 Vision, text"),
    plain("granite_docling_text", "Granite Docling, text"),
    plain("eurobert", "EuroBERT", also=_HEADS),
    plain(
        "openai_privacy_filter",
        "OpenAI privacy filter",
        layout=INTERLEAVED,
        D="head_dim or 64",
        also=_HEADS,
    ),
    plain("granite_swa", "Granite with sliding windows", layers=BY_THETA),
    plain("granitemoe_swa", "Granite MoE with sliding windows", layers=BY_THETA),
    plain("hyperclovax", "HyperCLOVA X"),
    plain("internlm3", "InternLM 3"),
    plain("iquestcoder", "IQuest Coder"),
    plain("jais2", "Jais 2"),
    plain("ministral", "Ministral"),
    plain("ministral3", "Ministral 3"),
    plain("mixtral", "Mixtral"),
    plain("muse_glimmer_text", "Muse Glimmer, text", layers=BY_THETA),
    plain(
        "muse_spark_text",
        "Muse Spark, text",
        layers=BY_THETA,
        also=(
            (LAYER + "{post_attention_residual_gate,post_feedforward_residual_gate}.gate",
             "outside the attention"),
        ),
    ),
    plain("mllama_text_model", "Llama 3.2 Vision, text", also=CROSS),
    plain("olmo", "OLMo"),
    plain("paddleocr_vl_text", "PaddleOCR-VL, text"),
    plain("phimoe", "Phi-3.5 MoE"),
    plain("qwen2", "Qwen 1.5, 2 and 2.5"),
    plain("qwen2_5_omni_text", "Qwen 2.5 Omni, text"),
    plain("qwen2_moe", "Qwen 1.5 and 2 MoE"),
    plain("seed_oss", "Seed-OSS"),
    plain("smollm3", "SmolLM 3", layers=NO_ROPE_LAYERS),
    plain("solar_open", "Solar Open", r=part(1.0)),
    plain("starcoder2", "StarCoder 2"),
    plain("unlimited_ocr_text", "Unlimited OCR, text"),
    plain("vaultgemma", "VaultGemma", D="head_dim or 256"),
    plain("EvollaModel", "Evolla (older configs)", also=EVOLLA),
    plain("evolla", "Evolla", also=EVOLLA),
    plain(
        "minimax",
        "MiniMax-01",
        heads(layers=FULL_ATTENTION),
        also=(
            (AT + "{qkv_proj,output_gate,norm}.{weight,bias}", "linear attention has no rotation"),
            (AT + "{diagonal_decay,key_decay,query_decay,slope_rate}", "a buffer, no weight"),
        ),
    ),
    plain(
        "recurrent_gemma",
        "RecurrentGemma",
        heads(GRIFFIN),
        r=part(0.5),
        also=(
            (GRIFFIN + "{v_proj,o_proj}.{weight,bias}", "values are not rotated"),
            (GRIFFIN + "{conv_1d,linear_out,linear_x,linear_y,rg_lru}.*", "the recurrent block"),
        ),
    ),
    plain("nemotron", "Nemotron 3 and 4", r=part(0.5)),
    plain("bamba", "Bamba", r=part(0.5)),
    plain(
        "granitemoehybrid",
        "Granite 4",
        also=(("{base}layers.{layer}.{mamba,shared_mlp}.*", "outside the attention"),),
    ),
    plain("phi", "Phi 1, 1.5 and 2", (*heads(), *head_norms(q="q_layernorm", k="k_layernorm")),
           r=part(0.5)),
    plain(
        "stablelm",
        "StableLM 2",
        (
            *heads(),
            *head_norms(q="q_layernorm.norms.{head}", k="k_layernorm.norms.{head}"),
        ),
        r=part(0.25),
    ),
    replace(
        plain("neomme", "NeoMME", r="D", D="head_dim or 64", also=NEOMME),
        layer_sizes=(("r", f"int(D * ({NEOMME_PART}))"),),
    ),
    replace(
        plain("mimo_v2_flash", "MiMo-V2 Flash", r=part(0.334)),
        layer_sizes=(
            ("H", f"(swa_num_attention_heads if {MIMO_SLIDING} else 0) or num_attention_heads"),
            ("K", f"{MIMO_K} if {MIMO_SLIDING} else num_key_value_heads"),
            ("D", f"(swa_head_dim if {MIMO_SLIDING} else 0) or head_dim or C // H"),
        ),
    ),
)  # fmt: skip

WITH_NORMS = (
    plain("afmoe", "AFMoE (Trinity)", SLIDING_NORMED),
    plain("apertus", "Apertus", NORMED),
    plain("beam", "Beam", SLIDING_NORMED),
    plain("chameleon", "Chameleon", WIDE, also=(("{base}vqmodel.*", "makes codes of images"),)),
    plain("doge", "Doge", NORMED),
    plain("dots1", "dots.llm1", NORMED),
    plain("exaone4", "EXAONE 4", EXAONE_NORMED),
    plain("exaone_moe", "EXAONE MoE", EXAONE_NORMED),
    plain("flex_olmo", "FlexOLMo", WIDE),
    plain("flint", "Flint", SLIDING_NORMED),
    plain("gemma3_text", "Gemma 3, text", NORMED, D="head_dim or 256"),
    plain("glm4_moe", "GLM-4.5 and 4.6", NORMED, r=part(0.5)),
    plain("hunyuan_v1_dense", "HunYuan, dense", HUNYUAN),
    plain("hunyuan_v1_moe", "HunYuan, MoE", HUNYUAN),
    plain("hunyuan_vl_text", "HunYuan VL, text", HUNYUAN),
    plain("hy_v3", "HY 3", NORMED),
    plain("kolibri1", "Kolibri", EXAONE_NORMED),
    plain("lfm2", "LFM 2", LFM_NORMED),
    plain("lfm2_moe", "LFM 2 MoE", LFM_NORMED),
    plain("lfm3", "LFM 3", NORMED),
    plain("mellum", "Mellum", NORMED, also=FURTHER, bases=WITH_FURTHER),
    plain("minimax_m2", "MiniMax-M2", WIDE,
           r="rotary_dim or int(D * (rope_parameters.partial_rotary_factor or 1))"),
    plain("olmo2", "OLMo 2", WIDE),
    plain("olmo3", "OLMo 3", WIDE),
    plain("olmo_hybrid", "OLMo Hybrid", WIDE),
    plain("olmoe", "OLMoE", WIDE),
    plain("qwen3", "Qwen 3", NORMED, D="head_dim or 128"),
    plain("qwen3_moe", "Qwen 3 MoE", NORMED),
    plain("qwen3_omni_moe_text", "Qwen 3 Omni, text", NORMED),
    plain("qwen3_vl_text", "Qwen 3 VL, text", COSMOS_NORMED, D="head_dim or 128"),
    plain("qwen3_vl_moe_text", "Qwen 3 VL MoE, text", NORMED),
    plain("qwen2_vl_text", "Qwen 2 VL, text"),
    plain("qwen2_5_vl_text", "Qwen 2.5 VL, text"),
    plain("glm4v_moe_text", "GLM-4.5V, text", r=part(0.5)),
    plain("gemma3n_text", "Gemma 3n, text", NORMED, D="head_dim or 256", also=GEMMA3N),
    replace(
        plain("minimax_m3_vl_text", "MiniMax-M3, text", (*NORMED, *M3_INDEXER), r=part(1.0),
              X="index_n_heads or sparse_attention_config.sparse_num_index_heads",
              I="index_head_dim or sparse_attention_config.sparse_index_dim"),
        needs=((f"{FACTOR} or (rotary_dim or D) == D", M3_PARTS),),
    ),
    plain("qwen3_next", "Qwen 3 Next", GATED, r=part(0.25), D="head_dim or 256",
           also=FURTHER, bases=WITH_FURTHER),
    plain("qwen3_5_text", "Qwen 3.5, text", GATED, r=part(0.25), D="head_dim or 256",
           also=FURTHER, bases=WITH_FURTHER),
    plain("qwen3_5_moe_text", "Qwen 3.5 MoE, text", GATED, r=part(0.25), D="head_dim or 256",
           also=FURTHER, bases=WITH_FURTHER),
)  # fmt: skip

ADJACENT = (
    plain("cohere", "Command R", WIDE, layout=INTERLEAVED),
    plain("cohere2", "Command R7B and A", layout=INTERLEAVED, layers=COHERE2),
    plain("cohere2_moe", "Command, MoE", layout=INTERLEAVED, layers=f"force_rope or ({COHERE2})"),
    plain("ernie4_5", "ERNIE 4.5", layout=INTERLEAVED),
    plain("ernie4_5_moe", "ERNIE 4.5 MoE", ERNIE, layout=INTERLEAVED, also=ERNIE_STAYS),
    plain("glm", "GLM 4 (2024)", layout=INTERLEAVED, r=part(0.5)),
    plain("glm4", "GLM 4 (2025)", layout=INTERLEAVED, r=part(0.5)),
    plain("glm4v_text", "GLM-4.1V, text", layout=INTERLEAVED, r=part(1.0)),
    plain("glm_ocr_text", "GLM-OCR, text", layout=INTERLEAVED, r=part(1.0)),
    plain("ernie4_5_vl_moe_text", "ERNIE 4.5 VL, text", layout=INTERLEAVED),
    plain("helium", "Helium", layout=INTERLEAVED),
    plain("llama4_text", "Llama 4, text", layout=INTERLEAVED, layers=NO_ROPE_LAYERS),
)

# Llama and Mistral have whole tables of their own; inside another model only their rows matter
INNER = {"llama": plain("llama", "Llama"), "mistral": plain("mistral", "Mistral")}
DENSE = (*PLAIN, *WITH_NORMS, *ADJACENT)
