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
from ropeconv.knowledge.families.wrappers import WRAPPERS
from ropeconv.knowledge.family import Family, Tower
from ropeconv.knowledge.formula import evaluate
from ropeconv.words.layout import HALF_SPLIT
from ropeconv.words.parts import Part

_BASES = (
    "model.model.language_model.model.",  # transformers writes ShieldGemma 2 so
    "language_model.model.encoder.",  # and Qianfan OCR so
    "model.language_model.model.",
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.transformer.",
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
_FURTHER = (
    "vision_embed_tokens,visual_embeddings_table,vision_backbone,sam_model,qwen2_model,"
    "high_res_vision_model"
)
_BETWEEN = (
    "multi_modal_projector,mm_projector,connector,mlp1,mlp_AR,embed_vision,embed_audio,aligner,resampler_model,"
    "merger,vision_projector,vision_projection,patch_merge_mlp,pre_mm_projector_norm,patch_merger,"
    "vit_large_projector,vision_adapter,vision_language_adapter,pre_projection,post_projection,masked_embedding,"
    "high_res_vision_neck,high_res_vision_proj,qformer,language_projection,layerwise_projectors,"
    "spatial_projectors"
)
_STAYS = (
    (
        f"{{model.,}}{{{_NAMES},{_FURTHER}}}.*",
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
    ("{model.,}{query_tokens,high_res_vision_alpha}", "between a tower and the language model"),
    ("{model.,}{image_newline,image_norm,view_seperator,view_separator}", "between images"),
    ("{model.,}{language_model,text_model}.lm_head.weight", "the output is not rotated"),
)
# under names of their own in the files of one model
_ALSO = {
    "fun_asr_nano": (
        (
            "{model.,}{audio_adaptor,adaptor,audio_adapter}.*",
            "between a tower and the language model",
        ),
    ),
    "glm_image": (("{model.,}vqmodel.*", "makes codes of images"),),
    "vibevoice_asr": (
        (
            "{model.,}{acoustic_tokenizer_encoder,semantic_tokenizer_encoder}.*",
            "makes numbers of sound, by convolutions",
        ),
    ),
    "cosmos3_omni": (
        (
            "{blocks,patch_embed,pos_embed,deepstack_merger_list}.*",
            "the tower for images, which keeps its own layout",
        ),
    ),
    "shieldgemma2": (
        ("model.model.vision_tower.*", "the tower for images, which keeps its own layout"),
        ("model.model.multi_modal_projector.*", "between the tower and the language model"),
    ),
}
# towers that lie elsewhere: where their config is, and how their tensors begin
_ELSEWHERE = {
    "deepseek_ocr2_encoder": (
        "vision_config.encoder_config",
        ("vision_tower.vision_encoder", "qwen2_model.model.model"),
    ),
}


def _tower(part: Part, model_type: str) -> Tower:
    key, names = _ELSEWHERE.get(model_type, _TOWERS[part])
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


# PI0: one language model reads, and an expert of the same geometry attends to its keys, so that
# both have one layout
_PI0 = Family(
    name="pi0",
    title="PI0",
    layout=HALF_SPLIT,
    rules=(),
    stays=(
        (
            "{model.,}{vlm,paligemma_with_expert.paligemma.model}.vision_tower.*",
            "a tower for images, which keeps its own layout",
        ),
        (
            "{model.,}{vlm,paligemma_with_expert.paligemma.model}.multi_modal_projector.*",
            "between a tower and the language model",
        ),
        (
            "{model.,}paligemma_with_expert.{paligemma,gemma_expert}.lm_head.*",
            "the output is not rotated",
        ),
        (
            "{model.,}{embed_action_time,state_proj,action_in_proj,action_time_mlp_in}.*",
            "reads states and times",
        ),
        ("{model.,}{action_time_mlp_out,action_out_proj}.*", "makes actions"),
    ),
    bases=tuple(
        f"{base}{name}."
        for base in ("model.", "")
        for name in (
            "vlm.language_model",
            "dit",
            "paligemma_with_expert.paligemma.model.language_model.model",
            "paligemma_with_expert.paligemma.model.language_model",
            "paligemma_with_expert.gemma_expert.model",
        )
    ),
    inner="vlm_config.text_config",
    towers=(
        Tower(
            part=Part.VISION,
            key="vlm_config.vision_config",
            bases=(
                "model.vlm.vision_tower.",
                "paligemma_with_expert.paligemma.model.vision_tower.",
            ),
        ),
    ),
)

COMPOSITE = (
    *(
        Family(
            name=name,
            title=title,
            layout=HALF_SPLIT,  # replaced by the language model's
            rules=(),
            stays=(*_STAYS, *_ALSO.get(name, ())),
            bases=_BASES,
            inner="text_config",
            towers=tuple(
                _tower(part, model_type)
                for part, model_type in ((Part.VISION, vision), (Part.AUDIO, audio))
                if model_type
            ),
        )
        for name, title, vision, audio in WRAPPERS
    ),
    _PI0,
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
