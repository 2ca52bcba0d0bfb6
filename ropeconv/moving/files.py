"""Positional reads and writes of local files, complete or an error.

Reads scatter: the parts of a contiguous span go to any places of a buffer, in one system call.
Files are not
mapped: a truncated mapped file kills the process, and network file systems are slow at it.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from ropeconv.formats.checkpoint import reason
from ropeconv.words.errors import SourceError, TargetError

if sys.platform == "darwin":
    import fcntl

MAX_VIEWS = 1024  # IOV_MAX of Linux: views of one system call
MAX_OPEN = 16  # of each worker; a checkpoint of 2000 shards must not run out of descriptors
AHEAD_NBYTES = 512 << 10  # of one request; Linux cuts longer ones to a device's largest transfer
BINARY = getattr(os, "O_BINARY", 0)


class OpenFiles:
    """Descriptors of one worker, opened when needed, the least recently used closed first."""

    def __init__(self, path: Callable[[int], Path], flags: int) -> None:
        self._path = path
        self._flags = flags | BINARY | getattr(os, "O_CLOEXEC", 0)
        self._open: OrderedDict[int, int] = OrderedDict()

    def __getitem__(self, file: int) -> int:
        """The descriptor of a file."""
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        if len(self._open) >= MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])
        self._open[file] = os.open(self._path(file), self._flags)
        return self._open[file]

    def close(self) -> None:
        """Close every descriptor."""
        while self._open:
            os.close(self._open.popitem()[1])


def read_scattered(descriptor: int, views: Sequence[memoryview], offset: int) -> None:
    """Fill the views, in order, from the file's bytes at offset on.

    Raises:
        EOFError: the file ends before the views are full.
    """
    for first in range(0, len(views), MAX_VIEWS):
        window = views[first : first + MAX_VIEWS]
        wanted = sum(map(len, window))
        count = _read_some(descriptor, window, offset)
        offset += count
        while count < wanted:
            window = _rest(window, count)
            wanted -= count
            count = _read_some(descriptor, window, offset)
            if count == 0:
                raise EOFError
            offset += count


def read_ahead(descriptor: int, offset: int, nbytes: int) -> None:
    """Have the system fetch a span while something else is done, where it can.

    Raises:
        OSError: it does not take the hint for this file.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    end = offset + nbytes
    for place in range(offset, end, AHEAD_NBYTES):
        wanted = min(AHEAD_NBYTES, end - place)
        os.posix_fadvise(descriptor, place, wanted, os.POSIX_FADV_WILLNEED)


def _rest(views: Sequence[memoryview], count: int) -> list[memoryview]:
    """What a short read has left of the views."""
    rest = list(views)
    while rest and count >= len(rest[0]):
        count -= len(rest.pop(0))
    if rest:
        rest[0] = rest[0][count:]
    return rest


def _read_some(descriptor: int, views: Sequence[memoryview], offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, views, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # descriptors belong to one worker
    data = os.read(descriptor, len(views[0]))
    views[0][: len(data)] = data
    return len(data)


def write_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Write the whole view at offset."""
    while view:
        if hasattr(os, "pwrite"):
            count = os.pwrite(descriptor, view, offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            count = os.write(descriptor, view)
        offset += count
        view = view[count:]


def flush(path: Path) -> None:
    """Bring a file's data, or a folder's names, to the disk.

    macOS' fsync leaves data in the drive's own cache; F_FULLFSYNC does not.
    """
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; its renames are durable by themselves
    descriptor = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | BINARY)
    try:
        if sys.platform == "darwin":
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_span(path: Path, offset: int, nbytes: int) -> bytearray:
    """A small contiguous span of a file."""
    data = bytearray(nbytes)
    read_into(path, memoryview(data), offset)
    return data


def read_into(path: Path, view: memoryview, offset: int) -> None:
    """Fill a view from a contiguous span of a file.

    Raises:
        SourceError: the file cannot be read, or ends early.
    """
    try:
        with path.open("rb", buffering=0) as handle:
            handle.seek(offset)
            while view:
                count = handle.readinto(view)
                if not count:
                    raise shorter(path)
                view = view[count:]
    except OSError as error:
        raise SourceError(what=f"cannot read `{path}`", why=reason(error)) from error


def cannot_read_back(path: Path, error: OSError | EOFError) -> TargetError:
    """The error for a target file that was written and cannot be read."""
    why = reason(error) if isinstance(error, OSError) else "it ended early"
    return TargetError(what=f"cannot read `{path}` again", why=why)


def shorter(path: Path) -> SourceError:
    """The error for a file that became shorter than its header said."""
    return SourceError(
        what=f"`{path}` ended early",
        why="it was cut while it was read",
        fix="leave the source alone during a run, or download it again",
    )
