"""Models of vision or sound and language: language model and tower are rows of their own.

A layout belongs to a part of the model: a runtime that wants other rows in the language model says
nothing of its towers. So towers stay as they are unless they are asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropeconv.knowledge.families.dense import INNER
from ropeconv.knowledge.families.latent import LATENT_BY_NAME
from ropeconv.knowledge.families.refused import REFUSED
from ropeconv.knowledge.families.sparse import ABSENT
from ropeconv.knowledge.families.towers import BY_TYPE
from ropeconv.knowledge.family import Family, Tower
from ropeconv.knowledge.formula import evaluate
from ropeconv.words.layout import HALF_SPLIT
from ropeconv.words.parts import Part

_BASES = (
    "model.language_model.model.",
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.text_model.",
    "text_model.model.",
    "model.",
    "",
    "mtp.",
)
_TOWERS = {
    Part.VISION: (
        "vision_config",
        (
            "vision_tower",
            "vision_model",
            "vision_encoder",
            "visual",
            "image_tower",
            "video_tower",
            "vqmodel",
            "vit",
        ),
    ),
    Part.AUDIO: ("audio_config", ("audio_tower", "audio_model", "audio_encoder")),
}
_NAMES = ",".join(name for _, names in _TOWERS.values() for name in names)
_BETWEEN = (
    "multi_modal_projector,mm_projector,connector,mlp1,mlp_AR,embed_vision,embed_audio,aligner,resampler_model,"
    "merger,vision_projector,vision_projection,patch_merge_mlp,pre_mm_projector_norm,patch_merger,"
    "vit_large_projector,vision_adapter,vision_language_adapter,pre_projection,post_projection,masked_embedding"
)
_STAYS = (
    (
        f"{{model.,}}{{{_NAMES},vision_embed_tokens,visual_embeddings_table}}.*",
        "a tower for images or sound, which keeps its own layout",
    ),
    (f"{{model.,}}{{{_BETWEEN}}}.*", "between a tower and the language model"),
    (
        "{model.,}{encoder,projector}.*",
        "a tower for images or sound, or what lies between it and the language model",
    ),
    (
        "{model.,}{generation_embeddings,generation_aligner,generation_head}.*",
        "makes images of what the language model says",
    ),
    ("{model.,}{image_newline,image_norm,view_seperator}", "between images"),
    ("{model.,}{language_model,text_model}.lm_head.weight", "the output is not rotated"),
)
# model type, title, and the towers for images and sound: `any` where the config says which
_WRAPPERS = (
    ("aria", "Aria", "any", ""),
    ("aya_vision", "Aya Vision", "any", ""),
    ("cohere2_vision", "Command A Vision", "any", ""),
    ("cohere_compass", "Command, with vision", "cohere_compass_vision", ""),
    ("deepseek_vl", "DeepSeek VL", "any", ""),
    ("dots3_note", "dots 3 note", "any", "any"),
    ("emu3", "Emu 3", "", ""),
    ("ernie4_5_vl_moe", "ERNIE 4.5 VL", "ernie4_5_vl_moe_vision", ""),
    ("exaone4_5", "EXAONE 4.5", "exaone4_5_vision", ""),
    ("fuyu", "Fuyu", "", ""),
    ("gemma3", "Gemma 3", "any", ""),
    ("gemma3n", "Gemma 3n", "any", "any"),
    ("gemma4", "Gemma 4", "gemma4_vision", "any"),
    ("gemma4_assistant", "Gemma 4 assistant", "", ""),
    ("gemma4_unified", "Gemma 4 unified", "any", "any"),
    ("gemma4_unified_assistant", "Gemma 4 unified assistant", "", ""),
    ("glm46v", "GLM-4.6V", "glm4v_vision", ""),
    ("glm4v", "GLM-4.1V", "glm4v_vision", ""),
    ("glm4v_moe", "GLM-4.5V", "glm4v_moe_vision", ""),
    ("glm_ocr", "GLM-OCR", "glm_ocr_vision", ""),
    ("glmasr", "GLM-ASR", "", "glmasr_encoder"),
    ("got_ocr2", "GOT-OCR 2", "any", ""),
    ("granite_docling", "Granite Docling", "any", ""),
    ("granite_speech", "Granite Speech", "", ""),
    ("hunyuan_vl", "HunYuan VL", "any", ""),
    ("hyperclovax_vision_v2", "HyperCLOVA X SEED, with vision", "qwen2_5_vl_vision", ""),
    ("idefics2", "Idefics 2", "any", ""),
    ("idefics3", "Idefics 3", "any", ""),
    ("internvl", "InternVL 3", "any", ""),
    ("janus", "Janus", "any", ""),
    ("kimi_k25", "Kimi K2.5", "moonvit", ""),
    ("kimi_vl", "Kimi VL", "moonvit", ""),
    ("lfm2-vl", "LFM 2 VL (older files)", "any", ""),
    ("lfm2_vl", "LFM 2 VL", "any", ""),
    ("lighton_ocr", "LightOnOCR", "pixtral", ""),
    ("llama4", "Llama 4", "llama4_vision_model", ""),
    ("llava", "LLaVA", "any", ""),
    ("llava_next", "LLaVA-NeXT", "any", ""),
    ("llava_next_video", "LLaVA-NeXT Video", "any", ""),
    ("llava_onevision", "LLaVA-OneVision", "any", ""),
    ("minicpmv4_6", "MiniCPM-V 4.6", "any", ""),
    ("minimax_m3_vl", "MiniMax-M3", "any", ""),
    ("mistral3", "Mistral Small 3.1 and Ministral 3, with vision", "pixtral", ""),
    ("mistral_large4", "Mistral Large 4", "pixtral_native", ""),
    ("mllama", "Llama 3.2 Vision", "any", ""),
    ("moss_transcribe_diarize", "MOSS transcribe and diarize", "", "any"),
    ("muse_glimmer", "Muse Glimmer", "any", ""),
    ("muse_spark", "Muse Spark", "any", "any"),
    ("ovis2", "Ovis 2", "any", ""),
    ("paddleocr_vl", "PaddleOCR-VL", "paddleocr_vl_vision", ""),
    ("paligemma", "PaliGemma", "any", ""),
    ("qwen2_audio", "Qwen 2 Audio", "", "any"),
    ("qwen2_5_omni_thinker", "Qwen 2.5 Omni, thinker", "qwen2_5_omni_vision_encoder", "any"),
    ("qwen2_vl", "Qwen 2 VL", "qwen2_vl_vision", ""),
    ("qwen2_5_vl", "Qwen 2.5 VL", "qwen2_5_vl_vision", ""),
    ("qwen3_asr", "Qwen 3 ASR", "", "any"),
    ("qwen3_omni_moe_thinker", "Qwen 3 Omni, thinker", "qwen3_omni_moe_vision_encoder", "any"),
    ("qwen3_vl", "Qwen 3 VL", "qwen3_vl_vision", ""),
    ("qwen3_vl_moe", "Qwen 3 VL MoE", "qwen3_vl_moe_vision", ""),
    ("qwen3_5", "Qwen 3.5", "qwen3_5_vision", ""),
    ("qwen3_5_moe", "Qwen 3.5 MoE", "qwen3_5_moe_vision", ""),
    ("qwen4_exp", "Qwen 4 Exp", "qwen4_exp_vision", ""),
    ("smolvlm", "SmolVLM", "any", ""),
    ("step3p7", "Step 3.7", "any", ""),
    ("video_llama_3", "VideoLLaMA 3", "video_llama_3_vision", ""),
    ("video_llava", "Video-LLaVA", "any", ""),
    ("vipllava", "VipLLaVA", "any", ""),
    ("voxtral", "Voxtral", "", "any"),
)


def _tower(part: Part, model_type: str) -> Tower:
    key, names = _TOWERS[part]
    return Tower(
        part=part,
        key=key,
        bases=tuple(f"{base}{name}." for base in ("model.", "") for name in names),
        family=None if model_type == "any" else BY_TYPE[model_type],
    )


def _omni(name: str, title: str, vision: str) -> Family:
    """A model that listens, looks and speaks: what thinks in it is a wrapper like the others."""
    return Family(
        name=name,
        title=title,
        layout=HALF_SPLIT,
        rules=(),
        stays=(
            ("thinker.{visual,audio_tower}.*", "a tower, which keeps its own layout"),
            ("{talker,token2wav,code2wav}.*", "speaks: models of their own, which keep theirs"),
            ("thinker.lm_head.weight", "the output is not rotated"),
        ),
        bases=("thinker.model.",),
        inner="thinker_config.text_config",
        towers=tuple(
            Tower(part=part, key=f"thinker_config.{key}", bases=(f"thinker.{at}.",), family=family)
            for part, key, at, family in (
                (Part.VISION, "vision_config", "visual", BY_TYPE[vision]),
                (Part.AUDIO, "audio_config", "audio_tower", None),
            )
        ),
    )


COMPOSITE = (
    *(
        Family(
            name=name,
            title=title,
            layout=HALF_SPLIT,  # replaced by the language model's
            rules=(),
            stays=_STAYS,
            bases=_BASES,
            inner="text_config",
            towers=tuple(
                _tower(part, model_type)
                for part, model_type in ((Part.VISION, vision), (Part.AUDIO, audio))
                if model_type
            ),
        )
        for name, title, vision, audio in _WRAPPERS
    ),
    _omni("qwen2_5_omni", "Qwen 2.5 Omni", "qwen2_5_omni_vision_encoder"),
    _omni("qwen3_omni_moe", "Qwen 3 Omni", "qwen3_omni_moe_vision_encoder"),
)

# Kimi K2.5 names its text after Kimi K2; transformers reads it as DeepSeek V3, switch and all
_INSIDE = {**INNER, "kimi_k2": LATENT_BY_NAME["deepseek_v3"]}


def joined(outer: Family, language: Family, config: Mapping[str, Any]) -> Family:
    """The table of a composite model: its language model's rules, its own towers."""
    language = _INSIDE.get(language.name, language)
    return replace(
        language,
        name=outer.name,
        title=f"{outer.title} with {language.title}",
        stays=(*language.stays, *outer.stays),
        bases=outer.bases,
        inner=outer.inner,
        towers=tuple(_found(tower, config) for tower in outer.towers),
        absent=ABSENT.get(language.name, ()),
    )


def _found(tower: Tower, config: Mapping[str, Any]) -> Tower:
    """The tower with its table, by its own model type where the whole may have several."""
    if tower.family is None:
        own = evaluate(tower.key, config)
        model_type = own.get("model_type") if isinstance(own, Mapping) else None
        family = BY_TYPE.get(str(model_type))
        if family is None:
            why = REFUSED.get(str(model_type), "no table knows it")
            return replace(tower, why=f"it is of the model type `{str(model_type)[:60]}`: {why}")
        tower = replace(tower, family=family)
    assert tower.family is not None
    return replace(tower, family=replace(tower.family, bases=tower.bases))
