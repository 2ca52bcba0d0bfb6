"""What an interrupted run has finished: one line for each block whose bytes are in the target.

The first line names the plan and the block size; each further line is `block nbytes sample crc crc
...`, in hexadecimal. A block's number is its place in the plan's order, which the plan and the
block size fix. A line is written only after its block is durable, so whoever finds a line finds
the bytes; a line that a crash has torn counts for nothing. The sample is a CRC of a few pages of
the block as they lie in the target: it is compared before a block is taken for finished. The
further numbers are the CRCs of the block's writes, for files that carry checksums, which therefore
need not be read again.
"""

from __future__ import annotations

import json
import os
from array import array
from dataclasses import dataclass
from pathlib import Path

JOURNAL = "journal"
SCHEMA = 1
NOT_FINISHED = -1
LEAST_FIELDS = 3  # block, nbytes, sample
BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The first line: what a journal's block numbers refer to.

    Attributes:
        key: the plan's journal key.
        block_nbytes: where blocks were cut; a run that resumes cuts them alike.
        boot: the system's boot in which lines may be trusted; empty if they are durable.
    """

    key: str
    block_nbytes: int
    boot: str


class Journal:
    """An open journal. Lines are appended by one thread at a time."""

    def __init__(self, path: Path, heading: Heading) -> None:
        self.heading = heading
        self._lines = array("q")  # place of each block's line in the file, or NOT_FINISHED
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags, 0o666)
        self._nbytes = os.fstat(self._descriptor).st_size
        self._path = path
        self.finished_nbytes = 0  # bytes of the blocks that an earlier run finished
        if not self._nbytes:
            fields = {"schema": SCHEMA, **vars(heading)}
            self._append(json.dumps(fields, sort_keys=True).encode() + b"\n")
            os.fsync(self._descriptor)

    def load(self) -> None:
        """Index the lines that are there. Whatever follows the last whole line is cut off."""
        place = 0
        whole = 0
        with self._path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                if place:
                    fields = _numbers(line)
                    if len(fields) < LEAST_FIELDS:
                        break
                    self._remember(fields[0], fields[1], place)
                place += len(line)
                whole = place
        os.truncate(self._path, whole)
        self._nbytes = whole

    def finished(self, number: int) -> tuple[int, ...] | None:
        """Bytes, sample and CRCs of a finished block; None for one that is to be done."""
        if number >= len(self._lines) or self._lines[number] == NOT_FINISHED:
            return None
        with self._path.open("rb") as lines:
            lines.seek(self._lines[number])
            return _numbers(lines.readline())[1:]

    def add(self, entries: list[tuple[int, tuple[int, ...]]]) -> None:
        """Append lines for blocks that are durable: (number, (nbytes, sample, crc, ...))."""
        lines = []
        for number, sums in entries:
            fields = " ".join(f"{value:x}" for value in (number, *sums))
            lines.append(f"{fields}\n".encode())
        self._append(b"".join(lines))

    def _append(self, data: bytes) -> None:
        while data:
            count = os.write(self._descriptor, data)
            self._nbytes += count
            data = data[count:]

    def _remember(self, number: int, nbytes: int, place: int) -> None:
        missing = number + 1 - len(self._lines)
        if missing > 0:
            self._lines.extend([NOT_FINISHED] * missing)
        if self._lines[number] == NOT_FINISHED:
            self.finished_nbytes += nbytes
        self._lines[number] = place

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._descriptor)


def read_heading(path: Path) -> Heading | None:
    """The heading of a journal; None if there is none, or none that this version wrote."""
    match _first_line(path):
        case {"schema": 1, "key": str(key), "block_nbytes": int(nbytes), "boot": str(boot)}:
            return Heading(key=key, block_nbytes=nbytes, boot=boot)
        case _:
            return None


def is_in_place(path: Path) -> bool:
    """Whether a journal is that of a rewrite in place: its heading keeps the old stamps."""
    match _first_line(path):
        case {"stamps": _}:
            return True
        case _:
            return False


def _first_line(path: Path) -> object:
    """What a journal's first line says; None if there is no journal, or it says nothing."""
    try:
        with path.open("rb") as lines:
            return json.loads(lines.readline(1 << 24))  # in place it names every file
    except (OSError, ValueError):
        return None


def this_boot() -> str:
    """A name for the time since the system started; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _numbers(line: bytes) -> tuple[int, ...]:
    try:
        return tuple(int(field, 16) for field in line.split())
    except ValueError:
        return ()
