"""Carries a plan out: reads blocks of whole rows, writes them in target order. No decisions are left."""

from __future__ import annotations

import os
import threading
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ropeconv.formats.checkpoint import Checkpoint, reason
from ropeconv.moving.crc import Crc32Sum
from ropeconv.moving.engine import run_blocks
from ropeconv.moving.files import OpenFiles, read_scattered, shorter, write_all
from ropeconv.moving.staging import Staging
from ropeconv.thinking.blocks import Block, blocks
from ropeconv.thinking.plan import Plan
from ropeconv.words.errors import RopeconvError, SourceError, TargetError
from ropeconv.words.events import Listener, WorkDone, WorkPlanned

BLOCK_NBYTES = 1 << 20  # stays in the processor's cache between read and write; see docs/benchmarks.md


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to work; never what comes out."""

    jobs: int
    block_nbytes: int = BLOCK_NBYTES


def default_jobs() -> int:
    """As many threads as processors, at most 8: beyond that the memory bus is the limit."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def execute(plan: Plan, staging: Staging, effort: Effort, listen: Listener) -> None:
    """Fill the staged files with what the plan says.

    Raises:
        SourceError: a source file vanished or changed during the run.
        TargetError: the disk is full or the folder cannot be written.
        Interrupted: Ctrl-C.
    """
    listen(WorkPlanned(title="converting", total_nbytes=plan.moved_nbytes))
    staging.allocate((file.name, file.nbytes) for file in plan.files)
    sums = _Checksums(plan)
    nbytes = plan.largest_block_nbytes(effort.block_nbytes)
    run_blocks(
        all_blocks(plan, effort.block_nbytes),
        lambda: _Mover(plan, staging, sums, nbytes),
        jobs=effort.jobs,
        listen=listen,
    )
    _write_fixed(plan, staging, sums)
    check_unchanged(plan.source)
    listen(WorkDone(title="converting"))


def all_blocks(plan: Plan, limit: int) -> Iterator[Block]:
    """Every block of the plan, in the order of the target's bytes."""
    for move in plan.moves:
        yield from blocks(move, limit)


def check_unchanged(source: Checkpoint) -> None:
    """Refuse to finish if a source file is not what it was when the plan was made."""
    for number, file in enumerate(source.files):
        path = source.path(number)
        try:
            status = path.stat()
        except OSError as error:
            raise SourceError(what=f"`{path}` vanished during the run", why=reason(error)) from error
        if (status.st_size, status.st_mtime_ns) != (file.nbytes, file.mtime_ns):
            raise SourceError(
                what=f"`{path}` changed during the run",
                why="its size or time is not what it was when the plan was made",
                fix="leave the source alone during a run, and start again",
            )


class _Checksums:
    """CRC-32 of data that blocks write, block by block, in any order."""

    def __init__(self, plan: Plan) -> None:
        self._lock = threading.Lock()
        self._sums = {
            (number, checksum.begin): Crc32Sum(checksum.nbytes)
            for number, file in enumerate(plan.files)
            for checksum in file.checksums
        }
        self._begins = {
            number: sorted(checksum.begin for checksum in file.checksums)
            for number, file in enumerate(plan.files)
        }

    def wanted(self, file: int) -> bool:
        """Whether data of a file is summed at all."""
        return bool(self._begins[file])

    def add(self, file: int, offset: int, nbytes: int, crc: int) -> None:
        """The CRC of a written part."""
        begin = self._begins[file][bisect_right(self._begins[file], offset) - 1]
        with self._lock:
            self._sums[file, begin].add(offset - begin, nbytes, crc)

    def value(self, file: int, begin: int) -> int:
        """The CRC of one whole entry."""
        return self._sums[file, begin].value()


class _Mover:
    """Moves blocks through one buffer."""

    def __init__(self, plan: Plan, staging: Staging, sums: _Checksums, nbytes: int) -> None:
        self._plan = plan
        self._sums = sums
        self._buffer = memoryview(bytearray(nbytes))
        self._sources = OpenFiles(plan.source.path, os.O_RDONLY)
        self._targets = OpenFiles(lambda file: staging.path(plan.files[file].name), os.O_WRONLY)

    def run(self, block: Block) -> int:
        """Read, scatter, write."""
        for read in block.reads:
            path = self._plan.source.path(read.file)
            views = [self._buffer[place : place + nbytes] for place, nbytes in read.scatter]
            try:
                read_scattered(self._sources[read.file], views, read.offset)
            except EOFError:
                raise shorter(path) from None
            except OSError as error:
                raise SourceError(what=f"cannot read `{path}`", why=reason(error)) from error
        for write in block.writes:
            view = self._buffer[write.start : write.start + write.nbytes]
            try:
                write_all(self._targets[write.file], view, write.offset)
            except OSError as error:
                raise cannot_write(self._plan.files[write.file].name, error) from error
            if self._sums.wanted(write.file):
                self._sums.add(write.file, write.offset, write.nbytes, zlib.crc32(view))
        return sum(write.nbytes for write in block.writes)

    def close(self) -> None:
        """Close every file."""
        self._sources.close()
        self._targets.close()


def _write_fixed(plan: Plan, staging: Staging, sums: _Checksums) -> None:
    """Headers come last: a file without one cannot be taken for finished."""
    for number, file in enumerate(plan.files):
        try:
            with staging.path(file.name).open("r+b") as handle:
                for part in file.fixed:
                    handle.seek(part.offset)
                    handle.write(part.data)
                for checksum in file.checksums:
                    crc = sums.value(number, checksum.begin).to_bytes(4, "little")
                    for place in checksum.places:
                        handle.seek(place)
                        handle.write(crc)
        except OSError as error:
            raise cannot_write(file.name, error) from error


def cannot_write(name: str | Path, error: OSError) -> RopeconvError:
    """The error for a target that cannot be written."""
    return TargetError(
        what=f"cannot write `{name}`",
        why=reason(error),
        fix="free some space or choose another folder, then run the same command again",
    )
