"""Inspect: discover, take stock, say what it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ropeconv.formats import discover
from ropeconv.formats.rope_fields import StatedRope
from ropeconv.knowledge.family import Family
from ropeconv.story.detection import Detected, detect
from ropeconv.thinking.family_model import stated_rope
from ropeconv.thinking.inventory import take_stock
from ropeconv.words.frequencies import Default, RopeSettings
from ropeconv.words.model import Geometry, Note


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a checkpoint is, by its names, shapes and config.

    Attributes:
        layout: declared by the format, the family and the stamp.
        stamp: the layout that an earlier conversion recorded in the files, or empty.
        rope: None where the config does not state it in full.
        stated_rope: every theta that the config states, by the kind of layer.
        dtypes: how many tensors have each.
    """

    path: Path
    format: str
    family: str
    layout: str
    stamp: str
    geometry: Geometry
    rope: RopeSettings | None
    theta: float | None
    stated_rope: tuple[StatedRope, ...]
    scaled_rope: bool
    norm_eps: float | None
    max_positions: int | None
    sliding_window: int | None
    tied: bool | None
    num_ranks: int
    num_weight_files: int
    num_tensors: int
    num_parameters: int
    nbytes: int
    dtypes: tuple[tuple[str, int], ...]
    embedding_split: str
    dropped: tuple[str, ...]
    side_files: tuple[str, ...]
    notes: tuple[Note, ...]
    detected: Detected | None  # what the weights say; None if they were not looked at

    @property
    def rotation(self) -> str:
        """Theta and scaling in words; of each kind of layer, where they differ."""
        if self.rope is not None or len(self.stated_rope) == 0:
            theta = "not stated" if self.theta is None else f"{self.theta:g}"
            return f"theta {theta}, scaling {self.scaling}"
        return "; ".join(
            f"theta {one.theta:g}, scaling {'none' if one.scaling == 'default' else one.scaling}"
            + (f" in {one.layers.replace('_', ' ')}" if one.layers else "")
            for one in self.stated_rope
        )

    @property
    def scaling(self) -> str:
        """The scaling in words."""
        if self.rope is None:
            return "llama3, by a factor that no file states" if self.scaled_rope else "none"
        return "none" if isinstance(self.rope.scaling, Default) else str(self.rope.scaling)


def inspect(path: Path, *, look: bool = False, described: Family | None = None) -> Inspection:
    """What a checkpoint is, from its headers and config.

    Args:
        path: folder of the checkpoint.
        look: also read the query and key weights, and say what layout they seem to have.
        described: the table of a model type that ropeconv has none for.

    Raises:
        RopeconvError: it cannot be read, or no table knows it.
    """
    checkpoint = discover(path)
    inventory = take_stock(checkpoint, trust_stamp=True, described=described)
    claims = checkpoint.claims
    stated = stated_rope(inventory)
    dtypes = Counter(tensor.dtype.value for tensor in inventory.tensors)
    left_out = [
        Note(kind="not-copied", text=f"`{name}`: {why}") for name, why in checkpoint.left_out
    ]
    return Inspection(
        path=path,
        format=checkpoint.format.value,
        family=inventory.family.name,
        layout=inventory.layout.name,
        stamp=checkpoint.stamp.name if checkpoint.stamp else "",
        geometry=inventory.geometry,
        rope=claims.rope,
        theta=stated[0].theta if len(stated) == 1 else claims.theta,
        stated_rope=stated,
        scaled_rope=claims.scaled_rope,
        norm_eps=claims.norm_eps,
        max_positions=claims.max_positions,
        sliding_window=claims.sliding_window,
        tied=claims.tied,
        num_ranks=checkpoint.num_ranks,
        num_weight_files=len({tensor.file for tensor in checkpoint.tensors}),
        num_tensors=len(inventory.tensors),
        num_parameters=sum(t.nbytes // t.dtype.nbytes for t in inventory.tensors),
        nbytes=sum(tensor.nbytes for tensor in checkpoint.tensors),
        dtypes=tuple(sorted(dtypes.items())),
        embedding_split=inventory.embedding_split,
        dropped=tuple(sorted({tensor.name for tensor in inventory.dropped})),
        side_files=tuple(checkpoint.files[number].name for number in checkpoint.side_files),
        notes=(*inventory.notes, *left_out),
        detected=detect(path, described) if look else None,
    )
