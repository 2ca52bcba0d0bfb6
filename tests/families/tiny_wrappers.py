"""Tiny random models of vision or sound and language, each of its own class in transformers.

The language model is the tiny one of its own type; towers have 3 heads of 12 rows.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

from ropeconv.knowledge.families.composite import COMPOSITE
from ropeconv.knowledge.family import Tower
from ropeconv.proof.family_probe import part_of
from ropeconv.proof.tiny_models import tiny_config
from tests.families.cases import TOKENS

TOWER = {
    "hidden_size": 36, "embed_dim": 36, "num_hidden_layers": 2, "depth": 2, "head_dim": 12,
    "num_attention_heads": 3, "num_key_value_heads": 3, "num_heads": 3, "intermediate_size": 24,
    "image_size": 28, "patch_size": 14, "out_hidden_size": 60, "output_hidden_size": 60,
    "num_position_embeddings": 16, "deepstack_visual_indexes": [0], "fullatt_block_indexes": [0],
    "num_mel_bins": 5, "mlp_dim": 24, "window_size": 2, "global_attn_indexes": [0],
    "output_channels": 12, "projector_input_dim": 8, "projector_output_dim": 8,
    "vision_output_dim": 8, "max_source_positions": 16, "text_hidden_size": 60,
    "encoder_layers": 2, "d_model": 36, "encoder_attention_heads": 3, "encoder_ffn_dim": 24,
}  # fmt: skip
_SAM = {
    "hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 32,
    "patch_size": 16, "window_size": 2, "global_attn_indexes": [0], "output_channels": 4,
    "mlp_dim": 8,
}  # fmt: skip
_QFORMER = {
    "hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 51,
    "intermediate_size": 24, "encoder_hidden_size": 36,
}  # fmt: skip
_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 36, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 24, "image_size": 28, "patch_size": 14,
}  # fmt: skip
_QWEN = {
    "hidden_size": 36, "depth": 2, "num_heads": 3, "intermediate_size": 24, "patch_size": 14,
    "out_hidden_size": 60, "num_position_embeddings": 16,
}  # fmt: skip
_SPEECH = {
    "encoder_config": {
        "num_layers": 2, "hidden_dim": 36, "num_heads": 3, "dim_head": 12, "input_dim": 10,
        "context_size": 8, "max_pos_emb": 8,
    },
    "projector_config": _QFORMER,
}  # fmt: skip
_GEMMA = {
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "num_hidden_layers": 4,
    "intermediate_size": 22, "vocab_size": 51,
}  # fmt: skip
# where the default language model rotates nothing
TEXTS = {"instructblip": "llama", "instructblipvideo": "llama"}
# further keys, where the defaults are those of a large model or do not go together
SPECIAL: dict[str, dict[str, Any]] = {
    "cohere2_vision": {"alignment_intermediate_size": 24},
    "cosmos3_edge": {"projector_hidden_size": 24, "vision_config": {"num_patches": 4}},
    "cosmos3_omni": {"vision_config": {**_QWEN, "deepstack_visual_indexes": [0]}},
    "deepseek_ocr2": {
        "vision_config": {"sam_config": {**_SAM, "downsample_channels": [8, 36]}},
    },
    "deepseek_vl_hybrid": {"high_res_vision_config": _SAM},
    "dots3_note": {
        "vision_config": {
            "per_layer_config": {}, "mlp_layer_types": ["dense"] * 2,
            "adapter_in_dim": 36, "adapter_out_dim": 60, "adapter_input_size": 36,
        },
        "audio_config": {
            "adapter_out_dim": 60, "downsample_hidden_size": 12, "adapter_input_size": 36,
        },
    },
    "emu3": {
        "vq_config": {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1,
                      "attn_resolutions": [], "codebook_size": 8},
        "vocabulary_map": {"<|extra_200|>": 1, "<image>": 2, "<|visual token 000000|>": 3},
    },
    # whose own towers are timm's
    "fast_vlm": {"vision_config": _CLIP},
    "perception_lm": {"vision_config": {**_CLIP, "model_args": {"embed_dim": 36}}},
    "fuyu": {"patch_size": 2},
    "granite4_vision": {
        "downsample_rate": "1/2", "deepstack_layer_map": [[0, 1]], "qformer_config": _QFORMER,
        "spatial_target_layers": [2],
        "vision_config": {"hidden_size": 64, "num_attention_heads": 2},  # 64 rows of a head
    },
    "granite_speech": _SPEECH,
    "granite_speech_plus": _SPEECH,
    "fun_asr_nano": {"adaptor_config": {"hidden_size": 60, "intermediate_size": 15,
                                        "num_hidden_layers": 1, "num_attention_heads": 3},
                     "audio_config": {"num_mel_bins": 6}},
    "glm_image": {
        "vision_config": {"num_heads": 3},
        "vq_config": {"embed_dim": 8, "num_embeddings": 16, "latent_channels": 36},
    },
    "vibevoice_asr": {
        f"{name}_tokenizer_encoder_config": {
            "hidden_size": 8, "num_filters": 2, "downsampling_ratios": [2], "depths": [1, 1],
        }
        for name in ("acoustic", "semantic")
    },
    "idefics2": {"perceiver_config": {"resampler_depth": 1, "resampler_head_dim": 12}},
    "instructblip": {"qformer_config": _QFORMER, "num_query_tokens": 1, "image_token_index": 3},
    "instructblipvideo": {
        "qformer_config": _QFORMER, "num_query_tokens": 1, "video_token_index": 3,
    },
    "janus": {
        "vision_config": {"projection_dim": 60},
        "vq_config": {
            "base_channels": 32, "latent_channels": 8, "num_embeddings": 16, "projection_dim": 60,
            "image_token_embed_dim": 60, "channel_multiplier": [1, 1], "num_res_blocks": 1,
        },
    },
    "lfm2_vl": {"projector_hidden_size": 24},
    "lfm3_vl": {
        "projector_hidden_size": 24, "vision_config": {"layer_types": ["conv", "full_attention"]},
    },
    "llama4": {"vision_config": {"intermediate_size": 144}},
    "minimax_m3_vl": {"projector_hidden_size": 24},
    "molmo2": {
        "vision_config": {"image_size": [28, 28], "num_position_embeddings": 4},
        "adapter_config": {
            "vision_feature_layer": [0, 1], "hidden_size": 36, "num_attention_heads": 3,
            "num_key_value_heads": 3, "head_dim": 12, "intermediate_size": 24,
            "text_hidden_size": 60,
        },
    },
    "muse_glimmer": {
        "out_hidden_size": 144, "projector_hidden_size": 24,
        "vision_config": {"layer_types": ["window_attention", "full_attention"]},
    },
    "muse_spark": {
        "out_hidden_size": 144, "projector_hidden_size": 24,
        "vision_config": {"layer_types": ["window_attention", "full_attention"]},
        "audio_config": {"hidden_sizes": [12, 12], "depths": [1, 1], "patch_sizes": [16, 6],
                         "out_hidden_size": 60},
    },
    "pi0": {
        "dit_config": {**_GEMMA, "hidden_size": 40}, "chunk_size": 3, "max_state_dim": 5,
        "max_action_dim": 7, "vlm_config": {"image_token_id": 3, "projection_dim": 60},
    },
    "shieldgemma2": {"yes_token_index": 7, "no_token_index": 9},
    "unlimited_ocr": {
        "vision_config": {
            "sam_config": {**_SAM, "downsample_channels": [8, 36]}, "encoder_config": {**_CLIP},
        },
    },
    "ovis2": {"vision_config": {"vocab_size": 51}, "hidden_size": 60, "vocab_size": 51},
}  # fmt: skip
AUTO = (
    "AutoModelForImageTextToText",
    "AutoModelForMultimodalLM",
    "AutoModelForSpeechSeq2Seq",
    "AutoModel",
)
# what a model must have beside tokens: pictures, and others by their shapes
PICTURES: dict[str, dict[str, tuple[int, ...]]] = {
    "instructblip": {"pixel_values": (1, 3, 28, 28)},
    "instructblipvideo": {"pixel_values": (1, 1, 3, 28, 28)},
    "voxtral_realtime": {"input_features": (1, 5, 64)},
    "pi0": {"pixel_values": (1, 1, 3, 28, 28), "state": (1, 5), "noise": (1, 3, 7),
            "timestep": (1,)},
}  # fmt: skip
FURTHER: dict[str, dict[str, torch.Tensor]] = {
    "instructblip": {"qformer_input_ids": TOKENS},
    "instructblipvideo": {"qformer_input_ids": TOKENS},
    "pi0": {"attention_mask": torch.ones_like(TOKENS),
            "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool)},
}  # fmt: skip
CHOICES = {"attn_implementation": "eager", "experts_implementation": "eager"}


def inputs_of(model_type: str) -> dict[str, Any]:
    """Text alone, but for models that read nothing without a picture: they get one."""
    shapes = PICTURES.get(model_type, {})
    noise = torch.Generator().manual_seed(5)
    found = {
        key: torch.randn(shape, generator=noise, dtype=torch.float64)
        for key, shape in shapes.items()
    }
    return {"input_ids": TOKENS, **found, **FURTHER.get(model_type, {})}


def tiny_wrapper(name: str) -> Any:
    """A tiny model of the wrapper's own class; every tensor has numbers of its own."""
    kind = transformers.CONFIG_MAPPING[name]
    (family,) = (family for family in COMPOSITE if family.name == name)
    plain = kind()
    text = TEXTS.get(name) or part_of(plain, family.inner).model_type
    changed: dict[str, Any] = {}
    _put(changed, plain, family.inner, tiny_config(text).to_dict())
    for tower in family.towers:
        _put(changed, plain, tower.key, _tiny_tower(tower, part_of(plain, tower.key)))
    for key, value in SPECIAL.get(name, {}).items():
        if isinstance(value, dict):
            before = changed.get(key) or getattr(plain, key) or {}
            before = before if isinstance(before, dict) else before.to_dict()
            changed[key] = before | value
        else:
            changed[key] = value
    config = kind(**changed)
    torch.manual_seed(0)
    model = _made(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return model.eval()


def _put(changed: dict[str, Any], plain: Any, path: str, value: Any) -> None:
    """Set what lies at a path of keys, with the plain config's values for what lies around it."""
    first, _, inner = path.partition(".")
    if inner:
        changed.setdefault(first, getattr(plain, first).to_dict())[inner] = value
    else:
        changed[first] = value


def _tiny_tower(tower: Tower, plain: Any) -> Any:
    if plain is None and tower.family is not None:
        plain = transformers.CONFIG_MAPPING[tower.family.name]()
    if plain is None:
        return None  # Gemma 4 may come without ears
    own = plain.to_dict()
    own.pop("layer_types", None)  # one for each layer
    return own | {key: value for key, value in TOWER.items() if key in own}


def _made(config: Any) -> Any:
    for auto in ("AutoModelForImageClassification", *AUTO):
        kinds = getattr(transformers, auto)._model_mapping
        if type(config) in kinds:
            return kinds[type(config)]._from_config(config, **CHOICES)
    raise AssertionError(type(config))
