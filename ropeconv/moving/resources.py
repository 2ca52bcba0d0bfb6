"""What a run needs and what the machine has: memory, disk, cached files."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ropeconv.moving.effort import (
    BLOCK_NBYTES,
    BUFFERS_NBYTES,
    DIRECT_BLOCK_NBYTES,
    DIRECT_JOBS,
    Effort,
    Io,
)
from ropeconv.moving.gathers import may_gather
from ropeconv.moving.views import views_kept
from ropeconv.thinking.blocks import (
    FEW_PLACES,
    KEPT_FEW,
    KEPT_MANY,
    block_nbytes,
    block_places,
)
from ropeconv.thinking.plan import Plan
from ropeconv.words.errors import NoMemory, NoRoom

PAGE_NBYTES = 4096
BASE_NBYTES = 40 << 20  # Python with the command imported: 28 to 34 MiB measured, and some room
NUMPY_NBYTES = 12 << 20  # more where NumPy places numbers: 11 MiB measured
GATHER_NBYTES = 80  # of a part that NumPy places: two numbers' places, of four scatters, and itself
PLACE_NBYTES = 128  # of a scatter: two numbers in a tuple
DELTA_NBYTES = 8 * 16  # how far a row moves, in each order that is kept
VIEW_NBYTES = 200
TENSOR_NBYTES = 6 << 10  # of a plan, for each move: 3 to 5 KiB measured
LINE_NBYTES = 16  # of the journal's index, for each block: 8, and as many for smaller blocks
CACHESTAT = 451  # the system call's number, the same on every architecture since Linux 6.5
CACHED_FRACTION = 0.5  # of the source; below it, reading from the disk is what takes the time


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run takes, in bytes.

    Attributes:
        memory_nbytes: peak resident memory, at most.
        disk_nbytes: room that the target takes beyond what an interrupted run has taken.
        memory_free_nbytes: None where the system does not say.
    """

    read_nbytes: int
    written_nbytes: int
    memory_nbytes: int
    disk_nbytes: int
    memory_free_nbytes: int | None
    disk_free_nbytes: int


def needs_of(
    plan: Plan, effort: Effort, target: Path, *, staged_nbytes: int, extra: int, shares: bool
) -> Needs:
    """What carrying out a plan takes.

    Args:
        plan: what to do.
        effort: how hard.
        target: where to.
        staged_nbytes: what an interrupted run has put on the disk already.
        extra: bytes of the manifest.
        shares: all that the plan does not move is shared with the source.
    """
    written = (plan.moved_nbytes if shares else plan.target_nbytes) + extra
    return Needs(
        read_nbytes=plan.read_nbytes,
        written_nbytes=written,
        memory_nbytes=memory_nbytes(plan, effort),
        disk_nbytes=max(0, written - staged_nbytes),
        memory_free_nbytes=free_memory(),
        disk_free_nbytes=shutil.disk_usage(nearest_folder(target)).free,
    )


def memory_nbytes(plan: Plan, effort: Effort) -> int:
    """Peak resident memory of a run, in bytes; a test holds the measured peak against it."""
    limit = effort.block_nbytes
    buffer = plan.largest_block_nbytes(limit) + PAGE_NBYTES
    if effort.io is Io.DIRECT:
        buffer = 2 * (buffer + PAGE_NBYTES)
    sizes = [(block_places(move, limit), block_nbytes(move, limit)) for move in plan.moves]
    places = max((count for count, _ in sizes), default=1)
    views = VIEW_NBYTES * views_kept(places) if places > 1 else 0
    gathers = any(may_gather(*size) for size in sizes)
    if gathers:
        views += GATHER_NBYTES * places
    lines = sum(
        1 + move.nbytes // max(1, nbytes)
        for move, (_, nbytes) in zip(plan.moves, sizes, strict=True)
    )
    return (
        BASE_NBYTES
        + TENSOR_NBYTES * len(plan.moves)
        + LINE_NBYTES * lines
        + (NUMPY_NBYTES if gathers else 0)
        + _scatters_nbytes(places)
        + effort.jobs * (buffer + views)
    )


