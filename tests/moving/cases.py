"""Checkpoints made of seeded random bytes, and conversions in processes that die on command."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropeconv.formats.new_file import NewTensor
from ropeconv.formats.safetensors import new_safetensors
from ropeconv.words.dtypes import DType

CHILD = Path(__file__).parent / "child.py"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's sizes; odd ones by default."""

    layers: int = 2
    hidden: int = 60
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 10
    intermediate: int = 92
    vocab: int = 52


ODD = Shape()
LARGER = Shape(hidden=256, heads=4, kv_heads=2, head_dim=64, intermediate=688, vocab=1024)


def make_hf(folder: Path, shape: Shape = ODD, *, seed: int = 1, num_shards: int = 2) -> Path:
    """A Llama folder in Hugging Face's format with its rows half-split, every byte random."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(shape)))
    (folder / "tokenizer.json").write_text('{"not": "a tokenizer"}')
    tensors = tensors_of(shape)
    weight_map = {}
    generator = random.Random(seed)
    for number in range(num_shards):
        name = (
            "model.safetensors"
            if num_shards == 1
            else f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        )
        mine = tensors[number::num_shards]
        new = new_safetensors(mine, {"format": "pt"})
        data = bytearray(generator.randbytes(new.nbytes))
        for part in new.fixed:
            data[part.offset : part.offset + len(part.data)] = part.data
        (folder / name).write_bytes(data)
        weight_map |= {tensor.name: name for tensor in mine}
    if num_shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def take_room(folder: Path) -> Path:
    """Pad the folder's headers to 8 bytes only, as other writers do."""
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        text = data[8 : 8 + length].rstrip()
        text += b" " * (-len(text) % 8)
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return folder


def config_of(shape: Shape) -> dict[str, object]:
    """Its config.json."""
    return {
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def tensors_of(shape: Shape) -> list[NewTensor]:
    """Every tensor of a Llama, by Hugging Face's names."""
    hidden, wide = shape.hidden, shape.intermediate
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab, hidden)}
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        sizes |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.self_attn.q_proj.weight": (shape.heads * shape.head_dim, hidden),
            f"{at}.self_attn.k_proj.weight": (shape.kv_heads * shape.head_dim, hidden),
            f"{at}.self_attn.v_proj.weight": (shape.kv_heads * shape.head_dim, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, shape.heads * shape.head_dim),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.mlp.gate_proj.weight": (wide, hidden),
            f"{at}.mlp.up_proj.weight": (wide, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, wide),
        }
    sizes |= {"model.norm.weight": (hidden,), "lm_head.weight": (shape.vocab, hidden)}
    return [NewTensor(name=name, dtype=DType.BF16, shape=size) for name, size in sizes.items()]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def run_child(**job: Any) -> subprocess.CompletedProcess[str]:
    """A conversion in a process of its own; see `child.py` for what a job may say."""
    return subprocess.run(
        [sys.executable, CHILD, json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
