"""A conversion, decided to the last byte before the first one is written.

A plan is a frozen value: what files the target has, what bytes of them are known already, and which
moves fill the rest. The same plan gives the same target, whoever executes it, in whatever order,
however often interrupted.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ropeconv.formats.checkpoint import Checkpoint, KeptTensor
from ropeconv.formats.new_file import Checksum, Fixed, NewFile
from ropeconv.formats.stamps import ManifestStamps
from ropeconv.thinking.blocks import block_nbytes
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.moves import Move
from ropeconv.thinking.whole import Piece, WholeTensor
from ropeconv.version import __version__
from ropeconv.words.layout import RopeLayout
from ropeconv.words.model import Format, Model, Note
from ropeconv.words.parts import Part


@dataclass(frozen=True, kw_only=True)
class TargetFile:
    """A file of the target that moves fill."""

    name: str
    nbytes: int
    fixed: tuple[Fixed, ...]
    checksums: tuple[Checksum, ...]


@dataclass(frozen=True, kw_only=True)
class SmallFile:
    """A file whose content the plan knows: configs and the index. Written last, at the seal."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A source tensor that the target does not hold, and why."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Clone:
    """Bytes that a target file can share with a source file, where the file system can share.

    Offsets agree modulo a page, and both ranges end where their files do.
    """

    source_file: int
    target_file: int
    source_offset: int
    target_offset: int
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a conversion will do.

    Attributes:
        files: targets of moves, by index.
        moves: in the order of the target's bytes.
        num_tensors: tensors of the target that come from the source; side files are none.
        num_reordered: tensors whose rows move.
        source_layout: of the rows that move.
        target_layout: of those rows afterwards.
        parts: of the model, whose rows move.
        embedding_split: how the source's ranks divide the embedding, for the way back.
        kept: dropped tensors that the manifest keeps by value.
        held: stamps that the manifest holds, where headers have no room; sums are not known yet.
    """

    source: Checkpoint
    source_layout: RopeLayout
    target_format: Format
    target_layout: RopeLayout
    model: Model
    files: tuple[TargetFile, ...]
    small_files: tuple[SmallFile, ...]
    moves: tuple[Move, ...]
    num_tensors: int
    num_reordered: int
    dropped: tuple[Dropped, ...]
    kept: tuple[KeptTensor, ...]
    embedding_split: str
    notes: tuple[Note, ...]
    clones: tuple[Clone, ...] = ()
    held: ManifestStamps | None = None
    parts: tuple[Part, ...] = (Part.TEXT,)

    def without_shared(self) -> Plan:
        """The plan of what is left to move when every clone has been made."""
        begins = {clone.target_file: clone.target_offset for clone in self.clones}
        moves = tuple(
            move
            for move in self.moves
            if move.order is not None
            or any(
                piece.offset < begins.get(piece.file, piece.offset + 1) for piece in move.targets
            )
        )
        return replace(self, moves=moves)

    @property
    def moved_nbytes(self) -> int:
        """Bytes that moves write; also what a progress bar counts."""
        return sum(piece.nbytes for move in self.moves for piece in move.targets)

    @property
    def read_nbytes(self) -> int:
        """Bytes that moves read."""
        return sum(piece.nbytes for move in self.moves for piece in move.sources)

    @property
    def target_nbytes(self) -> int:
        """Bytes of the target's files, without the manifest."""
        small = sum(len(file.text.encode()) for file in self.small_files)
        return small + sum(file.nbytes for file in self.files)

    def largest_block_nbytes(self, limit: int) -> int:
        """The largest buffer that a worker needs, in bytes."""
        return max((block_nbytes(move, limit) for move in self.moves), default=0)

    def digest(self) -> str:
        """A name for what this plan makes: equal for equal names, sizes, options and versions."""
        sha = hashlib.sha256()
        for part in self._spelled():
            sha.update(part.encode("utf-8", "surrogatepass"))  # a file name may be no text
            sha.update(b"\n")
        return sha.hexdigest()

    def moves_digest(self) -> str:
        """A name for the moves that reorder, and for the version that cuts them into blocks."""
        sha = hashlib.sha256(__version__.encode())
        for line in self._spelled_moves(move for move in self.moves if move.order is not None):
            sha.update(f"{line}\n".encode("utf-8", "surrogatepass"))
        return sha.hexdigest()

    def journal_key(self) -> str:
        """A name for this plan at this place and time: another once a source file is touched."""
        place = f"{self.digest()} {self.source.root.resolve()} {self.source.files!r}"
        return hashlib.sha256(place.encode()).hexdigest()

    def _spelled(self) -> Iterator[str]:
        yield __version__
        yield from (f"{file.name} {file.nbytes}" for file in self.source.files)
        for target in self.files:
            fixed = hashlib.sha256(b"".join(part.data for part in target.fixed)).hexdigest()
            yield f"{target.name} {target.nbytes} {fixed} {target.checksums}"
        yield from (repr(file) for file in self.small_files)
        yield from self._spelled_moves(self.moves)

    def _spelled_moves(self, moves: Iterable[Move]) -> Iterator[str]:
        orders: dict[int, str] = {}  # moves of one geometry share an order: spell each once
        for move in moves:
            if id(move.order) not in orders:
                orders[id(move.order)] = hashlib.sha256(repr(move.order).encode()).hexdigest()
            yield f"{move.name} {move.num_rows} {move.row_nbytes} {orders[id(move.order)]}"
            yield f"{move.sources} {move.targets}"


def place_fixed(file: NewFile, constants: Sequence[KeptTensor]) -> NewFile:
    """The file with the data of small constant tensors filled in, checksums included."""
    fixed = list(file.fixed)
    checksums = list(file.checksums)
    for constant in constants:
        begin = file.offsets[constant.name]
        fixed.append(Fixed(offset=begin, data=constant.data))
        for checksum in [entry for entry in checksums if entry.begin == begin]:
            checksums.remove(checksum)
            crc = zlib.crc32(constant.data).to_bytes(4, "little")
            fixed += [Fixed(offset=place, data=crc) for place in checksum.places]
    return replace(file, fixed=tuple(fixed), checksums=tuple(checksums))


def whole_piece(tensor: WholeTensor, *, file: int, offset: int) -> Piece:
    """A tensor stored in one piece."""
    return Piece(
        file=file,
        offset=offset,
        first_row=0,
        last_row=tensor.num_rows,
        first_byte=0,
        last_byte=tensor.row_nbytes,
    )


def dropped_tables(inventory: Inventory) -> tuple[Dropped, ...]:
    """Tensors that no target holds, each named once although every rank has it."""
    names = dict.fromkeys(tensor.name for tensor in inventory.dropped)
    return tuple(
        Dropped(name=name, why=inventory.family.reason_to_drop(name) or "") for name in names
    )
