"""What transformers takes where the config of a language model inside another leaves a key out.

transformers 4 wrote into `text_config` only what differs from the class's defaults: Gemma 3 4B
states no head count, LLaVA 1.5 no size at all. The tests hold this against the installed classes.
"""

from __future__ import annotations

_KEYS = (
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_hidden_layers",
    "head_dim",
)
# 0: as many as there are query heads, or what is left of the hidden size for each head
_SIZES = {
    "aria_text": (4096, 32, 0, 32, 0),
    "cohere2": (8192, 64, 0, 40, 0),
    "ernie4_5_vl_moe_text": (2560, 20, 4, 28, 0),
    "emu3_text_model": (4096, 32, 8, 32, 0),
    "gemma": (3072, 16, 16, 28, 256),
    "gemma2": (2304, 8, 4, 26, 256),
    "gemma3_text": (2304, 8, 4, 26, 256),
    "gemma3n_text": (2048, 8, 2, 35, 256),
    "glm4v_moe_text": (4096, 96, 8, 46, 0),
    "glm4v_text": (4096, 32, 2, 40, 0),
    "granite": (4096, 32, 0, 32, 0),
    "lfm2": (2560, 32, 8, 32, 0),
    "llama": (4096, 32, 0, 32, 0),
    "llama4_text": (5120, 40, 8, 48, 128),
    "mistral": (4096, 32, 8, 32, 0),
    "mllama_text_model": (4096, 32, 8, 40, 0),
    "persimmon": (4096, 64, 0, 36, 0),
    "qwen2": (4096, 32, 32, 32, 0),
    "qwen2_5_vl_text": (8192, 64, 8, 80, 0),
    "qwen2_vl_text": (8192, 64, 8, 80, 0),
    "qwen3": (4096, 32, 32, 32, 128),
    "qwen3_vl_moe_text": (2048, 16, 16, 24, 0),
    "qwen3_vl_text": (4096, 32, 32, 32, 128),
}
ABSENT = {
    name: tuple((key, size) for key, size in zip(_KEYS, sizes, strict=True) if size)
    for name, sizes in _SIZES.items()
}
