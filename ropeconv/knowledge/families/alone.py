"""Models that hear, look or foretell by themselves, not as the tower of a language model.

Source:
    The modeling files of transformers 5.23; every entry is measured in the tests.
"""

from __future__ import annotations

from dataclasses import replace

from ropeconv.knowledge.families.shapes import (
    BLOCKS,
    ENDS,
    FACTOR,
    IN_BLOCKS,
    LAYER,
    fused,
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
    layer_sizes: tuple[tuple[str, str], ...] = (),
    **changed: str,
) -> Family:
    return Family(
        layer_sizes=layer_sizes,
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


_FLOW = (
    ("{flow_head,loss_weighting,eos_head}.*", "makes sound of hidden states"),
    ("{latent_mean,latent_std,latent_stats_num_updates}", "makes sound of hidden states"),
    ("{base}{audio_latent_proj,audio_prompt_proj}.weight", "before the layers"),
    ("{base}bos_latent", "before the layers"),
)
# files have Gradium's own names and rows: transformers takes them apart and reorders them
_GRADIUM = "flow_lm.transformer.layers.{layer}."
_SAM = "{base}vision_encoder.backbone.layers.{layer}."
_FULL = "layer < (num_first_full_attention_layers or 8)"
_SAPIENS_K = (
    "num_key_value_heads_per_layer[layer] if num_key_value_heads_per_layer else"
    f" H if {_FULL} or not layer < L - (num_last_full_attention_layers or 8) else"
    " num_key_value_attention_heads or 8"
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
        "nemotron3_diarization",
        "Nemotron 3 diarization",
        heads(),
        (
            (LAYER + "{layer_norm1,layer_norm2}" + ENDS, "acts on the hidden state"),
            ("{base}{embedder.projection,input_layer_norm,layer_norm}" + ENDS, _OUTSIDE),
            ("{model.,}{proj,upsampler.conv}" + ENDS, "after the layers"),
            ("{classifier.dense,classifier.out_proj}" + ENDS, "the output is not rotated"),
            ("silence_embeds", "embeddings are not rotated"),
        ),
        bases=("model.audio_tower.", "audio_tower."),
        C="audio_config.hidden_size",
        H="audio_config.num_attention_heads",
        K="audio_config.num_key_value_heads or H",
        D="audio_config.head_dim or C // H",
        L="audio_config.num_hidden_layers",
    ),
    _alone("pocket_tts", "Pocket TTS", heads(), _FLOW),
    _alone(
        "pocket_tts_audio_tokenizer",
        "Pocket TTS, codes of sound",
        heads(_MIMI + "self_attn."),
        (*_MIMI_STAYS, ("latent_proj.weight", "between the stacks")),
        layer=_MIMI,
    ),
    Family(
        name="gradium_phonon_tts",
        title="Gradium Phonon TTS",
        layout=INTERLEAVED,
        bases=("",),
        rules=fused(_GRADIUM + "self_attn.in_proj", BLOCKS, IN_BLOCKS),
        sizes=sizes(),
        stays=(
            (_GRADIUM + "self_attn.out_proj" + ENDS, "reads values"),
            (_GRADIUM + "{linear1,linear2,norm1,norm2}" + ENDS, _OUTSIDE),
            ("flow_lm.{condition_provider,flow_net,input_linear,out_eos,out_norm}.*", _OUTSIDE),
            ("flow_lm.{bos_emb,emb_mean,emb_std}", _OUTSIDE),
            ("loss_weighting.*", _OUTSIDE),
            ("latent_stats_num_updates", _OUTSIDE),
            ("mimi.*", "makes sound of codes: a model of its own, which keeps its layout"),
        ),
    ),
    _alone(
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
    _alone(
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
            ("{base}blocks.{layer}.ffn.*", _OUTSIDE),
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
