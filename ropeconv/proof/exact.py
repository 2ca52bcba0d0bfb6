"""The exact check: every target byte equals the source byte that belongs there. No torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from ropeconv.formats.checkpoint import Checkpoint, reason
from ropeconv.moving.engine import run_blocks
from ropeconv.moving.execute import Effort
from ropeconv.moving.files import OpenFiles, read_scattered, shorter
from ropeconv.moving.scatters import Scatters
from ropeconv.proof.mistakes import Sides, explain, first_difference, summarise
from ropeconv.proof.verdict import ExactCheck, Finding, Outcome
from ropeconv.thinking.blocks import Block, Write, block_nbytes, blocks
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.moves import Move, make_move
from ropeconv.thinking.whole import Piece, WholeTensor
from ropeconv.words.errors import SourceError
from ropeconv.words.events import Listener, WorkDone, WorkPlanned

TIED = {"lm_head.weight": "model.embed_tokens.weight"}


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which source tensor each target tensor must equal.

    Attributes:
        moves: from source pieces to the places where the target holds the same tensor.
        tensors: the target's side of each move.
        findings: tensors with no partner, or of another shape or dtype.
    """

    moves: tuple[Move, ...]
    tensors: tuple[WholeTensor, ...]
    findings: tuple[Finding, ...]


