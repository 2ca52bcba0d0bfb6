"""Rewrites rotary rows where they lie, so that a kill at any instant loses nothing.

Within one tensor an interrupted rewrite looks fine and is corrupt. So the old bytes of a portion of
blocks are on the disk, in an undo file, before the first of them is overwritten. The journal says
which portions are done and which one is open:

    heading       what is being done, and the files' first bytes as they were
    begin N       the old bytes of portion N are in the undo file
    done N        the new bytes of portion N are in the checkpoint

Each line is durable before the next step. To go on, an open portion is undone, then done again.
While the work lasts, the files are stamped `unfinished`, which no reader takes for a layout.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ropeconv.formats.checkpoint import reason
from ropeconv.moving.engine import interrupted
from ropeconv.moving.files import BINARY, OpenFiles, flush, read_scattered, write_all
from ropeconv.moving.journal import JOURNAL
from ropeconv.thinking.blocks import Block, blocks
from ropeconv.thinking.plan import Plan
from ropeconv.words.errors import AnotherRun, BrokenFile, Refused, TargetError
from ropeconv.words.events import BytesDone, Listener, WorkDone, WorkPlanned

SCHEMA = 1
UNDO = "undo"
PORTION_BLOCKS = 64  # about 64 MiB: large enough that flushes do not count, small enough to redo
RECORD = struct.Struct("<IQQI")  # of the undo file: file, offset, bytes, CRC; then the bytes


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What an in-place run does, and what it needs to begin again.

    Attributes:
        key: names the work; it depends on nothing that the work changes.
        heads: (name, first bytes as they were) of each file that is restamped.
    """

    key: str
    heads: tuple[tuple[str, bytes], ...]


def check_in_place(plan: Plan) -> None:
    """Whether a checkpoint's files may be rewritten where they lie.

    Raises:
        Refused: a file is shared with others by name, or its header has no room for the stamp.
    """
    for number, file in enumerate(plan.files):
        if not file.fixed:
            continue  # a side file: it is not touched
        path = plan.source.path(number)
        if path.is_symlink():
            raise Refused(
                what=f"`{path}` is a link, as in the Hugging Face cache",
                why="its blob may belong to other snapshots too",
                fix="convert into a new folder instead of --in-place",
            )
        if path.stat().st_nlink > 1:
            raise Refused(
                what=f"`{path}` has {path.stat().st_nlink} names",
                why="a file with hard links would change under every one of them",
                fix="convert into a new folder instead of --in-place",
            )
        if file.nbytes != plan.source.files[number].nbytes:
            raise Refused(
                what=f"the header of `{path}` has no room for the layout's stamp",
                why="without a stamp nobody could tell which layout the rows are in",
                fix="convert into a new folder instead of --in-place",
            )


class InPlace:
    """One in-place run, held together by its journal in a folder beside the checkpoint."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._journal = folder / JOURNAL
        self._undo = folder / UNDO
        self._done = 0  # portions

    def resume(self, key: str) -> bool:
        """Bring back a state from which the run can be planned again, if one was interrupted.

        The open portion is undone and the files' first bytes are as they were; rows of finished
        portions are new already. Returns whether there was such a run.

        Raises:
            AnotherRun: the interrupted run did something else.
        """
        heading, lines = self._read()
        if heading is None:
            return False
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
        for name, head in heading.heads:
            _overwrite(self._root / name, 0, head)
        return True

    def begin(self, key: str, plan: Plan, unfinished: Sequence[bytes]) -> None:
        """Write the journal's heading, then stamp the files unfinished.

        Args:
            key: names the work.
            plan: what will be done.
            unfinished: first bytes of the files that are restamped, in the plan's order.
        """
        heads = []
        files = [file for file in plan.files if file.fixed]
        for number, file in enumerate(files):
            with plan.source.path(number).open("rb") as handle:
                heads.append((file.name, handle.read(len(file.fixed[0].data))))
        if not self._journal.exists():
            fields = {
                "schema": SCHEMA,
                "key": key,
                "heads": [(name, base64.b64encode(head).decode()) for name, head in heads],
            }
            fresh = self._journal.with_suffix(".new")
            fresh.write_text(json.dumps(fields) + "\n", encoding="ascii")
            flush(fresh)
            fresh.rename(self._journal)
            flush(self._journal.parent)
        for file, head in zip(files, unfinished, strict=True):
            _overwrite(self._root / file.name, 0, head)

    def execute(
        self, plan: Plan, block_nbytes: int, listen: Listener, stop: threading.Event | None
    ) -> None:
        """Rewrite the rows of every portion that is not done, then stamp the files.

        Raises:
            Interrupted: stop was set; a portion may be open.
            TargetError: the disk is full or a file cannot be written.
        """
        moves = [move for move in plan.moves if move.order is not None]
        total = sum(piece.nbytes for move in moves for piece in move.targets)
        work = (block for move in moves for block in blocks(move, block_nbytes))
        done_nbytes = sum(block.nbytes for block in islice(work, self._done * PORTION_BLOCKS))
        listen(WorkPlanned(title="rewriting rows", total_nbytes=total, done_nbytes=done_nbytes))
        files = OpenFiles(lambda file: self._root / plan.files[file].name, os.O_RDWR)
        buffer = memoryview(bytearray(plan.largest_block_nbytes(block_nbytes)))
        try:
            while portion := list(islice(work, PORTION_BLOCKS)):
                if stop is not None and stop.is_set():
                    raise interrupted()
                self._save(portion, files, buffer)
                self._say(f"begin {self._done}")
                for block in portion:
                    _rewrite(block, files, buffer)
                for file in sorted({write.file for block in portion for write in block.writes}):
                    flush(self._root / plan.files[file].name)
                self._say(f"done {self._done}")
                self._done += 1
                listen(BytesDone(nbytes=sum(block.nbytes for block in portion)))
        except (OSError, EOFError) as error:
            why = reason(error) if isinstance(error, OSError) else "a file ended early"
            raise TargetError(
                what=f"cannot rewrite `{self._root}`",
                why=why,
                fix="set this right, then run the same command again to go on",
            ) from error
        finally:
            files.close()
        for target in plan.files:
            for part in target.fixed:
                _overwrite(self._root / target.name, part.offset, part.data)
        listen(WorkDone(title="rewriting rows"))

    def _save(self, portion: Sequence[Block], files: OpenFiles, buffer: memoryview) -> None:
        """Bring the old bytes of a portion to the disk."""
        with self._undo.open("wb") as undo:
            for block in portion:
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
        names = [name for name, _ in self._heads()]
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
                yield names[file], offset, data

    def _heads(self) -> tuple[tuple[str, bytes], ...]:
        heading, _ = self._read()
        return () if heading is None else heading.heads

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
        if "heads" not in fields:
            return Heading(key="", heads=()), []  # the journal of a conversion into this folder
        heads = tuple((name, base64.b64decode(data)) for name, data in fields["heads"])
        lines = [(word, number) for word, number in (line.split() for line in rest)]
        return Heading(key=fields["key"], heads=heads), lines

    def _say(self, line: str) -> None:
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | BINARY)
        try:
            data = memoryview(f"{line}\n".encode())
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rewrite(block: Block, files: OpenFiles, buffer: memoryview) -> None:
    """A block reads and writes the same bytes of the file, in two orders."""
    for read in block.reads:
        views = [buffer[place : place + nbytes] for place, nbytes in read.scatter]
        read_scattered(files[read.file], views, read.offset)
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
