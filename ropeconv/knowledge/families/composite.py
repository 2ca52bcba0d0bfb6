"""Models of vision or sound and language: the language model is another row of the table.

Towers keep their own layout and are left alone: a layout belongs to a group of tensors, and a
runtime that wants other rows in the language model says nothing of its towers.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.dense import INNER
from ropeconv.knowledge.family import Family
from ropeconv.words.layout import HALF_SPLIT

_BASES = (
    "model.language_model.model.",
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.text_model.",
    "model.",
)
_TOWER = "a tower for images or sound, which keeps its own layout"
_STAYS = (
    ("{model.,}{vision_tower,vision_model,visual,vision_embed_tokens,audio_tower,image_tower}.*",
     _TOWER),
    (
        "{model.,}{multi_modal_projector,connector,mlp1,mlp_AR,embed_vision,embed_audio,aligner,resampler_model}.*",
        "between a tower and the language model",
    ),
    ("{model.,}{image_newline,image_norm,view_seperator}", "between images"),
    ("{model.,}language_model.lm_head.weight", "the output is not rotated"),
)  # fmt: skip

_WRAPPERS = (
    ("aria", "Aria", "text_config"),
    ("aya_vision", "Aya Vision", "text_config"),
    ("cohere2_vision", "Command A Vision", "text_config"),
    ("ernie4_5_vl_moe", "ERNIE 4.5 VL", "text_config"),
    ("gemma3", "Gemma 3", "text_config"),
    ("gemma3n", "Gemma 3n", "text_config"),
    ("glm4v", "GLM-4.1V", "text_config"),
    ("glm4v_moe", "GLM-4.5V", "text_config"),
    ("glm_ocr", "GLM-OCR", "text_config"),
    ("got_ocr2", "GOT-OCR 2", "text_config"),
    ("idefics3", "Idefics 3", "text_config"),
    ("internvl", "InternVL 3", "text_config"),
    ("lfm2_vl", "LFM 2 VL", "text_config"),
    ("llama4", "Llama 4", "text_config"),
    ("llava", "LLaVA", "text_config"),
    ("llava_next", "LLaVA-NeXT", "text_config"),
    ("llava_onevision", "LLaVA-OneVision", "text_config"),
    ("mistral3", "Mistral Small 3.1 and Ministral 3, with vision", "text_config"),
    ("paligemma", "PaliGemma", "text_config"),
    ("qwen2_vl", "Qwen 2 VL", "text_config"),
    ("qwen2_5_vl", "Qwen 2.5 VL", "text_config"),
    ("qwen3_vl", "Qwen 3 VL", "text_config"),
    ("qwen3_vl_moe", "Qwen 3 VL MoE", "text_config"),
    ("qwen3_5", "Qwen 3.5", "text_config"),
    ("qwen3_5_moe", "Qwen 3.5 MoE", "text_config"),
    ("smolvlm", "SmolVLM", "text_config"),
    ("vipllava", "VipLLaVA", "text_config"),
    ("voxtral", "Voxtral", "text_config"),
)

COMPOSITE = tuple(
    Family(
        name=name,
        title=title,
        layout=HALF_SPLIT,  # replaced by the language model's
        rules=(),
        stays=_STAYS,
        bases=_BASES,
        inner=inner,
    )
    for name, title, inner in _WRAPPERS
)


def joined(outer: Family, language: Family) -> Family:
    """The table of a composite model: its language model's rules, its own towers."""
    language = INNER.get(language.name, language)
    return replace(
        language,
        name=outer.name,
        title=f"{outer.title} with {language.title}",
        stays=(*language.stays, *outer.stays),
        bases=outer.bases,
        inner=outer.inner,
    )
