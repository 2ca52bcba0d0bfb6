"""One run at a time on a target: an advisory lock that dies with its process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ropeconv.words.errors import TargetBusy

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = "lock"


class TargetLock:
    """The lock file in a staging folder, held until it is released or the process ends."""

    def __init__(self, folder: Path, target: Path) -> None:
        """Take the lock.

        Raises:
            TargetBusy: another process holds it.
        """
        self._path = folder / LOCK
        while True:
            folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue  # a run that just ended removed the folder
            if not _try(descriptor):
                os.close(descriptor)
                raise TargetBusy(
                    what=f"another run is writing to `{target}`",
                    why=f"it holds the lock `{self._path}`",
                    fix="wait for it to end, or choose another folder",
                )
            if self._is_mine(descriptor):
                self._descriptor = descriptor
                return
            os.close(descriptor)

    def _is_mine(self, descriptor: int) -> bool:
        """Whether the locked file still lies at the path: a run that ended may have removed it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Let others in."""
        os.close(self._descriptor)


def _try(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
