"""Meta's folders (and Mistral's native ones): params.json and one weights file for each rank."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ropeconv.formats.checkpoint import (
    Checkpoint,
    StoredTensor,
    folder_names,
    look_at,
    parse_object,
    read_text,
)
from ropeconv.formats.fields import Fields
from ropeconv.formats.folder import read_carried, sort_side_files
from ropeconv.formats.rope_fields import read_theta
from ropeconv.formats.safetensors import read_header
from ropeconv.formats.stamps import STAMP_KEY, read_stamp
from ropeconv.formats.torch_zip import read_record, read_tensors
from ropeconv.words.errors import (
    BrokenFile,
    Contradiction,
    IncompleteSource,
    NotACheckpoint,
    Unsupported,
)
from ropeconv.words.frequencies import Default, Llama3, Scaling
from ropeconv.words.model import Claims, Format, Model

if TYPE_CHECKING:
    from pathlib import Path

PARAMS = "params.json"
RANK = re.compile(r"consolidated\.([0-9]{1,4})\.pth")
ALONE = ("consolidated.pth", "consolidated.safetensors")

KNOWN_PARAMS = {
    "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size",
    "multiple_of", "ffn_dim_multiplier", "norm_eps", "rope_theta", "use_scaled_rope",
    "sliding_window", "max_seq_len", "max_position_embeddings", "max_batch_size", "tied_embeddings",
}  # fmt: skip
REASONS = {
    "moe": "experts have no table yet",
    "quantization": "scales of quantised weights have no table yet",
    "quantization_args": "quantised weights have no table yet",
    "lora": "an adapter is part of these weights",
    "lora_args": "an adapter is part of these weights",
    "yarn": "params.json states only a part of this scaling",
    "llama_4_scaling": "it scales attention by position, which this family does not do",
    "vision_encoder": "a vision tower has rows of its own",
    "vision_chunk_size": "this is Llama 3.2 Vision, another architecture",
}


def looks_like(names: Iterable[str]) -> bool:
    """Whether a folder with these names holds Meta's format."""
    return PARAMS in names and any(RANK.fullmatch(name) or name in ALONE for name in names)


def discover(root: Path) -> Checkpoint:
    """The checkpoint in a folder: ranks 0 to N-1 without a gap, and params.json."""
    names = folder_names(root)
    if PARAMS not in names:
        raise NotACheckpoint(
            what=f"`{root}` has no `{PARAMS}`",
            why="a checkpoint in Meta's format has one"
            + ("; this folder looks like Hugging Face's format" if "config.json" in names else ""),
            fix="check the folder and the direction of the conversion",
        )
    weights = _ranks(root, names)
    files = [look_at(root, name) for name in weights]
    tensors: list[StoredTensor] = []
    stamps: set[str | None] = set()
    for rank, file in enumerate(files):
        if file.name.endswith(".safetensors"):
            header = read_header(root, file.name, rank, rank)
            tensors += header.tensors
            stamps.add(dict(header.metadata).get(STAMP_KEY))
        else:
            tensors += read_tensors(root, file.name, rank, rank)
            stamps.add(read_record(root, file.name, STAMP_KEY))
    if len(stamps) > 1:
        raise Contradiction(
            what=f"the ranks of `{root}` are stamped differently",
            fix="ranks of two conversions were mixed; start from one of them",
        )
    side, left_out = sort_side_files(root, [name for name in names if name not in weights])
    text = read_text(root / PARAMS)
    return Checkpoint(
        root=root,
        format=Format.META,
        claims=read_claims(text, str(root / PARAMS)),
        config=text,
        files=(*files, *(look_at(root, name) for name in side)),
        tensors=tuple(tensors),
        num_ranks=len(files),
        side_files=tuple(range(len(files), len(files) + len(side))),
        left_out=tuple(left_out),
        stamp=read_stamp(next(iter(stamps)), str(root)),
        carried=read_carried(root),
    )


def _ranks(root: Path, names: list[str]) -> list[str]:
    ranks = {int(match[1]): name for name in names if (match := RANK.fullmatch(name))}
    alone = [name for name in ALONE if name in names]
    if len(alone) + bool(ranks) > 1:
        raise Contradiction(
            what=f"`{root}` has {' and '.join([*alone, *ranks.values()][:3])}",
            why="either could be the model",
            fix="leave only one of them in the folder",
        )
    if alone:
        return alone
    if not ranks:
        raise NotACheckpoint(
            what=f"`{root}` has no `consolidated.NN.pth` and no `consolidated.safetensors`",
            fix="check the folder; weights in Meta's format have these names",
        )
    missing = sorted(set(range(max(ranks) + 1)) - set(ranks))
    if missing or len(ranks) != sum(RANK.fullmatch(name) is not None for name in names):
        raise IncompleteSource(
            what=f"`{root}` has the ranks {sorted(ranks)}, expected each of 0 to {max(ranks)} once",
            why=f"missing: {missing}" if missing else "two file names stand for one rank",
            fix="download the missing consolidated.NN.pth files",
        )
    return [ranks[rank] for rank in sorted(ranks)]


