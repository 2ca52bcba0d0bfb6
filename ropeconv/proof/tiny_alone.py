"""Tiny models that hear, look or foretell by themselves, and what each is given.

Sizes are those of tiny towers, but for what stands here.
"""

from __future__ import annotations

from typing import Any

from ropeconv.proof.tiny_inputs import CHANNELS, MELS, PATCH, SIDE, Kind, noise, numbers

_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_TEXT: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
         "num_attention_heads": 2, "vocab_size": 11, "pad_token_id": 0}  # fmt: skip
_NEXT = (0, 1)  # tokens in a row
_CODEC = {
    "num_filters": 2, "upsampling_ratios": [2], "codebook_size": 4, "codebook_dim": 4,
    "vector_quantization_hidden_dimension": 4, "num_quantizers": 2, "upsample_groups": 36,
    "num_key_value_heads": 3, "attention_bias": False,
}  # fmt: skip
_SAM = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 20, "num_layers": 1,
        "dropout": 0.0}  # fmt: skip
_PE = {
    "hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12,
    "num_hidden_layers": 1, "intermediate_size": 20,
}  # fmt: skip
_PE_AUDIO = {
    **_PE,
    "dac_config": {"encoder_hidden_size": 2, "hidden_size": 4, "codebook_dim": 2,
                   "downsampling_ratios": [2], "hop_length": 2},
}  # fmt: skip
_PE_VIDEO = {**_PE, "num_attention_heads": 4, "num_key_value_heads": 4}
_PE_TEXT = {**_TEXT, "model_type": "modernbert"}

ALONE_SIZES: dict[str, dict[str, Any]] = {
    "lasr_ctc": {
        "encoder_config": {
            "hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 6,
            "num_hidden_layers": 2, "intermediate_size": 20, "num_mel_bins": MELS,
            "subsampling_conv_channels": 4, "conv_kernel_size": 3,
        },
        "vocab_size": 11, "pad_token_id": 0,
    },
    "lasr_encoder": {"num_attention_heads": 6, "num_key_value_heads": 2,
                     "subsampling_conv_channels": 4, "conv_kernel_size": 3},
    "mimi": _CODEC,
    "moonshine": {
        "encoder_num_attention_heads": 3, "decoder_num_attention_heads": 3,
        "encoder_num_key_value_heads": 3, "decoder_num_key_value_heads": 3,
        "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 1, "vocab_size": 11,
        "pad_token_id": 0,
    },
    "moonshine_streaming": {
        "num_attention_heads": 3, "num_key_value_heads": 3, "vocab_size": 11,
        "encoder_config": {"hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 3,
                           "head_dim": 12, "num_hidden_layers": 1, "intermediate_size": 20,
                           "sliding_windows": [[4, 1]]},
    },
    "muse_glimmer_assistant": {"num_attention_heads": 6, "num_key_value_heads": 2,
                               "layer_types": ["full_attention"], "attention_bias": False},
    "pe_audio": {"audio_config": _PE_AUDIO, "text_config": _PE_TEXT},
    "pe_audio_video": {
        "audio_video_config": {**_PE, "num_key_value_heads": 3, "audio_config": _PE_AUDIO,
                               "video_config": _PE_VIDEO},
        "text_config": _PE_TEXT,
    },
    "pe_video": {"video_config": _PE_VIDEO, "text_config": _PE_TEXT},
    "nemotron3_5_transcribe_word_timestamp": {"vocab_size": 11, "blank_token_id": 10},
    "nemotron3_diarization": {
        "audio_config": {"hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 3,
                         "head_dim": 12, "num_hidden_layers": 2, "intermediate_size": 20,
                         "num_mel_bins": MELS},
        "head_config": {"audio_hidden_size": 36, "hidden_size": 8},
    },
    "pocket_tts": {
        "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 51, "latent_dim": 4,
        "pad_token_id": 0, "audio_prompt_token_id": 47, "audio_latent_token_id": 48,
        "audio_prompt_bos_token_id": 49, "audio_bos_token_id": 50,
        "flow_head_config": {"hidden_size": 8, "num_hidden_layers": 1, "latent_dim": 4,
                             "condition_dim": 36, "frequency_embedding_size": 4},
    },
    "pocket_tts_audio_tokenizer": {
        "num_filters": 2, "upsampling_ratios": [2], "upsample_groups": 36, "latent_dim": 4,
        "attention_bias": False,
    },
    "sam3": {
        "image_size": 56,
        "vision_config": {
            "backbone_config": {"model_type": "sam3_vit_model", "hidden_size": 36,
                                "intermediate_size": 20, "num_hidden_layers": 1,
                                "num_attention_heads": 3, "image_size": 56, "patch_size": 14,
                                "pretrain_image_size": 28, "window_size": 2,
                                "global_attn_indexes": [0]},
            "fpn_hidden_size": 32,
        },
        "text_config": {**_TEXT, "projection_dim": 8},
        "geometry_encoder_config": _SAM,
        "detr_encoder_config": _SAM,
        "detr_decoder_config": {**_SAM, "num_queries": 3},
        "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2,
                                "num_upsampling_stages": 2},
    },
    "sapiens2": {"num_hidden_layers": 2, "num_register_tokens": 2,
                 "num_key_value_heads_per_layer": [3, 1]},
    "timesfm2_5": {"patch_length": 4, "context_length": 16, "horizon_length": 4,
                   "num_key_value_heads": 3},
}  # fmt: skip


