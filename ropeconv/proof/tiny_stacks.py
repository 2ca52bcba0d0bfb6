"""Sizes of tiny encoders, and of tiny models of several stacks: further entries of `tiny_models`.

Stacks differ in heads and sizes where their model lets them, so that a rule that takes one stack's
sizes for another's is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_KINDS = ["sliding_attention", "full_attention"]
_EACH_KIND = dict.fromkeys(_KINDS, _ROPE)


def _stack(heads: int, keys: int, layers: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"hidden_size": 60, "num_attention_heads": heads, "num_key_value_heads": keys,
            "head_dim": 10, "intermediate_size": 22, "num_hidden_layers": layers, "vocab_size": 51,
            "rope_parameters": _ROPE, **more}  # fmt: skip


FURTHER: dict[str, dict[str, Any]] = {
    "csm": {
        "depth_decoder_config": _stack(4, 2, 2, backbone_hidden_size=60, num_codebooks=3),
        "codec_config": {"hidden_size": 8, "num_filters": 2, "upsampling_ratios": [2],
                         "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4,
                         "num_key_value_heads": 2, "intermediate_size": 8, "codebook_size": 4,
                         "codebook_dim": 4, "vector_quantization_hidden_dimension": 4,
                         "num_quantizers": 2, "upsample_groups": 8},
        "text_vocab_size": 51, "num_codebooks": 3,
    },
    "dia": {
        "encoder_config": _stack(6, 6, 3),
        "decoder_config": _stack(4, 2, 2, cross_num_attention_heads=3, cross_head_dim=8,
                                 cross_num_key_value_heads=3, cross_hidden_size=60,
                                 num_channels=3, pad_token_id=0, eos_token_id=2, bos_token_id=1),
        "delay_pattern": [0, 1, 2],
    },
    "embedding_gemma2_text": {
        "layer_types": _KINDS * 2,
        "per_layer_config": {at: {"head_dim": 12, "num_key_value_heads": 1} for at in (1, 3)},
        "hidden_size_per_layer_input": 6,
        "embedding_dim": 8,
        "rope_parameters": _EACH_KIND,
    },
    "esm": {"position_embedding_type": "rotary"},
    "esmc": {"num_key_value_heads": 6, "attention_bias": True},
    "glm_image_text": {
        "rope_parameters": {**_ROPE, "mrope_section": [2, 2, 1]},
        "vision_vocab_size": 51,
    },
    "higgs_audio_v2": {"rope_parameters": _ROPE, "codebook_size": 8, "num_codebooks": 2},
    "idefics": {
        "num_key_value_heads": 6, "qk_layer_norms": True, "cross_layer_interval": 2,
        "vision_config": {"embed_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "intermediate_size": 8, "image_size": 8, "patch_size": 4},
    },
    "t5gemma": {"encoder": _stack(6, 2, 3), "decoder": _stack(4, 4, 2), "vocab_size": 51},
    "t5gemma2": {
        "encoder": {"text_config": _stack(6, 2, 3, rope_parameters=_EACH_KIND),
                    "vision_config": {"hidden_size": 8, "intermediate_size": 8, "image_size": 8,
                                      "num_hidden_layers": 1, "num_attention_heads": 2,
                                      "patch_size": 4, "vocab_size": 51}},
        "decoder": _stack(6, 2, 2, rope_parameters=_EACH_KIND),
    },
    "ultrabert": {"layer_types": _KINDS * 2, "attention_bias": True},
}  # fmt: skip


def _frames(config: Any, ids: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers' and torch's
    """CSM's second decoder says the codes of every token but the first, where labels ask it to."""
    codes = ids[..., None].expand(*ids.shape, config.num_codebooks)
    labels = codes.clone()
    labels[:, 0] = -100
    return {"input_ids": codes, "labels": labels}


def _channels(config: Any, ids: Any) -> dict[str, Any]:  # noqa: ANN401
    codes = config.decoder_config.num_channels
    return {"decoder_input_ids": ids[..., None].expand(*ids.shape, codes)}


def _with_picture(config: Any, ids: Any) -> dict[str, Any]:  # noqa: ANN401
    """IDEFICS does not read without one."""
    shape = len(ids), 1, 3, config.vision_config.embed_dim
    return {
        "image_encoder_embeddings": ids.new_ones(shape).double(),
        "image_attention_mask": ids.new_ones(*ids.shape, 1),
    }


def _with_delay(config: Any, ids: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"t_cond": ids.new_ones(1, config.hidden_size).double()}


READING: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "csm": _frames,
    "dia": _channels,
    "idefics": _with_picture,
    "voxtral_realtime_text": _with_delay,
}
