"""Rewrites rotary rows where they lie, so that a kill at any instant loses nothing.

Within one tensor an interrupted rewrite looks fine and is corrupt. So the old bytes of a portion of
blocks are on the disk, in an undo file, before the first of them is overwritten. The journal says
which portions are done and which one is open:

    heading       what is being done, and the layout that the rows were in
    begin N       the old bytes of portion N are in the undo file
    done N        the new bytes of portion N are in the checkpoint

Each line is durable before the next step. To go on, an open portion is undone, then done again.
While the work lasts, the checkpoint is stamped `unfinished`, which no reader takes for a layout.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ropeconv.formats.checkpoint import reason
from ropeconv.formats.stamps import Sample
from ropeconv.moving.engine import interrupted
from ropeconv.moving.files import (
    BINARY,
    OpenFiles,
    flush,
    read_scattered,
    read_span,
    write_all,
)
from ropeconv.moving.journal import JOURNAL
from ropeconv.moving.views import Views
from ropeconv.thinking.blocks import Block, blocks
from ropeconv.thinking.moves import Move
from ropeconv.thinking.plan import Plan
from ropeconv.words.errors import AnotherRun, BrokenFile, Refused, TargetError
from ropeconv.words.events import BytesDone, Listener, WorkDone, WorkPlanned

SCHEMA = 1
UNDO = "undo"
PORTION_BLOCKS = 64  # about 64 MiB: large enough that flushes do not count, small enough to redo
MAX_SAMPLES, SAMPLE_NBYTES = 64, 64
RECORD = struct.Struct("<IQQI")  # of the undo file: file, offset, bytes, CRC; then the bytes


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What an in-place run does, and what it needs to begin again.

    Attributes:
        key: names the work; it depends on nothing that the work changes.
        stamps: the checkpoint's, as they were.
        files: names, by the numbers that the undo file gives them.
    """

    key: str
    stamps: Mapping[str, str]
    files: tuple[str, ...]


def check_in_place(plan: Plan) -> None:
    """Whether a checkpoint's files may be rewritten where they lie.

    Raises:
        Refused: a file is shared with others by name.
    """
    for number in sorted(_touched(plan)):
        path = plan.source.path(number)
        if path.is_symlink():
            raise Refused(
                what=f"`{path}` is a link, as in the Hugging Face cache",
                why="its blob may belong to other snapshots too",
                fix="convert into a new folder instead",
            )
        if path.stat().st_nlink > 1:
            raise Refused(
                what=f"`{path}` has {path.stat().st_nlink} names",
                why="a file with hard links would change under every one of them",
                fix="convert into a new folder instead",
            )


def _touched(plan: Plan) -> set[int]:
    """Numbers of the files that are written: restamped, or with rows that move."""
    stamped = {number for number, file in enumerate(plan.files) if file.fixed}
    return stamped | {piece.file for move in reordered(plan) for piece in move.targets}


def reordered(plan: Plan) -> list[Move]:
    """Moves of which something is left to do where the bytes lie already."""
    return [move for move in plan.moves if move.order is not None]


