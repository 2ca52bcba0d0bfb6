"""Models that look, foretell or compare by themselves, not as the tower of a language model.

Source:
    The modeling files of transformers 5.23; every entry is measured in the tests.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.shapes import (
    ENDS,
    LAYER,
    head_norms,
    heads,
    sizes,
    stack,
    stack_sizes,
    stays,
)
from ropeconv.knowledge.families.sound import OUTSIDE, SOUND, alone
from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import INTERLEAVED

_PE_LAYER = (
    "{audio_encoder,video_encoder,audio_model.audio_encoder,video_model.video_encoder,"
    "audio_video_encoder,audio_video_encoder.embedder.audio_encoder,"
    "audio_video_encoder.embedder.video_encoder}."
)


def _pe(name: str, title: str, *encoders: tuple[str, str, str]) -> Family:
    """Perception encoders of sound and film, beside a model of text.

    Args:
        name: transformers' model type.
        title: for people.
        encoders: the word of each, the key of its config, and how its tensors begin.
    """
    stacks: dict[str, str] = {}
    for word, config, _ in encoders:
        stacks |= stack_sizes(word, config)
    last = encoders[-1][0]
    return Family(
        name=name,
        title=title,
        layout=INTERLEAVED,
        rules=tuple(
            rule
            for word, _, at in encoders
            for rule in stack(f"{at}.layers.{{layer}}.self_attn.", word, norms=True)
        ),
        sizes=sizes(**{letter: f"{letter}{last}" for letter in "CHKDL"}, **stacks),
        stays=(
            *stays(_PE_LAYER + "layers.{layer}."),
            (_PE_LAYER + "{norm,output}.weight", "after the layers"),
            (_PE_LAYER + "{embedder,patch_embedder}.*", "before the layers"),
            ("{audio_model.,video_model.,}text_model.*",
             "a model of text, which keeps its own layout"),
            ("*{head,head.layer_norm,head.proj}" + ENDS, "the output is not rotated"),
            ("*{logit_scale,logit_bias}", "the output is not rotated"),
        ),
    )  # fmt: skip


_SAM = "{base}vision_encoder.backbone.layers.{layer}."
_FULL = "layer < (num_first_full_attention_layers or 8)"
_SAPIENS_K = (
    "num_key_value_heads_per_layer[layer] if num_key_value_heads_per_layer else"
    f" H if {_FULL} or not layer < L - (num_last_full_attention_layers or 8) else"
    " num_key_value_attention_heads or 8"
)


ALONE = (
    *SOUND,
    alone(
        "muse_glimmer_assistant",
        "Muse Glimmer assistant",
        (*heads(), *head_norms()),
        (("{base}encoder.{fc,output_norm_enc}.weight", "before the layers"),),
    ),
    _pe("pe_audio", "PE-AV, sound", ("audio", "audio_config", "audio_encoder")),
    _pe("pe_video", "PE-AV, film", ("video", "video_config", "video_encoder")),
    _pe(
        "pe_audio_video",
        "PE-AV",
        (
            "audio",
            "audio_video_config.audio_config",
            "{audio_model.,audio_video_encoder.embedder.}audio_encoder",
        ),
        (
            "video",
            "audio_video_config.video_config",
            "{video_model.,audio_video_encoder.embedder.}video_encoder",
        ),
        ("both", "audio_video_config", "audio_video_encoder"),
    ),
    alone(
        "sam3",
        "SAM 3",
        heads(_SAM + "attention."),
        (
            (_SAM + "{layer_norm1,layer_norm2,layer_scale1,layer_scale2}.*",
             "acts on the hidden state"),
            ("{base}vision_encoder.backbone.{embeddings,layer_norm}.*", "before the layers"),
            ("{base}vision_encoder.neck.*", "after the layers"),
            ("{base}{text_encoder,text_projection,geometry_encoder,detr_encoder,detr_decoder}.*",
             "its positions are no rotation"),
            ("{base}{mask_decoder,dot_product_scoring}.*", "its positions are no rotation"),
        ),
        layout=INTERLEAVED,
        bases=("detector_model.", ""),
        layer=_SAM,
        at="attention.",
        C="vision_config.backbone_config.hidden_size",
        H="vision_config.backbone_config.num_attention_heads",
        K="H",
        D="C // H",
        L="vision_config.backbone_config.num_hidden_layers",
    ),
    alone(
        "sapiens2",
        "Sapiens 2",
        tuple(
            replace(rule, optional=True)
            for at, q, k in (
                ("{base}blocks.{layer}.attn.", "wq", "wk"),
                ("{base}layer.{layer}.attention.", "q_proj", "k_proj"),
            )
            for rule in (*heads(at, q, k), *head_norms(at))
        ),
        (
            ("{base}blocks.{layer}.attn.{wv,proj}" + ENDS, "values are not rotated"),
            ("{base}blocks.{layer}.{attn.gamma,ln1,ln2}.weight", "acts on the hidden state"),
            ("{base}blocks.{layer}.ffn.*", OUTSIDE),
            ("{base}{cls_token,storage_tokens,mask_token}", "before the layers"),
            ("{base}patch_embed.*", "before the layers"),
            ("{base}ln1.weight", "after the layers"),
            ("{decode_head,head,depth_head,neck,decoder}.*", "the output is not rotated"),
        ),
        bases=("backbone.", "model.", ""),
        K="H",
        D="C // H",
        layer_sizes=(("K", _SAPIENS_K),),
    ),
    alone(
        "timesfm2_5",
        "TimesFM 2.5",
        (
            *heads(),
            *head_norms(),
            Rule(
                name=LAYER + "self_attn.scaling",
                rows="Rope(r), Keep(D - r)",
                optional=True,
                why="it scales each row of every query head",
            ),
        ),
        (
            ("{base}input_ff_layer.*", "before the layers"),
            ("{output_projection_point,output_projection_quantiles}.*", "after the layers"),
        ),
    ),
)  # fmt: skip
