"""What a checkpoint consists of: each tensor as one matrix of rows, wherever its pieces lie.

This is where stored names, ranks and shards end: above it there are whole tensors with canonical
names (Hugging Face's), and pieces that say which rows and columns of them lie where.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ropeconv.formats.checkpoint import Checkpoint, StoredTensor, parse_object
from ropeconv.knowledge.family import Family, Rule, Split, parse_rows, sizes_of
from ropeconv.knowledge.registry import family_of, find_family
from ropeconv.thinking.description import check_description, check_spans, said_of
from ropeconv.thinking.geometry import find_geometry
from ropeconv.thinking.treatment import (
    declared_layout,
    left_aside,
    stamped,
    towers_of,
    treat,
)
from ropeconv.words.dtypes import DType
from ropeconv.words.errors import Contradiction, IncompleteSource, Unsupported
from ropeconv.words.layout import INTERLEAVED, RopeLayout, Rows, num_rows
from ropeconv.words.model import Format, Geometry, Note
from ropeconv.words.parts import Part


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A contiguous part of a tensor in a file: some of its rows, some of each row's bytes."""

    file: int
    offset: int  # of the first byte, in the file
    first_row: int
    last_row: int  # exclusive
    first_byte: int  # of each row
    last_byte: int  # exclusive

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row that lie in this piece."""
        return self.last_byte - self.first_byte

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return (self.last_row - self.first_row) * self.row_nbytes


@dataclass(frozen=True, kw_only=True)
class WholeTensor:
    """One tensor of the model, by its canonical name.

    Attributes:
        pieces: tile the tensor exactly.
        copies: stored again elsewhere: norms in every rank, key heads that several ranks share.
    """

    name: str
    rule: Rule
    layer: int | None
    dtype: DType
    shape: tuple[int, ...]
    rows: tuple[Rows, ...]
    pieces: tuple[Piece, ...]
    copies: tuple[Piece, ...] = ()
    part: Part = Part.TEXT

    @property
    def num_rows(self) -> int:
        """Rows of the matrix; a vector has rows of one element, a norm of each head all heads'."""
        return num_rows(*self.rows)

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row."""
        return self.nbytes // self.num_rows if self.num_rows else 0

    @property
    def nbytes(self) -> int:
        """Size in bytes, stored once."""
        return math.prod(self.shape) * self.dtype.nbytes


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
    groups, dropped = _group(checkpoint, family)
    geometry, notes = find_geometry(checkpoint, groups, family)
    sizes = sizes_of(geometry)
    tensors = tuple(
        _join(checkpoint, rule, layer, groups[rule, layer], geometry, sizes)
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
        notes=notes,
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
            *(said_of(described) if described else ()),
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


def expected_tensors(family: Family, geometry: Geometry) -> list[tuple[Rule, int | None]]:
    """Every tensor that the family has at that depth, in the model's order."""
    first = [rule for rule in family.rules if "{layer}" not in rule.name]
    layered = [rule for rule in family.rules if "{layer}" in rule.name]
    return [
        (first[0], None),
        *((rule, layer) for layer in range(geometry.num_layers) for rule in layered),
        *((rule, None) for rule in first[1:]),
    ]


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


Groups = Mapping[tuple[Rule, int | None], tuple[StoredTensor, ...]]


def _group(checkpoint: Checkpoint, family: Family) -> tuple[Groups, list[StoredTensor]]:
    column = "meta" if checkpoint.format is Format.META else "name"
    groups: dict[tuple[Rule, int | None], list[StoredTensor]] = {}
    dropped: list[StoredTensor] = []
    stray: list[str] = []
    for tensor in checkpoint.tensors:
        found = family.find(tensor.name, column)
        if found is not None:
            groups.setdefault(found, []).append(tensor)
        elif family.reason_to_drop(tensor.name):
            dropped.append(tensor)
        else:
            stray.append(tensor.name)
    if stray:
        raise Unsupported(
            what=f"`{checkpoint.root}` has {len(stray)} tensors that {family.title} does not"
            " have, the"
            f" first is `{stray[0][:120]}`",
            why="a tensor that is left out in silence is a different model",
            fix="check the model type; biases, norms or adapters mean another family",
        )
    _check_complete(checkpoint, family, groups, column)
    return {key: tuple(group) for key, group in groups.items()}, dropped