def read_claims(text: str, origin: str) -> Claims:
    """What params.json says, in ropeconv's words. An unknown key may change the model: an error."""
    values = parse_object(text, origin)
    if isinstance(values.get("model"), dict):
        values = {**{k: v for k, v in values.items() if k != "model"}, **values["model"]}
    fields = Fields(origin=origin, values=values)
    for key, value in sorted(values.items()):
        if key not in KNOWN_PARAMS and value not in (None, {}, False):
            raise Unsupported(
                what=f"`{origin}` has `{key[:60]}`, which ropeconv does not know",
                why=REASONS.get(key, "a setting that is dropped in silence can change the model"),
                fix="remove the key if it does not matter for the weights",
            )
    native = fields.integer("hidden_dim") is not None
    multiple = fields.integer("multiple_of")
    if multiple is not None and multiple < 1:
        raise BrokenFile(what=f"`{origin}` has `multiple_of` = {multiple}, expected at least 1")
    max_positions = fields.integer("max_position_embeddings") or fields.integer("max_seq_len")
    vocab_size = fields.integer("vocab_size")
    return Claims(
        origin=origin,
        family="mistral" if native else "llama",
        num_layers=fields.integer("n_layers"),
        hidden_size=fields.integer("dim"),
        num_heads=fields.integer("n_heads"),
        num_kv_heads=fields.integer("n_kv_heads"),
        head_dim=fields.integer("head_dim"),
        intermediate_size=fields.integer("hidden_dim"),
        vocab_size=vocab_size,
        norm_eps=fields.number("norm_eps"),
        theta=read_theta(fields),
        scaled_rope=bool(fields.flag("use_scaled_rope")),
        max_positions=max_positions,
        sliding_window=fields.integer("sliding_window"),
        tied=fields.flag("tied_embeddings"),
        width_rule=None if multiple is None else (multiple, fields.positive("ffn_dim_multiplier")),
    )


def feed_forward_width(dim: int, multiple_of: int, multiplier: float | None) -> int:
    """The width that Meta's code derives from params.json.

    >>> feed_forward_width(4096, 256, None), feed_forward_width(8192, 4096, 1.3)
    (11008, 28672)

    Source:
        https://github.com/meta-llama/llama-models/blob/a9c89c4/models/llama3/model.py, FeedForward.
    """
    width = int(8 * dim / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    return multiple_of * -(-width // multiple_of)


RELEASED_RULES = ((256, None), (1024, 1.3), (4096, 1.3), (4096, 1.2), (256, 1.5), (256, 1.0))


def width_rule(
    dim: int, width: int, preferred: tuple[int, float | None] | None
) -> tuple[int, float | None]:
    """multiple_of and ffn_dim_multiplier from which Meta's code derives that width.

    Released pairs come first; otherwise multiple_of is the width itself, which always works.
    """
    rules = (preferred, *RELEASED_RULES) if preferred else RELEASED_RULES
    for rule in rules:
        if feed_forward_width(dim, *rule) == width:
            return rule
    # half a row more, so that rounding down cannot end below the width
    return width, (width + 0.5) / int(8 * dim / 3)


def render_params(model: Model, carried: str) -> str:
    """params.json of a Llama, or of a Mistral in its native spelling.

    Args:
        model: what the weights are; its scaling can be expressed (checked while planning).
        carried: the original params.json of an earlier conversion: its width rule is kept.
    """
    geometry = model.geometry
    if model.family == "mistral":
        fields: dict[str, Any] = {
            "dim": geometry.hidden_size,
            "n_layers": geometry.num_layers,
            "head_dim": geometry.head_dim,
            "hidden_dim": geometry.intermediate_size,
            "n_heads": geometry.num_heads,
            "n_kv_heads": geometry.num_kv_heads,
            "norm_eps": model.norm_eps,
            "vocab_size": geometry.vocab_size,
            "rope_theta": model.rope.theta,
            "max_position_embeddings": model.max_positions,
        }
        if model.sliding_window is not None:
            fields["sliding_window"] = model.sliding_window
        return json.dumps(fields, indent=2) + "\n"
    preferred = read_claims(carried, PARAMS).width_rule if carried else None
    multiple, multiplier = width_rule(geometry.hidden_size, geometry.intermediate_size, preferred)
    fields = {
        "dim": geometry.hidden_size,
        "n_layers": geometry.num_layers,
        "n_heads": geometry.num_heads,
        "n_kv_heads": geometry.num_kv_heads,
        "vocab_size": geometry.vocab_size,
        "multiple_of": multiple,
        "norm_eps": model.norm_eps,
        "rope_theta": model.rope.theta,
        "use_scaled_rope": not isinstance(model.rope.scaling, Default),
    }
    if multiplier is not None:
        fields["ffn_dim_multiplier"] = multiplier
    return json.dumps(fields, indent=2) + "\n"


def expressible(scaling: Scaling) -> bool:
    """Whether params.json's one flag can stand for this scaling; code fixes the other numbers."""
    return isinstance(scaling, Default) or (
        isinstance(scaling, Llama3)
        and (scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_positions)
        == (1.0, 4.0, 8192)
        and scaling.factor in (8.0, 32.0)
    )


def rank_name(rank: int) -> str:
    """The file name of a rank's weights."""
    return f"consolidated.{rank:02d}.pth"
