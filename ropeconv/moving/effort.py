"""How hard to work: threads, block size, kind of I/O. Never what comes out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

BLOCK_NBYTES = 1 << 20  # stays in the processor's cache between read and write
DIRECT_BLOCK_NBYTES = 8 << 20  # the disk wants large requests, the processor's cache is left out
DIRECT_JOBS = 4  # enough to keep the disk busy both ways, whatever the number of processors
BUFFERS_NBYTES = 40 << 20  # of all jobs together, so that a run stays below 96 MiB
MAX_JOBS = 8  # beyond that the memory bus is the limit


class Io(Enum):
    """How bytes reach the disk."""

    AUTO = "auto"  # chosen from the plan's size, the cache's state and the file system
    BUFFERED = "buffered"  # through the page cache
    DIRECT = "direct"  # past it, where the file system can


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to work; the bytes that come out do not depend on it.

    Attributes:
        jobs: threads.
        block_nbytes: bytes that a thread moves at once, where rows allow it.
        io: the kind of I/O.
        sync: flush every file to the disk before the target appears. Without it the target is as
            safe as one made by `cp`: complete after a crash of the program, not after one of the
            system.
    """

    jobs: int
    block_nbytes: int = BLOCK_NBYTES
    io: Io = Io.AUTO
    sync: bool = True


def default_jobs() -> int:
    """As many threads as processors that this process may use, at most MAX_JOBS."""
    if hasattr(os, "sched_getaffinity"):
        return min(MAX_JOBS, len(os.sched_getaffinity(0)))
    return min(MAX_JOBS, os.cpu_count() or 1)
