"""Carries a plan out: blocks of whole rows, in the order of the source. No decisions are left."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from ropeconv.moving.checks import check_unchanged
from ropeconv.moving.effort import Effort, default_jobs
from ropeconv.moving.engine import run_blocks
from ropeconv.moving.files import BINARY, flush, write_all
from ropeconv.moving.hashes import Hashes
from ropeconv.moving.ledger import Ledger
from ropeconv.moving.mover import Mover, Numbered, cannot_write
from ropeconv.moving.staging import Staging
from ropeconv.moving.sums import Sums
from ropeconv.thinking.blocks import Block, blocks
from ropeconv.thinking.moves import Move
from ropeconv.thinking.plan import Plan
from ropeconv.thinking.whole import Piece
from ropeconv.words.events import Listener, WorkDone, WorkPlanned

__all__ = ["Effort", "all_blocks", "default_jobs", "execute"]

FILES_AT_ONCE = 4


def execute(
    plan: Plan,
    staging: Staging,
    effort: Effort,
    listen: Listener,
    *,
    hashed: bool = False,
    stop: threading.Event | None = None,
) -> dict[str, str]:
    """Fill the staged files with what the plan says, but for what the journal says is there.

    Returns:
        Each file's SHA-256 in hexadecimal, by name, if hashed; else nothing.

    Raises:
        SourceError: a source file vanished or changed during the run.
        TargetError: the disk is full or the folder cannot be written.
        Interrupted: Ctrl-C, or stop was set.
    """
    done_nbytes = staging.journal.finished_nbytes
    listen(WorkPlanned(title="converting", total_nbytes=plan.moved_nbytes, done_nbytes=done_nbytes))
    sums = Sums(plan)
    hashes = Hashes(plan, sums) if hashed else None
    ledger = Ledger(
        staging.journal,
        (lambda file: flush(staging.path(plan.files[file].name))) if effort.sync else None,
    )
    work: Iterator[Numbered] = enumerate(all_blocks(plan, effort.block_nbytes))
    finished = False
    try:
        run_blocks(
            work,
            lambda: Mover(plan, staging, effort, sums, ledger, hashes),
            jobs=effort.jobs,
            listen=listen,
            stop=stop,
        )
        finished = True
    finally:
        try:
            ledger.close(flush=finished)
        except OSError as error:
            raise cannot_write(str(staging.target), error) from error
    check_unchanged(plan.source)
    _write_fixed(plan, staging, sums)
    digests = {} if hashes is None else hashes.finish(staging, effort, stop)
    listen(WorkDone(title="converting"))
    return digests


def all_blocks(plan: Plan, limit: int) -> Iterator[Block]:
    """Every block of the plan, a few target files taking turns, each in the order of the source.

    A file system lets one thread at a time write into a file: 1.2 times the speed with two threads
    in two files. More files would scatter over the disk what belongs together. Reads in the order
    of the disk are fetched ahead of time, and writes wait in the page cache in any order: from a
    cold disk 0.9 of the time that the target's order takes.
    """
    files: dict[int, list[Move]] = {}
    for move in sorted(plan.moves, key=lambda move: _begin(move.sources)):
        files.setdefault(_begin(move.targets)[0], []).append(move)
    waiting = iter(files.values())
    turns = deque(_blocks_of(moves, limit) for moves in islice(waiting, FILES_AT_ONCE))
    while turns:
        stream = turns.popleft()
        block = next(stream, None)
        if block is not None:
            yield block
            turns.append(stream)
        else:
            turns.extend(_blocks_of(moves, limit) for moves in islice(waiting, 1))


def _begin(pieces: Sequence[Piece]) -> tuple[int, int]:
    """File and offset of the first; those of nothing for a tensor without bytes."""
    return (pieces[0].file, pieces[0].offset) if pieces else (0, 0)


def _blocks_of(moves: Sequence[Move], limit: int) -> Iterator[Block]:
    return chain.from_iterable(blocks(move, limit) for move in moves)


def _write_fixed(plan: Plan, staging: Staging, sums: Sums) -> None:
    """Headers come last: a file without one cannot be taken for finished."""
    for number, file in enumerate(plan.files):
        try:
            descriptor = os.open(staging.path(file.name), os.O_WRONLY | BINARY)
            try:
                for part in file.fixed:
                    write_all(descriptor, memoryview(part.data), part.offset)
                for checksum in file.checksums:
                    crc = sums.value(number, checksum.begin).to_bytes(4, "little")
                    for place in checksum.places:
                        write_all(descriptor, memoryview(crc), place)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise cannot_write(file.name, error) from error
