"""Tiny random towers of transformers' model types, and a picture or a sound for each.

3 heads of 12 rows and a hidden size of 36 tell heads from rows; where queries and keys may have
different numbers of heads, two share one. A picture has 4 by 4 patches.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ropeconv.proof.tiny_alone import ALONE, ALONE_SIZES
from ropeconv.proof.tiny_inputs import CHANNELS, MELS, PATCH, SIDE, Kind, noise, numbers
from ropeconv.proof.tiny_models import made_config

if TYPE_CHECKING:
    from torch import Tensor

SIZES: dict[str, Any] = {
    "hidden_size": 36,
    "embed_dim": 36,
    "out_hidden_size": 36,
    "num_heads": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 12,
    "depth": 1,
    "num_hidden_layers": 1,
    "intermediate_size": 20,
    "patch_size": PATCH,
    "image_size": PATCH * SIDE,
    "temporal_patch_size": 1,
    "window_size": PATCH * SIDE,
    "num_position_embeddings": SIDE * SIDE,
    "position_embedding_size": SIDE,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
    "pooling_kernel_size": 2,
    "num_mel_bins": MELS,
    "projector_input_dim": 8,
    "projector_output_dim": 8,
    "vision_output_dim": 8,
    "key_bias": True,
    "attention_bias": True,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "exaone4_5_vision": {"num_heads": 6, "num_attention_heads": 6, "hidden_size": 72},
    "gemma4_vision": {"num_attention_heads": 6},
    "glmasr_encoder": {"num_attention_heads": 6, "hidden_size": 72},
    "lfm3_vl_vision": {
        "num_attention_heads": 6,
        "hidden_size": 72,
        "num_hidden_layers": 2,
        "layer_types": ["conv", "full_attention"],
    },
    "deepseek_ocr2_encoder": {"num_attention_heads": 6, "hidden_size": 72},
    "llama4_vision_model": {"intermediate_size": 144},  # four patches side by side
}


def _picture() -> dict[str, Tensor]:
    return {"pixel_values": noise(1, CHANNELS, PATCH * SIDE, PATCH * SIDE)}


def _larger_picture() -> dict[str, Tensor]:
    return {"pixel_values": noise(1, CHANNELS, PATCH * (SIDE + 2), PATCH * (SIDE + 2))}


def _patches(*shape: int) -> dict[str, Tensor]:
    return {
        "pixel_values": noise(SIDE * SIDE, *shape),
        "grid_thw": numbers([1, SIDE, SIDE]),
    }


def _squares() -> dict[str, Tensor]:
    found = _patches(CHANNELS, PATCH, PATCH)
    return found | {"pixel_values": found["pixel_values"][None]}


def _hidden() -> dict[str, Tensor]:
    found = _patches(CHANNELS * PATCH * PATCH)
    return {"hidden_states": found["pixel_values"], "grid_thw": found["grid_thw"]}


def _with_places() -> dict[str, Tensor]:
    places = [[x, y] for y in range(SIDE) for x in range(SIDE)]
    return {
        "pixel_values": noise(1, SIDE * SIDE, CHANNELS * PATCH * PATCH),
        "pixel_position_ids": numbers(*places)[None],
    }


def _sound() -> dict[str, Tensor]:
    return {"input_features": noise(1, MELS, 12)}


def _embedded() -> dict[str, Any]:
    return {"inputs_embeds": noise(1, SIDE, 72), "num_patches": 2}


_MERGED = (0, 3)  # patches that will be merged lie together, two by two
KINDS = {
    **ALONE,
    "cohere_compass_vision": Kind(model="CohereCompassVisionModel", inputs=_hidden, places=_MERGED),
    "deepseek_ocr2_encoder": Kind(
        model="DeepseekOcr2VisionEncoder", inputs=_embedded, places=(0, 1)
    ),
    # its positions go from -1 to 1: a step of a picture of 6 by 6 patches turns by less than pi
    "dinov3_vit": Kind(model="DINOv3ViTModel", inputs=_larger_picture, places=(1, SIDE + 4)),
    "ernie4_5_vl_moe_vision": Kind(
        model="Ernie4_5_VLMoeVisionTransformerPretrainedModel", inputs=_hidden, places=_MERGED
    ),
    "exaone4_5_vision": Kind(model="Exaone4_5_VisionModel", inputs=_hidden, places=_MERGED),
    "gemma4_vision": Kind(model="Gemma4VisionModel", inputs=_with_places),
    "glm4v_moe_vision": Kind(model="Glm4vMoeVisionModel", inputs=_hidden, places=_MERGED),
    "glm4v_vision": Kind(model="Glm4vVisionModel", inputs=_hidden, places=_MERGED),
    "glm_ocr_vision": Kind(model="GlmOcrVisionModel", inputs=_hidden, places=_MERGED),
    "glmasr_encoder": Kind(model="GlmAsrEncoder", inputs=_sound, places=(0, 1)),
    "lfm3_vl_vision": Kind(
        model="Lfm3VlVisionModel", inputs=lambda: _patches(CHANNELS * PATCH * PATCH), places=_MERGED
    ),
    "llama4_vision_model": Kind(model="Llama4VisionModel", inputs=_picture),
    "mlcd": Kind(model="MLCDVisionModel", inputs=_picture, places=(1, SIDE + 2)),
    "mlcd_vision_model": Kind(model="MLCDVisionModel", inputs=_picture, places=(1, SIDE + 2)),
    "paddleocr_vl_vision": Kind(
        model="PaddleOCRVisionModel",
        inputs=_squares,
    ),
    "pixtral": Kind(model="PixtralVisionModel", inputs=_picture),
    "qwen2_5_omni_vision_encoder": Kind(
        model="Qwen2_5OmniVisionEncoder", inputs=_hidden, places=_MERGED
    ),
    "qwen3_omni_moe_vision_encoder": Kind(
        model="Qwen3OmniMoeVisionEncoder", inputs=_hidden, places=_MERGED
    ),
    "qwen2_5_vl_vision": Kind(
        model="Qwen2_5_VisionTransformerPretrainedModel", inputs=_hidden, places=_MERGED
    ),
    "qwen2_vl_vision": Kind(
        model="Qwen2VisionTransformerPretrainedModel", inputs=_hidden, places=_MERGED
    ),
    "qwen3_5_moe_vision": Kind(model="Qwen3_5MoeVisionModel", inputs=_hidden, places=_MERGED),
    "qwen3_5_vision": Kind(model="Qwen3_5VisionModel", inputs=_hidden, places=_MERGED),
    "qwen3_vl_moe_vision": Kind(model="Qwen3VLMoeVisionModel", inputs=_hidden, places=_MERGED),
    "qwen3_vl_vision": Kind(model="Qwen3VLVisionModel", inputs=_hidden, places=_MERGED),
    "qwen4_exp_vision": Kind(model="Qwen4ExpVisionModel", inputs=_hidden, places=_MERGED),
    "video_llama_3_vision": Kind(
        model="VideoLlama3VisionModel",
        inputs=lambda: {**_patches(CHANNELS * PATCH * PATCH), "merge_sizes": numbers([2])[0]},
        places=_MERGED,
    ),
    "voxtral_realtime_encoder": Kind(model="VoxtralRealtimeEncoder", inputs=_sound, places=(0, 1)),
}


def tiny_tower(model_type: str, attention: str) -> Any:  # noqa: ANN401 - transformers' own classes
    """A random tower of that type, in float64, in which every tensor has numbers of its own.

    Raises:
        Unsupported: the installed transformers has no such type.
    """
    import torch  # noqa: PLC0415

    special = {**SPECIAL, **ALONE_SIZES}.get(model_type, {})
    config = made_config(model_type, SIZES, special)
    if put := KINDS[model_type].put:
        put(config)
    module = import_module(type(config).__module__.replace("configuration_", "modeling_"))
    kind = getattr(module, KINDS[model_type].model)
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation=attention)  # noqa: SLF001
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return model