def _wave(frames: int) -> Any:  # noqa: ANN401
    return {"input_values": noise(1, frames)}


def _spoken(frames: int) -> dict[str, Any]:
    return {**_wave(frames), "decoder_input_ids": numbers([3, 7, 4, 9])}


def _vit(config: Any) -> None:  # noqa: ANN401 - transformers' own
    """PE's eyes are timm's by default, which is a package of its own; these are transformers'."""
    from transformers import CONFIG_MAPPING  # noqa: PLC0415

    video = getattr(config, "audio_video_config", config).video_config
    sizes = {**_TEXT, "image_size": PATCH * SIDE, "patch_size": PATCH, "num_labels": 5}
    video.vision_config = CONFIG_MAPPING["vit"](**sizes)


_FILM = (1, 4, CHANNELS, PATCH * SIDE, PATCH * SIDE)
ALONE = {
    "lasr_ctc": Kind(
        model="LasrForCTC", inputs=lambda: {"input_features": noise(1, 40, MELS)}, places=_NEXT
    ),
    "lasr_encoder": Kind(
        model="LasrEncoder", inputs=lambda: {"input_features": noise(1, 40, MELS)}, places=_NEXT
    ),
    "mimi": Kind(model="MimiModel", inputs=lambda: {"input_values": noise(1, 1, 64)}, places=_NEXT),
    "moonshine": Kind(
        model="MoonshineForConditionalGeneration", inputs=lambda: _spoken(4000), places=_NEXT
    ),
    "moonshine_streaming": Kind(
        model="MoonshineStreamingForConditionalGeneration",
        inputs=lambda: _spoken(80 * 16),
        places=_NEXT,
    ),
    "muse_glimmer_assistant": Kind(
        model="MuseGlimmerAssistantModel",
        inputs=lambda: {
            "noise_embeds": noise(1, 4, 36),
            "context_hidden_states": noise(1, 3, 36 * 5),
        },
        places=_NEXT,
    ),
    "nemotron3_5_transcribe_asr_audio": Kind(
        model="Nemotron3_5TranscribeAsrAudioModel",
        inputs=lambda: {"input_features": noise(1, 64, MELS)},
        places=_NEXT,
    ),
    "nemotron3_5_transcribe_word_timestamp": Kind(
        model="Nemotron3_5TranscribeWordTimestampModel",
        inputs=lambda: {"inputs_embeds": noise(1, 4, 36)},
        places=_NEXT,
    ),
    "nemotron3_diarization": Kind(
        model="Nemotron3DiarizationForAudioFrameClassification",
        inputs=lambda: {"input_features": noise(1, 64, MELS)},
        places=_NEXT,
    ),
    "pocket_tts": Kind(
        model="PocketTTSForConditionalGeneration",
        inputs=lambda: {"input_ids": numbers([3, 7, 4, 9]), "use_cache": False},
        places=_NEXT,
    ),
    "pocket_tts_audio_tokenizer": Kind(
        model="PocketTTSAudioTokenizerModel",
        inputs=lambda: {"input_values": noise(1, 1, 256)},
        places=_NEXT,
    ),
    "sam3": Kind(
        model="Sam3Model",
        inputs=lambda: {
            "pixel_values": noise(1, CHANNELS, 14 * SIDE, 14 * SIDE),
            "input_ids": numbers([3, 7, 4]),
            "attention_mask": numbers([1, 1, 1]),
        },
    ),
    # its positions go from -1 to 1, as DINOv3's; three tokens stand before the patches
    "sapiens2": Kind(
        model="Sapiens2Model",
        inputs=lambda: {"pixel_values": noise(1, CHANNELS, PATCH * (SIDE + 2), PATCH * (SIDE + 2))},
        places=(3, 3 + SIDE + 3),
    ),
    "pe_audio": Kind(
        model="PeAudioModel",
        inputs=lambda: {"input_ids": numbers([3, 7, 4]), "input_values": noise(1, 1, 16)},
        places=_NEXT,
    ),
    "pe_audio_video": Kind(
        model="PeAudioVideoModel",
        inputs=lambda: {
            "input_ids": numbers([3, 7, 4]),
            "input_values": noise(1, 1, 8),
            "pixel_values_videos": noise(*_FILM),
        },
        places=_NEXT,
        put=_vit,
    ),
    "pe_video": Kind(
        model="PeVideoModel",
        inputs=lambda: {
            "input_ids": numbers([3, 7, 4]),
            "pixel_values_videos": noise(*_FILM),
        },
        places=_NEXT,
        put=_vit,
    ),
    "timesfm2_5": Kind(
        model="TimesFm2_5ModelForPrediction",
        inputs=lambda: {"past_values": [noise(16)]},
        places=_NEXT,
    ),
}
