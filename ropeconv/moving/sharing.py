"""Files that share blocks with others: reflinks, where the file system has them (XFS, btrfs).

A shared range costs no reading and no writing; it is copied by the file system when one of the two
is written to. Elsewhere bytes are moved.
"""

from __future__ import annotations

import os
import secrets
import struct
import sys
from pathlib import Path

from ropeconv.moving.files import BINARY
from ropeconv.moving.staging import Staging
from ropeconv.thinking.plan import Clone, Plan

if sys.platform == "linux":
    import fcntl

CLONE_RANGE = 0x4020940D  # FICLONERANGE of linux/fs.h
PROBE = ".ropeconv-probe-"  # begins the name of a file that is shared to see whether sharing works
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | BINARY


def can_share(plan: Plan, folder: Path) -> bool:
    """Whether files in that folder can share blocks with the plan's source."""
    clones = [clone for clone in plan.clones if clone.nbytes]
    if sys.platform != "linux" or not clones:
        return False
    probe = folder / f"{PROBE}{secrets.token_hex(8)}"
    try:
        writer = os.open(probe, NEW, 0o600)
    except OSError:
        return False
    try:
        _clone(clones[0], plan.source.path(clones[0].source_file), writer)
    except OSError:
        return False
    finally:
        os.close(writer)
        probe.unlink(missing_ok=True)
    return True


def share_all(plan: Plan, staging: Staging) -> None:
    """Give every staged file the blocks that it shares with the source."""
    for clone in plan.clones:
        if clone.nbytes:
            name = plan.files[clone.target_file].name
            share(clone, plan.source.path(clone.source_file), staging.path(name))


def share(clone: Clone, source: Path, target: Path) -> None:
    """Make a range of the target the source's. The target grows to the range's end.

    Raises:
        OSError: the file system cannot, or the files lie on two of them.
    """
    writer = os.open(target, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
    try:
        _clone(clone, source, writer)
    finally:
        os.close(writer)


def _clone(clone: Clone, source: Path, writer: int) -> None:
    if sys.platform != "linux":
        raise OSError("this system cannot share blocks between files")
    reader = os.open(source, os.O_RDONLY | BINARY)
    try:
        # 0 for "to the end of the file": its last block may be a part of one
        places = struct.pack("qQQQ", reader, clone.source_offset, 0, clone.target_offset)
        fcntl.ioctl(writer, CLONE_RANGE, places)
    finally:
        os.close(reader)
