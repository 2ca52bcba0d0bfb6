"""Runs pieces of work on a small pool of threads. System calls release the interpreter's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from ropeconv.words.errors import Interrupted
from ropeconv.words.events import BytesDone, Listener

POLL_SECONDS = 0.2  # how soon the main thread notices Ctrl-C

Work_contra = TypeVar("Work_contra", contravariant=True)
Work = TypeVar("Work")


class Worker(Protocol[Work_contra]):
    """What one thread does with pieces of work. It is made, used and closed in that thread."""

    def run(self, work: Work_contra, /) -> int:
        """Do one piece; returns the bytes to count as done."""

    def close(self) -> None:
        """Release what the worker holds."""


def run_blocks(
    work: Iterator[Work],
    make_worker: Callable[[], Worker[Work]],
    *,
    jobs: int,
    listen: Listener,
    stop: threading.Event | None = None,
) -> None:
    """Run every piece once, in no particular order. The first failure stops all and is raised.

    Args:
        work: pieces, usually blocks; taken one at a time, so it may be made while it is worked on.
        make_worker: called once in each thread.
        jobs: threads.
        listen: hears of every finished piece, one at a time.
        stop: set by anyone, a signal handler for instance, to end the run after the pieces in hand.

    Raises:
        Interrupted: Ctrl-C or stop; every thread has stopped.
    """
    turn = threading.Lock()
    halt = threading.Event()
    failures: list[BaseException] = []

    def stopping() -> bool:
        return halt.is_set() or (stop is not None and stop.is_set())

    def take() -> Work | None:
        with turn:
            return None if stopping() else next(work, None)

    def labour() -> None:
        try:
            worker = make_worker()
            try:
                while (piece := take()) is not None:
                    nbytes = worker.run(piece)
                    with turn:
                        listen(BytesDone(nbytes=nbytes))
            finally:
                worker.close()
        except BaseException as error:  # noqa: BLE001 - carried to the main thread and raised there
            failures.append(error)
            halt.set()

    threads = [threading.Thread(target=labour, daemon=True) for _ in range(jobs)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
    except KeyboardInterrupt:
        halt.set()
        for thread in threads:
            thread.join()
        raise interrupted() from None
    if failures:
        raise failures[0]
    if stop is not None and stop.is_set():
        raise interrupted()


def interrupted() -> Interrupted:
    """The error for a run that was asked to stop."""
    return Interrupted(
        what="stopped before the end",
        why="what was written, if anything, is kept in a hidden folder beside the target",
        fix="run the same command again to go on; `Handling(restart=True)` begins afresh",
    )
