"""The conversion as published, spelled without any code of ropeconv's: slow, in memory, obvious.

Source:
    huggingface/transformers v4.51.0, models/llama/convert_llama_weights_to_hf.py, `permute` and the
    names around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

NAMES = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def permute(weight: Tensor, heads: int) -> Tensor:
    """Interleaved to half-split rows, as published."""
    dim1, dim2 = weight.shape
    return weight.view(heads, dim1 // heads // 2, 2, dim2).transpose(1, 2).reshape(dim1, dim2)


def to_hf(weights: Mapping[str, Tensor], heads: int, kv_heads: int) -> dict[str, Tensor]:
    """Whole tensors with Meta's names, as Hugging Face's."""
    result = {}
    for name, tensor in weights.items():
        if name.endswith("rope.freqs"):
            continue
        layer, short = re.fullmatch(r"(?:layers\.(\d+)\.)?(.*)\.weight", name).groups()  # type: ignore[union-attr]
        at = "" if layer is None else f"model.layers.{layer}."
        if short.endswith((".wq", ".wk")):
            tensor = permute(tensor, heads if short.endswith("q") else kv_heads)  # noqa: PLW2901
        result[f"{at}{NAMES[short]}.weight"] = tensor
    return result


def bits(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """What a file stores of tensors: NaN equals itself here, and -0.0 is not 0.0."""
    return {
        name: (
            tensor.dtype,
            tuple(tensor.shape),
            tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes(),
        )
        for name, tensor in tensors.items()
    }
