"""CRC-32 of what blocks write, for files that carry checksums of their entries."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property

from ropeconv.moving.crc import Crc32Sum, fastest_crc32
from ropeconv.thinking.blocks import Block
from ropeconv.thinking.plan import Plan


class Sums:
    """Collects the CRCs of blocks, in any order, from any thread."""

    def __init__(self, plan: Plan) -> None:
        self._lock = threading.Lock()
        self._sums = {
            (number, checksum.begin): Crc32Sum(checksum.nbytes)
            for number, file in enumerate(plan.files)
            for checksum in file.checksums
        }
        self._begins = [
            sorted(checksum.begin for checksum in file.checksums) for file in plan.files
        ]

    @cached_property
    def _crc32(self) -> Callable[[memoryview], int]:
        return fastest_crc32()  # not before a file wants sums: 2 ms

    def of(self, block: Block, view: memoryview) -> tuple[int, ...]:
        """The CRC of each of the block's writes that goes to a file with checksums, in order."""
        known: dict[tuple[int, int], int] = {}  # several ranks may get the same part of the buffer
        crcs = []
        for write in block.writes:
            if not self._begins[write.file]:
                continue
            part = (write.start, write.nbytes)
            if part not in known:
                known[part] = self._crc32(view[write.start : write.start + write.nbytes])
            crcs.append(known[part])
        return tuple(crcs)

    def add(self, block: Block, crcs: tuple[int, ...]) -> None:
        """Take in what `of` gave, now or in an earlier run."""
        wanted = [write for write in block.writes if self._begins[write.file]]
        for write, crc in zip(wanted, crcs, strict=True):
            begins = self._begins[write.file]
            begin = begins[bisect_right(begins, write.offset) - 1]
            with self._lock:
                self._sums[write.file, begin].add(write.offset - begin, write.nbytes, crc)

    def known(self, file: int, begin: int) -> int | None:
        """The CRC of one whole entry; None as long as a part is missing."""
        with self._lock:
            whole = self._sums[file, begin]
            return whole.value() if whole.is_whole else None

    def value(self, file: int, begin: int) -> int:
        """The CRC of one whole entry."""
        return self._sums[file, begin].value()
