"""The names of published files for mlx-lm's parameters: what its loader does to them, undone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]

_EXPERTS = re.compile(r"(.*\.(?:mlp|moe|block_sparse_moe)\.)switch_mlp\.(\w+)(\.\w+)")
_LATENT = re.compile(r"(.*\.)(embed_q|unembed_out)\.weight")
# model type: pairs of what mlx-lm calls it and what it is called in files
_SPELLED = {
    "Klear": ((".mlp.experts.", ".mlp.switch_mlp."),),
    "gpt_neox": (
        ("model.embed_out.", "embed_out."),
        ("model.h.", "gpt_neox.layers."),
        ("model.", "gpt_neox."),
    ),
    "gptj": (("model.", "transformer."),),
    "muse_glimmer": (("model.", "model.language_model."),),
    "step3p5": (
        (".mlp.switch_mlp.", ".moe."),
        (".mlp.gate.gate.", ".moe.gate."),
        (".mlp.gate.router_bias", ".moe.router_bias"),
        (".mlp.share_expert.", ".share_expert."),
    ),
}
_EACH = {"phi-msft": "mlp"}  # what an expert is called, if not that
_WEIGHTS = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
_PARTS = {
    "minimax_m2": _WEIGHTS,
    "minimax_m3_vl": _WEIGHTS,
    "mixtral": _WEIGHTS,
    "phimoe": _WEIGHTS,
}


def stored(made: Mapping[str, Array], model_type: str) -> Iterator[tuple[str, Array]]:
    """Every parameter as the family's files have it."""
    for own, array in made.items():
        name = _spelled(own, model_type)
        if match := _EXPERTS.fullmatch(name):
            before, part, end = match.groups()
            part = _PARTS.get(model_type, {}).get(part, part)
            for number, expert in enumerate(array):
                yield f"{before}{_EACH.get(model_type, 'experts')}.{number}.{part}{end}", expert
        elif match := _LATENT.fullmatch(name):
            if match[2] == "embed_q":
                values = made[f"{match[1]}unembed_out.weight"]
                yield f"{match[1]}kv_b_proj.weight", _joined(array, values)
        elif name.endswith("conv1d.weight"):
            yield name, array.swapaxes(1, 2)
        else:
            yield name, array


def _spelled(name: str, model_type: str) -> str:
    name = name.replace(".mlp.gate.gate_proj.", ".mlp.gate.")
    for own, published in _SPELLED.get(model_type, ()):
        name = name.replace(own, published)
    return name


def _joined(keys: Array, values: Array) -> Array:
    """Heads' key and value rows in turn: keys [H, R, N], values [H, W, R] -> [H * (N + W), R]."""
    heads = np.concatenate([keys.swapaxes(1, 2), values], axis=1)
    return heads.reshape(-1, heads.shape[-1])