def pair(source: Inventory, target: Inventory) -> Pairing:
    """Match tensors by canonical name; a tied output is matched with the other side's embedding."""
    moves: list[Move] = []
    tensors: list[WholeTensor] = []
    findings: list[Finding] = []
    names = dict.fromkeys([tensor.name for tensor in (*source.tensors, *target.tensors)])
    for name in names:
        ours, theirs = _or_tied(source, name), _or_tied(target, name)
        if ours is None or theirs is None:
            side = "source" if ours is None else "target"
            findings.append(Finding(tensor=name, text=f"missing from the {side}"))
        elif (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            text = (
                f"{theirs.dtype.value} {list(theirs.shape)},"
                f" expected {ours.dtype.value} {list(ours.shape)}"
            )
            findings.append(Finding(tensor=name, text=text))
        else:
            places = (*theirs.pieces, *theirs.copies)
            ends = source.layout_in(ours.part), target.layout_in(theirs.part)
            move = make_move(ours, *ends, places)
            moves.append(replace(move, name=name))  # a tied output's is that of the embedding
            tensors.append(theirs)
    return Pairing(moves=tuple(moves), tensors=tuple(tensors), findings=tuple(findings))


def _or_tied(inventory: Inventory, name: str) -> WholeTensor | None:
    found = inventory.find(name)
    if found is None and name in TIED and inventory.checkpoint.claims.tied:
        return inventory.find(TIED[name])
    return found


def check_exact(
    source: Inventory, target: Inventory, effort: Effort, listen: Listener
) -> ExactCheck:
    """Compare every tensor, streamed in bounded memory.

    Raises:
        SourceError: one of the two cannot be read.
    """
    pairing = pair(source, target)
    total = sum(piece.nbytes for move in pairing.moves for piece in move.targets)
    listen(WorkPlanned(title="comparing bytes", total_nbytes=total))
    nbytes = max((block_nbytes(move, effort.block_nbytes) for move in pairing.moves), default=0)
    differences = _Differences()
    run_blocks(
        _all_blocks(pairing, effort.block_nbytes),
        lambda: _Comparer(source.checkpoint, target.checkpoint, differences, nbytes),
        jobs=effort.jobs,
        listen=listen,
    )
    listen(WorkDone(title="comparing bytes"))
    sides = Sides(source=source, target=target)
    # by the move's name: the target's side of a tied output is called as the embedding is
    differing = {
        move.name: tensor
        for move, tensor in zip(pairing.moves, pairing.tensors, strict=True)
        if move.name in differences.first
    }
    elsewhere = {
        name: text
        for name, tensor in differing.items()
        if (text := _outside(source, name, tensor, *differences.first[name]))
    }
    mistakes = explain(sides, [name for name in differing if name not in elsewhere])
    named = {mistake.tensor: mistake.text for mistake in mistakes}
    findings = [*pairing.findings]
    for name, tensor in differing.items():
        row, column = _place(tensor, *differences.first[name])
        known = elsewhere.get(name) or named.get(name)
        text = known or first_difference(sides, name, row, column)
        findings.append(Finding(tensor=name, text=text))
    return ExactCheck(
        outcome=Outcome.DIFFERENT if findings else Outcome.SAME,
        num_tensors=len(pairing.moves),
        num_reordered=sum(move.order is not None for move in pairing.moves),
        nbytes=total,
        findings=tuple(findings),
        diagnosis=summarise(mistakes),
        named=tuple(named),
    )


def _all_blocks(pairing: Pairing, limit: int) -> Iterator[Block]:
    for move in pairing.moves:
        yield from blocks(move, limit)


class _Differences:
    """Where each tensor first differs: (file, offset) of the byte, and how many blocks differ."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def add(self, name: str, file: int, offset: int) -> None:
        """A byte that differs."""
        with self._lock:
            self.first[name] = min(self.first.get(name, (file, offset)), (file, offset))


class _Comparer:
    """Reads the source as a conversion would, and compares with what the target holds."""

    def __init__(
        self, source: Checkpoint, target: Checkpoint, differences: _Differences, nbytes: int
    ) -> None:
        self._source, self._target = source, target
        self._differences = differences
        self._expected = memoryview(bytearray(nbytes))
        self._scatters = Scatters(self._expected)
        self._found = memoryview(bytearray(nbytes))
        self._sources = OpenFiles(source.path, os.O_RDONLY)
        self._targets = OpenFiles(target.path, os.O_RDONLY)

    def run(self, block: Block) -> int:
        """Compare one block."""
        for read in block.reads:
            self._scatters.fill(
                read.scatter,
                partial(_read, self._source, self._sources, read.file, read.offset),
            )
        for write in block.writes:
            self._compare(block.name, write)
        return sum(write.nbytes for write in block.writes)

    def _compare(self, name: str, write: Write) -> None:
        found = self._found[: write.nbytes]
        _read(self._target, self._targets, write.file, write.offset, [found])
        # comparing copies costs a fraction of comparing views, which goes byte by byte
        expected_bytes = bytes(self._expected[write.start : write.start + write.nbytes])
        found_bytes = bytes(found)
        if expected_bytes != found_bytes:
            first = _first_difference(expected_bytes, found_bytes)
            self._differences.add(name, write.file, write.offset + first)

    def close(self) -> None:
        """Close every file."""
        self._sources.close()
        self._targets.close()


def _read(
    checkpoint: Checkpoint, files: OpenFiles, file: int, offset: int, views: list[memoryview]
) -> None:
    try:
        read_scattered(files[file], views, offset)
    except EOFError:
        raise shorter(checkpoint.path(file)) from None
    except OSError as error:
        path = checkpoint.path(file)
        raise SourceError(what=f"cannot read `{path}`", why=reason(error)) from error


def _first_difference(one: bytes, other: bytes) -> int:
    """The first place where two unequal strings of one length differ, by halving."""
    first, last = 0, len(one)
    while last - first > 1:
        middle = (first + last) // 2
        if one[first:middle] != other[first:middle]:
            last = middle
        else:
            first = middle
    return first


def _outside(source: Inventory, name: str, tensor: WholeTensor, file: int, offset: int) -> str:
    """Words for a difference that does not lie in the tensor of that name itself; else empty."""
    row, _ = _place(tensor, file, offset)
    if tensor.name != name:
        return f"row {row} differs from `{tensor.name}`, to which the target ties it"
    ours = source.find(name)
    if ours is None:
        return f"row {row} differs from the embedding, to which the source ties it"
    if not any(_holds(piece, file, offset) for piece in tensor.pieces):
        return f"row {row} of the copy in another rank differs"
    return ""


def _holds(piece: Piece, file: int, offset: int) -> bool:
    return piece.file == file and piece.offset <= offset < piece.offset + piece.nbytes


def _place(tensor: WholeTensor, file: int, offset: int) -> tuple[int, int]:
    """Row and column of a byte in a file."""
    piece = next(
        piece
        for piece in (*tensor.pieces, *tensor.copies)
        if piece.file == file and piece.offset <= offset < piece.offset + piece.nbytes
    )
    row, byte = divmod(offset - piece.offset, piece.row_nbytes)
    return row + piece.first_row, (piece.first_byte + byte) // tensor.dtype.nbytes
