"""Keeps the journal honest: a block's line is written when its bytes have reached the disk.

Flushing every block alone would make the disk wait; flushing at the end would lose everything to a
crash and leave a stop hanging in one long flush. So a thread flushes behind the movers, in
portions that the disk manages in a fraction of a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from ropeconv.moving.journal import Journal

LINES_AT_ONCE = 32  # that need no flush: what a kill loses is less work than a line for each
FIRST_PORTION_NBYTES = 64 << 20
LEAST_PORTION_NBYTES = 16 << 20
MOST_PORTION_NBYTES = 1 << 30
SHORT_SECONDS, LONG_SECONDS = 0.1, 0.4  # a flush between these keeps its portion

Entry = tuple[int, tuple[int, ...]]  # a block's number; its bytes, sample and CRCs


class Ledger:
    """Takes note of finished blocks, from any thread."""

    def __init__(self, journal: Journal, flush: Callable[[int], None] | None) -> None:
        """Start to flush behind the movers.

        Args:
            journal: where lines go.
            flush: brings a target file's data to the disk; None if a line needs no flush before it.
        """
        self._journal = journal
        self._flush = flush
        self._change = threading.Condition()
        self._entries: list[Entry] = []
        self._files: set[int] = set()
        self._nbytes = 0
        self._portion_nbytes = FIRST_PORTION_NBYTES
        self._closing = False
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._labour, daemon=True)
        if flush is not None:
            self._thread.start()

    def add(self, entry: Entry, files: Iterable[int], nbytes: int) -> None:
        """A block has been written.

        Waits while more than two portions are on their way: movers must not outrun the disk, or a
        stop would have to wait for it.

        Raises:
            OSError: a flush failed, of this block's file or another.
        """
        with self._change:
            self._entries.append(entry)
            self._files.update(files)
            self._nbytes += nbytes
            if self._flush is None:
                if len(self._entries) >= LINES_AT_ONCE:
                    self._note()
                return
            if self._nbytes >= self._portion_nbytes:
                self._change.notify_all()
            while self._nbytes > 2 * self._portion_nbytes and self._failure is None:
                self._change.wait()
            if self._failure is not None:
                raise self._failure

    def close(self, *, flush: bool) -> None:
        """End the flushing.

        Args:
            flush: bring what is left to the disk first. A stopped run does not wait for that.

        Raises:
            OSError: a flush failed.
        """
        if self._flush is None:
            self._note()
            return
        with self._change:
            self._closing = True
            if not flush:
                self._entries.clear()
                self._files.clear()
            self._change.notify_all()
        self._thread.join()
        if flush and self._failure is not None:
            raise self._failure

    def _note(self) -> None:
        """Write the lines of blocks that need no flush."""
        self._journal.add(self._entries)
        self._entries = []
        self._nbytes = 0

    def _labour(self) -> None:
        while True:
            with self._change:
                while self._nbytes < self._portion_nbytes and not self._closing:
                    self._change.wait()
                entries, self._entries = self._entries, []
                files, self._files = self._files, set()
                self._nbytes = 0
                closing = self._closing
                self._change.notify_all()
            try:
                self._make_durable(entries, files)
            except OSError as error:
                with self._change:
                    self._failure = error
                    self._change.notify_all()
                return
            if closing:
                return

    def _make_durable(self, entries: list[Entry], files: set[int]) -> None:
        begin = time.monotonic()
        if self._flush is not None:
            for file in sorted(files):
                self._flush(file)
        took = time.monotonic() - begin
        self._journal.add(entries)
        if took < SHORT_SECONDS:
            self._portion_nbytes = min(2 * self._portion_nbytes, MOST_PORTION_NBYTES)
        elif took > LONG_SECONDS:
            self._portion_nbytes = max(self._portion_nbytes // 2, LEAST_PORTION_NBYTES)
