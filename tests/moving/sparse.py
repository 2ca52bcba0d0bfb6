"""Checkpoints of any size that take no room: their data are holes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ropeconv.formats.safetensors import new_safetensors
from tests.moving.cases import Shape, config_of, tensors_of

LLAMA_405B = Shape(
    layers=126,
    hidden=16384,
    heads=128,
    kv_heads=8,
    head_dim=128,
    intermediate=53248,
    vocab=128256,
)


def make_sparse_hf(folder: Path, shape: Shape, *, num_shards: int) -> Path:
    """A Llama folder whose weights are all zero and lie nowhere."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(shape)))
    tensors = tensors_of(shape)
    weight_map = {}
    for number in range(num_shards):
        name = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        mine = tensors[number::num_shards]
        new = new_safetensors(mine, {"format": "pt"})
        with (folder / name).open("wb") as file:
            file.write(new.fixed[0].data)
            os.truncate(file.fileno(), new.nbytes)
        weight_map |= {tensor.name: name for tensor in mine}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
