"""Rewrites rotary rows where they lie, so that a kill at any instant loses nothing.

Within one tensor an interrupted rewrite looks fine and is corrupt. So the old bytes of a portion of
blocks are on the disk, in an undo file, before the first of them is overwritten. To go on, an open
portion is undone, then done again. While the work lasts, the checkpoint is stamped `unfinished`,
which no reader takes for a layout.

A journal can outlive its checkpoint: another may have been put in its place. Nothing is undone or
skipped unless files begin as the journal says, hold samples of what was done, and of what is not
rewritten.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from ropeconv.formats.checkpoint import reason
from ropeconv.formats.stamps import UNFINISHED, Sample, read_held
from ropeconv.moving.files import BINARY, OpenFiles, flush, read_scattered, read_span, write_all
from ropeconv.moving.inplace_journal import Heading, InPlaceJournal
from ropeconv.moving.scatters import Scatters
from ropeconv.thinking.blocks import Block, blocks
from ropeconv.thinking.moves import Move
from ropeconv.thinking.plan import Plan
from ropeconv.words.errors import (
    AnotherRun,
    BrokenFile,
    Interrupted,
    Refused,
    RopeconvError,
    TargetError,
)
from ropeconv.words.events import BytesDone, Listener, WorkDone, WorkPlanned

UNDO = "undo"
PORTION_BLOCKS = 64  # about 64 MiB: large enough that flushes do not count, small enough to redo
MAX_OTHERS = 64
SAMPLE_NBYTES = 64  # from the middle of each write
RECORD = struct.Struct("<IQQI")  # of the undo file: file, offset, bytes, CRC; then the bytes


def check_in_place(plan: Plan) -> None:
    """Whether a checkpoint's files may be rewritten where they lie.

    Raises:
        Refused: a file is shared with others by name.
        TargetError: a file, or the folder, may not be written.
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
        for place in (path, plan.source.root):
            if not os.access(place, os.W_OK):
                raise TargetError(
                    what=f"`{place}` may not be written",
                    fix="give yourself the right to, or convert into a new folder instead",
                )


def _touched(plan: Plan) -> set[int]:
    """Numbers of the files that are written: restamped, or with rows that move."""
    stamped = {number for number, file in enumerate(plan.files) if file.fixed}
    return stamped | {piece.file for move in reordered(plan) for piece in move.targets}


def reordered(plan: Plan) -> list[Move]:
    """Moves of which something is left to do where the bytes lie already."""
    return [move for move in plan.moves if move.order is not None]


