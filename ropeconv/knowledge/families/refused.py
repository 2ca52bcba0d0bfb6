"""Model types that are known and refused, each with its reason."""

from __future__ import annotations

_ALIBI = "it adds ALiBi to its scores and rotates nothing"
_LEARNED = "its positions are learned embeddings; it rotates nothing"
_NONE = "its attention has no positions; it rotates nothing"
_RELATIVE = "it adds relative positions to its scores; it rotates nothing"
_TEXT_NONE = "its language model's attention has no positions; it rotates nothing"
_TEXT_RELATIVE = "its language model adds relative positions to its scores and rotates nothing"
_STATE = "it is a state-space or recurrent model; it rotates nothing"
_BEFORE = "it rotates hidden states before the projection, so columns would move and not rows"
_SHARED = "no table describes its encoder and decoder, whose values are made from key rows"
_ENCODERS = "it scores speech by two encoders that rotate values, too; no table describes them"
_SINUSOIDS = "its positions are sinusoids added to embeddings; it rotates nothing"
_HEAD_NUMBER = (
    "it turns queries and keys by the number of their head, which cancels in every score: no order"
    " of its rows is wrong"
)
_MEMORY = (
    "it rotates queries and its memory of earlier frames, in attention that no table describes"
)
_OTHER = "its positions are not rotary; it rotates nothing"
_TURNED = (
    "its keys are its values, rotated and turned back: beside rows, columns of its output and the"
    " gates of its compressors would have to follow, which no table describes"
)
_OTHER_WAY = (
    "it rotates half-split pairs in the opposite direction: the two rows of each pair would have to"
    " change places too, which no name of a layout says"
)
_WITHOUT = (
    "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "camembert",
    "cpmant", "data2vec-text", "electra", "ernie", "gpt-sw3", "marian", "mbart", "megatron-bert",
    "musicgen", "musicgen_melody", "mvp", "pegasus", "plbart", "prophetnet", "reformer", "rembert",
    "roberta-prelayernorm", "roc_bert", "trocr", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet",
    "xmod",
)  # fmt: skip

REFUSED = {
    **dict.fromkeys(_WITHOUT, _OTHER),
    "bloom": _ALIBI,
    "mpt": _ALIBI,
    "biogpt": _LEARNED,
    "ctrl": _SINUSOIDS,
    "gpt2": _LEARNED,
    "gpt_bigcode": _LEARNED,
    "gpt_neo": _LEARNED,
    "openai-gpt": _LEARNED,
    "opt": _LEARNED,
    "xglm": _SINUSOIDS,
    "bert": _LEARNED,
    "roberta": _LEARNED,
    "bart": _LEARNED,
    "t5": "it adds a learned bias to its scores; it rotates nothing",
    "whisper": _LEARNED,
    "git": _LEARNED,
    "jamba": _NONE,
    "nemotron_h": _NONE,
    "kimi_k3": _NONE,
    "kimi_linear": _NONE,
    "inkling": _RELATIVE,
    "inkling_text": _RELATIVE,
    "glm5_next": _TEXT_NONE,
    "glm5_next_text": _NONE,
    "nemotron_h_omni": _TEXT_NONE,
    "inkling_mm_model": _TEXT_RELATIVE,
    "inkling2": _TEXT_RELATIVE,
    "inkling2_text": _RELATIVE,
    "parakeet": _RELATIVE,
    "nemotron_asr_streaming": _RELATIVE,
    **dict.fromkeys(
        ("parakeet_ctc", "parakeet_encoder", "parakeet_rnnt", "parakeet_tdt"), _RELATIVE
    ),
    "blip": _LEARNED,
    "blip-2": "its language models, OPT and Flan-T5, rotate nothing",
    "florence2": _LEARNED,
    "kosmos-2": _SINUSOIDS,
    "kosmos-2.5": _SINUSOIDS,
    "pix2struct": _RELATIVE,
    "pp_formulanet": "its positions are learned for text and relative for pictures; no row rotates",
    "udop": _RELATIVE,
    "edgetam_video": _MEMORY,
    "sam2_video": _MEMORY,
    "sam3_tracker_video": _MEMORY,
    "efficientloftr": "it rotates the vectors of all heads as one: half-split partners would lie in"
    " other heads",
    "eomt_dinov3": "transformers makes it beside SciPy only, so that no table of it is measured",
    "esmfold2": "it rotates atoms by their places in space, in attention that no table describes",
    "lightglue": "it rotates key points by learned angles, in attention that no table describes",
    "nemotron3_5_transcribe_audio": "it is a part of Nemotron 3.5 Transcribe, never by itself",
    "neucodec": _HEAD_NUMBER,
    "xcodec2": _HEAD_NUMBER,
    "t5_gemma_module": "it is a stack of T5Gemma, which has no checkpoints of its own",
    "vision-encoder-decoder": "its two parts may be of any model type; those that it is published"
    " with rotate nothing",
    "mamba": _STATE,
    "mamba2": _STATE,
    "falcon_mamba": _STATE,
    "rwkv": _STATE,
    "rwkv7": _STATE,
    "xlstm": _STATE,
    "zamba": _NONE,
    "wav2vec2-conformer": _BEFORE,
    "wav2vec2-bert": _BEFORE,
    "seamless_m4t": _BEFORE,
    "seamless_m4t_v2": _RELATIVE,
    "vjepa2": "the two rows of a pair get different angles, which no order of rows can express",
    "deepseek_v4": _TURNED,
    "deepseek_v41": _TURNED,
    "diffusion_gemma": _SHARED,
    "clvp": _ENCODERS,
    "nanochat": _OTHER_WAY,
    "talkie": _OTHER_WAY,
    "zaya": "convolutions over groups of channels lie between its projections and its rotation, and"
    " their inputs and outputs would have to be reordered too",
    # towers of models of vision or sound and language
    **dict.fromkeys(
        (
            "clip_vision_model",
            "siglip_vision_model",
            "siglip2_vision_model",
            "idefics3_vision",
            "smolvlm_vision",
            "internvl_vision",
            "cosmos3_edge_vision",
            "instructblip_vision_model",
            "instructblipvideo_vision_model",
            "minicpm_ocr_vision",
            "minicpmv4_7_vision",
            "molmo2_vision",
            "qianfan_ocr_vision",
        ),
        _LEARNED,
    ),
    "got_ocr2_vision": _RELATIVE,
    "pp_chart2table_vision": _RELATIVE,
    "unlimited_ocr_vision": "one of its encoders has learned positions, the other adds relative"
    " ones to its scores; it rotates nothing",
    "timm_wrapper": "its code is timm's, which no table describes",
    "gemma3n_vision": "it is convolutional, and its attention has no positions; it rotates nothing",
    "gemma3n_audio": "it adds relative positions to its scores; it rotates nothing",
    "gemma4_audio": "it adds relative positions to its scores; it rotates nothing",
    "fun_asr_nano_encoder": _SINUSOIDS,
    **dict.fromkeys(
        ("audioflamingo3_encoder", "voxtral_encoder"),
        "its positions are embeddings added to its input; it rotates nothing",
    ),
}
