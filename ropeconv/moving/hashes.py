"""SHA-256 of finished files, in threads: hashlib releases the interpreter's lock."""

from __future__ import annotations

import hashlib
import os
import threading

from ropeconv.moving.effort import Effort
from ropeconv.moving.engine import run_blocks
from ropeconv.moving.files import BINARY, cannot_read_back
from ropeconv.moving.staging import Staging
from ropeconv.thinking.plan import Plan
from ropeconv.words.events import nobody

CHUNK_NBYTES = 1 << 20


def hash_files(
    plan: Plan, staging: Staging, effort: Effort, stop: threading.Event | None
) -> dict[str, str]:
    """SHA-256 of every file that moves have filled, in hexadecimal, by name.

    Files are read again, from the page cache while they fit there. A hash cannot be taken on the
    way: a `.pth` has each entry's CRC in front of its data, and threads write blocks in no order.

    Raises:
        Interrupted: stop was set.
    """
    digests: dict[str, str] = {}
    run_blocks(
        iter([file.name for file in plan.files]),
        lambda: _Hasher(staging, digests, stop),
        jobs=effort.jobs,
        listen=nobody,
        stop=stop,
    )
    return digests


class _Hasher:
    """Hashes files through one buffer."""

    def __init__(
        self, staging: Staging, digests: dict[str, str], stop: threading.Event | None
    ) -> None:
        self._staging = staging
        self._digests = digests
        self._stop = stop
        self._buffer = memoryview(bytearray(CHUNK_NBYTES))

    def run(self, name: str, /) -> int:
        """Hash one file."""
        sha = hashlib.sha256()
        path = self._staging.path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | BINARY)
            with os.fdopen(descriptor, "rb", buffering=0) as handle:
                while count := handle.readinto(self._buffer):
                    sha.update(self._buffer[:count])
                    if self._stop is not None and self._stop.is_set():
                        return 0
        except OSError as error:
            raise cannot_read_back(path, error) from error
        self._digests[name] = sha.hexdigest()
        return 0

    def close(self) -> None:
        """Nothing is held."""