def sum_samples(root: Path, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Samples with the CRCs of what the files hold now."""
    return tuple(
        replace(
            sample, crc32=zlib.crc32(read_span(root / sample.file, sample.offset, sample.nbytes))
        )
        for sample in samples
    )


class InPlace:
    """One in-place run, held together by its journal in a folder beside the checkpoint."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._undo = folder / UNDO
        self._journal = InPlaceJournal(folder)
        self._heading: Heading | None = None

    @property
    def is_finishing(self) -> bool:
        """Whether only stamps are left to do."""
        return self._heading is not None and self._heading.finishing

    def resume(self, key: str) -> Mapping[str, str] | None:
        """Bring back a state from which an interrupted run can be planned again.

        Returns:
            The stamps that the checkpoint had; None if there was no such run.

        Raises:
            AnotherRun: the interrupted run did something else, or to another checkpoint.
        """
        heading = self._journal.read()
        if heading is None:
            return None
        if heading.key != key:
            raise AnotherRun(
                what=f"a conversion of `{self._root}` in place was interrupted, another than this",
                why="its rows may be partly in one layout, partly in the other",
                fix="repeat that run's command first",
            )
        for name, nbytes in heading.sizes.items():
            path = self._root / name
            if not path.is_file() or path.stat().st_size != nbytes:
                raise self._replaced(name)
        for before, now in zip(
            heading.others, sum_samples(self._root, heading.others), strict=True
        ):
            if before != now:
                raise self._replaced(before.file)
        if self._journal.has_begun and heading.held and not self._is_held_unfinished():
            raise self._replaced("ropeconv.json")
        for name, head in heading.heads.items():
            if read_span(self._root / name, 0, len(head)) != head:
                if self._journal.has_begun:
                    raise self._replaced(name)
                self._overwrite(name, 0, head)  # a kill has torn it
        self._heading = heading
        return heading.stamps

    def begin(
        self, key: str, plan: Plan, stamps: Mapping[str, str], heads: Mapping[str, bytes]
    ) -> None:
        """Write the journal's heading and stamp files unfinished, unless a run goes on.

        Args:
            key: names what is asked for.
            plan: what will be done.
            stamps: the checkpoint's, as they are.
            heads: first bytes of files, stamped unfinished, by name.

        Raises:
            AnotherRun: the interrupted run had planned other moves.
        """
        if self._heading is not None:
            if self._heading.digest != plan.moves_digest():
                raise AnotherRun(
                    what=f"the interrupted rewrite of `{self._root}` had another plan",
                    why="another version of ropeconv began it, or its config has changed",
                    fix="repeat it with the version and the config that began it",
                )
            return
        names = tuple(file.name for file in plan.files)
        self._heading = Heading(
            key=key,
            digest=plan.moves_digest(),
            stamps=stamps,
            sizes={names[number]: plan.files[number].nbytes for number in _touched(plan)},
            others=sum_samples(self._root, _others(plan)),
            names=names,
            heads=heads,
            held=plan.held is not None,
            finishing=False,
        )
        self._journal.put(self._heading)
        for name, head in heads.items():
            self._overwrite(name, 0, head)

    def finish(self, heads: Mapping[str, bytes]) -> None:
        """Give files their last stamps: first bytes by name."""
        assert self._heading is not None, "begun"
        self._heading = replace(self._heading, heads=heads, finishing=True)
        self._journal.put(self._heading)
        for name, head in heads.items():
            self._overwrite(name, 0, head)

    def execute(
        self, plan: Plan, block_nbytes: int, listen: Listener, stop: threading.Event | None
    ) -> None:
        """Rewrite the rows of every portion that is not done.

        Raises:
            Interrupted: stop was set; a portion may be open.
            AnotherRun: what is done is not what the journal says.
            TargetError: the disk is full or a file cannot be written.
        """
        moves = reordered(plan)
        total = sum(piece.nbytes for move in moves for piece in move.targets)
        work = (block for move in moves for block in blocks(move, block_nbytes))
        files = OpenFiles(lambda file: self._root / plan.files[file].name, os.O_RDWR)
        buffer = memoryview(bytearray(plan.largest_block_nbytes(block_nbytes)))
        scatters = Scatters(buffer)
        try:
            done_nbytes = 0
            for crc in self._journal.done:
                portion = list(islice(work, PORTION_BLOCKS))
                if _sample(portion, files) != crc:
                    raise self._replaced(plan.files[portion[0].writes[0].file].name)
                done_nbytes += sum(block.nbytes for block in portion)
            if self._journal.is_open:
                self._bring_back()
            listen(WorkPlanned(title="rewriting rows", total_nbytes=total, done_nbytes=done_nbytes))
            while portion := list(islice(work, PORTION_BLOCKS)):
                self._save(portion, files, buffer, stop)
                self._journal.begin()
                for block in portion:
                    _end_if(stop)
                    _rewrite(block, files, buffer, scatters)
                    listen(BytesDone(nbytes=block.nbytes))
                for file in sorted({write.file for block in portion for write in block.writes}):
                    flush(self._root / plan.files[file].name)
                self._journal.finish(_sample(portion, files))
        except (OSError, EOFError) as error:
            raise self._cannot(error) from error
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

    def _bring_back(self) -> None:
        """Undo the open portion."""
        for name, offset, data in self._undone():
            self._overwrite(name, offset, data)
        self._journal.undone()

    def _undone(self) -> Iterator[tuple[str, int, bytes]]:
        """Name, offset and old bytes of what an open portion may have overwritten."""
        assert self._heading is not None, "a portion is open"
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
                yield self._heading.names[file], offset, data

    def _is_held_unfinished(self) -> bool:
        return UNFINISHED in dict(read_held(self._root).values).values()

    def _overwrite(self, name: str, offset: int, data: bytes) -> None:
        try:
            descriptor = os.open(self._root / name, os.O_WRONLY | BINARY)
            try:
                write_all(descriptor, memoryview(data), offset)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._cannot(error) from error

    def _replaced(self, name: str) -> AnotherRun:
        return AnotherRun(
            what=f"`{self._root}` is not the checkpoint whose rewrite was interrupted",
            why=f"`{name}` was replaced or changed since",
            fix=f"bring it back to go on, or remove `{self._folder}` if all weights are new",
        )

    def _cannot(self, error: OSError | EOFError) -> RopeconvError:
        why = reason(error) if isinstance(error, OSError) else "a file ended early"
        return TargetError(
            what=f"cannot rewrite `{self._root}`",
            why=why,
            fix="set this right, then run the same again to go on",
        )


def _others(plan: Plan) -> list[Sample]:
    """Places in the middle of runs that are not rewritten, evenly spread."""
    touched = _touched(plan)
    still = [
        move.targets[0]
        for move in plan.moves
        if move.order is None and move.num_rows and move.targets[0].file in touched
    ]
    places = []
    for piece in still[:: max(1, -(-len(still) // MAX_OTHERS))]:
        nbytes = min(SAMPLE_NBYTES, piece.nbytes)
        places.append(
            Sample(
                file=plan.files[piece.file].name,
                offset=piece.offset + (piece.nbytes - nbytes) // 2,
                nbytes=nbytes,
                crc32=0,
            )
        )
    return places


def _sample(portion: Sequence[Block], files: OpenFiles) -> int:
    """A sum of bytes from the middle of every write of a portion, as they lie in the files."""
    crc = 0
    view = memoryview(bytearray(SAMPLE_NBYTES))
    for block in portion:
        for write in block.writes:
            part = view[: min(SAMPLE_NBYTES, write.nbytes)]
            offset = write.offset + (write.nbytes - len(part)) // 2
            read_scattered(files[write.file], [part], offset)
            crc = zlib.crc32(part, crc)
    return crc


def _end_if(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise Interrupted(
            what="stopped before the end",
            why="rows are partly in one layout, partly in the other",
            fix="run the same again to go on",
        )


def _read(descriptor: int, offset: int, views: Sequence[memoryview]) -> None:
    read_scattered(descriptor, views, offset)


def _rewrite(block: Block, files: OpenFiles, buffer: memoryview, scatters: Scatters) -> None:
    """A block reads and writes the same bytes of the file, in two orders."""
    for read in block.reads:
        scatters.fill(read.scatter, partial(_read, files[read.file], read.offset))
    for write in block.writes:
        view = buffer[write.start : write.start + write.nbytes]
        write_all(files[write.file], view, write.offset)
