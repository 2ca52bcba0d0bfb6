"""The plan of a conversion within Hugging Face's format: rotary rows move, nothing else changes.

Files keep their names, tensors their order, and data its place modulo a page, so that a file system
that can share blocks between files shares all but the rotary rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ropeconv.formats.checkpoint import Checkpoint, StoredTensor
from ropeconv.formats.hf import CONFIG, INDEX
from ropeconv.formats.new_file import Fixed
from ropeconv.formats.safetensors import PAGE_NBYTES, Header, restamped_header
from ropeconv.formats.stamps import ManifestStamps, Sample, stamp_key, with_stamps
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.moves import Move, make_move
from ropeconv.thinking.plan import Clone, Plan, SmallFile, TargetFile, whole_piece
from ropeconv.thinking.side_files import side_files
from ropeconv.thinking.whole import Piece
from ropeconv.words.errors import AlreadyConverted
from ropeconv.words.layout import RopeLayout
from ropeconv.words.model import Format, Model, Note
from ropeconv.words.parts import Part

MAX_SAMPLES, SAMPLE_NBYTES = 1024, 64


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
    samples: Sequence[Sample] = (),
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
        in_place: no data moves; if a header has no room for the stamps, the manifest holds them.
        samples: of rows that the source's manifest holds stamps for.

    Raises:
        AlreadyConverted: the rows are in that layout already.
    """
    checkpoint = inventory.checkpoint
    moving = [part for part in parts if inventory.layout_in(part) != layout]
    if not moving:
        raise _already(checkpoint, layout, parts)
    stamps = stamps_of(checkpoint) | {stamp_key(part): layout.name for part in parts}
    starts = [
        min((tensor.offset for tensor in header.tensors), default=checkpoint.files[number].nbytes)
        for number, header in enumerate(headers)
    ]
    heads: list[bytes | None] = [
        restamped_header(header, start, with_stamps(header.metadata, stamps))
        for header, start in zip(headers, starts, strict=True)
    ]
    held = in_place and any(
        len(head or b"") != start for head, start in zip(heads, starts, strict=True)
    )
    if held:
        heads = [
            _without_stamps(header, start) for header, start in zip(headers, starts, strict=True)
        ]
    files: list[TargetFile] = []
    moves: list[Move] = []
    clones: list[Clone] = []
    whole = {(t.pieces[0].file, t.pieces[0].offset): t for t in inventory.tensors}
    for number, header in enumerate(headers):
        found = checkpoint.files[number]
        old_start, head = starts[number], heads[number]
        shift = len(head) - old_start if head is not None else 0
        files.append(
            TargetFile(
                name=found.name,
                nbytes=found.nbytes + shift,
                fixed=() if head is None else (Fixed(offset=0, data=head),),
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
        held=_held(stamps, samples, moves, files) if held else None,
    )


def stamps_of(checkpoint: Checkpoint) -> dict[str, str]:
    """A checkpoint's stamps, by their keys."""
    stamps = dict(checkpoint.tower_stamps)
    if checkpoint.stamp is not None:
        stamps[Part.TEXT] = checkpoint.stamp
    return {stamp_key(part): layout.name for part, layout in stamps.items()}


def _without_stamps(header: Header, start: int) -> bytes | None:
    """A header's bytes without the stamps that it has; None if it has none."""
    kept = with_stamps(header.metadata, {})
    return None if kept == dict(header.metadata) else restamped_header(header, start, kept)


def _held(
    stamps: Mapping[str, str],
    samples: Sequence[Sample],
    moves: Sequence[Move],
    files: Sequence[TargetFile],
) -> ManifestStamps:
    """Stamps for the manifest, with places of rows that tell whether they are of these weights.

    Every move has a sample, up to MAX_SAMPLES; older samples stay where nothing moves.
    """
    moving = [move for move in moves if move.order and move.order != tuple(range(move.num_rows))]
    spans = [(piece.file, piece.offset, piece.nbytes) for move in moving for piece in move.targets]
    names = {file.name: number for number, file in enumerate(files)}
    kept = [
        sample
        for sample in samples
        if not any(
            names.get(sample.file) == file and offset <= sample.offset < offset + nbytes
            for file, offset, nbytes in spans
        )
    ]
    step = max(1, -(-len(moving) // MAX_SAMPLES))
    return ManifestStamps(
        values=tuple(stamps.items()),
        samples=(*kept, *(_sample_of(move, files) for move in moving[::step])),
    )


def _sample_of(move: Move, files: Sequence[TargetFile]) -> Sample:
    """The beginning of the first row that moves."""
    assert move.order is not None, move.name
    row = next(row for row, source in enumerate(move.order) if row != source)
    place = move.targets[0]
    return Sample(
        file=files[place.file].name,
        offset=place.offset + row * place.row_nbytes,
        nbytes=min(SAMPLE_NBYTES, place.row_nbytes),
        crc32=0,
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
