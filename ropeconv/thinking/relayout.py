"""The plan of a conversion within Hugging Face's format: rotary rows move, nothing else changes.

Files keep their names, tensors their order, and data its place modulo a page, so that a file system
that can share blocks between files shares all but the rotary rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ropeconv.formats.checkpoint import Checkpoint, StoredTensor
from ropeconv.formats.hf import CONFIG, INDEX
from ropeconv.formats.new_file import Fixed
from ropeconv.formats.safetensors import PAGE_NBYTES, Header, restamped_header
from ropeconv.formats.stamps import stamp_key
from ropeconv.thinking.inventory import Inventory, Piece
from ropeconv.thinking.moves import Move, make_move
from ropeconv.thinking.plan import Clone, Plan, SmallFile, TargetFile, whole_piece
from ropeconv.thinking.side_files import side_files
from ropeconv.words.errors import AlreadyConverted
from ropeconv.words.layout import RopeLayout
from ropeconv.words.model import Format, Model, Note
from ropeconv.words.parts import Part


def plan_relayout(
    inventory: Inventory,
    model: Model,
    layout: RopeLayout,
    *,
    parts: Sequence[Part],
    headers: Sequence[Header],
    index: str,
    notes: Sequence[Note],
    in_place: bool = False,
) -> Plan:
    """Everything that moving this checkpoint's rows into another layout takes.

    Args:
        inventory: the source; its layout is the one that its rows are in.
        model: what it is.
        layout: of the target.
        parts: of the model, whose rows shall be in that layout; those of others stay.
        headers: of the weights' files, by their number in the checkpoint.
        index: text of the index; empty if there is none.
        notes: what was inferred so far.
        in_place: headers without room for the stamp stay as they are, so that no data moves.

    Raises:
        AlreadyConverted: the rows are in that layout already.
    """
    checkpoint = inventory.checkpoint
    moving = [part for part in parts if inventory.layout_in(part) != layout]
    if not moving:
        raise _already(checkpoint, layout, parts)
    stamps = {stamp_key(part): layout.name for part in parts}
    files: list[TargetFile] = []
    moves: list[Move] = []
    clones: list[Clone] = []
    whole = {(t.pieces[0].file, t.pieces[0].offset): t for t in inventory.tensors}
    for number, header in enumerate(headers):
        found = checkpoint.files[number]
        old_start = min((tensor.offset for tensor in header.tensors), default=found.nbytes)
        head = restamped_header(header, old_start, stamps)
        fits = len(head) == old_start or not in_place
        shift = len(head) - old_start if fits else 0
        files.append(
            TargetFile(
                name=found.name,
                nbytes=found.nbytes + shift,
                fixed=(Fixed(offset=0, data=head),) if fits else (),
                checksums=(),
            )
        )
        page = -(-old_start // PAGE_NBYTES) * PAGE_NBYTES if shift else 0
        clones.append(
            Clone(
                source_file=number,
                target_file=number,
                source_offset=page,
                target_offset=page + shift if page else 0,
                nbytes=found.nbytes - page,
            )
        )
        plain = old_start
        for stored in header.tensors:
            tensor = whole.get((number, stored.offset))
            if tensor is None or not stored.nbytes:
                continue  # what the family drops is moved as it is
            target = whole_piece(tensor, file=number, offset=stored.offset + shift)
            before = inventory.layout_in(tensor.part)
            move = make_move(tensor, before, layout if tensor.part in parts else before, (target,))
            if move.order is not None:
                moves += _plain(stored, plain, stored.offset, shift, page)
                moves.append(move)
                plain = stored.offset + stored.nbytes
        if header.tensors:
            moves += _plain(header.tensors[-1], plain, found.nbytes, shift, page)
    small = [SmallFile(name=CONFIG, text=checkpoint.config)]
    if index:
        small.insert(0, SmallFile(name=INDEX, text=index))
    copied, copies = side_files(checkpoint, len(files))
    return Plan(
        source=checkpoint,
        source_layout=inventory.layout_in(moving[0]),
        target_format=Format.HF,
        target_layout=layout,
        model=model,
        files=(*files, *copied),
        small_files=tuple(small),
        moves=(*moves, *copies),
        num_tensors=len(checkpoint.tensors),
        num_reordered=sum(move.order is not None for move in moves),
        dropped=(),
        kept=(),
        embedding_split="",
        notes=tuple(notes),
        clones=tuple(clones),
        parts=tuple(parts),
    )


def _already(checkpoint: Checkpoint, layout: RopeLayout, parts: Sequence[Part]) -> AlreadyConverted:
    stamped = {part for part, _ in checkpoint.tower_stamps}
    if checkpoint.stamp is not None:
        stamped.add(Part.TEXT)
    said = "stamped" if stamped & {*parts} else "by convention"
    return AlreadyConverted(
        what=f"`{checkpoint.root}` has {layout} rows already",
        why=f"its {' and '.join(part.value for part in parts)} rows are {said} {layout}",
        fix="name the other direction, if the rows must move",
    )


def _plain(last: StoredTensor, begin: int, end: int, shift: int, page: int) -> list[Move]:
    """Bytes that keep their order, cut where sharing may begin."""
    cuts = (begin, page, end) if begin < page < end else (begin, end)
    return [
        Move(
            name=last.name,
            num_rows=right - left,
            row_nbytes=1,
            order=None,
            sources=(_run(last.file, left, right - left),),
            targets=(_run(last.file, left + shift, right - left),),
        )
        for left, right in pairwise(cuts)
        if left < right
    ]


def _run(file: int, offset: int, nbytes: int) -> Piece:
    return Piece(file=file, offset=offset, first_row=0, last_row=nbytes, first_byte=0, last_byte=1)
