"""One thread's hands: reads a block's spans into a buffer in target order, and writes the buffer.

Direct I/O. The disk takes whole pages from page-aligned memory at page-aligned places, and tensors
begin anywhere. A direct read therefore fetches the pages around a span into a second buffer, from
which rows are copied into place. A direct write shifts the block in its buffer until memory and
file agree modulo a page; the torn pages at both ends go through the page cache, so no page is
written both ways.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from ropeconv.formats.checkpoint import reason
from ropeconv.moving.effort import Effort, Io
from ropeconv.moving.files import (
    OpenFiles,
    cannot_read_back,
    read_scattered,
    shorter,
    write_all,
)
from ropeconv.moving.hashes import Hashes
from ropeconv.moving.ledger import Ledger
from ropeconv.moving.scatters import Scatters
from ropeconv.moving.staging import Staging
from ropeconv.moving.sums import Sums
from ropeconv.thinking.blocks import Block, Read, Write
from ropeconv.thinking.plan import Plan
from ropeconv.words.errors import RopeconvError, SourceError, TargetError

PAGE_NBYTES = 4096
SAMPLE_NBYTES = 512  # a disk's smallest unit: what a crash loses, it loses in whole units
DIRECT = getattr(os, "O_DIRECT", 0)

Numbered = tuple[int, Block]


class Mover:
    """Moves blocks through one buffer."""

    def __init__(
        self,
        plan: Plan,
        staging: Staging,
        effort: Effort,
        sums: Sums,
        ledger: Ledger,
        hashes: Hashes | None,
    ) -> None:
        self._plan = plan
        self._journal = staging.journal
        self._sums = sums
        self._ledger = ledger
        self._hashes = hashes
        nbytes = plan.largest_block_nbytes(effort.block_nbytes)
        self._buffer = memoryview(mmap.mmap(-1, nbytes + PAGE_NBYTES))  # page-aligned
        self._scatters = Scatters(self._buffer)

        def target(file: int) -> Path:
            return staging.path(plan.files[file].name)

        self._sources = OpenFiles(plan.source.path, os.O_RDONLY)
        self._targets = OpenFiles(target, os.O_RDWR)
        self._pages: memoryview | None = None
        if effort.io is Io.DIRECT and DIRECT:
            self._pages = memoryview(mmap.mmap(-1, nbytes + 2 * PAGE_NBYTES))
            self._direct_sources = OpenFiles(plan.source.path, os.O_RDONLY | DIRECT)
            self._direct_targets = OpenFiles(target, os.O_WRONLY | DIRECT)

    def run(self, piece: Numbered, /) -> int:
        """Move a block, or see that an earlier run has; returns the bytes that are new."""
        number, block = piece
        nbytes = sum(write.nbytes for write in block.writes)
        finished = self._journal.finished(number)
        if finished is not None and self._is_there(block, finished):
            self._sums.add(block, finished[2:])
            self._hash(block)
            return 0
        shift = block.writes[0].offset % PAGE_NBYTES if self._pages is not None else 0
        for read in block.reads:
            self._read(read, shift)
        view = self._buffer[shift : shift + block.nbytes]
        for write in block.writes:
            self._write(write, view[write.start : write.start + write.nbytes], shift)
        sample = 0
        for write in block.writes:
            for place in _sampled(write):
                start = write.start + place
                sample = zlib.crc32(view[start : start + SAMPLE_NBYTES], sample)
        crcs = self._sums.of(block, view)
        self._sums.add(block, crcs)
        files = {write.file for write in block.writes}
        try:
            self._ledger.add((number, (nbytes, sample, *crcs)), files, nbytes)
        except OSError as error:
            raise cannot_write(self._plan.files[block.writes[0].file].name, error) from error
        self._hash(block)
        return 0 if finished is not None else nbytes  # the journal's claim was counted already

    def _hash(self, block: Block) -> None:
        """Move on the fronts of files in which bytes have arrived."""
        if self._hashes is None:
            return
        self._hashes.arrived(block)
        for file in {write.file for write in block.writes}:
            try:
                self._hashes.advance(file, self._targets[file], self._buffer)
            except (OSError, EOFError) as error:
                raise cannot_read_back(Path(self._plan.files[file].name), error) from error

    def _is_there(self, block: Block, finished: tuple[int, ...]) -> bool:
        """Whether a sample of the target's bytes is what the journal says."""
        sample = 0
        for write in block.writes:
            for place in _sampled(write):
                view = self._buffer[: min(SAMPLE_NBYTES, write.nbytes - place)]
                try:
                    read_scattered(self._targets[write.file], [view], write.offset + place)
                except (OSError, EOFError):
                    return False
                sample = zlib.crc32(view, sample)
        return sample == finished[1]

    def _read(self, read: Read, shift: int) -> None:
        def into(views: list[memoryview]) -> None:
            if self._pages is None or not self._read_pages(self._pages, read, views):
                read_scattered(self._sources[read.file], views, read.offset)

        try:
            self._scatters.fill(read.scatter, into, shift)
        except EOFError:
            raise shorter(self._plan.source.path(read.file)) from None
        except OSError as error:
            raise SourceError(
                what=f"cannot read `{self._plan.source.path(read.file)}`",
                why=reason(error),
                fix="see that it is there and readable, then run the same command again",
            ) from error

    def _read_pages(self, pages: memoryview, read: Read, views: Sequence[memoryview]) -> bool:
        """Read a span past the page cache; False where the file system cannot."""
        first = read.offset - read.offset % PAGE_NBYTES
        last = read.offset + read.nbytes
        wanted = pages[: last - first + -last % PAGE_NBYTES]
        if len(wanted) > len(pages):
            return False
        try:
            descriptor = self._direct_sources[read.file]
            done = 0
            while done < last - first:
                count = os.preadv(descriptor, [wanted[done:]], first + done)
                if count == 0:
                    raise EOFError
                done += count
                if done % PAGE_NBYTES and done < last - first:
                    return False  # a short read inside a page: let the cache's way sort it out
        except OSError:
            return False  # if the reason is not the flag, the read through the cache will say so
        at = read.offset - first
        for view in views:
            view[:] = pages[at : at + len(view)]
            at += len(view)
        return True

    def _write(self, write: Write, view: memoryview, shift: int) -> None:
        try:
            aligned = (write.offset - write.start - shift) % PAGE_NBYTES == 0
            if self._pages is not None and aligned:
                self._write_pages(write, view)
            else:
                write_all(self._targets[write.file], view, write.offset)
        except OSError as error:
            raise cannot_write(self._plan.files[write.file].name, error) from error

    def _write_pages(self, write: Write, view: memoryview) -> None:
        head = min(-write.offset % PAGE_NBYTES, write.nbytes)
        tail = (write.nbytes - head) % PAGE_NBYTES
        middle = write.nbytes - head - tail
        done = 0
        try:
            descriptor = self._direct_targets[write.file]
            while done < middle:
                part = view[head + done : head + middle]
                done += os.pwrite(descriptor, part, write.offset + head + done)
                if done % PAGE_NBYTES:
                    break
        except OSError:
            pass  # where the flag is the reason, the cache's way works; else it fails likewise
        buffered = self._targets[write.file]
        write_all(buffered, view[:head], write.offset)
        write_all(buffered, view[head + done :], write.offset + head + done)

    def close(self) -> None:
        """Close every file."""
        self._sources.close()
        self._targets.close()
        if self._pages is not None:
            self._direct_sources.close()
            self._direct_targets.close()


def _sampled(write: Write) -> tuple[int, ...]:
    """Where a write is sampled: its beginning, middle and end."""
    last = max(write.nbytes - SAMPLE_NBYTES, 0)
    return (0, last // 2, last)


def cannot_write(name: str, error: OSError) -> RopeconvError:
    """The error for a target that cannot be written."""
    return TargetError(
        what=f"cannot write `{name}`",
        why=reason(error),
        fix="set this right, free space for instance, then run the same command again to go on",
    )
