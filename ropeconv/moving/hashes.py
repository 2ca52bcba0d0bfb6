"""SHA-256 of files while they are filled, by the threads that fill them.

A hash wants a file's bytes in order, blocks arrive nearly so, and a `.pth` has each entry's CRC in
front of its data. So each file has a front: all before it is hashed. Whoever has written a block
moves the front on over what has arrived, reading it back from the page cache, where it still is.
hashlib releases the interpreter's lock.
"""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from ropeconv.formats.new_file import Fixed
from ropeconv.moving.effort import Effort
from ropeconv.moving.engine import run_blocks
from ropeconv.moving.files import BINARY, cannot_read_back, read_scattered
from ropeconv.moving.staging import Staging
from ropeconv.moving.sums import Sums
from ropeconv.thinking.blocks import Block
from ropeconv.thinking.plan import Plan, TargetFile
from ropeconv.words.events import nobody

CHUNK_NBYTES = 1 << 20
STEP_NBYTES = 16 << 20  # 9 ms of hashing, then its thread moves a block again

Span = tuple[int, int]


class _Front:
    """How far one file is hashed. Its methods are called under a lock, `update` by one thread."""

    def __init__(self, file: TargetFile, number: int, moved: Iterable[Span], sums: Sums) -> None:
        self._number = number
        self._nbytes = file.nbytes
        self._sums = sums
        self._fixed = _composed(file.fixed)
        self._patches = sorted(
            (place, checksum.begin) for checksum in file.checksums for place in checksum.places
        )
        self._sha = hashlib.sha256()
        self._arrived: dict[int, int] = {}  # begin to end of what has arrived ahead of the front
        self.position = 0
        self.busy = False
        known = [(at, at + len(data)) for at, data in self._fixed.items()]
        for span in _between(sorted([*moved, *known]), file.nbytes):
            self.arrived(*span)  # shared with the source: there already

    def arrived(self, begin: int, end: int) -> None:
        """Data is in the file."""
        if begin < end:
            self._arrived[begin] = end

    def next(self) -> tuple[Span, bytes | None] | None:
        """What can be hashed next, with its bytes if they are known; None if it must wait."""
        if self.position >= self._nbytes:
            return None
        known = self._fixed.get(self.position)
        if known is not None:
            data = self._patched(known)
            return None if data is None else ((self.position, self.position + len(data)), data)
        end = self._arrived.pop(self.position, None)
        if end is None:
            return None
        if end - self.position > CHUNK_NBYTES:
            self._arrived[self.position + CHUNK_NBYTES] = end
            end = self.position + CHUNK_NBYTES
        return (self.position, end), None

    def _patched(self, data: bytearray) -> bytes | None:
        """The known bytes at the front with their CRCs, once these are known."""
        patched = bytearray(data)
        first = bisect_right(self._patches, (self.position, -1))
        for place, begin in self._patches[first:]:
            if place >= self.position + len(data):
                break
            crc = self._sums.known(self._number, begin)
            if crc is None:
                return None
            at = place - self.position
            patched[at : at + 4] = crc.to_bytes(4, "little")
        return bytes(patched)

    def update(self, data: bytes | memoryview) -> None:
        """Hash the bytes that follow."""
        self._sha.update(data)

    def digest(self) -> str:
        """Of the whole file."""
        if self.position != self._nbytes:
            raise ValueError(f"{self._nbytes - self.position} bytes have not been hashed")
        return self._sha.hexdigest()


def _composed(parts: Iterable[Fixed]) -> dict[int, bytearray]:
    """Known bytes by their place; parts that lie within others replace bytes of these."""
    composed: dict[int, bytearray] = {}
    begin = end = 0
    for part in sorted(parts, key=lambda part: (part.offset, -len(part.data))):
        if part.offset >= end:
            begin, end = part.offset, part.offset + len(part.data)
            composed[begin] = bytearray(part.data)
        else:
            at = part.offset - begin
            composed[begin][at : at + len(part.data)] = part.data
    return composed


def _between(spans: Iterable[Span], end: int) -> Iterator[Span]:
    """What sorted spans leave of a file."""
    begin = 0
    for first, last in spans:
        yield begin, first
        begin = last
    yield begin, end


class Hashes:
    """The fronts of all files that a plan fills."""

    def __init__(self, plan: Plan, sums: Sums) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        moved: list[list[Span]] = [[] for _ in plan.files]
        for move in plan.moves:
            for piece in move.targets:
                moved[piece.file].append((piece.offset, piece.offset + piece.nbytes))
        self._fronts = [
            _Front(file, number, moved[number], sums) for number, file in enumerate(plan.files)
        ]

    def arrived(self, block: Block) -> None:
        """A block's bytes are in the target."""
        with self._lock:
            for write in block.writes:
                self._fronts[write.file].arrived(write.offset, write.offset + write.nbytes)

    def advance(self, file: int, descriptor: int, buffer: memoryview) -> bool:
        """Hash a step of what has arrived; returns whether there was anything to hash.

        Args:
            file: its number.
            descriptor: of the file, to read from.
            buffer: for what is read.

        Raises:
            OSError, EOFError: what was written cannot be read.
        """
        front = self._fronts[file]
        with self._lock:
            if front.busy:
                return False
            front.busy = True
        try:
            begin = front.position
            while front.position < begin + STEP_NBYTES:
                with self._lock:
                    found = front.next()
                if found is None:
                    break
                (first, last), data = found
                for at in range(first, last, len(buffer)):
                    view = buffer[: min(len(buffer), last - at)]
                    if data is None:
                        read_scattered(descriptor, [view], at)
                        front.update(view)
                if data is not None:
                    front.update(data)
                front.position = last
            return front.position > begin
        finally:
            front.busy = False

    def finish(
        self, staging: Staging, effort: Effort, stop: threading.Event | None
    ) -> dict[str, str]:
        """Hash what is left; returns every file's SHA-256 in hexadecimal, by name.

        Raises:
            Interrupted: stop was set.
            TargetError: a file cannot be read again.
        """
        run_blocks(
            iter(range(len(self._fronts))),
            lambda: _Finisher(self, self._plan, staging, stop),
            jobs=effort.jobs,
            listen=nobody,
            stop=stop,
        )
        if stop is not None and stop.is_set():
            return {}
        names = [file.name for file in self._plan.files]
        return {name: front.digest() for name, front in zip(names, self._fronts, strict=True)}


class _Finisher:
    """Hashes the rest of files through one buffer."""

    def __init__(
        self, hashes: Hashes, plan: Plan, staging: Staging, stop: threading.Event | None
    ) -> None:
        self._hashes = hashes
        self._plan = plan
        self._staging = staging
        self._stop = stop
        self._buffer = memoryview(bytearray(CHUNK_NBYTES))

    def run(self, file: int, /) -> int:
        """Hash the rest of one file."""
        path = self._staging.path(self._plan.files[file].name)
        try:
            descriptor = os.open(path, os.O_RDONLY | BINARY)
            try:
                while self._hashes.advance(file, descriptor, self._buffer):
                    if self._stop is not None and self._stop.is_set():
                        break
            finally:
                os.close(descriptor)
        except (OSError, EOFError) as error:
            raise cannot_read_back(path, error) from error
        return 0

    def close(self) -> None:
        """Nothing is held."""
