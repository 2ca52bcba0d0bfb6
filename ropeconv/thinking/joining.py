"""Whole tensors of a family whose every shape is known, joined from the pieces that ranks hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ropeconv.formats.checkpoint import Checkpoint, StoredTensor
from ropeconv.knowledge.family import Family, Rule, Split, parse_rows
from ropeconv.thinking.whole import Piece, WholeTensor
from ropeconv.words.errors import Contradiction, IncompleteSource, Unsupported
from ropeconv.words.layout import num_rows
from ropeconv.words.model import Format, Geometry

Groups = Mapping[tuple[Rule, int | None], tuple[StoredTensor, ...]]


def expected_tensors(family: Family, geometry: Geometry) -> list[tuple[Rule, int | None]]:
    """Every tensor that the family has at that depth, in the model's order."""
    first = [rule for rule in family.rules if "{layer}" not in rule.name]
    layered = [rule for rule in family.rules if "{layer}" in rule.name]
    return [
        (first[0], None),
        *((rule, layer) for layer in range(geometry.num_layers) for rule in layered),
        *((rule, None) for rule in first[1:]),
    ]


def group_ranks(checkpoint: Checkpoint, family: Family) -> tuple[Groups, list[StoredTensor]]:
    """Stored tensors by rule and layer, each with one of every rank; and those that are dropped.

    Raises:
        Unsupported: a tensor that the family does not have.
        IncompleteSource: a layer, tensor or rank is missing.
        Contradiction: the number of a layer that cannot be.
    """
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


def join_ranks(
    checkpoint: Checkpoint,
    rule: Rule,
    layer: int | None,
    stored: tuple[StoredTensor, ...],
    geometry: Geometry,
    sizes: Mapping[str, int],
) -> WholeTensor:
    """One tensor of the model, made of what its ranks hold.

    Raises:
        Contradiction: ranks of different dtypes, or shapes that are not the family's.
    """
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
