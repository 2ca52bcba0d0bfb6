"""Models that hear, look or foretell by themselves, not as the tower of a language model.

Source:
    The modeling files of transformers 5.23; every entry is measured in the tests.
"""

from __future__ import annotations

from ropeconv.knowledge.families.shapes import (
    ENDS,
    FACTOR,
    LAYER,
    head_norms,
    heads,
    sizes,
    stack,
    stack_sizes,
    stays,
)
from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

_OUTSIDE = "outside the attention"


def _alone(
    name: str,
    title: str,
    rules: tuple[Rule, ...],
    also: tuple[tuple[str, str], ...],
    *,
    layout: RopeLayout = HALF_SPLIT,
    bases: tuple[str, ...] = ("model.", ""),
    layer: str = LAYER,
    at: str = "self_attn.",
    **changed: str,
) -> Family:
    return Family(
        name=name,
        title=title,
        layout=layout,
        bases=bases,
        rules=rules,
        sizes=sizes(**changed),
        stays=(*stays(layer, at), *also),
    )


_LASR = (
    (LAYER + "{feed_forward1,feed_forward2,conv}.*", _OUTSIDE),
    (LAYER + "{norm_conv,norm_feed_forward1,norm_feed_forward2,norm_out,norm_self_att}.weight",
     "acts on the hidden state"),
    ("{base}subsampler.*", "before the layers"),
    ("{base}out_norm.weight", "after the layers"),
    ("ctc_head" + ENDS, "the output is not rotated"),
)  # fmt: skip
_MIMI = "{encoder.,decoder.,}{encoder_transformer,decoder_transformer}.layers.{layer}."
_MIMI_STAYS = (
    (_MIMI + "{self_attn_layer_scale,mlp_layer_scale}.scale", "acts on the hidden state"),
    ("{encoder,decoder,downsample,upsample}.*", "convolutions"),
    ("quantizer.*", "makes codes"),
)
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


_BOTH = "{base}{encoder,decoder}."
_CROSS = "attention from one stack to another has no positions"


def _moonshine(
    name: str,
    title: str,
    stacks: str,
    also: tuple[tuple[str, str], ...],
    factor: float,
    **changed: str,
) -> Family:
    """Moonshine rotates the even number of rows that its factor gives, or one more."""
    part = f"({FACTOR} or (1 if rope_parameters else {factor}))"
    return Family(
        name=name,
        title=title,
        layout=INTERLEAVED,
        rules=heads(f"{{base}}{stacks}.layers.{{layer}}.self_attn."),
        sizes=sizes(r=f"(int(D * {part}) + 1) // 2 * 2", **changed),
        stays=(
            *stays(_BOTH + "layers.{layer}."),
            (_BOTH + "layers.{layer}.encoder_attn.*", _CROSS),
            (_BOTH + "layers.{layer}.final_layernorm.weight", "acts on the hidden state"),
            (_BOTH + "{layer_norm,norm,embed_tokens}.weight", _OUTSIDE),
            ("proj_out.weight", "the output is not rotated"),
            *also,
        ),
    )


ALONE = (
    _moonshine(
        "moonshine",
        "Moonshine",
        "{encoder,decoder}",
        (("{base}encoder.{conv1,conv2,conv3,groupnorm}" + ENDS, "before the layers"),),
        0.9,
        H="decoder_num_attention_heads",
        K="H",
        L="decoder_num_hidden_layers",
    ),
    _moonshine(
        "moonshine_streaming",
        "Moonshine streaming",
        "decoder",
        (
            ("{base}encoder.*", "its encoder has windows and no positions"),
            ("{base}decoder.{pos_emb,proj}.weight", "between the stacks"),
        ),
        0.8,
    ),
    _alone(
        "lasr_encoder",
        "LASR, encoder",
        heads(),
        _LASR,
        bases=("encoder.", ""),
    ),
    _alone(
        "lasr_ctc",
        "LASR",
        heads(),
        _LASR,
        bases=("encoder.", ""),
        C="encoder_config.hidden_size",
        H="encoder_config.num_attention_heads",
        L="encoder_config.num_hidden_layers",
        K="encoder_config.num_key_value_heads or H",
        D="encoder_config.head_dim or C // H",
    ),
    _alone("mimi", "Mimi", heads(_MIMI + "self_attn."), _MIMI_STAYS, layer=_MIMI),
    _alone(
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
    _alone(
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