def take_samples(plan: Plan) -> tuple[Sample, ...]:
    """Sums of some rows that are in the new layout now."""
    moves = reordered(plan)
    samples = []
    for move in moves[:: -(-len(moves) // MAX_SAMPLES)]:
        assert move.order is not None, move.name
        row = next(row for row, source in enumerate(move.order) if row != source)
        place = move.targets[0]
        offset = place.offset + row * place.row_nbytes
        nbytes = min(SAMPLE_NBYTES, place.row_nbytes)
        data = read_span(plan.source.path(place.file), offset, nbytes)
        name = plan.files[place.file].name
        samples.append(Sample(file=name, offset=offset, nbytes=nbytes, crc32=zlib.crc32(data)))
    return tuple(samples)


class InPlace:
    """One in-place run, held together by its journal in a folder beside the checkpoint."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._journal = folder / JOURNAL
        self._undo = folder / UNDO
        self._done = 0  # portions

    def resume(self, key: str) -> Mapping[str, str] | None:
        """Bring back a state from which an interrupted run can go on, if there was one.

        The open portion is undone; rows of finished portions are new already.

        Returns:
            The stamps that the checkpoint had; None if there was no such run.

        Raises:
            AnotherRun: the interrupted run did something else.
        """
        heading, lines = self._read()
        if heading is None:
            return None
        if heading.key != key:
            raise AnotherRun(
                what=f"`{self._root}` holds the work of an interrupted run of another kind",
                why="its rows are partly in one layout, partly in the other",
                fix="repeat that run's command first",
            )
        done = [int(number) for word, number in lines if word == "done"]
        self._done = max(done, default=-1) + 1
        if lines and lines[-1][0] == "begin":
            for name, offset, data in self._undone():
                _overwrite(self._root / name, offset, data)
        return heading.stamps

    def begin(self, key: str, plan: Plan, stamps: Mapping[str, str]) -> None:
        """Write the journal's heading, if this run does not go on with another.

        Args:
            key: names the work.
            plan: what will be done.
            stamps: the checkpoint's, as they are.
        """
        if not self._journal.exists():
            fields = {
                "schema": SCHEMA,
                "key": key,
                "stamps": dict(stamps),
                "files": [file.name for file in plan.files],
            }
            fresh = self._journal.with_suffix(".new")
            fresh.write_text(json.dumps(fields) + "\n", encoding="ascii")
            flush(fresh)
            fresh.rename(self._journal)
            flush(self._journal.parent)

    def stamp(self, heads: Iterable[tuple[str, bytes]]) -> None:
        """Give files, by name, other first bytes."""
        for name, head in heads:
            _overwrite(self._root / name, 0, head)

    def execute(
        self, plan: Plan, block_nbytes: int, listen: Listener, stop: threading.Event | None
    ) -> None:
        """Rewrite the rows of every portion that is not done.

        Raises:
            Interrupted: stop was set; a portion may be open.
            TargetError: the disk is full or a file cannot be written.
        """
        moves = reordered(plan)
        total = sum(piece.nbytes for move in moves for piece in move.targets)
        work = (block for move in moves for block in blocks(move, block_nbytes))
        done_nbytes = sum(block.nbytes for block in islice(work, self._done * PORTION_BLOCKS))
        listen(WorkPlanned(title="rewriting rows", total_nbytes=total, done_nbytes=done_nbytes))
        files = OpenFiles(lambda file: self._root / plan.files[file].name, os.O_RDWR)
        buffer = memoryview(bytearray(plan.largest_block_nbytes(block_nbytes)))
        views = Views(buffer)
        try:
            while portion := list(islice(work, PORTION_BLOCKS)):
                self._save(portion, files, buffer, stop)
                self._say(f"begin {self._done}")
                for block in portion:
                    _end_if(stop)
                    _rewrite(block, files, buffer, views)
                    listen(BytesDone(nbytes=block.nbytes))
                for file in sorted({write.file for block in portion for write in block.writes}):
                    flush(self._root / plan.files[file].name)
                self._say(f"done {self._done}")
                self._done += 1
        except (OSError, EOFError) as error:
            why = reason(error) if isinstance(error, OSError) else "a file ended early"
            raise TargetError(
                what=f"cannot rewrite `{self._root}`",
                why=why,
                fix="set this right, then run the same command again to go on",
            ) from error
        finally:
            files.close()
        listen(WorkDone(title="rewriting rows"))

    def _save(
        self,
        portion: Sequence[Block],
        files: OpenFiles,
        buffer: memoryview,
        stop: threading.Event | None,
    ) -> None:
        """Bring the old bytes of a portion to the disk."""
        with self._undo.open("wb") as undo:
            for block in portion:
                _end_if(stop)
                for write in block.writes:
                    view = buffer[: write.nbytes]
                    read_scattered(files[write.file], [view], write.offset)
                    crc = zlib.crc32(view)
                    undo.write(RECORD.pack(write.file, write.offset, write.nbytes, crc))
                    undo.write(view)
            undo.flush()
            os.fsync(undo.fileno())

    def _undone(self) -> Iterator[tuple[str, int, bytes]]:
        """Name, offset and old bytes of what an open portion may have overwritten."""
        heading, _ = self._read()
        assert heading is not None, "a portion is open"
        with self._undo.open("rb") as undo:
            while head := undo.read(RECORD.size):
                file, offset, nbytes, crc = RECORD.unpack(head)
                data = undo.read(nbytes)
                if len(data) != nbytes or zlib.crc32(data) != crc:
                    raise BrokenFile(
                        what=f"`{self._undo}` is damaged",
                        why="it was whole and on the disk before the rewrite began",
                        fix="take the checkpoint from where it came",
                    )
                yield heading.files[file], offset, data

    def _read(self) -> tuple[Heading | None, list[tuple[str, str]]]:
        """The heading and the whole lines after it."""
        try:
            text = self._journal.read_text(encoding="ascii")
        except FileNotFoundError:
            return None, []
        whole = text[: text.rindex("\n") + 1]
        if (
            whole != text
        ):  # a line that a crash has torn counts for nothing, and must not be added to
            os.truncate(self._journal, len(whole))
        first, *rest = whole.splitlines()
        fields = json.loads(first)
        if "stamps" not in fields:
            # the journal of a conversion into this folder
            return Heading(key="", stamps={}, files=()), []
        lines = [(word, number) for word, number in (line.split() for line in rest)]
        heading = Heading(key=fields["key"], stamps=fields["stamps"], files=tuple(fields["files"]))
        return heading, lines

    def _say(self, line: str) -> None:
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | BINARY)
        try:
            data = memoryview(f"{line}\n".encode())
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _end_if(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise interrupted()


def _rewrite(block: Block, files: OpenFiles, buffer: memoryview, views: Views) -> None:
    """A block reads and writes the same bytes of the file, in two orders."""
    for read in block.reads:
        read_scattered(files[read.file], views.of(read.scatter), read.offset)
    for write in block.writes:
        view = buffer[write.start : write.start + write.nbytes]
        write_all(files[write.file], view, write.offset)


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | BINARY)
    try:
        write_all(descriptor, memoryview(data), offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