def _scatters_nbytes(places: int) -> int:
    """Of the scatters that are kept for all jobs, where none has more places."""
    if places == 1:
        return 0
    kept = KEPT_FEW * min(places, FEW_PLACES) + (KEPT_MANY * places if places > FEW_PLACES else 0)
    return PLACE_NBYTES * kept + DELTA_NBYTES * places


def check_needs(needs: Needs, target: Path) -> None:
    """Refuse what cannot end well.

    Raises:
        NoRoom: the disk is too small.
        NoMemory: less memory is free than the plan takes.
    """
    if needs.disk_nbytes > needs.disk_free_nbytes:
        raise NoRoom(
            what=f"the target needs {needs.disk_nbytes} bytes,"
            f" `{nearest_folder(target)}` has {needs.disk_free_nbytes} free",
            fix="free some space, or choose a folder on another disk",
        )
    if needs.memory_free_nbytes is not None and needs.memory_nbytes > needs.memory_free_nbytes:
        raise NoMemory(
            what=f"the run needs {needs.memory_nbytes} bytes of memory,"
            f" {needs.memory_free_nbytes} are free",
            why="each job holds one block of whole rows",
            fix="lower `Effort(jobs=...)`, or end other programs",
        )


def nearest_folder(target: Path) -> Path:
    """The folder, there already, whose disk the target will lie on."""
    return next(parent for parent in target.resolve().parents if parent.exists())


def settle(plan: Plan, effort: Effort) -> Effort:
    """The effort with everything chosen that was left to us: kind of I/O, block size, jobs.

    Through the cache is faster as long as everything fits there, even from a cold source: cold and
    with sync, 2.2 GB took 2.0 s through the cache, 2.7 s directly and 4.5 s by cp on a 2-core
    machine. Bytes that cannot stay there would only push other programs' pages out.
    """
    io = effort.io
    if io is Io.AUTO:
        io = Io.DIRECT if effort.sync and _is_larger_than_cache(plan) else Io.BUFFERED
    if not hasattr(os, "O_DIRECT"):
        io = Io.BUFFERED
    if io is Io.BUFFERED or effort.block_nbytes != BLOCK_NBYTES:
        return replace(effort, io=io)
    jobs = max(effort.jobs, DIRECT_JOBS)
    limit = BUFFERS_NBYTES // (2 * jobs)
    block_nbytes = DIRECT_BLOCK_NBYTES
    while block_nbytes > BLOCK_NBYTES and plan.largest_block_nbytes(block_nbytes) > limit:
        block_nbytes //= 2
    return replace(effort, io=io, jobs=jobs, block_nbytes=block_nbytes)


def _is_larger_than_cache(plan: Plan) -> bool:
    free = free_memory()
    if free is None or plan.read_nbytes + plan.moved_nbytes <= free:
        return False
    files = sorted({piece.file for move in plan.moves for piece in move.sources})
    return cached_fraction([plan.source.path(file) for file in files]) < CACHED_FRACTION


def free_memory() -> int | None:
    """Bytes that programs and the page cache may still take; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limits = [*found, *_group_limit()]
    return min(limits) if limits else None


def _group_limit() -> list[int]:
    """What the control group leaves, if it limits memory; its page cache counts as free."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text(encoding="ascii").strip()
        used = (root / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    if limit == "max":
        return []
    held = [int(line.split()[1]) for line in used if line.startswith("anon ")]
    return [int(limit) - sum(held)]


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("nbytes", ctypes.c_uint64))


class _Cached(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recent")
    )


def cached_fraction(paths: Sequence[Path]) -> float:
    """How much of some files the page cache holds, 0 to 1; 1 where the system cannot tell."""
    if sys.platform != "linux":
        return 1.0
    system = ctypes.CDLL(None, use_errno=True)
    pages = total = 0
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # whoever reads it will say why
        try:
            total += os.fstat(descriptor).st_size
            cached = _Cached()
            whole = _Range(0, 0)
            if system.syscall(CACHESTAT, descriptor, ctypes.byref(whole), ctypes.byref(cached), 0):
                return 1.0
            pages += cached.cached
        finally:
            os.close(descriptor)
    return min(1.0, pages * os.sysconf("SC_PAGE_SIZE") / total) if total else 1.0
