"""Models of several stacks: encoders with decoders, and models that speak.

Attention from one stack to another has no positions and stays. Stacks of one model are rotated by
one code, so that they move together; the letters of their sizes end in the word of the stack.

Source:
    The modeling files of transformers 5.23; every entry is measured in the tests.
"""

from __future__ import annotations

from ropeconv.knowledge.families.shapes import (
    LAYER,
    head_norms,
    heads,
    plain,
    sizes,
    stack,
    stack_sizes,
    stays,
)
from ropeconv.knowledge.family import Family
from ropeconv.words.layout import HALF_SPLIT

_OUTSIDE = "outside the attention"
_CROSS = "attention from one stack to another has no positions"
_CODEC = "makes sound of codes, and codes of sound: a model of its own, which keeps its layout"
_BOTH = "{base}{encoder,decoder}."


def _pair(
    name: str,
    title: str,
    configs: tuple[str, str],
    also: tuple[tuple[str, str], ...],
    *,
    attention: str = "self_attn.",
    norms: bool = False,
    inside: str = "",
) -> Family:
    """An encoder and a decoder, each with its own config.

    Args:
        name: transformers' model type.
        title: for people.
        configs: where the encoder's and the decoder's lie.
        also: what stays beside the usual.
        attention: how the stacks name theirs.
        norms: whether queries and keys have norms over one head.
        inside: what may stand between the encoder and its layers.
    """
    encoder, decoder = configs
    return Family(
        name=name,
        title=title,
        layout=HALF_SPLIT,
        rules=(
            *stack(f"{{base}}encoder.{inside}layers.{{layer}}.{attention}", "encoder", norms=norms),
            *stack(f"{{base}}decoder.layers.{{layer}}.{attention}", "decoder", norms=norms),
        ),
        sizes=sizes(
            C="Cdecoder",
            H="Hdecoder",
            K="Kdecoder",
            D="Ddecoder",
            L="Ldecoder",
            **stack_sizes("encoder", encoder),
            **stack_sizes("decoder", decoder),
        ),
        stays=(*stays(f"{_BOTH}{inside}layers.{{layer}}.", attention), *also),
    )


_T5_LAYER = _BOTH + "{text_model.,}layers.{layer}."
_T5_NORMS = (
    "{pre_self_attn_layernorm,post_self_attn_layernorm,pre_cross_attn_layernorm,"
    "post_cross_attn_layernorm}.weight"
)
_T5 = (
    (_T5_LAYER + _T5_NORMS, "acts on the hidden state, before or after the heads"),
    (_T5_LAYER + "cross_attn.*", _CROSS),
    (_BOTH + "{text_model.,}{norm,embed_tokens}.*", _OUTSIDE),
    ("{lm_head,score}.*", "the output is not rotated"),
)


SPEAKS = (
    ("{base}embed_audio_tokens.*", "embeddings are not rotated"),
    ("audio_lm_head.weight", "the output is not rotated"),
    (LAYER + "{audio_mlp,audio_input_layernorm,audio_post_attention_layernorm}.*", _OUTSIDE),
)
STACKS = (
    _pair("t5gemma", "T5Gemma", ("encoder", "decoder"), _T5),
    _pair(
        "t5gemma2",
        "T5Gemma 2",
        ("encoder.text_config", "decoder"),
        (
            *_T5,
            ("{base}encoder.vision_tower.*", "a tower for images, which has no rotation"),
            ("{base}encoder.multi_modal_projector.*", "between a tower and the language model"),
        ),
        norms=True,
        inside="{text_model.,}",
    ),
    _pair(
        "dia",
        "Dia",
        ("encoder_config", "decoder_config"),
        (
            (_BOTH + "layers.{layer}.cross_attention.*", _CROSS),
            (_BOTH + "layers.{layer}.{pre_sa_norm,post_sa_norm,pre_ca_norm,pre_mlp_norm}.weight",
             "acts on the hidden state"),
            (_BOTH + "{embedding,embeddings,norm}.*", _OUTSIDE),
            ("logits_dense.weight", "the output is not rotated"),
        ),
        attention="self_attention.",
    ),
    plain("glm_image_text", "GLM-Image, text"),
    plain("higgs_audio_v2", "Higgs Audio 2", also=SPEAKS),
    plain(
        "voxtral_realtime_text",
        "Voxtral Realtime, text",
        also=((LAYER + "ada_rms_norm.*", _OUTSIDE),),
    ),
    plain(
            "idefics",
            "IDEFICS",
            (*heads(), *head_norms(q="q_layer_norm", k="k_layer_norm")),
            also=(
                ("{base}gated_cross_attn_layers.*", "attention to images has no positions"),
                ("{base}{vision_model,perceiver_resampler}.*",
                 "a tower for images, which has no rotation"),
                ("{base}embed_tokens.additional_embedding.weight", "embeddings are not rotated"),
                ("lm_head.additional_fc.weight", "the output is not rotated"),
            ),
            K="H",
            D="C // H",
        ),
    Family(
        name="csm",
        title="CSM",
        layout=HALF_SPLIT,
        bases=("",),
        rules=(
            *heads("backbone_model.layers.{layer}.self_attn."),
            *stack("depth_decoder.model.layers.{layer}.self_attn.", "depth"),
        ),
        sizes=sizes(**stack_sizes("depth", "depth_decoder_config")),
        stays=(
            *stays("{backbone_model,depth_decoder.model}.layers.{layer}."),
            ("{backbone_model,depth_decoder.model}.norm.weight", _OUTSIDE),
            ("backbone_model.embed_tokens.*", "embeddings are not rotated"),
            ("depth_decoder.{codebooks_head,model.embed_tokens}.*", _OUTSIDE),
            ("depth_decoder.model.inputs_embeds_projector.weight", _OUTSIDE),
            ("embed_text_tokens.weight", "embeddings are not rotated"),
            ("codec_model.*", _CODEC),
        ),
    ),
)  # fmt: skip