def _check_complete(
    checkpoint: Checkpoint,
    family: Family,
    groups: Mapping[tuple[Rule, int | None], Sequence[StoredTensor]],
    column: str,
) -> None:
    layers = {layer for _, layer in groups if layer is not None}
    depth = max([*(layer + 1 for layer in layers), checkpoint.claims.num_layers or 0])
    if len(layers) + 1000 < depth:
        raise Contradiction(
            what=f"`{checkpoint.root}` has layer {depth - 1}, but {len(layers)} layers"
        )
    for rule in family.rules:
        for layer in range(depth) if "{layer}" in rule.name else (None,):
            ranks = [tensor.rank for tensor in groups.get((rule, layer), ())]
            name = (rule.meta if column == "meta" else rule.name).replace("{layer}", str(layer))
            if not ranks and rule.optional:
                continue
            if not ranks:
                raise IncompleteSource(
                    what=f"tensor `{name}` is missing from `{checkpoint.root}`",
                    why=f"{family.title} has it, and the config or another tensor says {depth}"
                    " layers",
                    fix="download the missing files",
                )
            if ranks != list(range(checkpoint.num_ranks)):
                raise IncompleteSource(
                    what=f"tensor `{name}` lies in the ranks {ranks}, expected each of"
                    f" {checkpoint.num_ranks}",
                    why="a rank's file is incomplete or belongs to another model",
                )


def _join(
    checkpoint: Checkpoint,
    rule: Rule,
    layer: int | None,
    stored: tuple[StoredTensor, ...],
    geometry: Geometry,
    sizes: Mapping[str, int],
) -> WholeTensor:
    dtypes = {tensor.dtype for tensor in stored}
    if len(dtypes) > 1:
        raise Contradiction(
            what=f"`{stored[0].name}` has a different dtype in different ranks:"
            f" {sorted(dtype.value for dtype in dtypes)}",
        )
    rows = parse_rows(rule.rows, sizes)
    shape: tuple[int, ...] = (num_rows(*rows),)
    if rule.columns:
        shape += (num_rows(*parse_rows(f"Keep({rule.columns})", sizes)),)
    split = rule.split if checkpoint.num_ranks > 1 else Split.REPLICATED
    if split is Split.EMBEDDING:
        wide = stored[0].shape[1:] == (geometry.hidden_size,)
        split = Split.ROWS if wide else Split.COLUMNS
    pieces, copies = _pieces(stored, split, shape)
    found = _joined_shape(stored, split, shape, len(copies))
    if found != shape:
        raise Contradiction(
            what=f"`{stored[0].name}` has the shape {list(found)}, expected {list(shape)}",
            why=f"its rows are {rule.rows} with {_said(rule, sizes)}"
            + (f", joined from {checkpoint.num_ranks} ranks" if checkpoint.num_ranks > 1 else ""),
            fix="the config, or one of the files, belongs to another model",
        )
    return WholeTensor(
        name=rule.name.replace("{layer}", str(layer)),
        rule=rule,
        layer=layer,
        dtype=stored[0].dtype,
        shape=shape,
        rows=rows,
        pieces=pieces,
        copies=copies,
    )


def _said(rule: Rule, sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{k} = {v}" for k, v in sizes.items() if k in rule.rows + rule.columns)


def _joined_shape(
    stored: Sequence[StoredTensor], split: Split, shape: tuple[int, ...], num_copies: int
) -> tuple[int, ...]:
    first = stored[0].shape
    if any(len(tensor.shape) != len(shape) for tensor in stored):
        return next(tensor.shape for tensor in stored if len(tensor.shape) != len(shape))
    match split:
        case Split.REPLICATED:
            return next((tensor.shape for tensor in stored if tensor.shape != shape), first)
        case Split.COLUMNS:
            if len({tensor.shape[0] for tensor in stored}) > 1:
                return stored[-1].shape
            return (first[0], sum(tensor.shape[1] for tensor in stored))
        case _:
            if len({tensor.shape for tensor in stored}) > 1:
                return next(tensor.shape for tensor in stored if tensor.shape != first)
            kept = len(stored) - num_copies
            return (first[0] * kept, *first[1:])


def _pieces(
    stored: Sequence[StoredTensor], split: Split, shape: tuple[int, ...]
) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    pieces: list[Piece] = []
    copies: list[Piece] = []
    width = stored[0].dtype.nbytes
    total = sum(tensor.shape[0] for tensor in stored)
    repeats = max(1, total // shape[0]) if split is Split.KV_ROWS and shape[0] else 1
    row = column = 0
    for tensor in stored:
        rows = tensor.shape[0]
        row_nbytes = math.prod(tensor.shape[1:]) * width
        begins_at = (0, 0)
        match split:
            case Split.COLUMNS:
                begins_at = (0, column)
                column += row_nbytes
            case Split.ROWS | Split.KV_ROWS:
                begins_at = (row, 0)
                row += rows if tensor.rank % repeats == repeats - 1 else 0
            case _:
                pass
        piece = Piece(
            file=tensor.file,
            offset=tensor.offset,
            first_row=begins_at[0],
            last_row=begins_at[0] + rows,
            first_byte=begins_at[1],
            last_byte=begins_at[1] + row_nbytes,
        )
        again = tensor.rank % repeats != 0 if split is Split.KV_ROWS else tensor.rank > 0
        whole = split is Split.REPLICATED or split is Split.KV_ROWS
        (copies if whole and again else pieces).append(piece)
    return tuple(pieces), tuple(copies)
