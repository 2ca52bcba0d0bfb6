"""What a checkpoint consists of: each tensor as one matrix of rows, wherever its pieces lie.

This is where stored names, ranks and shards end: above it there are whole tensors with canonical
names (Hugging Face's), and pieces that say which rows and columns of them lie where.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ropeconv.formats.checkpoint import Checkpoint, StoredTensor, parse_object
from ropeconv.knowledge.family import Family, sizes_of
from ropeconv.knowledge.registry import family_of, find_family
from ropeconv.thinking.description import check_description, check_spans, said_of
from ropeconv.thinking.geometry import find_geometry
from ropeconv.thinking.joining import expected_tensors, group_ranks, join_ranks
from ropeconv.thinking.own_code import said_of_own_code
from ropeconv.thinking.treatment import (
    declared_layout,
    left_aside,
    stamped,
    towers_of,
    treat,
)
from ropeconv.thinking.whole import Piece, WholeTensor
from ropeconv.words.errors import Contradiction
from ropeconv.words.layout import INTERLEAVED, RopeLayout, num_rows
from ropeconv.words.model import Format, Geometry, Note
from ropeconv.words.parts import Part


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """A checkpoint, understood: every stored tensor belongs to a whole one or is dropped by name.

    Attributes:
        layout: of the text's rotary rows.
        towers: layouts of other parts, of those whose rows are known here.
        embedding_split: how ranks divide the embedding: "rows", "columns", or "" for a single rank.
    """

    checkpoint: Checkpoint
    family: Family
    geometry: Geometry
    layout: RopeLayout
    tensors: tuple[WholeTensor, ...]
    dropped: tuple[StoredTensor, ...]
    notes: tuple[Note, ...]
    embedding_split: str
    towers: tuple[tuple[Part, RopeLayout], ...] = ()

    def layout_in(self, part: Part) -> RopeLayout:
        """The layout of a part's rotary rows; the text's where a part has none."""
        return dict(self.towers).get(part, self.layout)

    @property
    def depth(self) -> int:
        """Layers, up to the deepest with rotary rows: towers and draft heads may go further."""
        rotating = [t.layer for t in self.tensors if t.rule.rotates and t.layer is not None]
        return max([self.geometry.num_layers, *(layer + 1 for layer in rotating)])

    def find(self, name: str) -> WholeTensor | None:
        """A tensor by its canonical name."""
        return next((tensor for tensor in self.tensors if tensor.name == name), None)


def take_stock(
    checkpoint: Checkpoint,
    *,
    trust_stamp: bool = False,
    described: Family | None = None,
    parts: Iterable[Part] = (Part.TEXT,),
) -> Inventory:
    """Account for every stored tensor, and join ranks.

    Args:
        checkpoint: as found on disk.
        trust_stamp: take a stamped layout for true although the format has another by convention:
            such a checkpoint is what a conversion within one format makes.
        described: the table of a model type that ropeconv has none for, as its user describes it.
        parts: those whose rows must be known; towers that are stamped always are.

    Raises:
        Unsupported: a tensor or family that no table knows.
        IncompleteSource: a layer, tensor or rank is missing.
        Contradiction: shapes that do not fit each other or the config.
    """
    wanted = {*parts, *dict(checkpoint.tower_stamps)}
    if described is not None:
        check_description(described, checkpoint)
        return _by_treatment(checkpoint, wanted, trust_stamp=trust_stamp, described=described)
    family = find_family(checkpoint.claims.family, checkpoint.claims.origin)
    if checkpoint.format is Format.HF and not family.has_every_shape:
        return _by_treatment(checkpoint, wanted, trust_stamp=trust_stamp, described=None)
    towers_of(family, wanted, str(checkpoint.root))
    groups, dropped = group_ranks(checkpoint, family)
    geometry, notes = find_geometry(checkpoint, groups, family)
    sizes = sizes_of(geometry)
    tensors = tuple(
        join_ranks(checkpoint, rule, layer, groups[rule, layer], geometry, sizes)
        for rule, layer in expected_tensors(family, geometry)
        if (rule, layer) in groups
    )
    embedding = groups[family.rules[0], None]
    split = ""
    if checkpoint.num_ranks > 1:
        split = "rows" if embedding[0].shape[1] == geometry.hidden_size else "columns"
    return Inventory(
        checkpoint=checkpoint,
        family=family,
        geometry=geometry,
        layout=_layout(checkpoint, family, trust_stamp=trust_stamp),
        tensors=tensors,
        dropped=tuple(dropped),
        notes=(*notes, *said_of_own_code(checkpoint, family)),
        embedding_split=split,
    )


def _by_treatment(
    checkpoint: Checkpoint, parts: set[Part], *, trust_stamp: bool, described: Family | None
) -> Inventory:
    """A family whose table says which rows move: each tensor is one piece, as it is stored."""
    config = parse_object(checkpoint.config, checkpoint.claims.origin)
    family = described or family_of(config, checkpoint.claims.origin)
    towers = towers_of(family, parts, str(checkpoint.root))
    geometry, treated = treat(checkpoint, family, towers)
    if described is not None:
        check_spans(treated)
    tensors = tuple(
        WholeTensor(
            name=found.stored.name,
            rule=found.rule,
            layer=found.layer,
            dtype=found.stored.dtype,
            shape=found.stored.shape,
            rows=found.rows,
            pieces=(_whole(found.stored, num_rows(*found.rows)),),
            part=found.part,
        )
        for found in treated
    )
    declared = declared_layout(family, config, checkpoint.stamp, checkpoint.claims.origin)
    stamp = checkpoint.stamp
    if stamp is not None and stamp != declared and not trust_stamp:
        raise Contradiction(
            what=f"`{checkpoint.root}` is stamped {stamp}, but {family.title} is {declared}",
            why="a conversion that moves rows only leaves its stamp",
            fix=f"convert it back to {declared} rows first",
        )
    stamps = dict(checkpoint.tower_stamps)
    return Inventory(
        checkpoint=checkpoint,
        family=family,
        geometry=geometry,
        layout=stamp if stamp is not None and trust_stamp else declared,
        tensors=tensors,
        dropped=(),
        notes=(
            *left_aside(family, towers),
            *(stamped(tower, stamps[tower.part]) for tower in towers if tower.part in stamps),
            *(said_of(described) if described else said_of_own_code(checkpoint, family)),
        ),
        embedding_split="",
        towers=tuple(
            (tower.part, stamps.get(tower.part, tower.family.layout))
            for tower in towers
            if tower.family is not None
        ),
    )


def _whole(stored: StoredTensor, rows: int) -> Piece:
    return Piece(
        file=stored.file,
        offset=stored.offset,
        first_row=0,
        last_row=rows,
        first_byte=0,
        last_byte=stored.nbytes // rows if rows else 0,
    )


def _layout(checkpoint: Checkpoint, family: Family, *, trust_stamp: bool) -> RopeLayout:
    by_format = INTERLEAVED if checkpoint.format is Format.META else family.layout
    stamp = checkpoint.stamp
    if stamp is not None and trust_stamp:
        return stamp
    if stamp is not None and stamp != by_format:
        raise Contradiction(
            what=f"`{checkpoint.root}` is stamped {stamp}, but {family.title} in"
            f" {checkpoint.format.value}"
            f" format is {by_format}",
            why="a conversion that moves rows only leaves its stamp",
            fix=f"take the original, or convert it back to {by_format} rows first",
        )
    return by_format
