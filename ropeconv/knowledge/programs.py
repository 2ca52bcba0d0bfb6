"""Programs beside transformers: how they rotate a family, and what tells them of moved rows.

Model types are those of config.json; only what was looked up in a program's own source is here.

Source:
    llama.cpp, https://github.com/ggml-org/llama.cpp: `llama_model_rope_type` of src/llama-model.cpp
    says how an architecture is rotated, conversion/*.py which rows its converter reorders.
    mlx-lm 0.32, https://github.com/ml-explore/mlx-lm: models that rotate by `rope_traditional`;
    each is run so in the tests.
"""

from __future__ import annotations

from ropeconv.knowledge.family import Family
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

# llama.cpp's NORM; those whose published files are half-split are reordered by its converter
_NORM = (
    "arcee", "baichuan", "chatglm", "cohere", "cohere2", "cohere2_moe", "deepseek", "deepseek_v2",
    "deepseek_v3", "ernie4_5", "ernie4_5_moe", "glm", "glm4", "glm4_moe_lite", "glm_moe_dsa",
    "granite", "granitemoe", "granitemoeshared", "internlm2", "internlm3", "iquestcoder",
    "kimi_k2", "kimi_k25", "kimi_vl", "llama", "llama4", "llama4_text", "minicpm", "ministral3",
    "mistral", "mistral3", "mistral4", "mixtral", "muse_glimmer", "nanbeige", "nemotron-nas",
    "olmo", "smollm3", "xverse", "youtu",
)  # fmt: skip
# llama.cpp's NEOX
_NEOX = (
    "afmoe", "apertus", "dbrx", "dots1", "eurobert", "exaone", "exaone4", "exaone_moe",
    "falcon", "falcon_h1", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "glm4_moe",
    "gpt_neox", "gpt_oss", "hunyuan_v1_dense", "hunyuan_v1_moe", "jais2", "lfm2", "lfm2_moe",
    "mellum", "mimo_v2_flash", "minicpm3", "minimax_m2", "modernbert", "nemotron", "olmo2", "olmo3",
    "olmoe", "openelm", "phi", "phi3", "phimoe", "plamo", "plamo2", "plamo3", "qwen", "qwen2",
    "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "seed_oss", "solar_open", "stablelm",
    "starcoder2", "step3p5",
)  # fmt: skip
LLAMA_CPP = {
    **dict.fromkeys(_NORM, (INTERLEAVED, "NORM")),
    **dict.fromkeys(_NEOX, (HALF_SPLIT, "NEOX")),
}
MLX_SWITCH = "rope_traditional"
SWITCHED_IN_MLX = (
    "apertus", "bailing_moe_linear", "exaone", "falcon_h1", "gemma", "gemma2", "gemma4_text",
    "glm4", "internlm2", "internlm3", "iquestcoder", "llama", "mimo", "minicpm", "mistral",
    "mixtral", "olmo2", "olmoe", "phi3", "plamo", "qwen2", "qwen2_moe", "seed_oss", "smollm3",
    "xverse", "youtu_llm",
)  # fmt: skip
# models of mlx-lm that read transformers' own switch
HEARD_IN_MLX = ("mistral4",)


def programs(family: Family, layout: RopeLayout) -> tuple[str, ...]:
    """Which programs can use a family's rows that were moved into that layout, and how."""
    if layout == family.layout:
        return ()
    found = []
    if family.has_every_shape and layout == INTERLEAVED:
        found.append(
            "Meta's code rotates interleaved pairs, of files in a format of its own:"
            " `ropeconv convert hf-to-meta` writes it"
        )
    if family.name in SWITCHED_IN_MLX:
        value = "true" if layout == INTERLEAVED else "false"
        found.append(f'mlx-lm rotates these rows where config.json has "{MLX_SWITCH}": {value}')
    if family.name in HEARD_IN_MLX:
        found.append(f"mlx-lm rotates these rows: it reads `{family.switch}`, too")
    if family.name in LLAMA_CPP:
        own, mode = LLAMA_CPP[family.name]
        how = "keeps their order" if own == family.layout else "reorders rows itself"
        found.append(
            f"llama.cpp rotates {own} pairs of {family.title} ({mode}), and its converter takes"
            f" {family.layout} files and {how}: give it the original"
        )
    return tuple(found)
