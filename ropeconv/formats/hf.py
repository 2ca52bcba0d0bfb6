"""Hugging Face folders: config.json, safetensors in one file or in shards with an index."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ropeconv.formats.checkpoint import (
    Checkpoint,
    StoredTensor,
    folder_names,
    look_at,
    parse_object,
    plain_name,
    read_text,
)
from ropeconv.formats.fields import Fields
from ropeconv.formats.folder import read_carried, sort_side_files
from ropeconv.formats.rope_fields import read_rope, write_rope
from ropeconv.formats.safetensors import read_header
from ropeconv.formats.stamps import collect_stamps, read_stamp, stamp_key
from ropeconv.words.errors import BrokenFile, Contradiction, IncompleteSource, NotACheckpoint
from ropeconv.words.frequencies import RopeSettings
from ropeconv.words.model import Claims, Format, Model, TokenIds
from ropeconv.words.parts import Part

if TYPE_CHECKING:
    from pathlib import Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-([0-9]{5})-of-([0-9]{5})\.safetensors")
CONFIG = "config.json"
READ_HERE = ("llama", "mistral")  # model types that have a Meta format


def looks_like(names: Iterable[str]) -> bool:
    """Whether a folder with these names holds a Hugging Face checkpoint."""
    names = set(names)
    return CONFIG in names and bool(
        names & {SINGLE, INDEX} or any(SHARD.fullmatch(name) for name in names)
    )


def discover(root: Path, stamps: Mapping[str, str] | None = None) -> Checkpoint:
    """The checkpoint in a folder; index, headers and files are checked against each other.

    Args:
        root: the folder.
        stamps: those to believe, whatever the files say: they may be in the middle of a rewrite.
    """
    names = folder_names(root)
    if CONFIG not in names:
        raise NotACheckpoint(
            what=f"`{root}` has no `{CONFIG}`",
            why="a Hugging Face checkpoint has one"
            + ("; this folder looks like Meta's format" if "params.json" in names else ""),
            fix="check the folder and the direction of the conversion",
        )
    weight_map = _weight_map(root, names)
    weights = sorted(set(weight_map.values())) if weight_map else _unindexed(root, names)
    files = [look_at(root, name) for name in weights]
    tensors: list[StoredTensor] = []
    metadata: dict[str, tuple[tuple[str, str], ...]] = {}
    for number, file in enumerate(files):
        header = read_header(root, file.name, number)
        tensors += header.tensors
        metadata[file.name] = header.metadata
    _check_index(root, weight_map, weights, tensors)
    side, left_out = sort_side_files(
        root, [name for name in names if name not in {*weights, INDEX}]
    )
    text = read_text(root / CONFIG)
    if stamps is None:
        stamps = collect_stamps(root, metadata)
    layouts = {part: read_stamp(stamps.get(stamp_key(part)), str(root)) for part in Part}
    return Checkpoint(
        root=root,
        format=Format.HF,
        claims=read_claims(text, str(root / CONFIG)),
        config=text,
        files=(*files, *(look_at(root, name) for name in side)),
        tensors=tuple(tensors),
        num_ranks=1,
        side_files=tuple(range(len(files), len(files) + len(side))),
        left_out=tuple(left_out),
        stamp=layouts[Part.TEXT],
        carried=read_carried(root),
        tower_stamps=tuple(
            (part, layout)
            for part, layout in layouts.items()
            if part is not Part.TEXT and layout is not None
        ),
    )


def _weight_map(root: Path, names: list[str]) -> dict[str, str]:
    if INDEX not in names:
        return {}
    if SINGLE in names:
        raise Contradiction(
            what=f"`{root}` has both `{SINGLE}` and `{INDEX}`",
            why="readers differ in which one they take",
            fix="remove the one that does not belong to this model",
        )
    found = parse_object(read_text(root / INDEX), INDEX).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise BrokenFile(what=f"`{root / INDEX}` has no `weight_map` from tensors to files")
    for name in sorted(set(found.values())):
        plain_name(name, INDEX)
        if name not in names:
            raise IncompleteSource(
                what=f"shard `{name}` is missing from `{root}`",
                why=f"`{INDEX}` names it",
                fix="download the missing shard",
            )
    return found


def _unindexed(root: Path, names: list[str]) -> list[str]:
    shards = [name for name in names if SHARD.fullmatch(name)]
    if SINGLE in names and not shards:
        return [SINGLE]
    if shards:
        raise IncompleteSource(
            what=f"`{root}` has {len(shards)} shards and no `{INDEX}`",
            fix="download the index too",
        )
    raise NotACheckpoint(
        what=f"`{root}` has no `{SINGLE}` and no `{INDEX}`",
        why="weights must be in safetensors"
        + (": the `.bin` files here are pickles" if any(n.endswith(".bin") for n in names) else ""),
        fix="save the model with safe_serialization=True"
        if any(n.endswith(".bin") for n in names)
        else "check the folder",
    )


def _check_index(
    root: Path, weight_map: dict[str, str], weights: list[str], tensors: list[StoredTensor]
) -> None:
    if not weight_map:
        return
    found: dict[str, str] = {}
    for tensor in tensors:
        if tensor.name in found:
            raise BrokenFile(
                what=f"tensor `{tensor.name[:120]}` lies in both `{found[tensor.name]}` and"
                f" `{weights[tensor.file]}` of `{root}`",
            )
        found[tensor.name] = weights[tensor.file]
    for name, file in weight_map.items():
        if found.get(name) != file:
            raise IncompleteSource(
                what=f"tensor `{name[:120]}` is not in `{file}` of `{root}`",
                why=f"`{INDEX}` says that it is",
                fix="index and shards are of different versions; download all of them again",
            )
    if stray := sorted(set(found) - set(weight_map)):
        raise BrokenFile(
            what=f"tensor `{stray[0][:120]}` lies in `{found[stray[0]]}` but not in `{INDEX}`",
            why=f"{len(stray)} such tensors: index and shards are of different versions",
        )


def read_claims(text: str, origin: str) -> Claims:
    """What config.json says, in ropeconv's words."""
    fields = Fields(origin=origin, values=parse_object(text, origin))
    family = fields.text("model_type")
    if family is None:
        raise BrokenFile(what=f"`{origin}` has no `model_type`")
    if family not in READ_HERE:  # a family's own table reads the keys that it needs
        return Claims(origin=origin, family=family, tied=fields.flag("tie_word_embeddings"))
    theta, scaling = read_rope(fields)
    return Claims(
        origin=origin,
        family=family,
        num_layers=fields.integer("num_hidden_layers"),
        hidden_size=fields.integer("hidden_size"),
        num_heads=fields.integer("num_attention_heads"),
        num_kv_heads=fields.integer("num_key_value_heads"),
        head_dim=fields.integer("head_dim"),
        intermediate_size=fields.integer("intermediate_size"),
        vocab_size=fields.integer("vocab_size"),
        norm_eps=fields.number("rms_norm_eps"),
        rope=None if theta is None else RopeSettings(theta=theta, scaling=scaling),
        theta=theta,
        max_positions=fields.integer("max_position_embeddings"),
        sliding_window=fields.integer("sliding_window"),
        tied=fields.flag("tie_word_embeddings"),
        dtype=(fields.text("torch_dtype") or fields.text("dtype") or "").removeprefix("torch."),
        tokens=TokenIds(
            bos=fields.integer("bos_token_id"),
            eos=fields.integers("eos_token_id"),
            pad=fields.integer("pad_token_id"),
        ),
    )


