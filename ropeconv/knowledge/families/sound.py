"""Models that hear or speak by themselves: recognition of speech, codes of sound, voices.

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
    part,
    sizes,
    stack_sizes,
    stays,
)
from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

OUTSIDE = "outside the attention"


def alone(
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
    """The most common form, with what else stays."""
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
    (LAYER + "{feed_forward1,feed_forward2,conv}.*", OUTSIDE),
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
_BOTH = "{base}{encoder,decoder}."
_CROSS = "attention from one stack to another has no positions"


def _moonshine(
    name: str,
    title: str,
    stacks: str,
    also: tuple[tuple[str, str], ...],
    factor: float,
    needs: tuple[tuple[str, str], ...] = (),
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
            (_BOTH + "{layer_norm,norm,embed_tokens}.weight", OUTSIDE),
            ("proj_out.weight", "the output is not rotated"),
            *also,
        ),
        needs=needs,
    )


_FLOW = (
    ("{flow_head,loss_weighting,eos_head}.*", "makes sound of hidden states"),
    ("{latent_mean,latent_std,latent_stats_num_updates}", "makes sound of hidden states"),
    ("{base}{audio_latent_proj,audio_prompt_proj}.weight", "before the layers"),
    ("{base}bos_latent", "before the layers"),
)
# files have Gradium's own names and rows: transformers takes them apart and reorders them
_GRADIUM = "flow_lm.transformer.layers.{layer}."
# NVIDIA's own names: three stacks, each with one matrix that transformers takes apart
_NEMO = {
    "perception.encoder.asr_encoder": "asr",
    "perception.encoder.diarization_model.encoder": "who",
    "ctc_timestamp.decoder.transformer": "when",
}
_NEMO_AT = f"{{{','.join(_NEMO)}}}.layers.{{layer}}."
_NEMO_SIZES = sizes(
    C="Casr",
    H="Hasr",
    K="Kasr",
    D="Dasr",
    L="Lasr",
    **stack_sizes(
        "asr",
        "audio_config.asr_config",
        r="int(Dasr * (audio_config.asr_config.rope_parameters.partial_rotary_factor or 0.5))",
    ),
    **stack_sizes("who", "audio_config.diarization_config.audio_config", r="Dwho"),
    **stack_sizes(
        "when",
        "word_timestamp_config",
        r="int(Dwhen * (word_timestamp_config.rope_parameters.partial_rotary_factor or 0.5))",
    ),
)


def _nemo(at: str, word: str) -> tuple[Rule, ...]:
    """The rules of one of its stacks."""
    head = f"Rope(r{word}), Keep(D{word} - r{word})"
    depth = f"L{word}"
    attention = f"{at}.layers.{{layer}}.attn."
    rows = f"Repeat(H{word}, {head}), Repeat(K{word}, {head}), Keep(K{word} * D{word})"
    return (
        *(replace(rule, depth=depth) for rule in fused(attention + "w_qkv", rows, IN_BLOCKS)),
        *(replace(rule, rows=head, depth=depth) for rule in head_norms(attention)),
    )


SOUND = (
    _moonshine(
        "moonshine",
        "Moonshine",
        "{encoder,decoder}",
        (("{base}encoder.{conv1,conv2,conv3,groupnorm}" + ENDS, "before the layers"),),
        0.9,
        (
            (
                "(encoder_num_attention_heads or H) == H",
                "its encoder and decoder have other numbers of heads, which no table describes",
            ),
        ),
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
    alone(
        "lasr_encoder",
        "LASR, encoder",
        heads(),
        _LASR,
        bases=("encoder.", ""),
    ),
    alone(
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
    alone("mimi", "Mimi", heads(_MIMI + "self_attn."), _MIMI_STAYS, layer=_MIMI),
    alone(
        "nemotron3_diarization",
        "Nemotron 3 diarization",
        heads(),
        (
            (LAYER + "{layer_norm1,layer_norm2}" + ENDS, "acts on the hidden state"),
            ("{base}{embedder.projection,input_layer_norm,layer_norm}" + ENDS, OUTSIDE),
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
    *(
        alone(
            f"nemotron3_5_transcribe_{name}",
            f"Nemotron 3.5 Transcribe, {title}",
            (*heads(), *head_norms()),
            (
                (LAYER + "{layer_norm1,layer_norm2}" + ENDS, "acts on the hidden state"),
                ("{base}{embedder.projection,upsampler,input_layer_norm,layer_norm}" + ENDS,
                 OUTSIDE),
            ),
            bases=("",),
            r=part(0.5),
        )
        for name, title in (("asr_audio", "sound"), ("word_timestamp", "times of words"))
    ),
    Family(
        name="nemo_speechlm",
        title="Nemotron 3.5 Transcribe",
        layout=HALF_SPLIT,
        bases=("",),
        rules=tuple(rule for at, word in _NEMO.items() for rule in _nemo(at, word)),
        sizes=_NEMO_SIZES,
        stays=(
            (_NEMO_AT + "attn.out_proj" + ENDS, "reads values"),
            (_NEMO_AT + "{norm1,norm2}" + ENDS, "acts on the hidden state"),
            (_NEMO_AT + "ffn.*", OUTSIDE),
            ("llm.*", "the language model's attention has no positions"),
            ("perception.{proj,featurizer}.*", "before or after the encoders"),
            ("perception.encoder.{asr_norm,diar_norm}" + ENDS, "after the encoders"),
            ("perception.encoder.asr_encoder.{pre_encode,embed_norm,final_norm}.*", OUTSIDE),
            ("perception.encoder.diarization_model.encoder.{pre_encode,embed_norm,final_norm}.*",
             OUTSIDE),
            ("perception.encoder.diarization_model.sortformer_modules.*", OUTSIDE),
            ("ctc_timestamp.decoder.{decoder_layers,upsample}.*", OUTSIDE),
            ("ctc_timestamp.decoder.transformer.{embed_norm,final_norm}.*", OUTSIDE),
        ),
    ),
    alone("pocket_tts", "Pocket TTS", heads(), _FLOW),
    alone(
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
            (_GRADIUM + "{linear1,linear2,norm1,norm2}" + ENDS, OUTSIDE),
            ("flow_lm.{condition_provider,flow_net,input_linear,out_eos,out_norm}.*", OUTSIDE),
            ("flow_lm.{bos_emb,emb_mean,emb_std}", OUTSIDE),
            ("loss_weighting.*", OUTSIDE),
            ("latent_stats_num_updates", OUTSIDE),
            ("mimi.*", "makes sound of codes: a model of its own, which keeps its layout"),
        ),
    ),
)  # fmt: skip