def render_config(model: Model, carried: str) -> str:
    """config.json of a Llama or Mistral, for transformers 4 and 5 alike.

    Args:
        model: what the weights are.
        carried: the original config.json of an earlier conversion: its further fields are kept.
    """
    geometry = model.geometry
    fields: dict[str, Any] = parse_object(carried, "config.json") if carried else {}
    eos = model.tokens.eos
    fields |= {
        "architectures": fields.get("architectures") or [f"{model.family.capitalize()}ForCausalLM"],
        "model_type": model.family,
        "hidden_size": geometry.hidden_size,
        "num_hidden_layers": geometry.num_layers,
        "num_attention_heads": geometry.num_heads,
        "num_key_value_heads": geometry.num_kv_heads,
        "head_dim": geometry.head_dim,
        "intermediate_size": geometry.intermediate_size,
        "vocab_size": geometry.vocab_size,
        "rms_norm_eps": model.norm_eps,
        "max_position_embeddings": model.max_positions,
        "tie_word_embeddings": model.tied,
        "torch_dtype": model.dtype.torch_name,
        "bos_token_id": model.tokens.bos,
        "eos_token_id": list(eos) if isinstance(eos, tuple) else eos,
        "pad_token_id": model.tokens.pad,
        **write_rope(model.rope),
    }
    fields.setdefault("hidden_act", "silu")
    if model.family == "mistral":
        fields["sliding_window"] = model.sliding_window
    else:
        fields.setdefault("attention_bias", False)
        fields.setdefault("mlp_bias", False)
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def render_index(weight_map: dict[str, str], total_nbytes: int) -> str:
    """model.safetensors.index.json."""
    index = {"metadata": {"total_size": total_nbytes}, "weight_map": weight_map}
    return json.dumps(index, indent=2, sort_keys=True) + "\n"
